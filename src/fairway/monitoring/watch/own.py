"""A season learned from the version's own past, where its reference does not tell when its rows were.

A reference of all hours makes every night an alarm. After two days the version's own predictions tell whether hours differ,
after two weeks whether weekdays do; then windows are compared with the same hours of those days. They are the first days that
the log has, so what drifts slowly is still found. Whole days are compared with the reference too: a column that is farther
from it than an hour is from the day goes on being compared with it, and of the others it is said. (Less would be explained by
a reference in which the hours are mixed otherwise.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa

from fairway.core.settings import DriftSettings
from fairway.monitoring.drift.compare import compare_tables
from fairway.monitoring.drift.season import Season, strata_of
from fairway.monitoring.watch.frame import Frame, frame_kinds, frame_of, together
from fairway.monitoring.watch.reference import Hours, Own, Reference, season_of

DAYS = (2, 4, 7, 14)
"""After so many days it is looked (again) whether there is a season."""
_ROWS = 100_000
"""Most rows of the past that are held."""
_SWUNG = 8_000
_HOUR = timedelta(hours=1)


def days_known(first: datetime, now: datetime) -> int:
    """How many of the version's first days tell of its season by `now`; 0 where they are too few."""
    return max((days for days in DAYS if first + timedelta(days=days) <= now), default=0)


def asks_for_season(reference: Reference) -> bool:
    """Whether the reference's rows do not tell of hours by themselves."""
    return reference.frame is not None and reference.season is Season.none


def with_own_season(
    reference: Reference,
    rows: Callable[[datetime, datetime], Iterator[pa.RecordBatch]],
    first: datetime,
    days: int,
    settings: DriftSettings,
) -> Reference:
    """The reference with the season of `days` whole days from `first` on; as it was where they have none."""
    assert reference.frame is not None
    batches = _some_of_each_hour(rows, first, days)
    if sum(batch.num_rows for batch in batches) < settings.min_reference_rows:
        return reference
    frame = frame_of(together(batches), reference.contract)
    season = season_of(frame)
    if season is Season.none:
        return reference
    names = tuple(name for name in reference.frame.table.column_names if name in frame.table.column_names)
    quick = msgspec.structs.replace(settings, resamples=200, multivariate=False)
    kinds = frame_kinds(reference.frame, reference.contract)
    whole = compare_tables(reference.frame.held, frame.held, quick, columns=names, kinds=kinds)
    swings = _swings(frame, reference, quick)
    standing = tuple(c.name for c in whole.drifted_columns if c.effect > swings.get(c.name, 0.0))
    text = f"its own predictions of the first {days} days"
    off = tuple(
        f"over all hours, {column.name} is not as in the reference (by {column.effect:.2g}, {column.measure})"
        for column in whole.drifted_columns
        if column.name not in standing
    )
    return dataclasses.replace(
        reference, own=Own(Hours(frame, season, text), standing), notes=(*reference.notes, *off)
    )


def _swings(frame: Frame, reference: Reference, settings: DriftSettings) -> dict[str, float]:
    """How far a part of the day is from the whole day, in the unit of each column's effect: the mean over its eighths."""
    if frame.rows > _SWUNG:
        frame = frame.take(np.sort(np.random.default_rng(0).permutation(frame.rows)[:_SWUNG]))
    times = frame.times
    assert times is not None
    parts = strata_of(times, Season.day) // 3
    found: dict[str, list[float]] = {}
    for part in np.unique(parts[parts >= 0]):
        rows = np.flatnonzero(parts == part)
        if len(rows) < settings.min_rows:
            continue
        told = compare_tables(
            frame.held, frame.take(rows).held, settings, kinds=frame_kinds(frame, reference.contract)
        )
        for column in told.columns:
            found.setdefault(column.name, []).append(column.effect)
    return {name: float(np.mean(effects)) for name, effects in found.items()}


def _some_of_each_hour(
    rows: Callable[[datetime, datetime], Iterator[pa.RecordBatch]], first: datetime, days: int
) -> Sequence[pa.RecordBatch]:
    """As many rows of each hour at the most; no more are read."""
    most = _ROWS // (days * 24)
    found = []
    for hour in range(days * 24):
        wanted = most
        for batch in rows(first + hour * _HOUR, first + (hour + 1) * _HOUR):
            if batch.num_rows:
                found.append(batch.slice(0, wanted))
                wanted -= found[-1].num_rows
            if wanted <= 0:
                break
    return found
