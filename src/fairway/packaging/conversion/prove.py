"""Compares a served model with the original, and times both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairway.core.bundle import Timings
from fairway.core.columns import Array, Columns, Outputs
from fairway.runtimes.base import Engine

TOLERANCE = 1e-5
"""Largest difference of a number that counts as the same answer: absolute, plus relative to the original."""

_ROW_CALLS = 30
_BATCH_ROWS = 1000
_BATCH_CALLS = 3
_SECONDS_PER_TIMING = 0.5


@dataclass(frozen=True)
class Comparison:
    """`max_abs_diff` and `mean_abs_diff` are over every element of every numeric output but the labels.

    `outside` counts elements further apart than the tolerance allows; `mismatch` says what cannot be compared
    at all (an output missing, another shape).
    """

    rows: int
    label_flips: int
    max_abs_diff: float
    mean_abs_diff: float
    outside: int
    mismatch: str = ""

    def problem(self, *, allow_flips: int) -> str:
        """Why this is no proof, in words; empty when it is one."""
        if self.mismatch:
            return self.mismatch
        if self.label_flips > allow_flips:
            allowed = f"; {allow_flips} allowed" if allow_flips else ""
            return f"{self.label_flips} of {self.rows} rows got another label{allowed}"
        if self.outside:
            return (
                f"{self.outside} values differ by more than the tolerance (at most {self.max_abs_diff:.3g})"
            )
        return ""


def compare(original: Outputs, served: Outputs, *, tolerance: float) -> Comparison:
    """`label` is compared for equality, every other output as numbers; two NaN or equal infinities agree."""
    rows = len(next(iter(original.values())))
    flips, total, elements, largest, outside = 0, 0.0, 0, 0.0, 0
    for name, expected in original.items():
        if name not in served:
            return Comparison(rows, 0, 0.0, 0.0, 0, f"the converted model has no output {name!r}")
        given = served[name]
        if given.shape != expected.shape:
            shapes = f"{list(given.shape)} instead of {list(expected.shape)}"
            return Comparison(rows, 0, 0.0, 0.0, 0, f"output {name!r} has shape {shapes}")
        if name == "label" or expected.dtype.kind not in "biuf":
            different = np.asarray(given != expected)
            flips += int(different.reshape(rows, -1).any(axis=1).sum())
            continue
        difference, wrong = _difference(expected, given, tolerance)
        outside += wrong
        total += float(difference.sum())
        elements += difference.size
        largest = max(largest, float(difference.max(initial=0.0)))
    return Comparison(rows, flips, largest, total / elements if elements else 0.0, outside)


def _difference(expected: Array, given: Array, tolerance: float) -> tuple[Array, int]:
    expected, given = expected.astype(np.float64), given.astype(np.float64)
    same = (expected == given) | (np.isnan(expected) & np.isnan(given))
    with np.errstate(invalid="ignore"):  # infinity - infinity, masked by `same`
        difference = np.where(same, 0.0, np.abs(expected - given))
    difference = np.where(np.isnan(difference), np.inf, difference)
    limit = tolerance * (1.0 + np.abs(np.where(np.isfinite(expected), expected, 0.0)))
    return difference, int((difference > limit).sum())


def time_both(original: Engine, served: Engine, columns: Columns) -> Timings:
    """Median seconds of one-row calls and of calls with a batch, of each engine, on the given rows."""
    # comes with scikit-learn, which is optional
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

    rows = [columns.take(slice(i, i + 1)) for i in range(min(_ROW_CALLS, columns.rows))]
    batch = columns.take(slice(0, min(_BATCH_ROWS, columns.rows)))
    with threadpool_limits(limits=1):  # threads that wait for each other on a busy machine are no measure
        return Timings(
            original_row_seconds=_median(original.predict, rows),
            served_row_seconds=_median(served.predict, rows),
            batch_rows=batch.rows,
            original_batch_seconds=_median(original.predict, [batch] * _BATCH_CALLS),
            served_batch_seconds=_median(served.predict, [batch] * _BATCH_CALLS),
        )


def _median(predict: Callable[[Columns], Outputs], inputs: list[Columns]) -> float:
    """Median of the calls that fit in the time allowed, after one to warm up."""
    predict(inputs[0])
    seconds: list[float] = []
    began = time.perf_counter()
    for columns in inputs:
        start = time.perf_counter()
        predict(columns)
        end = time.perf_counter()
        seconds.append(end - start)
        if end - began > _SECONDS_PER_TIMING:
            break
    return statistics.median(seconds)
