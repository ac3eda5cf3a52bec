"""Charts as SVG, for pages without scripts. Pure.

Classes, not colours: the style sheet knows light from dark. Numbers stand in the table behind each chart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from fairway.control.web.dashboard.charts import Chart, Line, Unit
from fairway.control.web.dashboard.words import number, rate, seconds, share

WIDTH, HEIGHT = 520, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 8, 8, 22
_TICKS = 4

_SVG = Markup(
    '<svg class="drawn" viewBox="0 0 {} {}" role="img" aria-label="{}; its figures are in the table below">{}</svg>'
)
_POLYLINE = Markup('<polyline class="{}" points="{}"/>')
_AREA = Markup('<polygon class="{}" points="{}"/>')
_DOT = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>')
_RULE = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')

Values = Sequence[float | None]


def draw(chart: Chart) -> Markup:
    """Lines with their intervals, what is usual, points outside of it, and when incidents opened. Empty for a chart
    without a value."""
    known = [
        value
        for line in chart.lines
        for value in (*line.values, *line.lower, *line.upper)
        if value is not None
    ]
    if not known or not chart.times:
        return Markup("")
    usual = [value for value in (*chart.usual_lower, *chart.usual_upper) if value is not None]
    place = _Place(chart.times, ticks([*known, *usual], zero=chart.zero, whole=chart.unit == "count"))
    return _SVG.format(WIDTH, HEIGHT, chart.name, Markup("").join(_parts(chart, place)))


def ticks(values: Sequence[float], *, zero: bool, whole: bool = False) -> list[float]:
    """Round numbers, at most six, the first at or below all values and the last at or above; `whole` ones for what is counted."""
    low, high = min(values), max(values)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        low, high = (
            (low, high + 1.0)
            if zero
            else (low - max(abs(low), 1.0) * 0.05, high + max(abs(high), 1.0) * 0.05)
        )
    raw = high / _TICKS - low / _TICKS
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * nice for nice in (1, 2, 2.5, 5, 10) if size * nice >= raw * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * index for index in range(first, last + 1)]


class _Place:
    """Where times and values are drawn."""

    def __init__(self, times: Sequence[float], marks: Sequence[float]) -> None:
        self.ticks = marks
        self._first, self._span = times[0], (times[-1] - times[0]) or 1.0
        self._low, self._range = marks[0], (marks[-1] - marks[0]) or 1.0

    def x(self, time: float) -> float:
        return _LEFT + (time - self._first) / self._span * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (value - self._low) / self._range * (HEIGHT - _TOP - _BOTTOM)

    def text(self, times: Sequence[float], values: Sequence[float]) -> str:
        return " ".join(f"{self.x(t):.1f},{self.y(v):.1f}" for t, v in zip(times, values, strict=True))


def _parts(chart: Chart, place: _Place) -> Iterator[Markup]:
    times = chart.times
    yield from _axes(chart, place)
    yield from _bands("usual", times, chart.usual_lower, chart.usual_upper, place)
    for line in chart.lines:
        yield from _bands(f"band {line.role}", times, line.lower, line.upper, place)
    for mark in chart.marks:
        if times[0] <= mark.at <= times[-1]:
            at = place.x(mark.at)
            yield _RULE.format("mark", at, at, _TOP, HEIGHT - _BOTTOM)
    for line in chart.lines:
        yield from _line(line, times, place)


def _axes(chart: Chart, place: _Place) -> Iterator[Markup]:
    for tick in place.ticks:
        at = place.y(tick)
        yield _RULE.format("grid", _LEFT, WIDTH - _RIGHT, at, at)
        yield _TEXT.format(_LEFT - 6, at + 4, "end", shown(tick, chart.unit, place.ticks[1] - place.ticks[0]))
    span = chart.times[-1] - chart.times[0]
    style = "%H:%M:%S" if span < 600 else "%H:%M" if span < 129_600 else "%-d %b" if span < 3e7 else "%b %Y"
    for index, anchor in ((0, "start"), (len(chart.times) // 2, "middle"), (len(chart.times) - 1, "end")):
        if index or anchor == "start":
            moment = datetime.fromtimestamp(chart.times[index], UTC)
            yield _TEXT.format(place.x(chart.times[index]), HEIGHT - 5, anchor, moment.strftime(style))


def _bands(
    kind: str, times: Sequence[float], lower: Values, upper: Values, place: _Place
) -> Iterator[Markup]:
    for piece in _pieces(times, lower, upper):
        if len(piece) > 1:
            there = place.text([t for t, _, _ in piece], [high for _, _, high in piece])
            back = place.text([t for t, _, _ in reversed(piece)], [low for _, low, _ in reversed(piece)])
            yield _AREA.format(kind, f"{there} {back}")
        else:
            [(time, low, high)] = piece
            yield _RULE.format(f"single {kind}", place.x(time), place.x(time), place.y(low), place.y(high))


def _line(line: Line, times: Sequence[float], place: _Place) -> Iterator[Markup]:
    for piece in _pieces(times, line.values, line.values):
        if len(piece) > 1:
            yield _POLYLINE.format(
                f"line {line.role}", place.text([p[0] for p in piece], [p[1] for p in piece])
            )
        else:
            yield _DOT.format(f"dot {line.role}", place.x(piece[0][0]), place.y(piece[0][1]), 2.2)
    for time, value, alert in zip(times, line.values, line.alert, strict=False):
        if alert and value is not None:
            yield _DOT.format("alert", place.x(time), place.y(value), 3.4)


def _pieces(times: Sequence[float], lower: Values, upper: Values) -> list[list[tuple[float, float, float]]]:
    """Stretches without gaps."""
    found: list[list[tuple[float, float, float]]] = [[]]
    for time, low, high in zip(times, lower, upper, strict=False):
        if low is None or high is None:
            if found[-1]:
                found.append([])
        else:
            found[-1].append((time, low, high))
    return [piece for piece in found if piece]


def shown(value: float, unit: Unit, step: float) -> str:
    """A value of an axis whose values are `step` apart."""
    if value == 0:
        return "0"
    if unit == "share":
        return share(value)
    if unit == "seconds":
        return seconds(value)
    if unit == "rate":
        return rate(value)
    if step > 1e-6 and abs(value) < 1e9:
        decimals = next(d for d in range(8) if math.isclose(round(step, d), step, rel_tol=1e-6) or d == 7)
        return f"{value:,.{decimals}f}"
    return number(float(f"{value:.6g}"))
