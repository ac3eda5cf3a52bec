"""Performance: real as labels come, estimated before, over time; data quality; slices and fairness."""

from __future__ import annotations

from collections.abc import Sequence

from fairway.control.web.dashboard.charts import bar, interval, metric_chart, simple
from fairway.control.web.dashboard.frame import frame_of
from fairway.control.web.dashboard.seen import report_in
from fairway.control.web.dashboard.series import Seen, buckets, metric_names
from fairway.control.web.page import Page, Shown
from fairway.monitoring.told import Measured
from fairway.monitoring.watch.values import Report
from fairway.monitoring.words import bounded, metric

_CHARTS = 12
_SLICES = 60


def performance(page: Page) -> Shown:
    values = frame_of(page, "performance")
    frame = values["frame"]
    points = buckets(frame.windows)
    names = metric_names(frame.windows)
    latest = next((w for w in reversed(frame.windows) if w.summary.performance), None)
    return "performance.html", {
        **values,
        "charts": [metric_chart(name, metric(name), points, frame.marks) for name in names[:_CHARTS]],
        "latest": [
            (
                name,
                None if latest is None else latest.summary.performance.get(name),
                frame.windows[-1].summary.estimates.get(name) if frame.windows else None,
            )
            for name in names
        ],
        "labelled": latest,
        "bounded": bounded,
        "labels": sum(window.summary.labels for window in frame.windows),
    }


def quality(page: Page) -> Shown:
    values = frame_of(page, "quality")
    frame = values["frame"]
    points = buckets(frame.windows)
    return "quality.html", {
        **values,
        "charts": (
            simple(
                "Findings",
                "count",
                points,
                ("In one window, at most", "main", lambda point: point.most(lambda s: float(s.quality))),
                marks=frame.marks,
            ),
            simple(
                "Rows", "count", points, ("Rows", "main", lambda point: float(point.rows)), marks=frame.marks
            ),
        ),
        "violations": sorted(
            (frame.report.violations if frame.report else {}).items(), key=lambda pair: -pair[1]
        )[:_SLICES],
    }


def slices(page: Page) -> Shown:
    values = frame_of(page, "slices")
    frame = values["frame"]
    report = frame.report
    if report is not None and not (report.slices or report.worst or report.fairness):
        # Slices are known with labels, which come later than the latest window.
        report = _labelled(page, frame.windows) or report
    return "slices.html", {
        **values,
        "report": report,
        "names": [m.name for m in report.slices[0].metrics[:4]] if report and report.slices else [],
        "most_slices": _SLICES,
        "bar": bar,
        "interval": interval,
        "ends": _ends,
        "rates": _RATES,
    }


_RATES: tuple[tuple[str, str], ...] = (
    ("selection_rate", "Chosen"),
    ("true_positive_rate", "True positives"),
    ("false_positive_rate", "False positives"),
)


def _labelled(page: Page, windows: Sequence[Seen]) -> Report | None:
    """Of the latest window whose labels were enough."""
    key = next((window.key for window in reversed(windows) if window.summary.performance), None)
    return None if key is None else report_in(page.service.windows.window(key))


def _ends(measures: Sequence[Measured | None]) -> tuple[float, float]:
    """Where the line begins and ends that these are drawn on."""
    found = [
        value
        for measure in measures
        if measure is not None
        for value in (measure.value, measure.lower, measure.upper)
        if value is not None
    ]
    return (min(found), max(found)) if found else (0.0, 1.0)
