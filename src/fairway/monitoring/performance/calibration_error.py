"""Expected calibration error (Naeini et al. 2015): how far probabilities are from the shares they promise.

Rows are put into bins of equally many by their probability; the error is the mean over rows of |mean probability -
share of hits| of their bin. Computed plainly it is too large in small samples, because chance alone puts bins off
(Roelofs et al. 2022, "Mitigating bias in calibration error estimation"). So a family of truths is laid through what was
seen, every bin's difference made t standard errors larger or smaller (never of the other sign); the value is that truth
for which what was seen is the median, the interval those for which it is in neither tail. Chance has the spread and the
skewness of a binomial of the supposed truth (Cornish and Fisher 1938), drawn from a fixed seed: rare hits are far from normal. A model that is calibrated to the last bit is covered more often than said: its error lies on the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairway.core.columns import Array

BINS = 10
_DRAWS = 2_000
_SEED = 7
_FARTHEST = 10.0
_STEEPEST = 1.5
"""Skewness of chance counted at most: beyond it the expansion is no longer a rising function."""


@dataclass(frozen=True)
class CalibrationError:
    """`plain` is the textbook value, `value` the same without the bias; None for a bound that cannot be said."""

    plain: float
    value: float
    lower: float
    upper: float


def calibration_error(
    probability: Array, hit: Array, confidence: float = 0.95, *, bins: int = BINS
) -> CalibrationError | None:
    """Of `probability` `[n]` that `hit` `[n]` (0 or 1, or a chance between) is 1. None for fewer than two rows."""
    rows = len(probability)
    if rows < 2:
        return None
    group = equal_bins(probability, bins)
    size = np.bincount(group).astype(np.float64)
    size, group = size[size > 0], np.unique(group, return_inverse=True)[1]
    expected = np.bincount(group, weights=probability) / size
    seen = np.bincount(group, weights=hit) / size
    difference = seen - expected
    share = size / rows
    plain = float(share @ np.abs(difference))
    # A bin without a miss still has a chance of one: the share is drawn towards what was promised.
    drawn = (size * seen + 2 * expected) / (size + 2)
    error = np.sqrt(drawn * (1 - drawn) / size)
    normal = np.random.default_rng(_SEED).standard_normal((_DRAWS, len(size)))
    skewed = (normal**2 - 1) / 6

    def truth(t: float) -> Array:
        return np.asarray(np.sign(difference) * np.maximum(np.abs(difference) + t * error, 0.0))

    def level(t: float) -> float:
        """Chance to see less than what was seen, if that were the truth."""
        off = truth(t)
        chance = np.clip(expected + off, 0.0, 1.0)
        spread = np.sqrt(chance * (1 - chance) / size)
        skew = np.clip((1 - 2 * chance) / np.maximum(size * spread, 1e-12), -_STEEPEST, _STEEPEST)
        return float(np.mean(np.abs(off + (normal + skewed * skew) * spread) @ share < plain))

    def found(wanted: float) -> float:
        low, high = -_FARTHEST, _FARTHEST
        for _ in range(30):
            half = (low + high) / 2
            low, high = (half, high) if level(half) > wanted else (low, half)
        return min(float(share @ np.abs(truth((low + high) / 2))), 1.0)

    tail = (1 - confidence) / 2
    return CalibrationError(plain, found(0.5), found(1 - tail), found(tail))


def equal_bins(probability: Array, bins: int = BINS) -> Array:
    """The bin of each row; equal probabilities share one."""
    cuts = np.unique(np.quantile(probability, np.arange(1, bins) / bins, method="inverted_cdf"))
    return np.asarray(np.searchsorted(cuts, probability, side="left"))
