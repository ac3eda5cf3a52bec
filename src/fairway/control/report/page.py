"""The file. It has no scripts, asks for nothing from anywhere, and its policy says so to the browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from fairway.control.report.drawing import draw
from fairway.control.report.gathered import Gathered
from fairway.control.web.dashboard.charts import (
    Chart,
    bar,
    histogram,
    interval,
    metric_chart,
    simple,
    spark,
    wake,
)
from fairway.control.web.dashboard.seen import ranked
from fairway.control.web.dashboard.series import Bucket, buckets, largest_effects, metric_names
from fairway.control.web.dashboard.words import FILTERS
from fairway.core.release import VERSION
from fairway.monitoring.told import Measured
from fairway.monitoring.watch.values import ColumnReport, Report
from fairway.monitoring.words import bounded, metric

_HERE = Path(__file__).parent
_WEB = _HERE.parent / "web"
_DARK = ':root[data-theme="dark"]'
_POINTS = 120
"""Points of a chart: a file of charts without scripts cannot be zoomed into."""
_SPARK = 90
_FIGURES = 120
"""Rows of the table behind a chart."""
_COLUMNS = 300
"""Columns that are drawn; those that drifted come first."""
_METRICS = 12
_SLICES = 200
_RATES = (
    ("selection_rate", "Chosen"),
    ("true_positive_rate", "True positives"),
    ("false_positive_rate", "False positives"),
)

_templates = Environment(
    loader=FileSystemLoader([_HERE, _WEB / "templates"]),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(FILTERS)


class Drawn(msgspec.Struct, frozen=True):
    """A chart, and its drawing."""

    chart: Chart
    svg: Markup


class Card(msgspec.Struct, frozen=True):
    """A column, and its effect in the windows, the oldest first."""

    column: ColumnReport
    effects: tuple[float | None, ...]


def render(told: Gathered) -> str:
    """HTML."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _templates.get_template("report.html").render(
        told=told,
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        version=VERSION,
        **_values(told),
    )


def _style() -> str:
    """The dashboard's; light or dark as the reader's system is, for want of a script that could ask."""
    text = (_WEB / "static" / "control.css").read_text(encoding="utf-8")
    start = text.index(_DARK)
    end = text.index("}", start) + 1
    dark = text[start:end].replace(_DARK, ":root")
    own = (_HERE / "report.css").read_text(encoding="utf-8")
    return f"{text[:start]}@media (prefers-color-scheme: dark) {{ {dark} }}{text[end:]}\n{own}"


def _values(told: Gathered) -> dict[str, Any]:
    points = buckets(told.windows, _POINTS)
    few = buckets(told.windows, _SPARK)
    report = told.report
    summaries = [seen.summary for seen in told.windows]
    groups = (
        told.labelled
        if report is not None and not (report.slices or report.worst or report.fairness)
        else report
    )
    groups = groups or report
    columns = () if report is None else ranked(report)
    return {
        "report": report,
        "groups": groups,
        "wake": wake(points, 96),
        "open": [incident for incident in told.incidents if incident.state == "open"],
        "rows": sum(summary.rows for summary in summaries),
        "requests": sum(summary.requests for summary in summaries),
        "labels": sum(summary.labels for summary in summaries),
        "traffic": [_drawn(chart) for chart in _traffic(points, told)],
        "over_time": [_drawn(chart) for chart in _drift(points, told)],
        "cards": [
            Card(column, effects)
            for column, effects in zip(columns, largest_effects(few, columns[:_COLUMNS]), strict=False)
        ],
        "columns": columns,
        "drifted": [c for c in columns if c.drift is not None and c.drift.drifted],
        "metrics": [_drawn(chart) for chart in _metrics(points, told)],
        "latest": _latest(told),
        "quality": [_drawn(chart) for chart in _quality(points, told)],
        "violations": sorted((report.violations if report else {}).items(), key=lambda pair: -pair[1])[
            :_SLICES
        ],
        "slice_metrics": _slice_metrics(groups),
        "most_slices": _SLICES,
        "most_columns": _COLUMNS,
        "figures": _FIGURES,
        "rates": _RATES,
        "histogram": histogram,
        "spark": spark,
        "bar": bar,
        "interval": interval,
        "bounded": bounded,
    }


def _drawn(chart: Chart) -> Drawn:
    return Drawn(chart, draw(chart))


def _traffic(points: Sequence[Bucket], told: Gathered) -> tuple[Chart, ...]:
    return (
        simple("Traffic", "rate", points, ("Requests", "main", lambda p: p.rate), marks=told.marks),
        simple(
            "Latency",
            "seconds",
            points,
            ("p99, the highest of the windows", "main", lambda p: p.most(lambda s: s.p99)),
            ("Median", "estimate", lambda p: p.mean(lambda s: s.p50)),
            marks=told.marks,
        ),
    )


def _drift(points: Sequence[Bucket], told: Gathered) -> tuple[Chart, ...]:
    return (
        simple(
            "Columns that drifted",
            "count",
            points,
            ("In one window", "main", _most_drifted),
            marks=told.marks,
        ),
        simple("Rows", "count", points, ("Rows", "main", lambda p: float(p.rows)), marks=told.marks),
    )


def _most_drifted(point: Bucket) -> float | None:
    return None if point.rows == 0 else float(max(len(window.summary.drifted) for window in point.windows))


def _quality(points: Sequence[Bucket], told: Gathered) -> tuple[Chart, ...]:
    return (
        simple(
            "Findings", "count", points, ("In one window", "main", lambda p: p.most(lambda s: float(s.quality))),
            marks=told.marks,
        ),
        simple(
            "Rows that break the contract",
            "count",
            points,
            ("Rows", "main", lambda p: float(sum(window.summary.violations for window in p.windows))),
            marks=told.marks,
        ),
    )  # fmt: skip


def _metrics(points: Sequence[Bucket], told: Gathered) -> list[Chart]:
    return [
        metric_chart(name, metric(name), points, told.marks) for name in metric_names(told.windows)[:_METRICS]
    ]


def _latest(told: Gathered) -> list[tuple[str, Any, Any]]:
    """By metric, the last measured and the last estimated point."""

    def last(of: str, name: str) -> Any:
        found = (getattr(seen.summary, of).get(name) for seen in reversed(told.windows))
        return next((point for point in found if point is not None), None)

    return [(name, last("performance", name), last("estimates", name)) for name in metric_names(told.windows)]


def _slice_metrics(report: Report | None) -> list[tuple[str, tuple[float, float]]]:
    """Metrics that slices are told by, and where their line begins and ends."""
    if report is None or not report.slices:
        return []
    found = []
    for name in [told.name for told in report.slices[0].metrics[:4]]:
        ends = [v for part in report.slices for m in part.metrics if m.name == name for v in _known(m)]
        found.append((name, (min(ends), max(ends)) if ends else (0.0, 1.0)))
    return found


def _known(measured: Measured) -> list[float]:
    return [v for v in (measured.value, measured.lower, measured.upper) if v is not None]
