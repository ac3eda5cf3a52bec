"""What a monitor says of one window of one version. Values only; times are text as `core.clock` writes them."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from fairway.core.incident import Finding
from fairway.monitoring.drift.values import ColumnDrift
from fairway.monitoring.told import Anomaly, Fairness, Measured, QualityFinding, SliceMetrics, WorstSlice


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A column to draw. Numbers have `edges`, one more than `reference` and `current`, which are shares of the rows; others
    have `labels`, one for each share. `missing` are shares of rows too, of the reference and of the window."""

    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    reference: tuple[float, ...] = ()
    current: tuple[float, ...] = ()
    missing: tuple[float, float] = (0.0, 0.0)
    mean: tuple[float | None, float | None] = (None, None)


class ColumnReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    role: Literal["input", "output"]
    drift: ColumnDrift | None = None
    """None where it was not compared."""
    shape: Shape | None = None
    importance: float | None = None
    """Part of what the model heeds, 0 to 1."""


class Metric(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A metric beside what is usual for it. `alert`: it is outside."""

    measured: Measured
    usual: tuple[float, float] | None = None
    alert: bool = False


class Traffic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requests of a window and their latencies in seconds; who answered (live, precomputed, ...), by which protocol,
    behind which arm, rows each."""

    requests: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    sources: dict[str, int] = {}
    protocols: dict[str, int] = {}
    arms: dict[str, int] = {}


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A window with `start <= time < end`. `judged` are the kinds of findings that there were rows enough for; `notes` say
    what was not looked at, and why. `reference` says what it was compared with."""

    model: str
    version: int
    digest: str
    start: str
    end: str
    rows: int
    reference: str = ""
    drifted: bool = False
    columns: tuple[ColumnReport, ...] = ()
    multivariate: ColumnDrift | None = None
    quality: tuple[QualityFinding, ...] = ()
    violations: dict[str, int] = {}
    traffic: Traffic = Traffic()
    operations: tuple[Anomaly, ...] = ()
    estimates: tuple[Metric, ...] = ()
    labels: int = 0
    performance: tuple[Metric, ...] = ()
    slices: tuple[SliceMetrics, ...] = ()
    worst: tuple[WorstSlice, ...] = ()
    fairness: dict[str, Fairness] = {}
    judged: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


class Point(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A metric in a series."""

    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    usual: tuple[float, float] | None = None
    alert: bool = False


class Summary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What series are drawn from: small enough to read thousands at once. `effects` are of columns that were compared;
    `alerts` is how many metrics are outside of what is usual for them."""

    end: str
    rows: int
    requests: int = 0
    drifted: tuple[str, ...] = ()
    effects: dict[str, float] = {}
    quality: int = 0
    violations: int = 0
    p50: float | None = None
    p99: float | None = None
    sources: dict[str, int] = {}
    estimates: dict[str, Point] = {}
    labels: int = 0
    performance: dict[str, Point] = {}
    alerts: int = 0
    findings: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What happened at a server up to `end`: requests, of which it failed some; the fullest that the queue was seen, 0 to 1."""

    end: str
    requests: float
    failed: float
    saturation: float


TOGETHER = "(together)"
"""Stands among the drifted columns of a summary for drift that no single column shows."""


def summary_of(report: Report) -> Summary:
    drifted = [c.name for c in report.columns if c.drift is not None and c.drift.drifted]
    if report.multivariate is not None and report.multivariate.drifted:
        drifted.append(TOGETHER)
    return Summary(
        end=report.end,
        rows=report.rows,
        requests=report.traffic.requests,
        drifted=tuple(drifted),
        effects={
            c.name: round(c.drift.effect, 4)
            for c in report.columns
            if c.drift is not None and c.drift.status == "compared" and math.isfinite(c.drift.effect)
        },
        quality=len(report.quality),
        violations=sum(report.violations.values()),
        p50=report.traffic.p50,
        p99=report.traffic.p99,
        sources=report.traffic.sources,
        estimates={metric.measured.name: _point(metric) for metric in report.estimates},
        labels=report.labels,
        performance={metric.measured.name: _point(metric) for metric in report.performance},
        alerts=sum(metric.alert for metric in (*report.estimates, *report.performance)),
        findings=len(report.findings),
    )


def _point(metric: Metric) -> Point:
    told, usual = metric.measured, metric.usual
    return Point(
        _short(told.value),
        _short(told.lower),
        _short(told.upper),
        None if usual is None else (float(f"{usual[0]:.6g}"), float(f"{usual[1]:.6g}")),
        metric.alert,
    )


def _short(value: float | None) -> float | None:
    """As exact as anyone reads it: digits are most of what a summary weighs."""
    return None if value is None else float(f"{value:.6g}")
