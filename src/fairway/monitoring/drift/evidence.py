"""Tests of one column and how they become one p-value.

A feature is a score of each row; its sum over the current rows is standardised by the exact mean and variance that
it has when rows are dealt out to both sides at random (sampling without replacement), so the finite size of the
reference counts. Skewness is taken out by the cube-root transform of Wilson and Hilferty (1931). Squares are added up
and read from a chi-square of matched third moment (Pearson 1959, "Note on an approximation to the distribution of
non-central chi-square"; Imhof 1961). The smallest of p-values divided by each test's share is the column's: Holm's
weighted form of Bonferroni. These p-values only order what is seen: alarms are calibrated in `resample`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from fairway.core.columns import Array


class Form(enum.Enum):
    linear = "linear"  # one feature, either direction
    squares = "squares"  # weighted sum of squared features
    largest = "largest"  # the largest of several features


@dataclass(frozen=True)
class ScoreTest:
    """`features` are positions in the column's features; `share` of the column's errors that this test may make.
    `weights` of the squares."""

    name: str
    features: tuple[int, ...]
    form: Form
    share: float
    weights: tuple[float, ...] = ()
    matched: tuple[float, float, float] = (0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Evidence:
    """`z` and `skew` `[features]`: standardised sums over the current rows and the skewness they have by chance.
    `correlation` `[features, features]` is what the features share. For resampling there are either the scores of
    single rows, `rows` `[sample, features]`, the same rows in every column; or, where no rows are kept, how common
    each combination of scores is, `levels` ([levels], [levels, features])."""

    name: str
    tests: tuple[ScoreTest, ...]
    z: Array
    skew: Array
    correlation: Array = field(repr=False)
    rows: Array | None = field(default=None, repr=False)
    levels: tuple[Array, Array] | None = field(default=None, repr=False)


def normalised(z: Array, skew: Array) -> Array:
    """Wilson and Hilferty's cube root: a sum of the skewness `skew` as a standard normal deviate."""
    size = np.abs(skew)
    sign = np.where(skew < 0, -1.0, 1.0)
    some = np.maximum(size, 1e-6)
    inner = np.maximum(some * (sign * z) / 2 + 1, 0.0)
    bent = sign * (6 / some * (np.cbrt(inner) - 1) + some / 6)
    return np.where(size < 1e-3, z, bent)


def standardise(sums: Array, variance: Array, third: Array, n: float, m: float) -> tuple[Array, Array]:
    """(z, skewness) of sums over `n` of `n + m` rows whose centred scores have this variance and third moment."""
    total = n + m
    spread = np.sqrt(n * m / (total - 1) * variance)
    safe = np.where(spread > 0, spread, 1.0)
    skew = n * m * (m - n) / ((total - 1) * max(total - 2, 1.0)) * third / safe**3
    return np.where(spread > 0, sums / safe, 0.0), np.where(spread > 0, skew, 0.0)


def keep_varying(tests: Sequence[ScoreTest], varying: Array) -> tuple[tuple[ScoreTest, ...], Array]:
    """The tests without features that are the same in every row, their shares adding up to one, and the positions
    of the features that stay."""
    kept = np.flatnonzero(varying)
    place = {int(old): new for new, old in enumerate(kept)}
    left = []
    for test in tests:
        at = [i for i, feature in enumerate(test.features) if feature in place]
        if not at:
            continue
        weights = tuple(test.weights[i] for i in at) if test.weights else ()
        left.append(replace(test, features=tuple(place[test.features[i]] for i in at), weights=weights))
    total = sum(test.share for test in left)
    return tuple(replace(test, share=test.share / total) for test in left), kept


def matched_moments(test: ScoreTest, correlation: Array) -> ScoreTest:
    """`test` with the first three cumulants of its sum of squares when nothing has changed."""
    if test.form is not Form.squares:
        return test
    weights = np.sqrt(np.array(test.weights or (1.0,) * len(test.features)))
    part = correlation[np.ix_(test.features, test.features)] * np.outer(weights, weights)
    squared = part @ part
    first, second, third = float(np.trace(part)), float(np.sum(part * part)), float(np.sum(squared * part))
    return replace(test, matched=(first, max(second, 1e-12), max(third, 1e-18)))


def log_p(tests: Sequence[ScoreTest], z: Array, skew: Array) -> Array:
    """Logarithm of each test's p-value, `[..., tests]`, from `z` `[..., features]`."""
    bent = normalised(z, skew)
    found = []
    for test in tests:
        at = list(test.features)
        if test.form is Form.squares:
            weights = np.array(test.weights or (1.0,) * len(at))
            found.append(_log_p_squares(np.square(z[..., at]) @ weights, test.matched))
        else:
            largest = np.abs(bent[..., at]).max(axis=-1)
            found.append(np.minimum(special.log_ndtr(-largest) + math.log(2 * len(at)), 0.0))
    return np.stack(found, axis=-1)


def _log_p_squares(total: Array, matched: tuple[float, float, float]) -> Array:
    first, second, third = matched
    freedom = second**3 / third**2
    y = np.maximum((total - first) * math.sqrt(freedom / second) + freedom, 0.0)
    p = special.gammaincc(freedom / 2, y / 2)
    cube = (np.cbrt(y / freedom) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    with np.errstate(divide="ignore"):
        far = np.minimum(special.log_ndtr(-cube), -667.0)
        return np.asarray(np.where(p > 1e-290, np.log(np.maximum(p, 1e-300)), far))


def combined(tests: Sequence[ScoreTest], logs: Array) -> Array:
    """Logarithm of the smallest p-value over its share, `[...]`. Above 0 it says nothing at all."""
    shares = np.log(np.array([test.share for test in tests]))
    return np.asarray((logs - shares).min(axis=-1))


def joined(first: Evidence | None, second: Evidence | None) -> Evidence | None:
    """The evidence of two looks at one column, each with half of its errors."""
    if first is None or second is None:
        return first or second
    shift = len(first.z)
    tests: tuple[ScoreTest, ...] = (
        *(replace(test, share=test.share / 2) for test in first.tests),
        *(replace(test, share=test.share / 2, features=tuple(i + shift for i in test.features)) for test in second.tests),
    )  # fmt: skip
    apart = np.zeros((shift, len(second.z)))
    rows = None
    if first.rows is not None and second.rows is not None:
        rows = np.concatenate([first.rows, second.rows], axis=1)
    return Evidence(
        first.name,
        tests,
        np.concatenate([first.z, second.z]),
        np.concatenate([first.skew, second.skew]),
        np.block([[first.correlation, apart], [apart.T, second.correlation]]),
        rows,
    )
