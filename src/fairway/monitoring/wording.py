"""Incidents in words: one line, one sentence a finding, and the three likeliest causes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from fairway.core.incident import Finding, Incident, Kind, Likely, Signal, rank
from fairway.monitoring.words import subject_of

_CAUSES = 3
_SYMPTOMS = ("performance", "estimate", "fairness")
"""What goes wrong because something else did; what went wrong before it ranks first among the causes."""
_TITLE_FIELDS = 2
_KINDS: dict[Kind, tuple[str, str]] = {
    "drift": ("drift in {}", "drift"),
    "quality": ("data quality of {}", "data quality"),
    "performance": ("performance ({})", "performance"),
    "estimate": ("estimated performance ({})", "estimated performance"),
    "fairness": ("fairness between groups of {}", "fairness"),
    "operations": ("operations ({})", "operations"),
    "log": ("prediction log ({})", "prediction log"),
    "answers": ("precomputed answers ({})", "precomputed answers"),
    "external": ("external check ({})", "external check"),
}
"""In titles, with and without what it is about."""


def likeliest(signals: Iterable[Signal]) -> tuple[Likely, ...]:
    """The three findings that explain most, one a column: causes before symptoms, then by severity, by weight
    (importance times size times estimated loss), and by how small the p-value is."""
    findings = sorted((signal.finding for signal in signals if signal.confirmed), key=_order)
    found: dict[tuple[str, str], Likely] = {}
    for finding in findings:
        found.setdefault(
            (finding.kind, finding.field),
            Likely(kind=finding.kind, field=finding.field, text=sentence(finding), weight=weight_of(finding)),
        )
    return tuple(found.values())[:_CAUSES]


def weight_of(finding: Finding) -> float:
    return abs(finding.weight if finding.weight is not None else finding.effect or 0.0)


def _order(finding: Finding) -> tuple[object, ...]:
    p_value = 1.0 if finding.p_value is None else finding.p_value
    return (
        finding.kind in _SYMPTOMS,
        -rank(finding.severity),
        -weight_of(finding),
        p_value,
        finding.kind,
        finding.field,
        finding.slice,
        finding.arm,
        finding.statistic,
    )


def sentence(finding: Finding) -> str:
    """`text`, or what the numbers say."""
    if finding.text:
        return finding.text
    what = f"{finding.kind} of {finding.field}" if finding.field else finding.kind
    where = "".join(f" in {part}" for part in (finding.slice, finding.arm and f"arm {finding.arm}") if part)
    measure = ""
    if finding.value is not None:
        measure = f": {finding.statistic or 'value'} {finding.value:.4g}"
        if finding.threshold is not None:
            measure += f" (threshold {finding.threshold:.4g})"
    notes = [f"effect {finding.effect:.3g}"] if finding.effect is not None else []
    notes += [f"p = {finding.p_value:.2g}"] if finding.p_value is not None else []
    return what + where + measure + (f", {', '.join(notes)}" if notes else "")


def subject(model: str, version: int) -> str:
    if not model:
        return "server"
    return f"{model}:{version}" if version else model


def title(incident: Incident) -> str:
    """Such as `payments:3: drift in amount, country and 4 more; performance (ROC AUC)`."""
    kinds: dict[Kind, list[str]] = {}
    for finding in sorted((signal.finding for signal in incident.signals if signal.confirmed), key=_order):
        fields = kinds.setdefault(finding.kind, [])
        named = subject_of(finding.kind, finding.field)
        if named and named not in fields:
            fields.append(named)
    parts = [
        _KINDS[kind][0].format(_listed(fields)) if fields else _KINDS[kind][1]
        for kind, fields in kinds.items()
    ]
    return f"{subject(incident.model, incident.version)}: {'; '.join(parts)}"[:300]


def _listed(fields: list[str]) -> str:
    shown = ", ".join(fields[:_TITLE_FIELDS])
    more = len(fields) - _TITLE_FIELDS
    return f"{shown} and {more} more" if more > 0 else shown
