"""What is drawn: series for charts.js (uPlot), small drawings as SVG geometry. Pure.

Charts carry no colours: what a line is (`role`) says how it looks, and the style sheet knows light from dark. The same values
are written as a table behind each chart, so that nothing is told by a drawing alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from markupsafe import Markup

from fairway.control.web.dashboard.seen import Summary
from fairway.control.web.dashboard.series import Bucket
from fairway.control.web.dashboard.words import number
from fairway.core.clock import moment_of
from fairway.core.incident import Incident
from fairway.monitoring.watch.values import Point, Shape
from fairway.monitoring.words import bounded

Unit = Literal["number", "share", "seconds", "rate", "count"]
Role = Literal["main", "estimate", "quiet"]


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value per time of the chart. `lower` and `upper` are its interval, `alert` the points that are outside of what is
    usual."""

    label: str
    role: Role = "main"
    values: tuple[float | None, ...]
    lower: tuple[float | None, ...] = ()
    upper: tuple[float | None, ...] = ()
    alert: tuple[bool, ...] = ()


class Mark(msgspec.Struct, frozen=True):
    """Something that happened; `at` in seconds since 1970."""

    at: float
    label: str

    @classmethod
    def of(cls, incidents: Iterable[Incident]) -> tuple[Mark, ...]:
        """When they opened."""
        return tuple(cls(moment_of(i.opened).timestamp(), "incident") for i in incidents if i.opened)


