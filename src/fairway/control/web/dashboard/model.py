"""A model's summary, and its route with the history of it."""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.control.web.dashboard.charts import Chart, Line, simple, wake
from fairway.control.web.dashboard.frame import LATEST, ModelFrame, frame_of
from fairway.control.web.dashboard.overview import PAGE
from fairway.control.web.dashboard.seen import steps_in
from fairway.control.web.dashboard.series import MOST_POINTS, Bucket, buckets
from fairway.control.web.page import Page, Shown
from fairway.core.clock import moment_of
from fairway.core.route import Route
from fairway.core.version import Change
from fairway.monitoring.watch.values import Step

_HISTORY = 50


def summary(page: Page) -> Shown:
    values = frame_of(page, "")
    frame = values["frame"]
    points = buckets(frame.windows)
    versions = page.service.models.versions(frame.model.name)
    return "model.html", {
        **values,
        "wake": wake(buckets(frame.windows, 96), 96),
        "charts": (
            simple(
                "Traffic",
                "rate",
                points,
                ("Requests a second", "main", lambda point: point.rate),
                marks=frame.marks,
            ),
            simple(
                "Latency",
                "seconds",
                points,
                ("p99, the highest of the windows", "main", lambda point: point.most(lambda s: s.p99)),
                ("Median", "estimate", lambda point: point.mean(lambda s: s.p50)),
                marks=frame.marks,
            ),
            simple(
                "Rows that break the contract",
                "share",
                points,
                ("Share of the rows", "main", _violations),
                marks=frame.marks,
            ),
            *((server,) if (server := _server(page, frame)).times else ()),
        ),
        "sources": _sources(points),
        "busy": _busy(points),
        "versions": versions[::-1][:PAGE],
        "more_versions": max(0, len(versions) - PAGE),
    }


def route(page: Page) -> Shown:
    values = frame_of(page, "route")
    name = values["frame"].model.name
    limit = page.number("limit", _HISTORY, 1000)
    history = page.service.models.history(name, limit)
    return "route.html", {
        **values,
        "route": page.service.models.route(name),
        "history": [(change, told(change)) for change in history],
        "limit": limit,
        "more": len(history) == limit,
    }


def told(change: Change) -> str:
    """A change in words."""
    if change.what == "version":
        return f"version {_value(change.after)} was registered"
    if change.what.startswith("alias:"):
        alias = change.what.removeprefix("alias:")
        if change.after is None:
            return f"alias {alias} was removed from version {change.before}"
        before = f", before it version {change.before}" if change.before else ""
        return f"alias {alias} names version {change.after}{before}"
    if change.what == "route":
        what = "went back to" if change.restores else "became"
        return f"live traffic {what} {_traffic(change.after)}"
    return change.what


def _server(page: Page, frame: ModelFrame) -> Chart:
    """Errors and waiting of this machine's server, in the time of the windows that are shown, or its latest."""
    steps = steps_in(page.service.windows.mark(f"server {page.service.server} of {frame.model.name}"))
    times = [(moment_of(step.end).timestamp(), step) for step in steps]
    if frame.range == "latest":
        times = times[-LATEST:]
    elif frame.windows:
        times = [(at, step) for at, step in times if at >= frame.windows[0].start]
    size = max(1, -(-len(times) // MOST_POINTS))
    parts = [times[index : index + size] for index in range(0, len(times), size)]
    return Chart(
        name="Errors and waiting of this server",
        unit="share",
        times=tuple(part[-1][0] for part in parts),
        lines=(
            Line(
                label="Requests that failed",
                values=tuple(_failed([step for _, step in part]) for part in parts),
            ),
            Line(
                label="Fullest queue",
                role="estimate",
                values=tuple(max(step.saturation for _, step in part) for part in parts),
            ),
        ),
        zero=True,
    )


def _failed(steps: list[Step]) -> float | None:
    requests = sum(step.requests for step in steps)
    return min(1.0, sum(step.failed for step in steps) / requests) if requests else None


def _value(text: str | None) -> str:
    try:
        value: Any = msgspec.json.decode(text or "null")
    except msgspec.DecodeError:
        value = text
    if isinstance(value, dict):
        value = value.get("version", "")
    return str(value)


def _traffic(text: str | None) -> str:
    try:
        found = msgspec.json.decode(text or "", type=Route)
    except (msgspec.MsgspecError, ValueError):
        return str(text)
    arms = ", ".join(
        f"version {arm.version}" + ("" if arm.weight == 1 else f" ({arm.weight:.0%})") for arm in found.arms
    )
    shadows = f"; in shadow: {', '.join(map(str, found.shadows))}" if found.shadows else ""
    return arms + shadows


def _violations(point: Bucket) -> float | None:
    broken = sum(window.summary.violations for window in point.windows)
    return min(1.0, broken / point.rows) if point.rows else None


def _sources(points: tuple[Bucket, ...]) -> list[tuple[str, int, float]]:
    """Who answered how many rows, and their shares."""
    counted: dict[str, int] = {}
    for point in points:
        for window in point.windows:
            for name, rows in window.summary.sources.items():
                counted[name or "model"] = counted.get(name or "model", 0) + rows
    total = max(sum(counted.values()), 1)
    return [(name, rows, rows / total) for name, rows in sorted(counted.items(), key=lambda pair: -pair[1])]


def _busy(points: tuple[Bucket, ...]) -> float | None:
    """Of an hour, how many seconds requests were being answered: their number times their median. What the model costs, as
    far as the log knows."""
    spent = [
        window.summary.requests * window.summary.p50
        for point in points
        for window in point.windows
        if window.summary.p50 is not None
    ]
    passed = sum(window.end - window.start for point in points for window in point.windows)
    return sum(spent) / passed * 3600 if spent and passed > 0 else None
