"""Confidence intervals, one method per kind of figure. Each gives (lower, upper)."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from scipy import stats

from fairway.core.columns import Array

Interval = tuple[float, float]
LEAST_SQUARES = 100
"""Squared errors of which an interval is said."""


def normal_quantile(confidence: float) -> float:
    """Such as 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927, "Probable inference, the law of succession")."""
    if trials <= 0:
        return 0.0, 1.0
    z2 = normal_quantile(confidence) ** 2
    share = successes / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * share * (1 - share) / trials + z2**2 / (4 * trials**2)) / (1 + z2 / trials)
    lower = 0.0 if successes <= 0 else max(middle - half, 0.0)
    upper = 1.0 if successes >= trials else min(middle + half, 1.0)
    return lower, upper


def newcombe(a: tuple[float, float], b: tuple[float, float], confidence: float = 0.95) -> Interval:
    """Difference of two independent proportions, each (successes, trials): method 10 of Newcombe (1998),
    "Interval estimation for the difference between independent proportions"."""
    if a[1] <= 0 or b[1] <= 0:
        return -1.0, 1.0
    p, q = a[0] / a[1], b[0] / b[1]
    (low_a, high_a), (low_b, high_b) = wilson(*a, confidence), wilson(*b, confidence)
    lower = p - q - math.hypot(p - low_a, high_b - q)
    upper = p - q + math.hypot(high_a - p, q - low_b)
    return max(lower, -1.0), min(upper, 1.0)


def ratio(a: tuple[float, float], b: tuple[float, float], confidence: float = 0.95) -> Interval:
    """Ratio of two independent proportions from their Wilson intervals (MOVER-R, Donner and Zou 2012,
    "Closed-form confidence intervals for functions of the normal mean and standard deviation")."""
    if a[1] <= 0 or b[1] <= 0:
        return 0.0, math.inf
    p, q = a[0] / a[1], b[0] / b[1]
    (low_a, high_a), (low_b, high_b) = wilson(*a, confidence), wilson(*b, confidence)
    return _mover_ratio(p, q, low_a, high_b, -1), _mover_ratio(p, q, high_a, low_b, 1)


def _mover_ratio(p: float, q: float, end_a: float, end_b: float, sign: int) -> float:
    bottom = end_b * (2 * q - end_b)
    inside = (p * q) ** 2 - end_a * end_b * (2 * p - end_a) * (2 * q - end_b)
    top = p * q + sign * math.sqrt(max(inside, 0.0))
    if bottom <= 0:
        return math.inf if sign > 0 else 0.0
    return max(top / bottom, 0.0)


def logit(value: float, error: float, confidence: float = 0.95, *, freedom: float | None = None) -> Interval:
    """A figure between 0 and 1 with its standard error, symmetric in log odds, so that it stays between 0 and 1.

    With degrees of `freedom` the quantile is Student's. The value itself must lie strictly between 0 and 1.
    """
    quantile = student_quantile(confidence, freedom)
    middle = math.log(value / (1 - value))
    half = min(quantile * error / (value * (1 - value)), 700.0 - abs(middle))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def plain(value: float, error: float, confidence: float = 0.95, *, freedom: float | None = None) -> Interval:
    """Value plus and minus quantile times standard error."""
    half = student_quantile(confidence, freedom) * error
    return value - half, value + half


def student_quantile(confidence: float, freedom: float | None) -> float:
    """Student's with that many degrees of freedom, at least one; the normal one for None and for infinitely many."""
    if freedom is None or math.isinf(freedom):
        return normal_quantile(confidence)
    return float(stats.t.ppf(0.5 + confidence / 2, max(freedom, 1.0)))


def with_learned(error: float, learned: float, groups: int) -> tuple[float, float]:
    """Standard error of the sum of two independent parts, and its degrees of freedom (Satterthwaite 1946, "An approximate
    distribution of estimates of variance components"): `error` is known, `learned` was told by so many groups of a jackknife."""
    both = math.hypot(error, learned)
    return both, math.inf if learned <= 0 else (groups - 1) * (both / learned) ** 4