class Chart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`times` in seconds since 1970, the end of each point's windows. `usual` are the limits of what is usual, as two series.
    `zero`: the axis begins at 0."""

    name: str
    unit: Unit = "number"
    times: tuple[float, ...]
    lines: tuple[Line, ...]
    usual_lower: tuple[float | None, ...] = ()
    usual_upper: tuple[float | None, ...] = ()
    marks: tuple[Mark, ...] = ()
    zero: bool = False

    @property
    def is_empty(self) -> bool:
        return all(value is None for line in self.lines for value in line.values)

    @property
    def has_alerts(self) -> bool:
        return any(any(line.alert) for line in self.lines)

    @property
    def json(self) -> str:
        return msgspec.json.encode(self).decode()


def simple(
    name: str,
    unit: Unit,
    points: Sequence[Bucket],
    *lines: tuple[str, Role, Callable[[Bucket], float | None]],
    marks: tuple[Mark, ...] = (),
) -> Chart:
    """Lines from 0 on, such as traffic."""
    return Chart(
        name=name,
        unit=unit,
        times=tuple(point.end for point in points),
        lines=tuple(
            Line(label=label, role=role, values=tuple(_rounded(of(point)) for point in points))
            for label, role, of in lines
        ),
        marks=within(marks, points),
        zero=True,
    )


def metric_chart(name: str, title: str, points: Sequence[Bucket], marks: tuple[Mark, ...] = ()) -> Chart:
    """A metric as labels tell it and as it is estimated, with intervals and what is usual."""

    def real(summary: Summary) -> Point | None:
        return summary.performance.get(name)

    def guess(summary: Summary) -> Point | None:
        return summary.estimates.get(name)

    told = [point.point(real) for point in points]
    estimated = [point.point(guess) for point in points]
    limits = [
        (t.usual if t and t.usual else e.usual if e else None) for t, e in zip(told, estimated, strict=True)
    ]
    usual = [bounded(name, pair) for pair in limits]
    lines = [_line("Estimated", "estimate", estimated), _line("Measured", "main", told)]
    return Chart(
        name=title,
        times=tuple(point.end for point in points),
        lines=tuple(line for line in lines if any(value is not None for value in line.values)),
        usual_lower=tuple(None if pair is None else _rounded(pair[0]) for pair in usual),
        usual_upper=tuple(None if pair is None else _rounded(pair[1]) for pair in usual),
        marks=within(marks, points),
    )


def _line(label: str, role: Role, points: Sequence[Point | None]) -> Line:
    return Line(
        label=label,
        role=role,
        values=tuple(None if point is None else _rounded(point.value) for point in points),
        lower=tuple(None if point is None else _rounded(point.lower) for point in points),
        upper=tuple(None if point is None else _rounded(point.upper) for point in points),
        alert=tuple(point is not None and point.alert for point in points),
    )


def within(marks: tuple[Mark, ...], points: Sequence[Bucket]) -> tuple[Mark, ...]:
    """Those in the time of the points, the latest 30."""
    if not points:
        return ()
    return tuple(mark for mark in marks if points[0].start <= mark.at <= points[-1].end)[-30:]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


# Small drawings. Lengths are in the units of their viewBox; what is put into the marks is escaped.

_SPARK = Markup(
    '<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
    '{lines}<circle cx="{x}" cy="{y}" r="2.5"/></svg>'
)
_LINE = Markup('<polyline points="{}"/>')
_WAKE = Markup(
    '<svg class="wake" viewBox="0 0 {width} 28" width="{width}" height="28" role="img" aria-label="{told}">{strokes}</svg>'
)
_STROKE = Markup('<rect class="{}" x="{}" y="{}" width="3.4" height="{}" rx="1"/>')
_HISTOGRAM = Markup(
    '<svg class="histogram" viewBox="0 0 {width} {height}" role="img" aria-label="Shares of the values from {low} to {high}">'
    '<polygon class="reference" points="0,{base} {reference} {width},{base}"/>'
    '<polyline class="current" points="0,{base} {current} {width},{base}"/>'
    '<line class="axis" x1="0" x2="{width}" y1="{base}" y2="{base}"/>'
    '<text x="0" y="{below}">{low}</text><text x="{width}" y="{below}" text-anchor="end">{high}</text></svg>'
)
_BAR = Markup(
    '<svg class="bar {}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect width="{}" height="8"/></svg>'
)
_INTERVAL = Markup(
    '<svg class="interval" viewBox="0 0 200 12" aria-hidden="true"><line x1="{left}" x2="{right}" y1="6" y2="6"/>'
    '<circle cx="{at}" cy="6" r="4"/></svg>'
)


def spark(values: Sequence[float | None], *, width: int = 160, height: int = 36, zero: bool = True) -> Markup:
    """A line without axes, with its last point; its numbers stand beside it in the text."""
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    low, high = (min(0.0, *known) if zero else min(known)), max(known)
    span = (high - low) or 1.0
    step = (width - 8) / max(len(values) - 1, 1)
    pieces: list[list[str]] = [[]]
    x = y = 0.0
    for index, value in enumerate(values):
        if value is None:
            pieces.append([])
            continue
        x, y = 4 + index * step, height - 4 - (value - low) / span * (height - 8)
        pieces[-1].append(f"{x:.1f},{y:.1f}")
    lines = Markup("").join(_LINE.format(" ".join(piece)) for piece in pieces if len(piece) > 1)
    return _SPARK.format(width=width, height=height, lines=lines, x=f"{x:.1f}", y=f"{y:.1f}")


def wake(points: Sequence[Bucket], slots: int = 48) -> Markup:
    """The last windows as a row of strokes: low for as it should be, taller and in colour for what was found, hollow where
    nothing came in."""
    shown = points[-slots:]
    states = [state_of_bucket(point) for point in shown]
    strokes = Markup("").join(
        _STROKE.format(state, index * 5, 26 - _TALL[state], _TALL[state])
        for index, state in enumerate(states)
    )
    told = ", ".join(f"{states.count(state)} {text}" for state, text in STATES.items() if state in states)
    return _WAKE.format(
        width=len(shown) * 5,
        told=f"The last {sum(len(p.windows) for p in shown)} windows: {told}",
        strokes=strokes,
    )


_TALL = {"quiet": 6, "fine": 10, "drift": 18, "poor": 24}

STATES = {
    "fine": "as they should be",
    "drift": "with drift or data of poor quality",
    "poor": "with performance outside of what is usual",
    "quiet": "without traffic",
}


def state_of_bucket(point: Bucket) -> str:
    if point.rows == 0:
        return "quiet"
    summaries = [window.summary for window in point.windows]
    if any(s.alerts for s in summaries):
        return "poor"
    return "drift" if any(s.drifted or s.quality for s in summaries) else "fine"


def histogram(shape: Shape, *, width: int = 320, height: int = 110) -> Markup:
    """Reference and window over each other: the reference as an area, the window as a line. Nothing for categories, whose
    bars are rows of a table."""
    if not shape.edges or len(shape.edges) != len(shape.reference) + 1:
        return Markup("")
    top = max(*shape.reference, *shape.current, 1e-9)
    base, low, span = height - 16, shape.edges[0], (shape.edges[-1] - shape.edges[0]) or 1.0

    def steps(shares: Sequence[float]) -> str:
        corners = []
        for index, part in enumerate(shares):
            left, right = ((edge - low) / span * width for edge in shape.edges[index : index + 2])
            y = base - part / top * (base - 6)
            corners += [f"{left:.1f},{y:.1f}", f"{right:.1f},{y:.1f}"]
        return " ".join(corners)

    return _HISTOGRAM.format(
        width=width, height=height, base=base, below=height - 3, low=_end(low), high=_end(shape.edges[-1]),
        reference=steps(shape.reference), current=steps(shape.current),
    )  # fmt: skip


def bar(part: float | None, most: float, kind: str) -> Markup:
    """A share of `most` as a bar; `kind` is a class."""
    length = 0.0 if part is None or most <= 0 else min(1.0, max(0.0, part / most)) * 100
    return _BAR.format(kind, f"{length:.1f}")


def interval(
    value: float | None, lower: float | None, upper: float | None, ends: tuple[float, float]
) -> Markup:
    """A value and its interval on a line from `ends[0]` to `ends[1]`."""
    if value is None:
        return Markup("")
    span = (ends[1] - ends[0]) or 1.0

    def at(where: float) -> str:
        return f"{min(195.0, max(5.0, (where - ends[0]) / span * 200)):.1f}"

    return _INTERVAL.format(
        left=at(value if lower is None else lower), right=at(value if upper is None else upper), at=at(value)
    )


def _end(value: float) -> str:
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
