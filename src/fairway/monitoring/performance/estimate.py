"""One shot: a reference with labels and a current table without, chunk by chunk, estimated and judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from fairway.core.columns import Array
from fairway.core.contract import Task
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import cbpe, dle, frames, regression
from fairway.monitoring.performance.chunks import Chunk, Cut, cut_rows, cut_time
from fairway.monitoring.performance.classification import check_metrics, measure_classification
from fairway.monitoring.performance.frames import Reading
from fairway.monitoring.performance.regression import measure_regression
from fairway.monitoring.performance.thresholds import Usual, outside, usual
from fairway.monitoring.performance.values import Classified, Regressed
from fairway.monitoring.told import Measured

Progress = Callable[[str, float], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`metrics` empty for the usual ones of the task; `value[actual][predicted]` is what an outcome is worth."""

    cut: Cut = Cut(rows=5_000)
    task: Task | None = None
    metrics: tuple[str, ...] = ()
    value: tuple[tuple[float, ...], ...] = ()
    confidence: float = 0.95
    calibration: str = ""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one chunk, before its labels.

    `alert` when `value` is outside `usual_lower`..`usual_upper`, which is what chunks of this size were in the reference.
    `realised` and its interval are from labels, where the chunk has them.
    """

    value: float | None
    lower: float | None
    upper: float | None
    alert: bool
    estimated: bool = True
    usual_lower: float | None = None
    usual_upper: float | None = None
    realised: float | None = None
    realised_lower: float | None = None
    realised_upper: float | None = None
    note: str = ""


class ChunkReport(msgspec.Struct, frozen=True, kw_only=True):
    """`start` up to, not including, `end`: row numbers within the period's table, or times. `period` is reference or analysis."""

    start: int | str
    end: int | str
    period: str
    rows: int
    metrics: dict[str, Estimate]

    @property
    def alert(self) -> bool:
        return any(metric.alert for metric in self.metrics.values())


class EstimateReport(msgspec.Struct, frozen=True, kw_only=True):
    """`method` is cbpe or dle, `calibration` the way the probabilities were calibrated. `alert`: any chunk of the analysis."""

    task: str
    method: str
    calibration: str | None
    confidence: float
    metrics: tuple[str, ...]
    alert: bool
    chunks: tuple[ChunkReport, ...]
    notes: tuple[str, ...] = ()


def _silent(step: str, fraction: float) -> None:
    return None


def estimate_tables(
    reference: pa.Table,
    current: pa.Table,
    reading: Reading,
    options: Options,
    *,
    progress: Progress = _silent,
) -> EstimateReport:
    """Estimates every chunk of `reference` (by models that have not seen its rows) and of `current`.

    Raises InvalidInput for columns that are not there or do not hold what they should, for metrics nobody knows and
    for a reference too small to learn from.
    """
    if not 0.5 < options.confidence < 1:
        raise InvalidInput(f"confidence must be between 0.5 and 1, not {options.confidence}.")
    if current.num_rows == 0:
        raise InvalidInput("the current data has no rows.")
    features = (
        reading.features if reading.features is not None else frames.telling_columns(reference, reading)
    )
    needed = [name for name in reading.named if name != reading.target]
    frames.check_columns(reference, [*reading.named, *(reading.features or ())], "the reference")
    frames.check_columns(current, [*needed, *(reading.features or ())], "the current data")
    notes = []
    gone = [name for name in features if name not in current.column_names]
    if gone:
        notes.append(f"not in the current data, so not used: {', '.join(gone)}")
    reading = msgspec.structs.replace(reading, features=tuple(name for name in features if name not in gone))
    if options.cut.by_time and reading.time is None:
        raise InvalidInput("chunks by time need the column of times: name it with --time (time=).")
    past, past_chunks = _cut(reference, reading, options.cut, "the reference")
    now, now_chunks = _cut(current, reading, options.cut, "the current data")
    task = options.task or frames.guess_task(reference, reading)
    progress("learning from the reference", 0.05)
    if task is Task.classification:
        fitted: _Fitted = _Classification(past, now, reading, options)
    elif task is Task.regression:
        fitted = _Regression(past, now, reading, options)
    else:
        raise InvalidInput(
            f"nothing is estimated for the task {task.value}; there are: classification, regression."
        )
    progress("estimating", 0.5)
    reports = fitted.report(past_chunks, now_chunks, lambda part: progress("estimating", 0.5 + part / 2))
    return EstimateReport(
        task=task.value,
        method=fitted.method,
        calibration=fitted.calibration,
        confidence=options.confidence,
        metrics=fitted.metrics,
        alert=any(chunk.alert for chunk in reports if chunk.period == "analysis"),
        chunks=tuple(reports),
        notes=tuple(notes),
    )


