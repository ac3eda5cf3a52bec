"""Days and weeks: a window is compared with the reference's rows of the same hours and weekdays.

Whether the data has a season at all is asked of the reference: does a column differ between hours of the day, or
between weekdays (Kruskal and Wallis 1952), by more than two parts in a thousand of its variance (epsilon squared: waves
smaller than that stay below the least drift that is told)?
Times are UTC; a season that follows local clocks moves by an hour twice a year, which strata of an hour blur little.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from fairway.core.columns import Array
from fairway.monitoring.drift.columns import as_floats, as_text, is_numeric, kind_in
from fairway.monitoring.drift.values import Kind

_EFFECT = 0.01
_ALPHA = 0.001
_LEAST = 5
_SEEN = 20_000
_VALUES = 5
_WIDEST = 3
"""Hours to each side that may stand for an hour of which there are too few rows."""


class Season(enum.StrEnum):
    none = "none"
    day = "day"  # hours of the day differ
    week = "week"  # weekdays differ; hours are matched too


def season_numbers(name: str, column: pa.ChunkedArray) -> dict[str, Array]:
    """What `detect_season` looks at of a column: its numbers, or which rows have each of its commonest values."""
    if is_numeric(column.type):
        return {name: as_floats(column)}
    if kind_in(column) not in (Kind.category, Kind.text):
        return {}
    texts = as_text(column)
    counted = pc.value_counts(texts.drop_null())
    order = np.argsort(-np.asarray(counted.field(1)), kind="stable")[:_VALUES]
    return {f"{name}={i}": as_floats(pc.equal(texts, counted.field(0)[int(i)])) for i in order}


def detect_season(times: Array, columns: Mapping[str, Array]) -> Season:
    """`times` `[rows]` datetime64 and the reference's columns `[rows]` as numbers. Two days are needed
    to tell of hours, one week of workdays against weekends, two of weekdays. Dates without hours tell nothing: a window is of some hours."""
    micros = times.astype("datetime64[us]")
    known = ~np.isnat(micros)
    if known.sum() < 100:
        return Season.none
    if len(np.unique(strata_of(micros, Season.day)[known])) < 2:
        return Season.none
    span = (micros[known].max() - micros[known].min()).astype("timedelta64[s]").astype(float)
    found = Season.none
    days = span / 86_400 + 0.5  # two days of traffic end a little before two days are over
    if days >= 2 and _differ(strata_of(micros, Season.day), columns, known):
        found = Season.day
    weekday = _weekday(micros)
    if days >= 7 and _differ(
        weekday if days >= 14 else np.where(weekday < 0, -1, weekday // 5), columns, known
    ):
        found = Season.week
    return found


def _differ(groups: Array, columns: Mapping[str, Array], known: Array) -> bool:
    order = np.random.default_rng(0).permutation(
        len(known)
    )  # rows are mostly in order of time: the first tell of few days
    for values in columns.values():
        usable = order[(known & np.isfinite(values))[order]][:_SEEN]
        parts = [values[usable][groups[usable] == group] for group in np.unique(groups[usable])]
        parts = [part for part in parts if len(part) >= _LEAST]
        if len(parts) < 2 or len(np.unique(values[usable])) < 2:
            continue
        statistic, p = stats.kruskal(*parts)
        size = sum(map(len, parts))
        if p < _ALPHA / max(len(columns), 1) and (statistic - len(parts) + 1) / (size - 1) >= _EFFECT:
            return True
    return False


def strata_of(times: Array, season: Season) -> Array:
    """Hour of the day (0-23), or hour of the week (0-167, from Monday), `[rows]`; 0 everywhere without a season, -1 for NaT."""
    micros = times.astype("datetime64[us]")
    hours = micros.astype("datetime64[h]").astype(np.int64)
    strata = hours % 24 if season is Season.day else (hours + 72) % 168  # 1970-01-01 was a Thursday
    if season is Season.none:
        strata = np.zeros(len(micros), np.int64)
    return np.where(np.isnat(micros), -1, strata)


def _weekday(micros: Array) -> Array:
    return np.where(np.isnat(micros), -1, strata_of(micros, Season.week) // 24)


def matching_rows(
    reference: Array, current: Array, season: Season, *, least: int = 150, seed: int = 0
) -> Array:
    """Positions of reference rows `[m]` whose hours are mixed as those of the current rows are. `reference` and `current`
    are times `[rows]`. Where an hour of the week has too few rows, workdays stand for each other and so do the two days of
    a weekend; then neighbouring hours do too. All rows where there is no season, or where fewer than `least` match even so."""
    if season is not Season.none and not np.isnat(current).all():
        sides = [strata_of(times, season) for times in (reference, current)]
        if season is Season.week:
            found = _mixed(sides[0], sides[1], 0, np.random.default_rng(seed))
            if len(found) >= least:
                return found
            sides = [np.where(hour < 0, -1, hour // 120 * 24 + hour % 24) for hour in sides]
        for wide in range(_WIDEST + 1):
            found = _mixed(sides[0], sides[1], wide, np.random.default_rng(seed))
            if len(found) >= least:
                return found
    return np.arange(len(reference))


def _mixed(before: Array, after: Array, wide: int, random: np.random.Generator) -> Array:
    """Rows at most `wide` hours away, as many as the scarcest of the window's common hours allows."""
    wanted, counts = np.unique(after[after >= 0], return_counts=True)
    shares = counts / max(counts.sum(), 1)
    pools = []
    for stratum in wanted:
        apart = np.abs(before % 24 - stratum % 24)
        near = (before >= 0) & (before // 24 == stratum // 24) & (np.minimum(apart, 24 - apart) <= wide)
        pools.append(np.flatnonzero(near))
    available = np.array([len(pool) for pool in pools])
    common = shares >= 0.2 / max(len(wanted), 1)
    if not common.any() or not available[common].all():
        return np.zeros(0, np.intp)
    total = float((available[common] / shares[common]).min())
    chosen = [
        random.choice(pool, min(round(total * share), len(pool)), replace=False)
        for pool, share in zip(pools, shares, strict=True)
    ]
    return np.unique(np.concatenate(chosen))
