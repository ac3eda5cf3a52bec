"""How long the dashboard's pages take with a year of hourly windows of 50 columns.

python -m benchmarks --only dashboard
python -m benchmarks.dashboard make HOME        the same home, to look at: fairway control --home HOME
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.app.alerts import open_alerts
from fairway.core.clock import utc_text
from fairway.core.incident import Finding, Window
from fairway.core.settings import RegistrySettings
from fairway.monitoring.drift.values import ColumnDrift, Kind
from fairway.monitoring.told import (
    Condition,
    Fairness,
    Group,
    Measured,
    QualityFinding,
    SliceMetrics,
    WorstSlice,
)
from fairway.monitoring.watch.values import ColumnReport, Metric, Report, Shape, Traffic, summary_of
from fairway.stores.opening import open_windows
from fairway.stores.windows import WatchedWindow, WindowKey

MODEL = "credit"
HOURS = 365 * 24
COLUMNS = 50
_BINS = 20
_METRICS = {"roc_auc": 0.91, "accuracy": 0.94, "f1": 0.71, "log_loss": 0.21, "brier": 0.06}
_BAD = ("log_loss", "brier")
_LABELS_LATE_HOURS = 72
_DRIFT_HOURS = 10 * 24
"""The income of applicants moves this long before the end."""
_PROFILE = bytes(random.Random(5).randbytes(20_000))
PAGES = {
    "overview": "/",
    "model": f"/models/{MODEL}?range=year",
    "drift": f"/models/{MODEL}/drift?range=year",
    "one column": f"/models/{MODEL}/drift/column_00?range=year",
    "performance": f"/models/{MODEL}/performance?range=year",
    "data quality": f"/models/{MODEL}/quality?range=year",
    "slices": f"/models/{MODEL}/slices?range=year",
    "route": f"/models/{MODEL}/route",
    "incidents": "/incidents?state=all",
    "an incident": "/incidents/{incident}",
    "schedules": "/schedules",
    "batch runs": "/batch",
    "process": "/process",
}


class Timed(NamedTuple):
    """Seconds of a page, those of the processor among them, and its bytes."""

    page: str
    median: float
    worst: float
    processor: float
    size: int


def make(home: Path, hours: int = HOURS, columns: int = COLUMNS) -> None:
    """A home with a model and what a monitor would have seen of it until now."""
    digest = _deploy(home, columns)
    store = open_windows(home, RegistrySettings())
    try:
        batch: list[WatchedWindow] = []
        for window in _windows(digest, hours, columns):
            batch.append(window)
            if len(batch) == 100:
                store.put(batch)
                batch = []
        store.put(batch)
    finally:
        store.close()
    _incident(home, digest)


def measure(folder: Path, hours: int = HOURS, columns: int = COLUMNS, rounds: int = 5) -> list[Timed]:
    home = folder / "dashboard"
    make(home, hours, columns)
    with (folder / "control.log").open("w") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("fairway")), "control", "--home", str(home), "--port", "0", "--json"],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        address = urlsplit(json.loads(process.stdout.readline())["address"]).netloc
        with open_alerts(home) as opened:
            incident = opened.alerts.incidents()[0].id
        return [
            _timed(process.pid, address, name, path.format(incident=incident), rounds)
            for name, path in PAGES.items()
        ]
    finally:
        process.terminate()
        process.wait(30)


def _timed(pid: int, address: str, name: str, path: str, rounds: int) -> Timed:
    taken = []
    body = b""
    used = _processor(pid)
    for _ in range(rounds):
        connection = http.client.HTTPConnection(address, timeout=60)
        begun = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        taken.append(time.perf_counter() - begun)
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}")
    return Timed(name, statistics.median(taken), max(taken), (_processor(pid) - used) / rounds, len(body))


def _processor(pid: int) -> float:
    """Seconds of the processor that the process has had."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _deploy(home: Path, columns: int) -> str:
    values = np.random.default_rng(1).normal(size=(2000, columns))
    frame = pd.DataFrame(values, columns=[f"column_{i:02}" for i in range(columns)])
    frame["bad"] = (values[:, 0] + values[:, 1] > 1.5).astype(int)
    model = LogisticRegression().fit(frame.drop(columns="bad"), frame["bad"])
    return str(fairway.deploy(model, frame, target="bad", name=MODEL, home=home).digest)


