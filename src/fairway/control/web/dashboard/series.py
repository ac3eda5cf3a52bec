"""Windows of a version, made few enough to draw. Pure but for `read_windows`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from fairway.control.web.dashboard.seen import Summary, effects_reader, summary_in
from fairway.core.clock import moment_of, utc_now
from fairway.monitoring.watch.values import ColumnReport, Point
from fairway.stores.windows import MOST_WINDOWS, WindowKey, WindowStore

METRICS = (
    "roc_auc",
    "pr_auc",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "brier",
    "rmse",
    "mae",
    "mape",
    "bias",
)
"""Those that people look for first."""
MOST_POINTS = 240
"""Points of a series: more cannot be told apart on a screen."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A window; `start` and `end` in seconds since 1970."""

    key: WindowKey
    start: float
    end: float
    summary: Summary


class Bucket(msgspec.Struct, frozen=True):
    """Windows that follow each other and are drawn as one point, at least one."""

    windows: tuple[Seen, ...]

    @property
    def start(self) -> float:
        return self.windows[0].start

    @property
    def end(self) -> float:
        return self.windows[-1].end

    @property
    def rows(self) -> int:
        return sum(window.summary.rows for window in self.windows)

    @property
    def rate(self) -> float:
        """Requests a second."""
        requests = sum(window.summary.requests for window in self.windows)
        return requests / max(sum(window.end - window.start for window in self.windows), 1e-9)

    def mean(self, of: Callable[[Summary], float | None]) -> float | None:
        """By rows."""
        found = [
            (value, max(window.summary.rows, 1))
            for window in self.windows
            if (value := of(window.summary)) is not None
        ]
        return sum(value * rows for value, rows in found) / sum(rows for _, rows in found) if found else None

    def most(self, of: Callable[[Summary], float | None]) -> float | None:
        return max((v for window in self.windows if (v := of(window.summary)) is not None), default=None)

    def point(self, of: Callable[[Summary], Point | None]) -> Point | None:
        """The mean of a metric and of its limits; an alert of any window is one."""
        points = [point for window in self.windows if (point := of(window.summary)) is not None]
        if not points:
            return None
        if len(points) == 1:
            return points[0]
        usual = [point.usual for point in points if point.usual is not None]
        return Point(
            value=_mean([point.value for point in points]),
            lower=_mean([point.lower for point in points]),
            upper=_mean([point.upper for point in points]),
            usual=(_mean_of(usual, 0), _mean_of(usual, 1)) if usual else None,
            alert=any(point.alert for point in points),
        )


def read_windows(
    store: WindowStore,
    model: str,
    version: int | None,
    *,
    since: str = "",
    until: str = "",
    limit: int = MOST_WINDOWS,
) -> tuple[Seen, ...]:
    """The oldest first. Those of a version that was replaced under its number are left out, and those of the future, which a
    clock that was ahead has left."""
    found = store.summaries(model, version=version, since=since, until=until or utc_now(), limit=limit)
    digest = found[-1].key.digest if found else ""
    return tuple(
        Seen(
            window.key,
            moment_of(window.key.start).timestamp(),
            moment_of(window.end).timestamp(),
            summary,
        )
        for window in found
        if (version is None or window.key.digest == digest) and (summary := summary_in(window)) is not None
    )


def buckets(windows: Sequence[Seen], most: int = MOST_POINTS) -> tuple[Bucket, ...]:
    """At most `most`, of equally many windows each; of whole days where they are longer than half of one, so that day and night
    do not beat against them."""
    size = max(1, -(-len(windows) // most))
    if windows:
        a_day = round(86_400 / max(windows[-1].end - windows[-1].start, 1.0))
        if a_day > 1 and size * 2 > a_day:
            size = -(-size // a_day) * a_day
    return tuple(Bucket(tuple(windows[i : i + size])) for i in range(0, len(windows), size))


def metric_names(windows: Sequence[Seen]) -> list[str]:
    """The metrics that were measured or estimated in them: those of `METRICS` first."""
    known = {name for window in windows for name in (*window.summary.performance, *window.summary.estimates)}
    return sorted(known, key=lambda name: (METRICS.index(name) if name in METRICS else len(METRICS), name))


def largest_effects(
    points: Sequence[Bucket], columns: Sequence[ColumnReport]
) -> list[tuple[float | None, ...]]:
    """For each column, the largest effect of each point."""
    read = effects_reader([column.name for column in columns])
    seen = [[read(window.summary) for window in point.windows] for point in points]
    return [
        tuple(max((e for one in point if (e := one[index]) is not None), default=None) for point in seen)
        for index in range(len(columns))
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _mean_of(pairs: Sequence[tuple[float, float]], index: int) -> float:
    return sum(pair[index] for pair in pairs) / len(pairs)
