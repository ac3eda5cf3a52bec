"""Incidents in words: one line, one sentence a finding, the three likeliest causes, how bad it is, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from fairway.core.incident import Finding, Incident, Kind, Likely, Signal, rank
from fairway.core.listing import listed
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
_OF_ALL = {"volume": "the number of rows", "freshness": "the newest rows"}
"""What checks of no one column are about."""
KINDS: dict[str, str] = {kind: without for kind, (_, without) in _KINDS.items()}
"""What kinds of findings are called."""


def likeliest(signals: Iterable[Signal]) -> tuple[Likely, ...]:
    """The three findings that explain most, one a column: causes before symptoms, then by severity, columns before traffic, by weight
    (importance times size times estimated loss), and by how small the p-value is."""
    findings = sorted((signal.finding for signal in signals if signal.confirmed), key=_order)
    found: dict[tuple[str, str], Likely] = {}
    for finding in findings:
        found.setdefault(
            (finding.kind, finding.field),
            Likely(kind=finding.kind, field=finding.field, text=sentence(finding), weight=weight_of(finding)),
        )
    return tuple(found.values())[:_CAUSES]


def harm(incident: Incident) -> str:
    """How bad it is: what labels say of the model's performance, else what is estimated; empty where it is as usual."""
    signals = [signal for signal in incident.signals if signal.confirmed and not signal.clean]
    for kind in ("performance", "estimate"):
        found = [s.finding for s in signals if s.finding.kind == kind and rank(s.finding.severity) > 0]
        if found:
            return sentence(min(found, key=_familiar))
    return ""


def advice(incident: Incident) -> tuple[str, ...]:
    """What to do, the most urgent first."""
    kinds: set[Kind] = {
        signal.finding.kind
        for signal in incident.signals
        if signal.confirmed and rank(signal.finding.severity) > 0
    }
    column = next(
        (cause.field for cause in incident.causes if cause.kind in ("drift", "quality") and cause.field), ""
    )
    about = subject_of("drift", column) if column else "the data"
    if "performance" in kinds:
        kinds.discard("estimate")
    return tuple(text.format(about) for kind, text in _ADVICE if kind in kinds)


_ADVICE: tuple[tuple[Kind, str], ...] = (
    ("operations", "See what the server is short of: `fairway doctor`."),
    ("log", "Give the prediction log room, or keep fewer days of it."),
    ("quality", "Ask whoever sends {} what has changed, and have it mended there."),
    ("drift", "Find out whether the change of {} is here to stay. If it is, train again on newer rows."),
    ("performance", "Labels prove the loss: train again on newer rows, or give the traffic back to the version before (`fairway rollback`)."),
    ("estimate", "The loss is an estimate so far: send labels to be sure (`fairway feedback`)."),
    ("fairness", "Look at the groups on the page of slices before anything is decided by these predictions."),
    ("answers", "Precompute the answers again: `fairway precompute`."),
    ("external", "Ask whoever runs the check that found it."),
)  # fmt: skip
_FAMILIAR = ("accuracy", "roc_auc", "f1", "rmse", "mae", "log_loss")


def _familiar(finding: Finding) -> tuple[int, str]:
    """Metrics that most people know come first."""
    place = _FAMILIAR.index(finding.field) if finding.field in _FAMILIAR else len(_FAMILIAR)
    return place + 100 * bool(finding.slice), finding.field


def weight_of(finding: Finding) -> float:
    return abs(finding.weight if finding.weight is not None else finding.effect or 0.0)


def _order(finding: Finding) -> tuple[object, ...]:
    p_value = 1.0 if finding.p_value is None else finding.p_value
    return (
        finding.kind in _SYMPTOMS,
        -rank(finding.severity),
        # How many rows came, and how quickly they were answered, explains no columns and no worse answers.
        finding.kind == "operations" or (finding.kind == "quality" and not finding.field),
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
    findings = [signal.finding for signal in incident.signals if signal.confirmed]
    serious = [finding for finding in findings if rank(finding.severity) > 0]
    for finding in sorted(serious or findings, key=_in_title):
        fields = kinds.setdefault(finding.kind, [])
        named = subject_of(finding.kind, finding.field) or _OF_ALL.get(finding.statistic, "")
        if named and named not in fields:
            fields.append(named)
    parts = [
        _KINDS[kind][0].format(listed(fields, _TITLE_FIELDS)) if fields else _KINDS[kind][1]
        for kind, fields in kinds.items()
    ]
    return f"{subject(incident.model, incident.version)}: {'; '.join(parts)}"[:300]


def _in_title(finding: Finding) -> tuple[object, ...]:
    """As causes are ordered, but of metrics those that most people know come first."""
    if finding.kind not in _SYMPTOMS:
        return False, "", *_order(finding)
    return True, finding.kind, *_familiar(finding)
