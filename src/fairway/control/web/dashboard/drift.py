"""Drift: every column's reference and window over each other, ranked; and one column over time."""

from __future__ import annotations

import msgspec

from fairway.control.web.dashboard.charts import Chart, Line, bar, histogram, spark, within
from fairway.control.web.dashboard.frame import frame_of
from fairway.control.web.dashboard.seen import ranked as in_order
from fairway.control.web.dashboard.series import Bucket, buckets, largest_effects
from fairway.control.web.page import Page, Shown
from fairway.core.errors import NotFound
from fairway.monitoring.watch.values import TOGETHER, ColumnReport

CARDS = 12
_SPARK_POINTS = 60


class Card(msgspec.Struct, frozen=True):
    """A column and its effect in the windows that are shown, the oldest first."""

    column: ColumnReport
    effects: tuple[float | None, ...]


def ranked(page: Page) -> Shown:
    values = frame_of(page, "drift")
    frame = values["frame"]
    points = buckets(frame.windows)
    few = buckets(frame.windows, _SPARK_POINTS)
    columns = () if frame.report is None else in_order(frame.report)
    pages = max(1, -(-len(columns) // CARDS))
    number = min(page.number("page", 1, 10**6), pages)
    shown = columns[(number - 1) * CARDS : number * CARDS]
    return "drift.html", {
        **values,
        "cards": [
            Card(column, effects) for column, effects in zip(shown, largest_effects(few, shown), strict=True)
        ],
        "columns": columns,
        "drifted": [column for column in columns if column.drift is not None and column.drift.drifted],
        "over_time": _over_time(points),
        "number": number,
        "pages": pages,
        "first": (number - 1) * CARDS,
        "histogram": histogram,
        "bar": bar,
        "spark": spark,
    }


def column(page: Page) -> Shown:
    values = frame_of(page, "drift")
    frame, name = values["frame"], page.names["column"]
    found = next((c for c in (frame.report.columns if frame.report else ()) if c.name == name), None)
    if found is None:
        raise NotFound(f"No column {name[:100]!r} was looked at in this window of {frame.model.name}.")
    points = buckets(frame.windows)
    measure = "" if found.drift is None else found.drift.measure
    chart = Chart(
        name=f"Effect, {measure}" if measure else "Effect",
        times=tuple(point.end for point in points),
        lines=(
            Line(
                label="Effect",
                values=largest_effects(points, (found,))[0],
                alert=tuple(_drifted(point, name) for point in points),
            ),
        ),
        marks=within(frame.marks, points),
        zero=True,
    )
    return "column.html", {**values, "column": found, "chart": chart, "histogram": histogram, "bar": bar}


def _over_time(points: tuple[Bucket, ...]) -> Chart:
    return Chart(
        name="Columns that drifted",
        unit="count",
        times=tuple(point.end for point in points),
        lines=(
            Line(
                label="Columns",
                values=tuple(
                    None
                    if point.rows == 0
                    else float(max(len(set(w.summary.drifted) - {TOGETHER}) for w in point.windows))
                    for point in points
                ),
            ),
        ),
        zero=True,
    )


def _drifted(point: Bucket, name: str) -> bool:
    return any(name in window.summary.drifted for window in point.windows)
