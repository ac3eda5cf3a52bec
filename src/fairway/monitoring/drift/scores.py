"""Scores of levels. A linear rank test is the sum of its scores over the current rows, so several tests of one
column are several columns of one table `[levels, features]`.

Sources: van der Waerden (1952) for normal scores (location), Klotz (1962) for their squares (scale), Anderson and
Darling (1952) for the spectral form of their statistic, A^2 = sum over k of z_k^2 / (k (k + 1)) with z_k the
standardised sums of Legendre polynomials, of which the first six terms are taken. Ties share the mean of the scores
that they would have had (Hajek, Sidak and Sen, "Theory of rank tests", 1999, section 4.3).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from fairway.core.columns import Array

LEGENDRE = 6
ANDERSON_DARLING = np.array([1 / (k * (k + 1)) for k in range(1, LEGENDRE + 1)])
"""Weights of the squares of the Legendre sums."""


def normal_scores(counts: Array) -> tuple[Array, Array]:
    """Mean of x and of x^2 over each level's part of a standard normal; `counts` `[levels]` pooled rows in order."""
    total = counts.sum()
    upper = np.cumsum(counts) / total
    lower = np.concatenate([[0.0], upper[:-1]])
    x_low, x_high = special.ndtri(lower), special.ndtri(np.minimum(upper, 1.0))
    density_low, density_high = _density(x_low), _density(x_high)
    share = np.maximum(counts / total, 1e-300)
    location = (density_low - density_high) / share
    finite_low, finite_high = (
        np.where(np.isfinite(x_low), x_low, 0.0),
        np.where(np.isfinite(x_high), x_high, 0.0),
    )
    scale = 1.0 + (finite_low * density_low - finite_high * density_high) / share
    empty = counts == 0
    return np.where(empty, 0.0, location), np.where(empty, 1.0, scale)


def _density(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi))


def mid_ranks(counts: Array) -> Array:
    """Middle of each level's part of (0, 1)."""
    return np.asarray((np.cumsum(counts) - counts / 2) / max(counts.sum(), 1))


def legendre(ranks: Array) -> Array:
    """Legendre polynomials of degree 1 to 6 on (0, 1), of unit variance; `[levels, 6]`."""
    x = 2 * ranks - 1
    return np.column_stack([special.eval_legendre(k, x) * np.sqrt(2 * k + 1) for k in range(1, LEGENDRE + 1)])


def tail_share(rows: int) -> float:
    """How far out a tail begins, so that the smaller of both sides, `rows`, has about five rows in it."""
    return float(min(0.1, max(0.002, 5 / max(rows, 1))))


def tails(counts: Array, share: float) -> tuple[Array, Array]:
    """Indicators of the lowest and the highest `share` of the rows; a level across the border counts in part."""
    part = np.maximum(counts / max(counts.sum(), 1), 1e-300)
    upper = np.cumsum(counts) / max(counts.sum(), 1)
    lower = np.concatenate([[0.0], upper[:-1]])
    low = np.clip((share - lower) / part, 0.0, 1.0)
    high = np.clip((upper - (1 - share)) / part, 0.0, 1.0)
    occupied = counts > 0
    return np.where(occupied, low, 0.0), np.where(occupied, high, 0.0)
