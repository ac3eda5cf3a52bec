"""Errors and saturation of a server against its own history, and rows that its log lacks, from the counters of its workers. Pure.

The prediction log has only what was answered; what was refused, failed or had to wait is in the counters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np

from fairway.core.clock import moment_of
from fairway.core.incident import Finding, Window
from fairway.monitoring.operations import judge_operations
from fairway.monitoring.told import Anomaly, Measure
from fairway.monitoring.watch.values import Step
from fairway.monitoring.words import percent, rows

MOST_STEPS = 2000
"""Steps of a series that are kept: the latest."""
_COUNTERS = {"fairway_requests_total": 0, "fairway_queue_requests": 2, "fairway_log_dropped_rows_total": 3}


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and failures of a model since its server started, rows that did not reach its log, and how many requests wait
    now."""

    requests: float = 0.0
    failed: float = 0.0
    waiting: float = 0.0
    dropped: float = 0.0


def count_models(
    totals: Mapping[tuple[str, tuple[tuple[str, str], ...]], float], failures: Collection[str]
) -> dict[str, Counted]:
    """Counters by model; `failures` are the error codes that are the server's fault."""
    found: dict[str, list[float]] = {}
    for (name, labels), value in totals.items():
        told = dict(labels)
        model = told.get("model", "")
        if not model or name not in _COUNTERS:
            continue
        sums = found.setdefault(model, [0.0, 0.0, 0.0, 0.0])
        if name != "fairway_requests_total":
            sums[_COUNTERS[name]] += value
            continue
        sums[0] += value
        if told.get("code", "ok") in failures:
            sums[1] += value
    return {
        model: Counted(requests=requests, failed=failed, waiting=max(waiting, 0.0), dropped=dropped)
        for model, (requests, failed, waiting, dropped) in found.items()
    }


def add_step(series: Sequence[Step], step: Step) -> tuple[Step, ...]:
    return (*series, step)[-MOST_STEPS:]


def judge_server(series: Sequence[Step]) -> tuple[Anomaly, ...]:
    """The last step by those before it."""
    times = np.array([moment_of(step.end).timestamp() for step in series])
    requests = np.array([step.requests for step in series])
    failed = np.array([step.failed for step in series])
    fullest = np.array([step.saturation for step in series])
    return (
        judge_operations(Measure.errors, times, failed, totals=requests),
        judge_operations(Measure.saturation, times, fullest),
    )


def server_window(
    model: str, server: str, start: str, series: Sequence[Step], dropped: float = 0.0
) -> Window:
    """What alerts are told of the last step, and of rows that were `dropped` from the log in its time. Where there is too
    little history, errors and saturation are not judged."""
    anomalies = judge_server(series)
    known = any(anomaly.expected is not None for anomaly in anomalies)
    findings = [_finding(anomaly) for anomaly in anomalies if anomaly.anomalous]
    findings += [_lost(dropped)] if dropped else []
    return Window(
        model=model,
        digest=f"server {server}",
        start=start,
        end=series[-1].end,
        kinds=("operations", "log") if known else ("log",),
        findings=tuple(findings),
    )


def _lost(dropped: float) -> Finding:
    text = f"{rows(round(dropped))} did not reach the prediction log; what is watched is without them."
    return Finding(
        kind="log", field="dropped rows", severity="warning", value=dropped, threshold=0.0, text=text
    )


def _finding(anomaly: Anomaly) -> Finding:
    expected = percent(anomaly.expected or 0.0)
    text = f"{percent(anomaly.value)} of requests failed; {expected} is usual."
    if anomaly.measure is not Measure.errors:
        text = f"The queue was {percent(anomaly.value)} full at its fullest; {expected} is usual."
    return Finding(
        kind="operations",
        field=anomaly.measure.value,
        severity="critical" if anomaly.measure is Measure.errors else "warning",
        statistic="share",
        value=anomaly.value,
        effect=abs(anomaly.score or 0.0) / anomaly.limit,
        threshold=anomaly.upper,
        text=text,
    )
