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
from fairway.monitoring.watch.values import TOGETHER, Metric, Report, Summary, summary_of

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
        *(_worst(worst) for worst in report.worst[:_MOST_WORST] if _is_worse(report)),
        *_fairness(report.fairness),
        *_operations(report.operations),
    )
    weighted = weighed(findings, reference.importance, loss)
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
    outputs = {column.name for column in report.columns if column.role == "output"}
    found = [column.drift for column in report.columns if column.drift is not None and column.drift.drifted]
    for column in found:
        if column.status == "compared" and column.name not in lasting:
            continue
        yield _of_column(column, "prediction " if column.name in outputs else "")
    if report.multivariate is not None and report.multivariate.drifted and TOGETHER in lasting:
        yield Finding(
            kind="drift",
            field=TOGETHER,
            statistic=report.multivariate.measure,
            value=report.multivariate.effect,
            effect=report.multivariate.effect,
            p_value=report.multivariate.p_adjusted,
            text="columns have changed together in a way that no single one shows",
        )


def _of_column(column: ColumnDrift, what: str) -> Finding:
    if column.status != "compared":
        return Finding(kind="drift", field=column.name, text=f"{what}{column.name}: {column.status}")
    return Finding(
        kind="drift",
        field=column.name,
        statistic=column.measure,
        value=column.effect,
        effect=column.effect,
        p_value=column.p_adjusted,
        text=f"{what}{column.name} has moved by {_size(column)} (p = {column.p_adjusted:.2g})",
    )


def _size(column: ColumnDrift) -> str:
    if column.measure in ("wasserstein", "mean shift"):
        return f"{column.effect:.2f} standard deviations"
    if column.measure == "total variation":
        return f"{column.effect:.1%} of its rows"
    return f"{column.effect:.3g} ({column.measure})"


def _quality(finding: QualityFinding) -> Finding:
    return Finding(
        kind="quality",
        field=finding.field,
        statistic=finding.check,
        value=finding.value,
        threshold=finding.expected,
        effect=abs(finding.value - finding.expected),
        p_value=finding.p_value,
        severity="critical" if finding.check == "absent" else "warning",
        text=finding.text,
    )


def _performance(metrics: Iterable[Metric], reference: Reference) -> Iterable[Finding]:
    told = (
        metric.measured for metric in metrics if metric.alert or metric.measured.name != "calibration_error"
    )
    return performance_findings(told, reference.normal)


def _is_worse(report: Report) -> bool:
    """Some rows are always harder than others; which ones matters once there is something to explain."""
    return "performance" in report.judged and any(metric.alert for metric in report.performance)


def _worst(worst: WorstSlice) -> Finding:
    return Finding(
        kind="performance",
        field="worst slice",
        slice=worst.name,
        severity="info",
        statistic="excess loss",
        value=worst.loss,
        effect=worst.excess / max(worst.elsewhere, 1e-12),
        p_value=worst.p_value,
        text=f"worse where {worst.name}: loss {worst.loss:.3g}, elsewhere {worst.elsewhere:.3g} ({worst.rows:,} rows)",
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
                    text=f"{measure.replace('_', ' ')} between groups of {name}: {metric.value:.2f} "
                    f"(at least {metric.lower:.2f})",
                )


def _operations(anomalies: Iterable[Anomaly]) -> Iterable[Finding]:
    for anomaly in anomalies:
        if not anomaly.anomalous or anomaly.expected is None:
            continue
        unit = " s" if anomaly.measure is Measure.latency else ""
        yield Finding(
            kind="operations",
            field=f"{anomaly.measure.value}{'_p99' if anomaly.measure is Measure.latency else ''}",
            statistic="robust deviations",
            value=anomaly.value,
            effect=abs(anomaly.score or 0.0) / anomaly.limit,
            threshold=anomaly.upper if (anomaly.score or 0.0) > 0 else anomaly.lower,
            text=f"{anomaly.measure.value} {anomaly.value:.4g}{unit} where {anomaly.expected:.4g}{unit} is usual",
        )
