"""Plots as lines of text. Time upwards is logarithmic: a stall of a second and a median of a millisecond are both seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from fairway.bench.report import Report

_MARKS = ".o^"
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def plots(report: Report, width: int = 78, height: int = 10) -> list[str]:
    """Latency over percentiles, and over time."""
    longest = 4 + math.log10(max(report.ok, 1) / 1e4) if report.ok < 10_000 else 4.0
    curve = [(_nines(share, longest), seconds) for share, seconds in report.curve if seconds > 0]
    moments = [moment for moment in report.over_time if moment.max > 0]
    over_time = [
        [(moment.at, moment.p50) for moment in moments],
        [(moment.at, moment.p99) for moment in moments],
        [(moment.at, moment.max) for moment in moments],
    ]
    if not curve or not moments:
        return []
    ticks = [(_nines(share, longest), _percent(share)) for share in _NINES if share < 1 - 10**-longest]
    times = [(place, f"{place:.3g} s") for place in _steps(0.0, max(m.at for m in moments), 6)]
    return [
        "latency by percentile",
        *chart([_filled(curve, width)], ticks, width, height),
        "",
        "latency over time   . p50   o p99   ^ max",
        *chart(over_time, times, width, height),
    ]


def _nines(share: float, longest: float) -> float:
    """Equal room for each nine: 0 at 0 %, 1 at 90 %, 2 at 99 %."""
    return min(-math.log10(1 - share), longest) if share < 1 else longest


def _percent(share: float) -> str:
    return f"{share * 100:g}%"


def _filled(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """A line through the points: one point a column."""
    found = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        steps = max(1, round(width * (x1 - x0) / max(points[-1][0] - points[0][0], 1e-12)))
        found += [
            (x0 + (x1 - x0) * i / steps, math.exp(math.log(y0) + (math.log(y1) - math.log(y0)) * i / steps))
            for i in range(steps)
        ]
    return [*found, points[-1]]


def chart(
    series: Sequence[Sequence[tuple[float, float]]],
    ticks: Sequence[tuple[float, str]],
    width: int,
    height: int,
    label: Callable[[float], str] | None = None,
) -> list[str]:
    """Points (x, y > 0) as marks, one kind a series, later ones on top of earlier ones only where nothing stands; the
    y axis is logarithmic, `ticks` label the x axis."""
    label = label or duration
    xs = [x for points in series for x, _ in points]
    ys = [y for points in series for _, y in points]
    left, right = min(xs), max(xs)
    low, high = math.log(min(ys)), math.log(max(ys))
    if high - low < math.log(2):  # a flat line in the middle, not noise over the full height
        low, high = low - 0.35, high + 0.35
    grid = [[" "] * width for _ in range(height)]

    def column(x: float) -> int:
        return round((x - left) / (right - left) * (width - 1)) if right > left else 0

    for mark, points in zip(_MARKS, series, strict=False):
        for x, y in points:
            row = height - 1 - round((math.log(y) - low) / (high - low) * (height - 1))
            if grid[row][column(x)] == " ":
                grid[row][column(x)] = mark
    lines = []
    for row, marks in enumerate(grid):
        value = math.exp(high - (high - low) * row / (height - 1))
        shown = label(value) if row in (0, height // 2, height - 1) else ""
        lines.append(f"{shown:>9} |{''.join(marks).rstrip()}")
    lines.append(" " * 10 + "+" + "-" * width)
    axis = [" "] * (width + 12)
    for x, text in ticks:
        place = column(x)
        if left <= x <= right and all(c == " " for c in axis[max(place - 1, 0) : place + len(text) + 1]):
            axis[place : place + len(text)] = text
    lines.append(" " * 11 + "".join(axis).rstrip())
    return lines


def _steps(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two, `most` at most."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / most))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= most - 1)
    first = math.ceil(low / step)
    return [round(step * i, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def duration(seconds: float) -> str:
    """A time as a person reads it, three digits."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
