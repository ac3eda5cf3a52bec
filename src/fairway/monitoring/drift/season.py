"""Days and weeks: a window is compared with the reference's rows of the same hours and weekdays.

Whether the data has a season at all is asked of the reference: does a column differ between hours of the day, or
between weekdays (Kruskal and Wallis 1952), by more than one part in a hundred of its variance (epsilon squared)?
Times are UTC; a season that follows local clocks moves by an hour twice a year, which strata of an hour blur little.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import numpy as np
from scipy import stats

from fairway.core.columns import Array

_EFFECT = 0.01
_ALPHA = 0.001
_LEAST = 5
_SEEN = 20_000


class Season(enum.StrEnum):
    none = "none"
    day = "day"  # hours of the day differ
    week = "week"  # weekdays differ; hours are matched too


def detect_season(times: Array, columns: Mapping[str, Array]) -> Season:
    """`times` `[rows]` datetime64 and the reference's numeric columns `[rows]`. Two of each period are needed to tell: two
    days for hours, two weeks for weekdays. Half of all rows in one group tell nothing."""
    micros = times.astype("datetime64[us]")
    known = ~np.isnat(micros)
    if known.sum() < 100:
        return Season.none
    span = (micros[known].max() - micros[known].min()).astype("timedelta64[s]").astype(float)
    found = Season.none
    if span >= 2 * 86_400 and _differ(strata_of(micros, Season.day), columns, known):
        found = Season.day
    if span >= 14 * 86_400 and _differ(_weekday(micros), columns, known):
        found = Season.week
    return found


def _differ(groups: Array, columns: Mapping[str, Array], known: Array) -> bool:
    for values in columns.values():
        usable = np.flatnonzero(known & np.isfinite(values))[:_SEEN]
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
    reference: Array, current: Array, season: Season, *, least: int = 200, seed: int = 0
) -> Array:
    """Positions of reference rows `[m]` whose hours are mixed as those of the current rows are. `reference` and `current`
    are times `[rows]`. All rows where there is no season, or where fewer than `least` would match."""
    everything = np.arange(len(reference))
    if season is Season.none:
        return everything
    before, after = strata_of(reference, season), strata_of(current, season)
    wanted, counts = np.unique(after[after >= 0], return_counts=True)
    if not len(wanted):
        return everything
    shares = counts / counts.sum()
    available = np.array([(before == stratum).sum() for stratum in wanted])
    common = (shares >= 0.2 / len(wanted)) & (available > 0)
    if not common.any():
        return everything
    # As many rows as the scarcest of the common hours allows.
    total = float((available[common] / shares[common]).min())
    rng = np.random.default_rng(seed)
    chosen = []
    for stratum, share, there in zip(wanted, shares, available, strict=True):
        take = min(round(total * share), int(there))
        if take:
            chosen.append(rng.choice(np.flatnonzero(before == stratum), take, replace=False))
    found = np.sort(np.concatenate(chosen)) if chosen else everything
    return found if len(found) >= least else everything
