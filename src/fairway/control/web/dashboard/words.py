"""Numbers and times as people read them. Pure; the filters of templates."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from markupsafe import Markup, escape

from fairway.core.clock import moment_of
from fairway.monitoring.watch.values import ColumnReport
from fairway.monitoring.words import metric, prediction, rule

_DASH = "–"


def number(value: float | None) -> str:
    """Three significant digits, or all before the point."""
    if value is None or math.isnan(value):
        return _DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    if size >= 0.001:
        return f"{value:.3f}"
    return f"{value:.1e}"


def share(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return _DASH
    return f"{value:.0%}" if value in (0, 1) or abs(value) >= 0.1 else f"{value:.1%}"


def probability(value: float | None) -> str:
    """A p-value."""
    if value is None or math.isnan(value):
        return _DASH
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}" if value < 0.1 else f"p = {value:.2f}"


def seconds(value: float | None) -> str:
    """Such as 830 µs, 4.2 ms, 1.3 s, 5 min, 3 h, 12 d."""
    if value is None or not math.isfinite(value):
        return _DASH
    value = float(f"{value:.2g}") if abs(value) < 120 else value
    for limit, unit, factor in (
        (0.001, "µs", 1e6), (1, "ms", 1e3), (120, "s", 1.0), (7200, "min", 1 / 60), (172_800, "h", 1 / 3600),
    ):  # fmt: skip
        if abs(value) < limit:
            return f"{float(f'{value * factor:.2g}'):g} {unit}" if value else "0 s"
    return f"{value / 86_400:,.0f} d"


def rate(per_second: float | None) -> str:
    """Requests, in the unit that gives a number from 1 on."""
    if per_second is None:
        return _DASH
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if per_second * factor >= 1:
            return f"{number(per_second * factor)} / {unit}"
    return f"{number(per_second * 86_400)} / d" if per_second else "none"


def when(text: str) -> str:
    """Such as 21 Nov 18:05, UTC; with the year where it is another one."""
    moment = _moment(text)
    if moment is None:
        return text or _DASH
    style = "%-d %b %H:%M" if moment.year == datetime.now(UTC).year else "%-d %b %Y %H:%M"
    return moment.strftime(style)


def exact(text: str) -> str:
    moment = _moment(text)
    return (text or _DASH) if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(text: str) -> str:
    moment = _moment(text)
    if moment is None:
        return _DASH
    passed = (datetime.now(UTC) - moment).total_seconds()
    return (
        f"{seconds(float(round(passed)))} ago"
        if passed >= 1
        else "now"
        if passed > -1
        else f"in {seconds(-passed)}"
    )


def clock(at: float) -> str:
    """Seconds since 1970 as `when` writes times, with seconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%-d %b %Y %H:%M:%S")


def short_digest(text: str) -> str:
    return text.removeprefix("sha256:")[:12]


def column(told: ColumnReport) -> str:
    """An input by its name; an output as what it is, such as Predicted probability of True."""
    return told.name if told.role == "input" else f"P{prediction(told.name)[5:]}"


def code(text: str) -> Markup:
    """Text whose commands stand between backquotes; all of it is escaped."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def _moment(text: str) -> datetime | None:
    try:
        return moment_of(text).astimezone(UTC)
    except (ValueError, TypeError):
        return None


FILTERS = {
    "number": number,
    "share": share,
    "probability": probability,
    "seconds": seconds,
    "rate": rate,
    "metric": metric,
    "rule": rule,
    "code": code,
    "column": column,
    "when": when,
    "exact": exact,
    "ago": ago,
    "clock": clock,
    "short_digest": short_digest,
}
