"""Errors and saturation of a server against its own history, from the counters of its workers. Pure.

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
from fairway.monitoring.words import percent

MOST_STEPS = 2000
"""Steps of a series that are kept: the latest."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and failures of a model since its server started, and how many wait now."""

    requests: float = 0.0
    failed: float = 0.0
    waiting: float = 0.0


def count_models(
    totals: Mapping[tuple[str, tuple[tuple[str, str], ...]], float], failures: Collection[str]
) -> dict[str, Counted]:
    """Counters by model; `failures` are the error codes that are the server's fault."""
    found: dict[str, list[float]] = {}
    for (name, labels), value in totals.items():
        told = dict(labels)
        model = told.get("model", "")
        if not model or name not in ("fairway_requests_total", "fairway_queue_requests"):
            continue
        sums = found.setdefault(model, [0.0, 0.0, 0.0])
        if name == "fairway_queue_requests":
            sums[2] += value
            continue
        sums[0] += value
        if told.get("code", "ok") in failures:
            sums[1] += value
    return {
        model: Counted(requests=requests, failed=failed, waiting=max(waiting, 0.0))
        for model, (requests, failed, waiting) in found.items()
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


def server_window(model: str, server: str, start: str, series: Sequence[Step]) -> Window:
    """What alerts are told of the last step. Where there is too little history nothing is judged."""
    anomalies = judge_server(series)
    known = any(anomaly.expected is not None for anomaly in anomalies)
    findings = tuple(_finding(anomaly) for anomaly in anomalies if anomaly.anomalous)
    return Window(
        model=model,
        digest=f"server {server}",
        start=start,
        end=series[-1].end,
        kinds=("operations",) if known else (),
        findings=findings,
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
