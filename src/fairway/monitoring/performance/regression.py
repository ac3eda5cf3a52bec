"""Regression metrics with confidence intervals, from labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from fairway.core.columns import Array
from fairway.monitoring.performance import intervals
from fairway.monitoring.performance.classification import check_metrics
from fairway.monitoring.performance.values import Regressed
from fairway.monitoring.told import Measured

Loss = Callable[[Array, Array], Array]


def _relative(predicted: Array, actual: Array) -> Array:
    """NaN where the actual value is 0, which no error can be a share of."""
    size = np.abs(actual)
    return np.asarray(np.where(size > 0, np.abs(predicted - actual) / np.where(size > 0, size, 1.0), np.nan))


LOSSES: dict[str, Loss] = {
    "mae": lambda predicted, actual: np.abs(predicted - actual),
    "rmse": lambda predicted, actual: (predicted - actual) ** 2,
    "mape": _relative,
    "bias": lambda predicted, actual: predicted - actual,
}
METRICS = tuple(LOSSES)
DEFAULT = METRICS
LOWER_IS_BETTER = frozenset({"mae", "rmse", "mape"})


def measure_regression(
    window: Regressed, metrics: Iterable[str] = DEFAULT, *, confidence: float = 0.95
) -> tuple[Measured, ...]:
    """MAE, RMSE, MAPE (a share, not percent; rows whose actual value is 0 are left out) and bias (predicted - actual).

    Raises InvalidInput for a name that is no metric.
    """
    names = check_metrics(metrics, METRICS)
    known = window.labelled()
    return tuple(
        measure_losses(name, LOSSES[name](known.predicted, known.actual), confidence) for name in names
    )


def measure_losses(name: str, losses: Array, confidence: float) -> Measured:
    """Mean of `losses` (its square root for rmse) with its interval; NaN losses are left out and told."""
    used = losses[np.isfinite(losses)]
    rows, left = len(used), len(losses) - len(used)
    note = f"{left:,} rows left out: the actual value is 0" if left and name == "mape" else ""
    if rows == 0:
        return Measured(name=name, value=None, note=note or "no rows")
    value = float(used.mean())
    limits = (intervals.mean_square if name == "rmse" else intervals.mean)(used, confidence)
    error = float(used.std(ddof=1)) / math.sqrt(rows) if rows > 1 else None
    if limits is None:
        fewest = intervals.LEAST_SQUARES if name == "rmse" else 2
        note = note or f"no interval: fewer than {fewest} rows, or all alike"
    if name == "rmse":
        root = math.sqrt(value)
        limits = (math.sqrt(max(limits[0], 0.0)), math.sqrt(max(limits[1], 0.0))) if limits else None
        error = None if error is None or root == 0 else error / (2 * root)
        value = root
    elif name in LOWER_IS_BETTER and limits:
        limits = max(limits[0], 0.0), limits[1]
    return Measured(
        name=name,
        value=value,
        lower=limits[0] if limits else None,
        upper=limits[1] if limits else None,
        rows=rows,
        error=error,
        note=note,
    )
