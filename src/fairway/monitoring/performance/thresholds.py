"""What is usual for a metric: mean of the reference's chunks plus and minus three standard deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from fairway.monitoring.told import Measured

DEVIATIONS = 3.0
SHARES = frozenset({"accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc", "ndcg", "map"})
"""Metrics that are shares, 1 at best."""


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """`centre` of a metric, variance of one row's worth of it (`per_row`), and what varies between chunks beyond that."""

    centre: float
    per_row: float
    between: float

    def limits(
        self, rows: int, *, lowest: float = -math.inf, highest: float = math.inf
    ) -> tuple[float, float]:
        """What a chunk of `rows` rows may be; small chunks may stray further."""
        half = DEVIATIONS * math.sqrt(self.per_row / max(rows, 1) + self.between)
        return max(self.centre - half, lowest), min(self.centre + half, highest)


def usual(
    name: str, values: Sequence[float | None], errors: Sequence[float | None], rows: Sequence[int]
) -> Usual | None:
    """From the metric of each chunk of the reference (as its labels have it), its standard error and rows.

    The spread between chunks is never taken to be less than sampling alone gives, and what exceeds that is added
    for chunks of every size (as between-study variance in DerSimonian and Laird 1986). None without any value.
    A model that is always right on n rows may still be wrong once in n: shares vary by that at the least.
    """
    known = [
        (v, e, n) for v, e, n in zip(values, errors, rows, strict=True) if v is not None and e is not None
    ]
    if not known:
        return None
    value, error, size = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    per_row = float(np.average(error**2 * size, weights=size))
    if name in SHARES:
        per_row = max(per_row, (1 - 1 / size.sum()) / size.sum())
    between = 0.0
    if len(value) > 2:
        between = max(float(value.var(ddof=1)) - float(np.mean(error**2)), 0.0)
    return Usual(centre=float(np.average(value, weights=size)), per_row=per_row, between=between)


def outside(value: float | None, limits: tuple[float, float] | None) -> bool:
    """Whether a value is beyond what is usual; what has no value is not."""
    return value is not None and limits is not None and not limits[0] <= value <= limits[1]


def surely_outside(metric: Measured, about: Usual | None) -> bool:
    """Whether a window's metric is beyond what is usual, and not only because a few rows weigh much.

    In MAPE the rows whose actual value is near 0 do: it strays farther than its standard errors in the reference say. So
    what is usual on average must not be in its interval, where it has one. The calibration error is above 0 by chance, and
    the more so the fewer rows there are: its whole interval has to be above.
    """
    if about is None:
        return False
    limits = about.limits(metric.rows)
    if metric.name == "calibration_error":
        return metric.lower is not None and metric.lower > limits[1]
    if metric.lower is not None and metric.upper is not None and metric.lower <= about.centre <= metric.upper:
        return False
    return outside(metric.value, limits)
