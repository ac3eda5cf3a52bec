"""Sizes of drift that people can read, from the rows of both sides at the same levels."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from scipy.spatial import distance

from fairway.core.columns import Array
from fairway.monitoring.drift.levels import Side

_BINS = 10


def population_stability(reference: Array, current: Array) -> float:
    """Population stability index over ten bins of equal weight in the reference (Siddiqi 2006, "Credit risk scorecards");
    half a row is added to each bin, so that an empty one is not infinite. Below 0.1 is read as small, above 0.25 as large."""
    before, after = _tenths(reference, current)
    return _stability(before, after)


def category_stability(reference: Array, current: Array) -> float:
    """The same with a bin for each category."""
    return _stability(reference, current)


def _stability(reference: Array, current: Array) -> float:
    if reference.sum() == 0 or current.sum() == 0:
        return 0.0
    p = (reference + 0.5) / (reference.sum() + 0.5 * len(reference))
    q = (current + 0.5) / (current.sum() + 0.5 * len(current))
    return float(np.sum((q - p) * np.log(q / p)))


def _tenths(reference: Array, current: Array) -> tuple[Array, Array]:
    total = max(reference.sum(), 1.0)
    middle = (np.cumsum(reference) - reference / 2) / total
    bins = np.clip((middle * _BINS).astype(int), 0, _BINS - 1)
    used, bins = np.unique(bins, return_inverse=True)
    return (
        np.bincount(bins, weights=reference, minlength=len(used)),
        np.bincount(bins, weights=current, minlength=len(used)),
    )


def jensen_shannon(reference: Array, current: Array) -> float:
    """Jensen-Shannon distance, base 2, 0 to 1 (Endres and Schindelin 2003). For numbers give it tenths."""
    if reference.sum() == 0 or current.sum() == 0:
        return 0.0
    found = float(distance.jensenshannon(reference, current, base=2))
    return found if math.isfinite(found) else 0.0


def jensen_shannon_of_numbers(reference: Array, current: Array) -> float:
    before, after = _tenths(reference, current)
    return jensen_shannon(before, after)


def total_variation(reference: Array, current: Array) -> float:
    """Share of rows that would have to change, 0 to 1."""
    if reference.sum() == 0 or current.sum() == 0:
        return 0.0
    return float(np.abs(reference / reference.sum() - current / current.sum()).sum() / 2)


def kolmogorov_smirnov(reference: Array, current: Array) -> float:
    """Largest difference between the cumulative shares, 0 to 1, at the ends of the levels."""
    if reference.sum() == 0 or current.sum() == 0:
        return 0.0
    difference = np.cumsum(reference) / reference.sum() - np.cumsum(current) / current.sum()
    return float(np.abs(difference).max())


def wasserstein(reference: Side, current: Side, spread: float) -> float:
    """First Wasserstein distance in units of `spread` (Villani 2009, "Optimal transport"), each level at its mean."""
    some, others = reference.known > 0, current.known > 0
    if not some.any() or not others.any():
        return 0.0
    with np.errstate(all="ignore"):
        found = stats.wasserstein_distance(
            reference.values[some], current.values[others], reference.known[some], current.known[others]
        )
    unit = spread if spread > 0 else 1.0
    return _finite(float(found) / unit)


def spread_of(side: Side) -> float:
    """Standard deviation of the numbers at their levels' means; 0 for a constant."""
    some = side.known > 0
    if not some.any():
        return 0.0
    values, weights = side.values[some], side.known[some] / side.known[some].sum()
    with np.errstate(all="ignore"):
        mean = float(weights @ values)
        return _finite(float(np.sqrt(weights @ np.square(values - mean))))


def mean_of(side: Side) -> float:
    some = side.known > 0
    if not some.any():
        return 0.0
    with np.errstate(all="ignore"):
        return _finite(float(side.known[some] @ side.values[some] / side.known[some].sum()))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else float(np.finfo(float).max)