def _cut(table: pa.Table, reading: Reading, cut: Cut, what: str) -> tuple[pa.Table, list[Chunk]]:
    if reading.time is None:
        return table, cut_rows(table.num_rows, cut.rows)
    table, times = frames.in_time(table, reading.time, what)
    return table, cut_time(times, cut) if cut.by_time else cut_rows(table.num_rows, cut.rows)


class _Fitted:
    """What both tasks share: labels of the reference make what is usual, and every chunk is held against it."""

    method: str
    calibration: str | None = None
    metrics: tuple[str, ...]
    known: Array  # rows of the reference that were learned from

    def measured(self, period: str, chunk: Chunk) -> tuple[Measured, ...]:
        raise NotImplementedError

    def estimated(self, chunk: Chunk) -> tuple[Measured, ...]:
        raise NotImplementedError

    def estimated_reference(self, slices: list[slice]) -> list[tuple[Measured, ...]]:
        raise NotImplementedError

    def limits(self, name: str) -> tuple[float, float]:
        raise NotImplementedError

    def report(
        self, past: list[Chunk], now: list[Chunk], progress: Callable[[float], None]
    ) -> list[ChunkReport]:
        before = np.concatenate([[0], np.cumsum(self.known)])
        slices = [slice(int(before[c.first]), int(before[c.last])) for c in past]
        realised = [self.measured("reference", chunk) for chunk in past]
        normal = {
            name: usual(
                name,
                [m[i].value for m in realised],
                [m[i].error for m in realised],
                [m[i].rows for m in realised],
            )
            for i, name in enumerate(self.metrics)
        }
        reports = [
            self._judged(chunk, "reference", values, labels, normal)
            for chunk, values, labels in zip(past, self.estimated_reference(slices), realised, strict=True)
        ]
        for number, chunk in enumerate(now):
            progress(number / len(now))
            labels = self.measured("analysis", chunk)
            reports.append(self._judged(chunk, "analysis", self.estimated(chunk), labels, normal))
        return reports

    def _judged(
        self,
        chunk: Chunk,
        period: str,
        values: tuple[Measured, ...],
        labels: tuple[Measured, ...],
        normal: dict[str, Usual | None],
    ) -> ChunkReport:
        metrics = {}
        for value, label in zip(values, labels, strict=True):
            about = normal[value.name]
            lowest, highest = self.limits(value.name)
            limits = None if about is None else about.limits(value.rows, lowest=lowest, highest=highest)
            metrics[value.name] = Estimate(
                value=value.value,
                lower=value.lower,
                upper=value.upper,
                alert=outside(value.value, limits),
                usual_lower=None if limits is None else limits[0],
                usual_upper=None if limits is None else limits[1],
                realised=label.value,
                realised_lower=label.lower,
                realised_upper=label.upper,
                note=value.note,
            )
        rows = chunk.last - chunk.first
        return ChunkReport(start=chunk.start, end=chunk.end, period=period, rows=rows, metrics=metrics)


