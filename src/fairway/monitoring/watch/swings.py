"""How far parts of a day are from the whole day: what a column does every day is no drift."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from fairway.core.settings import DriftSettings
from fairway.monitoring.drift.compare import compare_tables
from fairway.monitoring.drift.season import Season, strata_of
from fairway.monitoring.drift.values import ColumnDrift, DriftReport, Kind
from fairway.monitoring.watch.frame import Frame
from fairway.monitoring.watch.reference import Elsewhere

_ROWS = 8_000
_BESIDES = 0.5
"""Two versions do not swing alike: by so much of its mean swing another one's may be farther off."""
_GAPS = (
    "missing_rate_change",
    "infinite_rate_change",
    "negative_infinite_rate_change",
    "new_category_rate",
)


def quick(settings: DriftSettings) -> DriftSettings:
    """For effects alone."""
    return msgspec.structs.replace(settings, resamples=200, multivariate=False)


def mean_swings(frame: Frame, kinds: Mapping[str, Kind], settings: DriftSettings) -> dict[str, float]:
    """How far a part of the day is from the whole day, in the unit of each column's effect: the mean over its eighths."""
    frame = _some(frame)
    found: dict[str, list[float]] = {}
    for part in _eighths(frame, settings).values():
        told = compare_tables(frame.held, part.held, quick(settings), kinds=kinds)
        for column in told.columns:
            found.setdefault(column.name, []).append(column.effect)
    return {name: float(np.mean(effects)) for name, effects in found.items()}


def moved(before: Frame, after: Frame, kinds: Mapping[str, Kind], settings: DriftSettings) -> tuple[str, ...]:
    """Columns of both that in any part of the day are not as they were, by more than half of their mean swing."""
    names = tuple(name for name in before.table.column_names if name in after.table.column_names)
    swings = mean_swings(before, kinds, settings)
    sides = [_eighths(_some(frame), settings) for frame in (before, after)]
    found = {
        column.name
        for part in sorted(sides[0].keys() & sides[1].keys())
        for column in compare_tables(
            sides[0][part].held, sides[1][part].held, quick(settings), columns=names, kinds=kinds
        ).drifted_columns
        if column.effect > _BESIDES * swings.get(column.name, 0.0)
    }
    return tuple(name for name in names if name in found)


def _some(frame: Frame) -> Frame:
    if frame.rows <= _ROWS:
        return frame
    return frame.take(np.sort(np.random.default_rng(0).permutation(frame.rows)[:_ROWS]))


def _eighths(frame: Frame, settings: DriftSettings) -> dict[int, Frame]:
    """The rows of each three hours of the day, where there are enough."""
    times = frame.times
    assert times is not None
    parts = strata_of(times, Season.day) // 3
    rows = {int(part): np.flatnonzero(parts == part) for part in np.unique(parts[parts >= 0])}
    return {part: frame.take(at) for part, at in rows.items() if len(at) >= settings.min_rows}


def within_swings(
    report: DriftReport, window: Frame, elsewhere: Elsewhere, settings: DriftSettings, notes: list[str]
) -> DriftReport:
    """The report in which predictions have not drifted that are no farther from the reference than another version's, at
    the same hours, were from its own whole days, and half of its mean swing besides. Gaps and new classes stay drift: hours do not
    bring them. A prediction that the other version does not make is held to the one that swings most."""
    asked = [
        column for column in report.columns if column.name in window.outputs and _may_swing(column, settings)
    ]
    if not asked:
        return report
    days, same = elsewhere.hours.frame, elsewhere.hours.like(window, [])
    told = compare_tables(days.held, same.held, quick(settings), kinds=elsewhere.kinds)
    effects = {column.name: column.effect for column in told.columns if column.status == "compared"}
    least = {name: effect + _BESIDES * elsewhere.swings.get(name, 0.0) for name, effect in effects.items()}
    most = max(least.values(), default=0.0)
    held = {column.name for column in asked if column.effect <= least.get(column.name, most)}
    notes += [
        f"{column.name} is not as in the reference (by {column.effect:.2g}, {column.measure}), which the hours explain: at"
        f" the same ones {elsewhere.hours.text} differed by {effects.get(column.name, most):.2g}"
        for column in asked
        if column.name in held
    ]
    columns = tuple(
        msgspec.structs.replace(column, drifted=False) if column.name in held else column
        for column in report.columns
    )
    together = report.multivariate is not None and report.multivariate.drifted
    return msgspec.structs.replace(
        report, columns=columns, drifted=together or any(column.drifted for column in columns)
    )


def _may_swing(column: ColumnDrift, settings: DriftSettings) -> bool:
    gaps = any(abs(column.effects.get(name, 0.0)) >= settings.rate_floor for name in _GAPS)
    return column.drifted and column.status == "compared" and not gaps
