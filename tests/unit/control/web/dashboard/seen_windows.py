"""Windows as a monitor writes them, with the monitor's own values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from fairway.core.clock import utc_text
from fairway.core.incident import Finding
from fairway.monitoring.drift.values import ColumnDrift, Kind
from fairway.monitoring.told import (
    Anomaly,
    Condition,
    Fairness,
    Group,
    Measure,
    Measured,
    QualityFinding,
    SliceMetrics,
    WorstSlice,
)
from fairway.monitoring.watch.values import ColumnReport, Metric, Report, Shape, Traffic, summary_of
from fairway.stores.windows import WatchedWindow, WindowKey

END = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
EVIL = "<script>alert(1)</script>"


def measured(name: str = "roc_auc", value: float | None = 0.8, estimated: bool = False) -> Measured:
    return Measured(name=name, value=value, lower=0.7, upper=0.9, rows=500, estimated=estimated)


def report(
    hours: int = 1, *, version: int = 2, model: str = "churn", rows: int = 500, columns: int = 3
) -> Report:
    """A window that began `hours` ago, with something in every field."""
    start = END - timedelta(hours=hours)
    drift = ColumnDrift(
        name="amount", kind=Kind.number, drifted=True, effect=1.25, measure="wasserstein", p_value=1e-9, p_adjusted=2e-9,
        test="mean", statistic=9.0, effects={"psi": 0.4}, reference_rows=1000, current_rows=rows, new_categories=(EVIL,), notes=("n",),
    )  # fmt: skip
    shape = Shape(
        edges=(0.0, 1.0, 2.0), reference=(0.7, 0.3), current=(0.2, 0.8), missing=(0.0, 0.1), mean=(0.8, 1.5)
    )
    words = Shape(labels=("DE", EVIL), reference=(0.9, 0.1), current=(0.5, 0.5))
    others = tuple(
        ColumnReport(name=f"c{i}", role="input", drift=msgspec.structs.replace(drift, name=f"c{i}", drifted=False, effect=0.01 * i))
        for i in range(columns - 2)
    )  # fmt: skip
    group = Group(
        name="DE",
        rows=9,
        selection_rate=measured(),
        true_positive_rate=measured(),
        false_positive_rate=measured(value=None),
    )
    return Report(
        model=model,
        version=version,
        digest=f"sha256:{version:064x}",
        start=utc_text(start),
        end=utc_text(start + timedelta(hours=1)),
        rows=rows,
        reference="the training data",
        drifted=True,
        columns=(
            *others,
            ColumnReport(name="amount", role="input", drift=drift, shape=shape, importance=0.5),
            ColumnReport(name=f"country/{EVIL}", role="output", shape=words),
        ),
        multivariate=msgspec.structs.replace(drift, name="(together)"),
        quality=(QualityFinding(check="missing", field="amount", value=0.1, expected=0.0, text=EVIL, examples=("x",)),),
        violations={"amount: below 0": 5},
        traffic=Traffic(requests=rows, p50=0.002, p95=0.004, p99=0.0075, sources={"live": rows}, protocols={"rest": rows}, arms={"v2": rows}),
        operations=(Anomaly(measure=Measure.latency, value=0.0075, expected=0.002, lower=0.001, upper=0.003, anomalous=True),),
        estimates=(Metric(measured=measured(estimated=True), usual=(0.75, 1.2), alert=False),),
        labels=rows,
        performance=(Metric(measured=measured(value=0.6), usual=(0.75, 1.2), alert=True),),
        slices=(SliceMetrics(conditions=(Condition("country", "country = DE"),), rows=9, share=0.1, metrics=(measured(),)),),
        worst=(
            WorstSlice(conditions=(Condition("amount", "amount >= 9"),), rows=9, share=0.1, loss=0.4, elsewhere=0.1, excess=0.3, lower=0.1, p_value=0.001),
        ),
        fairness={"country": Fairness(groups=(group,), measures={"demographic_parity_difference": measured()}, notes=("few",))},
        judged=("drift",),
        findings=(Finding(kind="drift", field="amount", effect=1.25),),
        notes=(EVIL,),
    )  # fmt: skip


def window(told: Report) -> WatchedWindow:
    return WatchedWindow(
        key=WindowKey(model=told.model, version=told.version, digest=told.digest, start=told.start),
        end=told.end,
        rows=told.rows,
        summary=msgspec.json.encode(summary_of(told)),
        report=msgspec.json.encode(told),
    )