def _windows(digest: str, hours: int, columns: int) -> Iterator[WatchedWindow]:
    chance = random.Random(7)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for hour in range(hours):
        start = end - timedelta(hours=hours - hour)
        report = _report(digest, start, hours - hour, columns, chance)
        yield WatchedWindow(
            key=WindowKey(model=MODEL, version=1, digest=digest, start=report.start),
            end=report.end,
            rows=report.rows,
            summary=msgspec.json.encode(summary_of(report)),
            report=msgspec.json.encode(report),
            profile=_PROFILE,
        )


def _report(digest: str, start: datetime, left: int, columns: int, chance: random.Random) -> Report:
    """`left` hours before the end."""
    moved = max(0.0, 1 - left / _DRIFT_HOURS) if left < _DRIFT_HOURS else 0.0
    day = 1 + 0.6 * math.sin((start.hour - 8) / 24 * 2 * math.pi)
    rows = round(4000 * day * chance.uniform(0.9, 1.1) * (0.7 if start.weekday() > 4 else 1))
    known = left > _LABELS_LATE_HOURS
    return Report(
        model=MODEL,
        version=1,
        digest=digest,
        start=utc_text(start),
        end=utc_text(start + timedelta(hours=1)),
        rows=rows,
        reference="the rows it was trained on",
        drifted=moved > 0.1,
        columns=tuple(_column(i, moved if i in (0, 3) else 0.0, rows, chance) for i in range(columns)),
        quality=(
            (QualityFinding(check="missing", field="column_03", value=0.08, expected=0.01, text="column_03 is missing in 8.0% of rows; in the reference it was 1.0%."),)
            if moved > 0.5
            else ()
        ),
        violations={"column_03 on_range": round(rows * 0.002 * (1 + 20 * moved))},
        traffic=Traffic(
            requests=rows,
            p50=0.0021 * chance.uniform(0.95, 1.1),
            p95=0.0045 * chance.uniform(0.9, 1.2),
            p99=0.0078 * chance.uniform(0.8, 1.5),
            sources={"live": round(rows * 0.7), "cache": round(rows * 0.3)},
            protocols={"rest": round(rows * 0.8), "grpc": round(rows * 0.2)},
            arms={"v1": rows},
        ),
        estimates=_metrics(moved, True, chance),
        labels=rows if known else 0,
        performance=_metrics(moved, False, chance) if known else (),
        slices=_slices(rows, chance) if known else (),
        worst=(
            WorstSlice(
                conditions=(Condition("column_00", "column_00 >= 1.2"),), rows=rows // 9, share=0.11, loss=0.44,
                elsewhere=0.19, excess=0.25, lower=0.12, p_value=0.0004,
            ),
        ) if known else (),
        fairness={"region": _fairness(rows, chance)} if known else {},
        judged=("drift", "quality", "estimate", *(("performance", "fairness") if known else ())),
    )  # fmt: skip


