"""What monitors wrote, as far as pages show it.

The same values as `monitoring.watch.values`, which cannot be imported here: they bring numpy, scipy and pyarrow, 150 MB that
the control process does without. Fields that are not named here are passed over; tests hold the two together.
"""

from __future__ import annotations

import msgspec

from fairway.core.incident import Finding
from fairway.stores.windows import WatchedWindow


class Point(msgspec.Struct, frozen=True):
    value: float | None
    lower: float | None = None
    upper: float | None = None
    usual: tuple[float, float] | None = None
    alert: bool = False


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    end: str
    rows: int
    requests: int = 0
    drifted: tuple[str, ...] = ()
    effects: dict[str, float | None] = {}
    quality: int = 0
    violations: int = 0
    p50: float | None = None
    p99: float | None = None
    sources: dict[str, int] = {}
    estimates: dict[str, Point] = {}
    labels: int = 0
    performance: dict[str, Point] = {}
    findings: int = 0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    rows: int = 0
    estimated: bool = False
    note: str = ""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    measured: Measured
    usual: tuple[float, float] | None = None
    alert: bool = False


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    drifted: bool
    status: str = "compared"
    effect: float | None = 0.0
    measure: str = ""
    p_value: float | None = 1.0
    p_adjusted: float | None = 1.0
    test: str = ""
    statistic: float | None = 0.0
    effects: dict[str, float | None] = {}
    reference_rows: int = 0
    current_rows: int = 0
    new_categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    reference: tuple[float, ...] = ()
    current: tuple[float, ...] = ()
    missing: tuple[float, float] = (0.0, 0.0)
    mean: tuple[float | None, float | None] = (None, None)


class Column(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: str
    drift: Drift | None = None
    shape: Shape | None = None
    importance: float | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    check: str
    field: str
    value: float | None
    expected: float | None
    text: str
    p_value: float | None = None
    examples: tuple[str, ...] = ()


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    requests: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    sources: dict[str, int] = {}
    protocols: dict[str, int] = {}
    arms: dict[str, int] = {}


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    measure: str
    value: float | None
    anomalous: bool = False
    expected: float | None = None
    lower: float | None = None
    upper: float | None = None
    rhythm: str = "none"
    note: str = ""


class Condition(msgspec.Struct, frozen=True):
    feature: str
    text: str


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    conditions: tuple[Condition, ...]
    rows: int
    share: float
    metrics: tuple[Measured, ...]

    @property
    def name(self) -> str:
        return " and ".join(condition.text for condition in self.conditions) or "all rows"


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    conditions: tuple[Condition, ...]
    rows: int
    share: float
    loss: float
    elsewhere: float
    excess: float
    lower: float | None
    p_value: float | None

    @property
    def name(self) -> str:
        return " and ".join(condition.text for condition in self.conditions)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    rows: int
    selection_rate: Measured
    true_positive_rate: Measured
    false_positive_rate: Measured


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    groups: tuple[Group, ...]
    measures: dict[str, Measured]
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: int
    digest: str
    start: str
    end: str
    rows: int
    reference: str = ""
    drifted: bool = False
    columns: tuple[Column, ...] = ()
    multivariate: Drift | None = None
    quality: tuple[Quality, ...] = ()
    violations: dict[str, int] = {}
    traffic: Traffic = Traffic()
    operations: tuple[Anomaly, ...] = ()
    estimates: tuple[Metric, ...] = ()
    labels: int = 0
    performance: tuple[Metric, ...] = ()
    slices: tuple[Slice, ...] = ()
    worst: tuple[Worst, ...] = ()
    fairness: dict[str, Fairness] = {}
    judged: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ranked(self) -> tuple[Column, ...]:
        """Its columns: those that drifted first, then by effect times importance, where that is known."""

        def order(column: Column) -> tuple[bool, float, str]:
            drift = column.drift
            if drift is None:
                return True, 1.0, column.name
            heeded = 1.0 if column.importance is None else 0.05 + column.importance
            return not drift.drifted, -abs(drift.effect or 0.0) * heeded, column.name

        return tuple(sorted(self.columns, key=order))


_summary = msgspec.json.Decoder(Summary)
_report = msgspec.json.Decoder(Report)


def summary_in(window: WatchedWindow) -> Summary | None:
    """None for one that another Fairway wrote in a form that this one does not know."""
    try:
        return _summary.decode(window.summary)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def report_in(window: WatchedWindow | None) -> Report | None:
    """None where there is none, or none that can be read."""
    if window is None:
        return None
    try:
        return _report.decode(window.report)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
