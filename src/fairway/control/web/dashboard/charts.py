"""What is drawn: series for charts.js (uPlot), small drawings as SVG geometry. Pure.

Charts carry no colours: what a line is (`role`) says how it looks, and the style sheet knows light from dark. The same values
are written as a table behind each chart, so that nothing is told by a drawing alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from markupsafe import Markup, escape

from fairway.control.web.dashboard.seen import Point, Shape, Summary
from fairway.control.web.dashboard.series import Bucket

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
        marks=_within(marks, points),
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
    usual = [
        (t.usual if t and t.usual else e.usual if e else None) for t, e in zip(told, estimated, strict=True)
    ]
    lines = [
        _line(label, role, values)
        for label, role, values in (("Estimated", "estimate", estimated), ("Measured", "main", told))
        if any(value is not None for value in values)
    ]
    return Chart(
        name=title,
        times=tuple(point.end for point in points),
        lines=tuple(lines),
        usual_lower=tuple(None if pair is None else _rounded(pair[0]) for pair in usual),
        usual_upper=tuple(None if pair is None else _rounded(pair[1]) for pair in usual),
        marks=_within(marks, points),
    )


def _line(label: str, role: str, points: Sequence[Point | None]) -> Line:
    return Line(
        label=label,
        role=role,  # type: ignore[arg-type]
        values=tuple(None if point is None else _rounded(point.value) for point in points),
        lower=tuple(None if point is None else _rounded(point.lower) for point in points),
        upper=tuple(None if point is None else _rounded(point.upper) for point in points),
        alert=tuple(point is not None and point.alert for point in points),
    )


def _within(marks: tuple[Mark, ...], points: Sequence[Bucket]) -> tuple[Mark, ...]:
    if not points:
        return ()
    return tuple(mark for mark in marks if points[0].start <= mark.at <= points[-1].end)[-30:]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


# Small drawings. Lengths are in the units of their viewBox.


def spark(values: Sequence[float | None], *, width: int = 160, height: int = 36, zero: bool = True) -> Markup:
    """A line without axes, with its last point; its numbers stand beside it in the text."""
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    low, high = (min(0.0, *known) if zero else min(known)), max(known)
    span = (high - low) or 1.0
    step = (width - 8) / max(len(values) - 1, 1)
    pieces: list[list[str]] = [[]]
    last = (0.0, 0.0)
    for index, value in enumerate(values):
        if value is None:
            pieces.append([])
            continue
        last = (4 + index * step, height - 4 - (value - low) / span * (height - 8))
        pieces[-1].append(f"{last[0]:.1f},{last[1]:.1f}")
    lines = "".join(f'<polyline points="{" ".join(piece)}"/>' for piece in pieces if len(piece) > 1)
    return Markup(  # numbers alone
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
        f'{lines}<circle cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="2.5"/></svg>'
    )


def wake(points: Sequence[Bucket], slots: int = 48) -> Markup:
    """The last windows as a row of strokes: low for as it should be, taller and in colour for what was found, hollow where
    nothing came in."""
    shown = points[-slots:]
    strokes = []
    for index, point in enumerate(shown):
        state = state_of_bucket(point)
        tall = {"quiet": 6, "fine": 10, "drift": 18, "poor": 24}[state]
        strokes.append(
            f'<rect class="{state}" x="{index * 5}" y="{26 - tall}" width="3.4" height="{tall}" rx="1"/>'
        )
    told = ", ".join(f"{sum(state_of_bucket(p) == s for p in shown)} {text}" for s, text in STATES.items())
    return Markup(
        f'<svg class="wake" viewBox="0 0 {slots * 5} 28" width="{slots * 5}" height="28" role="img" '
        f'aria-label="The last {len(shown)} windows: {told}">{"".join(strokes)}</svg>'
    )


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
    if any(p.alert for s in summaries for p in (*s.performance.values(), *s.estimates.values())):
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

    return Markup(
        f'<svg class="histogram" viewBox="0 0 {width} {height}" role="img" aria-label="Shares of the values from '
        f'{escape(_short(low))} to {escape(_short(shape.edges[-1]))}; the table below has them">'
        f'<polygon class="reference" points="0,{base} {steps(shape.reference)} {width},{base}"/>'
        f'<polyline class="current" points="0,{base} {steps(shape.current)} {width},{base}"/>'
        f'<line class="axis" x1="0" x2="{width}" y1="{base}" y2="{base}"/>'
        f'<text x="0" y="{height - 3}">{escape(_short(low))}</text>'
        f'<text x="{width}" y="{height - 3}" text-anchor="end">{escape(_short(shape.edges[-1]))}</text></svg>'
    )


def bar(part: float | None, most: float, kind: str) -> Markup:
    """A share of `most` as a bar; `kind` is a class."""
    length = 0.0 if part is None or most <= 0 else min(1.0, max(0.0, part / most)) * 100
    return Markup(
        f'<svg class="bar {escape(kind)}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{length:.1f}" height="8"/></svg>'
    )


def interval(
    value: float | None, lower: float | None, upper: float | None, ends: tuple[float, float]
) -> Markup:
    """A value and its interval on a line from `ends[0]` to `ends[1]`."""
    if value is None:
        return Markup("")
    span = (ends[1] - ends[0]) or 1.0

    def at(where: float) -> float:
        return min(198.0, max(2.0, (where - ends[0]) / span * 200))

    left, right = at(value if lower is None else lower), at(value if upper is None else upper)
    return Markup(
        f'<svg class="interval" viewBox="0 0 200 12" aria-hidden="true"><line x1="{left:.1f}" x2="{right:.1f}" y1="6" y2="6"/>'
        f'<circle cx="{at(value):.1f}" cy="6" r="4"/></svg>'
    )


def _short(value: float) -> str:
    return f"{value:.3g}"