def _column(index: int, moved: float, rows: int, chance: random.Random) -> ColumnReport:
    edges = tuple(round(-3 + 6 * i / _BINS, 3) for i in range(_BINS + 1))

    def bell(middle: float) -> tuple[float, ...]:
        heights = [math.exp(-((edge + 0.15 - middle) ** 2) / 2) for edge in edges[:-1]]
        return tuple(round(height / sum(heights), 5) for height in heights)

    effect = 1.2 * moved + abs(chance.gauss(0, 0.02))
    name = f"column_{index:02}"
    return ColumnReport(
        name=name,
        role="input",
        drift=ColumnDrift(
            name=name, kind=Kind.number, drifted=moved > 0.1, effect=effect, measure="wasserstein",
            p_value=1e-9 if moved > 0.1 else chance.uniform(0.01, 1), p_adjusted=1e-7 if moved > 0.1 else 0.9,
            test="mean", statistic=effect * 8,
            effects={"wasserstein": effect, "psi": effect**2, "ks": effect / 3, "jensen shannon": effect / 4},
            reference_rows=10_000, current_rows=rows,
        ),
        shape=Shape(
            edges=edges, reference=bell(0.0), current=bell(1.2 * moved + chance.gauss(0, 0.04)),
            missing=(0.01, 0.01 + 0.07 * moved), mean=(0.0, 1.2 * moved),
        ),
        importance=max(0.0, 0.4 - 0.03 * index),
    )  # fmt: skip


def _metrics(moved: float, estimated: bool, chance: random.Random) -> tuple[Metric, ...]:
    found = []
    for name, usual in _METRICS.items():
        worse = (0.5 if estimated else 0.65) * moved
        value = usual * (1 + worse if name in _BAD else 1 - worse * 0.25) * chance.uniform(0.99, 1.01)
        wide = usual * 0.03
        limits = (usual * 0.93, usual * 1.07)
        found.append(
            Metric(
                measured=Measured(
                    name=name,
                    value=value,
                    lower=value - wide,
                    upper=value + wide,
                    rows=4000,
                    estimated=estimated,
                ),
                usual=limits,
                alert=not limits[0] <= value <= limits[1],
            )
        )
    return tuple(found)


def _slices(rows: int, chance: random.Random) -> tuple[SliceMetrics, ...]:
    return tuple(
        SliceMetrics(
            conditions=(Condition("region", f"region = {region}"),),
            rows=rows // 4,
            share=0.25,
            metrics=tuple(metric.measured for metric in _metrics(chance.uniform(0, 0.2), False, chance)),
        )
        for region in ("north", "east", "south", "west")
    )


def _fairness(rows: int, chance: random.Random) -> Fairness:
    def rate(name: str, value: float) -> Measured:
        return Measured(name=name, value=value, lower=value - 0.03, upper=value + 0.03, rows=rows // 4)

    groups = tuple(
        Group(
            name=region,
            rows=rows // 4,
            selection_rate=rate("selection_rate", chance.uniform(0.2, 0.3)),
            true_positive_rate=rate("true_positive_rate", chance.uniform(0.7, 0.8)),
            false_positive_rate=rate("false_positive_rate", chance.uniform(0.05, 0.1)),
        )
        for region in ("north", "east", "south", "west")
    )
    names = ("demographic_parity_difference", "equalized_odds_difference")
    return Fairness(groups=groups, measures={name: rate(name, 0.09) for name in names})


def _incident(home: Path, digest: str) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with open_alerts(home) as opened:
        for hour in range(4, 0, -1):
            findings = (
                Finding(kind="drift", field="column_00", statistic="wasserstein", value=1.1, effect=1.1, p_value=1e-7, weight=0.4,
                        text="column_00 has moved by 1.10 standard deviations, its mean from 0 to 1.1 (p < 0.0001)."),
                Finding(kind="estimate", field="roc_auc", value=0.79, threshold=0.85, severity="critical",
                        text="ROC AUC is 0.79 (95% interval 0.77 to 0.81), below the usual 0.85: estimated, as there are no labels yet, 4,000 rows."),
                Finding(kind="quality", field="column_03", statistic="missing", value=0.08, threshold=0.01,
                        text="column_03 is missing in 8.0% of rows; in the reference it was 1.0%."),
            )  # fmt: skip
            start = now - timedelta(hours=hour)
            opened.alerts.observe(
                [
                    Window(
                        model=MODEL, version=1, digest=digest, start=utc_text(start),
                        end=utc_text(start + timedelta(hours=1)), kinds=("drift", "estimate", "quality"), findings=findings,
                    )
                ]
            )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "make":
        sys.exit(__doc__)
    make(Path(sys.argv[2]))
