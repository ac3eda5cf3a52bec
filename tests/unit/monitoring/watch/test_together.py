"""Columns that change together while each stays as it was: found by the monitor in windows of ordinary size."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.settings import MonitoringSettings
from fairway.monitoring.watch.frame import frame_of
from fairway.monitoring.watch.look import Asked
from fairway.monitoring.watch.monitor import Subjected
from fairway.monitoring.watch.reference import make_reference
from fairway.monitoring.watch.values import TOGETHER
from fairway.packaging.profile import Profile
from tests.unit.monitoring.watch.rows import NOON, MemoryRows
from tests.unit.monitoring.watch.test_monitor import Watch

NAMES = tuple("abcde")
CONTRACT = Contract(
    inputs=tuple(Field(name=name, dtype=DType.float64) for name in NAMES),
    outputs=(Output(name="y", dtype=DType.float64),),
)
HOURLY = MonitoringSettings(window_seconds=3600, min_rows=100)


def rows(count: int, seed: int, *, hour: int = 0, correlation: float = 0.6) -> pa.Table:
    """`a` and `b` go together; `y` is of the others alone."""
    random = np.random.default_rng(seed)
    values = {name: random.standard_normal(count) for name in NAMES}
    values["b"] = correlation * values["a"] + np.sqrt(1 - correlation**2) * values["b"]
    times = [NOON + timedelta(hours=hour, seconds=3500 * i / count) for i in range(count)]
    columns = {
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        "row": pa.array(np.zeros(count, np.int32)),
        "output.y": pa.array(values["c"] + values["d"]),
    }
    return pa.table(columns | {f"input.{name}": pa.array(column) for name, column in values.items()})


@pytest.mark.parametrize(("count", "moved"), [(1000, 0.35), (5000, 0.5)])
def test_a_correlation_that_weakens_is_one_finding(count: int, moved: float) -> None:
    table = rows(8000, 1).drop_columns(["time"])
    known = make_reference(
        CONTRACT, Profile(rows=8000, inputs=(), outputs=()), frame_of(table, CONTRACT), text=""
    )
    traffic = [rows(count, 10 + hour, hour=hour, correlation=0.6 if hour < 1 else moved) for hour in range(3)]
    watch = Watch(MemoryRows(*traffic), Subjected(CONTRACT, known, Asked(monitoring=HOURLY)), HOURLY)
    reports = watch.at(NOON + timedelta(hours=3, minutes=1))
    found = [{finding.field for finding in report.findings if finding.kind == "drift"} for report in reports]
    assert found == [set(), set(), {TOGETHER}]  # two of three windows show it
    last = reports[-1]
    assert last.multivariate is not None
    assert any("a x b" in note for note in last.multivariate.notes)
