"""Is the data as it should be? One window's profile against the reference's, the contract and the clock.

Checks that compare rates ask for both: more than chance allows (the exact conditional test of two binomials, Fisher
1935) at a level shared by all checks (Bonferroni), and a change above a floor. Checks against the contract, the
clock and the history of volumes are limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
import numpy as np
from scipy import stats

from fairway.core.contract import Contract
from fairway.core.settings import QualitySettings
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.drift.sketches import ColumnSketch
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.told import Check, QualityFinding, QualityReport
from fairway.monitoring.words import duration, number, percent, quoted, rows
from fairway.packaging.profile import Profile as PackagedProfile


def check_quality(
    current: Profile,
    reference: Profile | PackagedProfile | None = None,
    *,
    contract: Contract | None = None,
    violations: Mapping[str, int] | None = None,
    violations_before: Mapping[str, int] | None = None,
    past_rows: Sequence[int] = (),
    latest: datetime | None = None,
    now: datetime | None = None,
    settings: QualitySettings | None = None,
    given: int | None = None,
) -> QualityReport:
    """`violations` are rows that broke a rule of the contract in this window, by `field rule`, and
    `violations_before` the same in the reference; `given` are the rows that had inputs (None: all); what another check says of a field is not told again by its rule. `past_rows` are the rows of earlier windows of the same length and
    season. `latest` is when the last row came (or else the largest timestamp in the window) and `now` the time it is."""
    settings = settings or QualitySettings()
    rates = _Rates(settings, max(1, 3 * len(current.columns) + len(violations or {})))
    findings: list[QualityFinding] = []
    for name in _expected(reference, contract):
        if name not in current.columns and (current.rows if given is None else given):
            text = f"{name} is gone: no row of this window has it."
            findings.append(QualityFinding(check="absent", field=name, value=1.0, expected=0.0, text=text))
    for name, sketch in current.columns.items():
        before = _before(reference, name)
        findings += rates.missing(name, sketch, before)
        findings += rates.infinite(name, sketch, before)
        findings += rates.categories(name, sketch, before)
        findings += rates.outside(name, sketch, before, contract)
    said = {(finding.check, finding.field) for finding in findings}
    for name, broken in (violations or {}).items():
        field, _, rule = name.rpartition(" ")
        if (_SAME.get(rule), field) in said:
            continue
        was = (violations_before or {}).get(name, 0)
        before_rows = reference.rows if reference is not None and violations_before is not None else 0
        text = f"{field} {_BROKEN.get(rule, _BREAKS)} in {{value}} of rows{{before}}."
        findings += rates.compare(
            "violations",
            field,
            broken,
            current.rows if given is None else given,
            was,
            before_rows,
            text,
            rule=rule,
        )
    findings += _freshness(current, latest, now, settings)
    findings += _volume(current.rows, past_rows, settings)
    return QualityReport(rows=current.rows, findings=tuple(findings), checked=rates.checked + 2)


_BREAKS = "breaks its contract"
_BROKEN = {
    "on_null": "is missing",
    "on_infinite": "is infinite",
    "on_range": "is outside the range of its contract",
    "on_outlier": "is far outside what is usual (its contract's outlier limits)",
    "on_category": "has a value that its contract does not list",
}
_SAME: dict[str, Check] = {
    "on_null": "missing", "on_infinite": "infinite", "on_range": "range", "on_category": "new categories",
}  # fmt: skip
"""Rules of a contract that ask what a check asks, too."""


class _Seen(msgspec.Struct, frozen=True):
    """What the reference says of one column."""

    rows: int
    missing: int
    infinite: int
    categories: Mapping[str, float] | None
    low: float | None
    high: float | None


def _expected(reference: Profile | PackagedProfile | None, contract: Contract | None) -> list[str]:
    if contract is not None:
        return [field.name for field in contract]
    if isinstance(reference, Profile):
        return list(reference.columns)
    return [field.name for field in reference.inputs] if reference is not None else []


def _before(reference: Profile | PackagedProfile | None, name: str) -> _Seen | None:
    if reference is None:
        return None
    if isinstance(reference, Profile):
        sketch = reference.columns.get(name)
        if sketch is None:
            return None
        known = sketch.categories()
        complete = sum(known.values()) + sketch.missing >= sketch.rows
        numbers = sketch.kind is Kind.number and not sketch.quantiles.is_empty()
        return _Seen(
            sketch.rows, sketch.missing, sketch.above + sketch.below, known if complete else None,
            sketch.quantiles.get_min_value() if numbers else None, sketch.quantiles.get_max_value() if numbers else None,
        )  # fmt: skip
    field = next((f for f in (*reference.inputs, *reference.outputs) if f.name == name), None)
    if field is None:
        return None
    named = {str(v).lower() if isinstance(v, bool) else str(v): float(c) for v, c in field.categories}
    return _Seen(
        field.rows,
        field.nulls,
        field.infinite,
        named if named and not field.other else None,
        field.minimum,
        field.maximum,
    )


class _Rates:
    """Shares of rows of the window against those of the reference."""

    def __init__(self, settings: QualitySettings, checks: int) -> None:
        self._settings = settings
        self._level = settings.alpha / checks
        self.checked = 0

    def compare(
        self, check: Check, name: str, rows: int, of: int, was: int, was_of: int, text: str,
        examples: tuple[str, ...] = (), rule: str = "",
    ) -> list[QualityFinding]:  # fmt: skip
        """More rows than before? Without rows before, `rate_floor` alone is the limit. `text` has a place for the share,
        `{value}`, and for what it was in the reference, `{before}`."""
        self.checked += 1
        if of < self._settings.min_rows or rows == 0:
            return []
        value, expected = rows / of, was / was_of if was_of else 0.0
        p = None
        if was_of:
            # Given all rows that are so, how many of them fall in this window by chance?
            p = float(stats.hypergeom.sf(rows - 1, of + was_of, rows + was, of))
            if p > self._level:
                return []
        if value - expected < self._settings.rate_floor:
            return []
        before = f"; in the reference it was {percent(expected)}" if was_of else ""
        said = text.replace("{value}", percent(value)).replace("{before}", before)
        return [
            QualityFinding(
                check=check,
                field=name,
                value=value,
                expected=expected,
                text=said,
                p_value=p,
                examples=examples,
                rule=rule,
            )
        ]

    def missing(self, name: str, sketch: ColumnSketch, before: _Seen | None) -> list[QualityFinding]:
        if before is None:
            return []
        text = f"{name} is missing in {{value}} of rows{{before}}."
        return self.compare("missing", name, sketch.missing, sketch.rows, before.missing, before.rows, text)

    def infinite(self, name: str, sketch: ColumnSketch, before: _Seen | None) -> list[QualityFinding]:
        infinite = sketch.above + sketch.below
        if before is None or not infinite:
            return []
        text = f"{name} is infinite in {{value}} of rows{{before}}."
        return self.compare("infinite", name, infinite, sketch.rows, before.infinite, before.rows, text)

    def categories(self, name: str, sketch: ColumnSketch, before: _Seen | None) -> list[QualityFinding]:
        """Categories that the reference never had."""
        if before is None or before.categories is None or sketch.kind is not Kind.category:
            return []
        new = {value: count for value, count in sketch.categories().items() if value not in before.categories}
        of_them = min(round(sum(new.values())), sketch.rows)
        ordered = sorted(new, key=lambda value: (-new[value], value))
        what = "a value" if len(new) == 1 else f"{len(new):,} values"
        text = f"{name} has {what} that the reference does not have, in {{value}} of rows: {quoted(ordered)}."
        # A reference of m rows misses categories as rare as 3 in m (the rule of three).
        return self.compare(
            "new categories", name, of_them, sketch.rows, 3, max(before.rows, 3), text, tuple(ordered[:10])
        )

    def outside(
        self, name: str, sketch: ColumnSketch, before: _Seen | None, contract: Contract | None
    ) -> list[QualityFinding]:
        """Numbers outside the contract's range, or else the reference's."""
        if sketch.kind is not Kind.number or sketch.quantiles.is_empty():
            return []
        field = next((f for f in contract or () if f.name == name), None)
        low = field.minimum if field is not None else before.low if before is not None else None
        high = field.maximum if field is not None else before.high if before is not None else None
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            return []
        below = sketch.quantiles.get_rank(low, False)
        above = 1.0 - sketch.quantiles.get_rank(high, True)
        beyond = round((below + above) * sketch.quantiles.n)
        reference = before.rows if before is not None else 0
        whose = "its contract" if field is not None else "the reference"
        text = (
            f"{name} is outside the range of {whose}, {number(low)} to {number(high)}, in {{value}} of rows."
        )
        # Two rows of the reference are its extremes: about two in m are to be expected beyond them.
        return self.compare("range", name, beyond, sketch.rows, 2 if reference else 0, reference, text)


def _freshness(
    current: Profile, latest: datetime | None, now: datetime | None, settings: QualitySettings
) -> list[QualityFinding]:
    if now is None or settings.stale_seconds <= 0:
        return []
    seconds = [sketch.latest / 1e6 for sketch in current.columns.values() if sketch.latest is not None]
    last = latest.timestamp() if latest is not None else max(seconds, default=None)
    if last is None:
        return []
    age = now.timestamp() - last
    if -settings.stale_seconds <= age <= settings.stale_seconds:
        return []
    told = (
        f"Nothing has come in for {duration(age)}."
        if age > 0
        else f"The last row is {duration(-age)} in the future: a clock is wrong."
    )
    return [
        QualityFinding(check="freshness", field="", value=age, expected=settings.stale_seconds, text=told)
    ]


def _volume(count: int, past: Sequence[int], settings: QualitySettings) -> list[QualityFinding]:
    """Far from the median of earlier windows: by `volume_deviations` robust standard deviations (median absolute deviation,
    Hampel 1974; never less than that of a Poisson count) and by a `volume_floor` part of it."""
    if len(past) < settings.volume_windows:
        return []
    usual = float(np.median(past))
    spread = max(1.4826 * float(np.median(np.abs(np.array(past) - usual))), math.sqrt(max(usual, 1.0)))
    if abs(count - usual) <= max(settings.volume_deviations * spread, settings.volume_floor * usual):
        return []
    text = f"The window has {rows(count)}; {usual:,.0f} are usual."
    return [QualityFinding(check="volume", field="", value=float(count), expected=usual, text=text)]
