"""What monitors say of a window: metrics, slices, groups, quality, operations. Values only, light to import: pages are drawn
from them by processes that have neither numpy nor scipy."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

LIMIT = 4.0
"""Robust deviations at which a value is an anomaly at the least."""


Check = Literal[
    "violations", "missing", "new categories", "range", "infinite", "freshness", "volume", "absent"
]


class Measured(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One metric of one window.

    `lower` and `upper` hold the true value with the confidence asked for (95% by default); for an estimate they
    hold what the metric of these very rows will turn out to be once their labels come. None where it cannot be
    said, and `note` says why. `rows` are those it was worked out from. `error` is the standard error.
    """

    name: str
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    rows: int = 0
    error: float | None = None
    estimated: bool = False
    note: str = ""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of a group's rows that were predicted positive: of all, of the positive, of the negative (each with its interval)."""

    name: str
    rows: int
    selection_rate: Measured
    true_positive_rate: Measured
    false_positive_rate: Measured


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    """`measures` by name: demographic_parity_difference and _ratio, equalized_odds_difference and _ratio,
    equal_opportunity_difference. Those of odds need labels."""

    groups: tuple[Group, ...]
    measures: dict[str, Measured]
    notes: tuple[str, ...] = ()


class Condition(msgspec.Struct, frozen=True):
    """Such as region = north, 18 <= age < 30, income is null."""

    feature: str
    text: str


class SliceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one slice; `share` of the window's rows."""

    conditions: tuple[Condition, ...]
    rows: int
    share: float
    metrics: tuple[Measured, ...]


class WorstSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A slice with a mean loss above that of the rows outside it.

    `excess` is the difference, `lower` its least value with the confidence of the search, `p_value` corrected for all
    slices that were tested.
    """

    conditions: tuple[Condition, ...]
    rows: int
    share: float
    loss: float
    elsewhere: float
    excess: float
    lower: float
    p_value: float

    @property
    def name(self) -> str:
        return " and ".join(condition.text for condition in self.conditions)


class WorstSlices(msgspec.Struct, frozen=True, kw_only=True):
    """The worst first; empty when none is worse beyond chance. `tested` slices were looked at."""

    found: tuple[WorstSlice, ...]
    tested: int
    rows: int
    notes: tuple[str, ...] = ()


class QualityFinding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong. `value` is what was seen and `expected` what should have been, shares of rows (0 to 1) but for
    `freshness` (seconds) and `volume` (rows). `field` is empty for the window as a whole. `p_value` is None for limits."""

    check: Check
    field: str
    value: float
    expected: float
    text: str
    p_value: float | None = None
    examples: tuple[str, ...] = ()
    rule: str = ""
    """Of `violations`, the rule of the contract that was broken, such as on_range."""


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """`findings` in the order of the columns, those of the whole window last. `checked` counts the checks made."""

    rows: int
    findings: tuple[QualityFinding, ...]
    checked: int

    @property
    def failed(self) -> bool:
        return bool(self.findings)


class Measure(enum.StrEnum):
    """What a series is of, and which way is bad."""

    traffic = "traffic"  # requests in a step; too few and too many
    latency = "latency"  # seconds, such as p99; too long
    errors = "errors"  # failed requests in a step, with the number of all requests; too many
    saturation = "saturation"  # share in use, 0..1; too much


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """The last value of a series, judged. `expected`, `lower` and `upper` are in the value's own unit (errors: a share);
    `score` is the distance in robust deviations, `limit` where it becomes an anomaly. `rhythm` is none, day or week.
    Without `anomalous` there may be a `note` why nothing could be said."""

    measure: Measure
    value: float
    anomalous: bool = False
    expected: float | None = None
    lower: float | None = None
    upper: float | None = None
    score: float | None = None
    limit: float = LIMIT
    rhythm: str = "none"
    note: str = ""