class _Classification(_Fitted):
    method = "cbpe"

    def __init__(self, past: pa.Table, now: pa.Table, reading: Reading, options: Options) -> None:
        if not reading.proba:
            raise InvalidInput(
                "estimating a classifier needs its probabilities: name their column with --proba (proba=)."
            )
        classes = frames.find_classes(past, reading)
        self._past: Classified = frames.classified(past, reading, classes, "the reference")
        self._now: Classified = frames.classified(now, reading, classes, "the current data")
        self._value = np.array(options.value, dtype=np.float64) if options.value else None
        self._confidence = options.confidence
        named = check_metrics(options.metrics, cbpe.METRICS)
        if "business_value" in named and self._value is None:
            raise InvalidInput("business_value needs what each outcome is worth: give --value (value=).")
        self.metrics = named or (*cbpe.DEFAULT, *(("business_value",) if options.value else ()))
        self.known = (self._past.actual >= 0) & self._past.usable()
        self._fitted = cbpe.fit_cbpe(self._past, value=self._value, calibration=options.calibration)
        self.calibration = self._fitted.kind
        self._learned = self._past.labelled()

    def measured(self, period: str, chunk: Chunk) -> tuple[Measured, ...]:
        window = (self._past if period == "reference" else self._now).take(chunk.rows)
        return measure_classification(window, self.metrics, value=self._value, confidence=self._confidence)

    def estimated(self, chunk: Chunk) -> tuple[Measured, ...]:
        return self._fitted.estimate(self._now.take(chunk.rows), self.metrics, confidence=self._confidence)

    def estimated_reference(self, slices: list[slice]) -> list[tuple[Measured, ...]]:
        return self._fitted.estimate_reference(
            self._learned, slices, self.metrics, confidence=self._confidence
        )

    def limits(self, name: str) -> tuple[float, float]:
        return cbpe.limits_of(name, len(self._past.classes))


class _Regression(_Fitted):
    method = "dle"

    def __init__(self, past: pa.Table, now: pa.Table, reading: Reading, options: Options) -> None:
        self._past: Regressed = frames.regressed(past, reading, "the reference")
        self._now: Regressed = frames.regressed(now, reading, "the current data")
        self._confidence = options.confidence
        self.metrics = check_metrics(options.metrics, regression.METRICS) or regression.METRICS
        self.known = np.isfinite(self._past.actual) & self._past.usable()
        self._fitted = dle.fit_dle(self._past, self.metrics)

    def measured(self, period: str, chunk: Chunk) -> tuple[Measured, ...]:
        window = (self._past if period == "reference" else self._now).take(chunk.rows)
        return measure_regression(window, self.metrics, confidence=self._confidence)

    def estimated(self, chunk: Chunk) -> tuple[Measured, ...]:
        return self._fitted.estimate(self._now.take(chunk.rows), self.metrics, confidence=self._confidence)

    def estimated_reference(self, slices: list[slice]) -> list[tuple[Measured, ...]]:
        return self._fitted.estimate_reference(slices, self.metrics, confidence=self._confidence)

    def limits(self, name: str) -> tuple[float, float]:
        return (-np.inf if name == "bias" else 0.0), np.inf


def cost_matrix(given: Any) -> tuple[tuple[float, ...], ...]:
    """`"0,-1;-5,2"` or rows of numbers, actual by predicted, as `Options.value`. Raises InvalidInput."""
    if given is None or (isinstance(given, str) and not given):
        return ()
    try:
        rows = given.split(";") if isinstance(given, str) else list(given)
        matrix = tuple(
            tuple(float(cell) for cell in (row.split(",") if isinstance(row, str) else row)) for row in rows
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"the matrix of values cannot be read: {error}.", hint="Such as '0,-1;-5,2'."
        ) from error
    if len({len(row) for row in matrix} | {len(matrix)}) != 1:
        raise InvalidInput(f"the matrix of values must be square (actual by predicted): {given!r}.")
    return matrix
