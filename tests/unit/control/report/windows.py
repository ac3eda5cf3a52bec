"""Windows as monitors keep them, many and with names of any characters."""

import math
from datetime import UTC, datetime, timedelta

from fairway.core.clock import utc_text
from fairway.core.incident import Incident, Likely
from fairway.monitoring.drift.values import ColumnDrift, Kind
from fairway.monitoring.told import Condition, Measured, QualityFinding, SliceMetrics, WorstSlice
from fairway.monitoring.watch.kept import encoded
from fairway.monitoring.watch.values import ColumnReport, Metric, Report, Shape, Traffic, summary_of
from fairway.stores.windows import WatchedWindow, WindowKey, WindowStore

FIRST = datetime(2026, 5, 1, tzinfo=UTC)
EVIL = "</script><img src=x onerror=alert(1)>'\"&"
MODEL = "payments"


def fill(store: WindowStore, columns: int = 6, windows: int = 30, *, evil: bool = False) -> None:
    """Hours of which the last third drift; every seventh has no traffic."""
    store.put([kept(report(index, columns, windows, evil=evil)) for index in range(windows)])


def kept(told: Report) -> WatchedWindow:
    key = WindowKey(model=told.model, version=told.version, digest=told.digest, start=told.start)
    return WatchedWindow(
        key=key, end=told.end, rows=told.rows, summary=encoded(summary_of(told)), report=encoded(told)
    )


def report(index: int, columns: int, windows: int, *, evil: bool = False) -> Report:
    start = FIRST + timedelta(hours=index)
    rows = 0 if index % 7 == 3 and index < windows - 1 else 1000 + 40 * index
    late = max(0.0, index / windows - 0.66) * 3
    value = 0.91 + 0.01 * math.sin(index) - 0.2 * late
    found = Report(
        model=MODEL,
        version=3,
        digest="sha256:" + "ab" * 32,
        start=utc_text(start),
        end=utc_text(start + timedelta(hours=1)),
        rows=rows,
        reference="the rows in its bundle",
    )
    if not rows:
        return found
    name = EVIL if evil else "ordinary"
    metric = Measured(name="roc_auc", value=value, lower=value - 0.02, upper=value + 0.02, rows=rows)
    real = Measured(name="roc_auc", value=value - 0.01, lower=value - 0.04, upper=value + 0.02, rows=rows)
    condition = Condition(feature="f0", text=f"f0 = {name}")
    return Report(
        **{field: getattr(found, field) for field in ("model", "version", "digest", "start", "end", "rows", "reference")},
        drifted=late > 0,
        columns=tuple(column(number, late, evil) for number in range(columns)),
        quality=(QualityFinding(check="missing", field=name, value=0.2, expected=0.01, text=f"{name} is missing", p_value=1e-9),)
        if late
        else (),
        violations={f"{name} on_range": 12},
        traffic=Traffic(requests=rows, p50=0.002, p95=0.004, p99=0.005 + 0.001 * late, sources={name: rows}),
        estimates=(Metric(measured=metric, usual=(0.88, 0.94), alert=value < 0.88),),
        labels=rows // 3,
        performance=(Metric(measured=real, usual=(0.88, 0.94), alert=value < 0.89),) if index < windows - 5 else (),
        slices=(SliceMetrics(conditions=(condition,), rows=80, share=0.08, metrics=(real,)),),
        worst=(WorstSlice(conditions=(condition,), rows=80, share=0.08, loss=0.9, elsewhere=0.2, excess=0.7, lower=0.3, p_value=1e-4),),
        judged=("drift", "quality", "estimate", "performance"),
        notes=(f"a note of {name}",),
    )  # fmt: skip


def column(number: int, late: float, evil: bool) -> ColumnReport:
    name = f"{EVIL if evil else 'feature'} {number}"
    moved = number % 5 == 0 and late > 0
    drift = ColumnDrift(
        name=name,
        kind=Kind.number,
        drifted=moved,
        effect=0.8 * late if moved else 0.02,
        measure="wasserstein",
        p_value=1e-12 if moved else 0.4,
        p_adjusted=1e-10 if moved else 1.0,
        test="anderson-darling",
        statistic=7.0 if moved else 0.3,
        effects={"psi": 0.3, "js": 0.1, "ks": 0.2, "wasserstein": 0.8},
    )
    if number % 3 == 2:
        shape = Shape(
            labels=("DE", EVIL if evil else "FR", "PL"), reference=(0.5, 0.3, 0.2), current=(0.4, 0.3, 0.3)
        )
    else:
        edges = tuple(float(edge) for edge in range(25))
        before = tuple(round(math.exp(-((bin - 10) ** 2) / 20) / 7.9, 5) for bin in range(24))
        after = tuple(round(math.exp(-((bin - 10 - 4 * moved) ** 2) / 26) / 9, 5) for bin in range(24))
        shape = Shape(edges=edges, reference=before, current=after, missing=(0.01, 0.02), mean=(10.0, 14.0))
    return ColumnReport(name=name, role="input", drift=drift, shape=shape, importance=1 / (number + 2))


def incident(*, evil: bool = False) -> Incident:
    text = f"{EVIL if evil else 'feature 0'} has moved by 0.80 standard deviations"
    opened = utc_text(FIRST + timedelta(hours=21))
    return Incident(
        id="i-1",
        cause="c",
        model=MODEL,
        digest="",
        version=3,
        state="open",
        severity="critical",
        title=f"{MODEL}:3: {text}",
        opened=opened,
        updated=opened,
        looked=opened,
        causes=(Likely(kind="drift", field="feature 0", text=text, weight=2.0),),
    )
