"""`Report` -> the window of findings that incidents are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import msgspec

from fairway.core.incident import Finding, Kind, Window
from fairway.monitoring.causes import weighed
from fairway.monitoring.drift.persistence import OF, lasting_drift
from fairway.monitoring.drift.values import ColumnDrift
from fairway.monitoring.performance.findings import performance_findings, performance_loss
from fairway.monitoring.told import Anomaly, Fairness, Measure, QualityFinding, WorstSlice
from fairway.monitoring.watch.reference import Reference
from fairway.monitoring.watch.values import TOGETHER, ColumnReport, Metric, Report, Shape, Summary, summary_of
from fairway.monitoring.words import (
    begun,
    duration,
    number,
    percent,
    prediction,
    probability,
    quoted,
    rows,
)

_DISPARITY = 0.2
"""A difference between groups from which on it is a finding: the four-fifths rule, as a difference of shares."""
_MOST_WORST = 3
_NAME, _TEXT = 300, 2000
"""Most characters in `Finding`."""


def with_findings(report: Report, reference: Reference, history: Sequence[Summary], need: int) -> Report:
    """The report with all that is not as it should be. Drift weighs by what the model heeds and what is lost.

    A comparison that shows drift is a finding when `need` of three windows show it. `history` are the windows of the
    version so far, the oldest first."""
    measured = [*report.performance, *report.estimates]
    loss = performance_loss((metric.measured for metric in measured), reference.normal)
    findings = (
        *_drift(report, _lasting(report, history, need)),
        *(_quality(finding) for finding in report.quality),
        *_performance(report.estimates, reference),
        *(_performance(report.performance, reference) if "performance" in report.judged else ()),
        *(_worst(report.worst[:_MOST_WORST]) if _is_worse(report) else ()),
        *_fairness(report.fairness),
        *_operations(report.operations),
    )
    outputs = {column.name for column in report.columns if column.role == "output"}
    weighted = (
        msgspec.structs.replace(finding, weight=0.0)  # predictions move because inputs do
        if finding.kind == "drift" and finding.field in outputs
        else finding
        for finding in weighed(findings, reference.importance, loss)
    )
    return msgspec.structs.replace(report, findings=tuple(_fitting(finding) for finding in weighted))


def incident_window(report: Report, kinds: Iterable[str] | None = None) -> Window:
    """What alerts are told; of some kinds only, where the others were told before. What is only good to know (better than
    usual, say) is no incident by itself."""
    known = set(get_args(Kind))
    told = [kind for kind in (report.judged if kinds is None else kinds) if kind in known]
    chosen: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind in told)
    wrong = {finding.kind for finding in report.findings if finding.severity != "info"}
    return Window(
        model=report.model,
        version=report.version,
        digest=report.digest,
        start=report.start,
        end=report.end,
        kinds=chosen,
        findings=tuple(f for f in report.findings if f.kind in chosen and f.kind in wrong),
    )


def _fitting(finding: Finding) -> Finding:
    """No longer than what an incident can keep: names of columns and categories may be of any length."""
    names = {name: getattr(finding, name) for name in ("field", "slice", "arm", "statistic")}
    cut = {name: f"{text[: _NAME - 1]}…" for name, text in names.items() if len(text) > _NAME}
    if len(finding.text) > _TEXT:
        cut["text"] = f"{finding.text[: _TEXT - 1]}…"
    return msgspec.structs.replace(finding, **cut) if cut else finding


def _lasting(report: Report, history: Sequence[Summary], need: int) -> set[str]:
    before = [one for one in history if one.end <= report.start and (one.effects or one.drifted)]
    return lasting_drift([one.drifted for one in (*before[1 - OF :], summary_of(report))], need=need)


def _drift(report: Report, lasting: set[str]) -> Iterable[Finding]:
    for column in report.columns:
        drift = column.drift
        if drift is None or not drift.drifted or (drift.status == "compared" and column.name not in lasting):
            continue
        yield _of_column(drift, column)
    if report.multivariate is not None and report.multivariate.drifted and TOGETHER in lasting:
        yield Finding(
            kind="drift",
            field=TOGETHER,
            statistic=report.multivariate.measure,
            value=report.multivariate.effect,
            effect=report.multivariate.effect,
            p_value=report.multivariate.p_adjusted,
            text="; ".join(
                ("Columns go together in another way than they did, which no single one shows", *report.multivariate.notes[:1])
            ) + ".",
        )  # fmt: skip


def _of_column(drift: ColumnDrift, column: ColumnReport) -> Finding:
    name = column.name if column.role == "input" else prediction(column.name)
    if drift.status != "compared":
        return Finding(kind="drift", field=drift.name, text=begun(f"{name} is {drift.status}."))
    return Finding(
        kind="drift",
        field=drift.name,
        statistic=drift.measure,
        value=drift.effect,
        effect=drift.effect,
        p_value=drift.p_adjusted,
        text=begun(f"{_moved(name, drift, column.shape)} ({probability(drift.p_adjusted)})."),
    )


def _moved(name: str, drift: ColumnDrift, shape: Shape | None) -> str:
    """How far a column has moved from the reference, and what shows it best."""
    if drift.measure in ("wasserstein", "mean shift"):
        before, after = (None, None) if shape is None else shape.mean
        means = (
            "" if before is None or after is None else f", its mean from {number(before)} to {number(after)}"
        )
        return f"{name} has moved by {drift.effect:.2f} standard deviations{means}"
    if drift.measure == "total variation":
        shown = f"the mix of {name} has changed for {percent(drift.effect)} of rows"
        if shape is None or not shape.labels:
            return shown
        most = max(
            range(len(shape.labels)), key=lambda place: abs(shape.current[place] - shape.reference[place])
        )
        before, after = shape.reference[most], shape.current[most]
        return f"{shown}, most {quoted(shape.labels[most : most + 1])} from {percent(before)} to {percent(after)}"
    if drift.measure == "missing rate change" and shape is not None:
        before, after = shape.missing
        return f"{name} is missing in {percent(after)} of rows, {percent(before)} in the reference"
    if drift.measure.endswith("rate change"):
        return (
            f"{name} has changed: {drift.measure.removesuffix(' change')} by {percent(drift.effect)} of rows"
        )
    if drift.measure == "word change":
        return f"the words of {name} have changed: one comes in {percent(drift.effect)} of texts more or fewer than it did"
    return f"{name} has changed, by {drift.effect:.3g} ({drift.measure})"


def _quality(finding: QualityFinding) -> Finding:
    return Finding(
        kind="quality",
        field=finding.field,
        statistic=finding.rule or finding.check,
        value=finding.value,
        threshold=finding.expected,
        effect=abs(finding.value - finding.expected),
        p_value=finding.p_value,
        severity="critical" if finding.check == "absent" else "warning",
        text=finding.text,
    )


def _performance(metrics: Iterable[Metric], reference: Reference) -> Iterable[Finding]:
    return performance_findings((metric.measured for metric in metrics), reference.normal)


def _is_worse(report: Report) -> bool:
    """Some rows are always harder than others; which ones matters once there is something to explain."""
    return "performance" in report.judged and any(metric.alert for metric in report.performance)


def _worst(found: Iterable[WorstSlice]) -> Iterable[Finding]:
    """The worst of each set of features: limits differ from window to window, and the incident goes on."""
    known: dict[str, WorstSlice] = {}
    for worst in found:
        known.setdefault(" and ".join(condition.feature for condition in worst.conditions), worst)
    return [_of_slice(features, worst) for features, worst in known.items()]


def _of_slice(features: str, worst: WorstSlice) -> Finding:
    return Finding(
        kind="performance",
        field="worst slice",
        slice=features,
        severity="info",
        statistic="excess loss",
        value=worst.loss,
        effect=worst.excess / max(worst.elsewhere, 1e-12),
        p_value=worst.p_value,
        text=f"Predictions are worst where {worst.name}: loss {worst.loss:.3g}, elsewhere {worst.elsewhere:.3g} ({rows(worst.rows)}).",
    )


def _fairness(fairness: dict[str, Fairness]) -> Iterable[Finding]:
    for name, told in fairness.items():
        for measure, metric in told.measures.items():
            if not measure.endswith("_difference") or metric.value is None or metric.lower is None:
                continue
            if metric.lower > _DISPARITY:  # surely, not by chance
                yield Finding(
                    kind="fairness",
                    field=name,
                    statistic=measure,
                    value=metric.value,
                    effect=metric.value,
                    threshold=_DISPARITY,
                    text=f"Groups of {name} are treated differently: {measure.replace('_', ' ')} {metric.value:.2f} "
                    f"(surely {metric.lower:.2f} or more; up to {_DISPARITY:.2f} is accepted).",
                )


def _operations(anomalies: Iterable[Anomaly]) -> Iterable[Finding]:
    for anomaly in anomalies:
        if not anomaly.anomalous or anomaly.expected is None:
            continue
        yield Finding(
            kind="operations",
            field=f"{anomaly.measure.value}{'_p99' if anomaly.measure is Measure.latency else ''}",
            statistic="robust deviations",
            value=anomaly.value,
            effect=abs(anomaly.score or 0.0) / anomaly.limit,
            threshold=anomaly.upper if (anomaly.score or 0.0) > 0 else anomaly.lower,
            text=_unusual(anomaly.measure, anomaly.value, anomaly.expected),
        )


def _unusual(measure: Measure, value: float, usual: float) -> str:
    if measure is Measure.latency:
        return f"The slowest requests (p99) took {duration(value)}; {duration(usual)} is usual."
    if measure is Measure.traffic:
        came = "1 request came" if value == 1 else f"{value:,.0f} requests came"
        return f"{came} in this window; {usual:,.0f} are usual."
    return f"{measure.value.capitalize()}: {percent(value)}; {percent(usual)} is usual."