def mean(values: Array, confidence: float = 0.95, *, freedom: float | None = None) -> Interval | None:
    """Mean of values of any shape: Student's t corrected for skewness by the monotone cubic of Hall (1992),
    "On the removal of skewness by transformation". None where the values do not vary, or are fewer than two.

    The degrees of `freedom` are the rows less one; where a few deviations weigh most, half as many again as those that count
    (`_counting`) less one: plain ones cover 91 to 93% of heavy tails in windows of 50.
    """
    rows = len(values)
    if rows < 2:
        return None
    middle = float(values.mean())
    centred = values - middle
    deviation = float(np.sqrt(np.mean(centred**2)))
    if deviation <= 1e-12 * max(abs(middle), 1e-300):
        return None
    skew = float(np.mean((centred / deviation) ** 3))
    if freedom is None:
        freedom = min(rows, 1.5 * _counting(centred**2)) - 1
    quantile = student_quantile(confidence, freedom)
    error = deviation * math.sqrt(rows / (rows - 1))
    low = middle - error * _unskewed(quantile / math.sqrt(rows), skew, rows)
    high = middle - error * _unskewed(-quantile / math.sqrt(rows), skew, rows)
    return low, high


def mean_of_rare(values: Array, confidence: float = 0.95) -> Interval | None:
    """Mean of values of which a few are far larger, as losses of a rare class: Student's t moved by the skewness as in Johnson
    (1978), "Modified t tests and confidence intervals for asymmetrical populations". Hall's (see `mean`) covers 98% of such
    means in small windows, but Johnson's too few of heavy tails on both sides. None as for `mean`."""
    rows = len(values)
    if rows < 2:
        return None
    middle, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation <= 1e-12 * max(abs(middle), 1e-300):
        return None
    third = float(np.mean((values - middle) ** 3))
    quantile = student_quantile(confidence, rows - 1)
    moved = middle + third / (6 * deviation**2 * rows) * (1 + 2 * quantile**2)
    half = quantile * deviation / math.sqrt(rows)
    return moved - half, moved + half


def mean_square(squares: Array, confidence: float = 0.95) -> Interval | None:
    """Mean of squared errors, the wider of two at each end: Hall's (see `mean`) and one that is symmetric in the logarithm, both
    with half as many degrees of freedom as there are errors that count, less one. Each alone covers 90 to 93% of heavy tails.
    None for fewer than `LEAST_SQUARES`: tails that are not in the window yet can be any."""
    if len(squares) < LEAST_SQUARES or not squares.any():
        return None
    freedom = _counting(squares) / 2 - 1
    hall = mean(squares, confidence, freedom=freedom)
    if hall is None:
        return None
    middle = float(squares.mean())
    error = float(squares.std(ddof=1)) / math.sqrt(len(squares)) / middle
    half = min(student_quantile(confidence, freedom) * error, 700.0)
    return min(hall[0], middle * math.exp(-half)), max(hall[1], middle * math.exp(half))


def _counting(weights: Array) -> float:
    """How many of these count: the square of the sum by the sum of squares (Kish 1965, "Survey sampling")."""
    weights = weights / weights.max()
    return float(weights.sum()) ** 2 / float((weights**2).sum())


def _unskewed(x: float, skew: float, rows: int) -> float:
    if abs(skew) < 1e-6:
        return x
    return float(3 / skew * (np.cbrt(1 + skew * (x - skew / (6 * rows))) - 1))


def rank_area(value: float, positives: int, negatives: int, confidence: float = 0.95) -> Interval:
    """ROC area where DeLong's variance is zero (all in order, or all in reverse): method 5 of Newcombe (2006),
    "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2"."""
    z = normal_quantile(confidence)
    both = (positives + negatives) / 2 - 1

    def outside(theta: float) -> float:
        spread = 1 + both * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(value - theta) - z * math.sqrt(theta * (1 - theta) * spread / (positives * negatives))

    return _edge(outside, 0.0, value), _edge(outside, 1.0, value)


def _edge(outside: Callable[[float], float], far: float, near: float) -> float:
    """Where the score test stops rejecting, between `far`, which it rejects, and `near`, which it does not."""
    if far == near:
        return near
    for _ in range(60):
        half = (far + near) / 2
        if outside(half) > 0:
            far = half
        else:
            near = half
    return near
