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

import pyarrow as pa

from fairway.core.settings import DriftSettings
from fairway.monitoring.drift.compare import compare_tables
from fairway.monitoring.drift.season import Season
from fairway.monitoring.watch.frame import frame_kinds, frame_of, together
from fairway.monitoring.watch.reference import Elsewhere, Hours, Past, Reference, season_of
from fairway.monitoring.watch.swings import mean_swings, quick

DAYS = (2, 4, 7, 14)
"""After so many days it is looked (again) whether there is a season."""
ROWS = 100_000
"""Most rows of the past that are held."""
HOUR = timedelta(hours=1)

Rows = Callable[[datetime, datetime], Iterator[pa.RecordBatch]]
"""A version's rows of the log with `start <= time < end`."""


def days_known(first: datetime, now: datetime) -> int:
    """How many of the version's first days tell of its season by `now`; 0 where they are too few."""
    return max((days for days in DAYS if first + timedelta(days=days) <= now), default=0)


def asks_for_season(reference: Reference) -> bool:
    """Whether the reference's rows do not tell of hours by themselves."""
    return reference.frame is not None and reference.season is Season.none


def with_own_season(
    reference: Reference, rows: Rows, first: datetime, days: int, settings: DriftSettings
) -> Reference:
    """The reference with the season of `days` whole days from `first` on; as it was where they have none."""
    batches = _some_of_each_hour(rows, first, days)
    if sum(batch.num_rows for batch in batches) < settings.min_reference_rows:
        return reference
    frame = frame_of(together(batches), reference.contract)
    season = season_of(frame)
    if season is Season.none:
        return reference
    text = f"its own predictions of the first {days} days"
    return with_past(reference, Hours(frame, season, text), settings)


def with_past(
    reference: Reference,
    hours: Hours,
    settings: DriftSettings,
    elsewhere: Elsewhere | None = None,
    where: str = "",
) -> Reference:
    """The reference with `hours`, but for columns that stand off it over all hours (`where`)."""
    assert reference.frame is not None
    frame = hours.frame
    names = tuple(name for name in reference.frame.table.column_names if name in frame.table.column_names)
    kinds = frame_kinds(reference.frame, reference.contract)
    whole = compare_tables(reference.frame.held, frame.held, quick(settings), columns=names, kinds=kinds)
    swings = mean_swings(frame, frame_kinds(frame, reference.contract), settings)
    standing = tuple(c.name for c in whole.drifted_columns if c.effect > swings.get(c.name, 0.0))
    off = tuple(
        f"over all hours{where}, {column.name} is not as in the reference (by {column.effect:.2g}, {column.measure})"
        for column in whole.drifted_columns
        if column.name not in standing
    )
    return dataclasses.replace(
        reference, past=Past(hours, standing, elsewhere), notes=(*reference.notes, *off)
    )


def _some_of_each_hour(rows: Rows, first: datetime, days: int) -> Sequence[pa.RecordBatch]:
    """As many rows of each hour at the most; no more are read."""
    found: list[pa.RecordBatch] = []
    for hour in range(days * 24):
        found += some(rows, first + hour * HOUR, ROWS // (days * 24))
    return found


def some(rows: Rows, hour: datetime, most: int) -> list[pa.RecordBatch]:
    """At most so many rows of the hour; no more are read."""
    found: list[pa.RecordBatch] = []
    for batch in rows(hour, hour + HOUR) if most > 0 else ():
        if batch.num_rows:
            found.append(batch.slice(0, most))
            most -= found[-1].num_rows
        if most <= 0:
            break
    return found
