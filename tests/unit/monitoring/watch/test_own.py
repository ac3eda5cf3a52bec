"""Nights that differ from days, in a model whose reference does not say when its rows were."""

from datetime import timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from fairway.core.contract import Category
from fairway.core.settings import DriftSettings, MonitoringSettings
from fairway.monitoring.drift.season import Season
from fairway.monitoring.watch.frame import frame_of
from fairway.monitoring.watch.look import Asked
from fairway.monitoring.watch.monitor import Subjected
from fairway.monitoring.watch.own import asks_for_season, days_known
from fairway.monitoring.watch.reference import Reference, make_reference
from fairway.monitoring.watch.values import Report
from tests.unit.monitoring.watch.rows import CONTRACT as OF_TEXTS
from tests.unit.monitoring.watch.rows import NOON, PROFILE, MemoryRows, log_table
from tests.unit.monitoring.watch.test_monitor import Watch

COUNTRIES = tuple(Category(name, 1 / 3) for name in ("DE", "FR", "PL"))
AMOUNT, COUNTRY = OF_TEXTS.inputs
CONTRACT = msgspec.structs.replace(
    OF_TEXTS, inputs=(AMOUNT, msgspec.structs.replace(COUNTRY, categories=COUNTRIES))
)
MONDAY = NOON.replace(day=4, hour=0)
STEP = 6
EVERY = MonitoringSettings(window_seconds=STEP * 3600, min_rows=100, look_back_days=60)
QUICK = Asked(monitoring=EVERY, drift=DriftSettings(resamples=300))


def traffic(days: int, seed: int, *, shift: float = 0.0, from_day: int = 0) -> pa.Table:
    """Large amounts and many rows by day, small ones and few by night; other countries too."""
    parts = []
    random = np.random.default_rng(seed)
    for step in range(days * 24 // STEP):
        at = MONDAY + timedelta(hours=step * STEP)
        wave = np.sin((at.hour + 3 - 6) / 24 * 2 * np.pi)
        table = log_table(
            int(300 * (1 + 0.6 * wave)),
            seed=1000 * seed + step,
            start=at,
            seconds=STEP * 3600,
            shift=0.6 * wave + (shift if at >= MONDAY + timedelta(days=from_day) else 0.0),
        )
        german = random.random(table.num_rows) < 0.4 + 0.3 * wave
        country = np.where(german, "DE", np.asarray(table["input.country"].to_pylist(), object))
        place = table.column_names.index("input.country")
        parts.append(table.set_column(place, "input.country", pa.array(country, pa.string())))
    return pa.concat_tables(parts)


@pytest.fixture(scope="module")
def timeless() -> Reference:
    table = traffic(7, 1).drop_columns(["time"])
    return make_reference(CONTRACT, PROFILE, frame_of(table, CONTRACT), text="training data")


def watched(table: pa.Table, reference: Reference, days: int) -> list[Report]:
    watch = Watch(MemoryRows(table), Subjected(CONTRACT, reference, QUICK), EVERY)
    return watch.at(MONDAY + timedelta(days=days, minutes=1))


def alarms(reports: list[Report]) -> list[set[str]]:
    """Columns that incidents heard of, by day."""
    found: list[set[str]] = [set() for _ in range(1 + len(reports) * STEP // 24)]
    for i, report in enumerate(reports):
        found[i * STEP // 24] |= {finding.field for finding in report.findings if finding.kind == "drift"}
    return found


def test_nights_are_alarms_until_two_days_tell_that_they_are_always_so(timeless: Reference) -> None:
    assert asks_for_season(timeless)
    reports = watched(traffic(6, 2, shift=0.5, from_day=5), timeless, 6)
    by_day = alarms(reports)
    assert "amount" in by_day[0]  # nobody can know yet
    assert by_day[2:5] == [set()] * 3
    assert "amount" in by_day[5]  # and what is new is found
    assert any("its own predictions of the first 4 days of the same hours" in n for n in reports[-2].notes)


def test_what_had_drifted_from_the_first_day_does_not_become_usual(timeless: Reference) -> None:
    by_day = alarms(watched(traffic(4, 3, shift=2.5), timeless, 3))
    assert all("amount" in day for day in by_day[:3])
    assert not any("country" in day for day in by_day[2:3])


def test_small_differences_of_whole_days_are_said(timeless: Reference) -> None:
    reports = watched(traffic(3, 4, shift=0.25), timeless, 3)
    assert any("over all hours, amount is not as in the reference" in note for note in reports[-2].notes)


def test_how_many_days_tell() -> None:
    known = [days_known(MONDAY, MONDAY + timedelta(days=days)) for days in (0, 1.9, 2, 3, 4, 7, 13, 14, 99)]
    assert known == [0, 0, 2, 2, 4, 7, 7, 14, 14]


def test_a_reference_that_knows_its_hours_is_left_alone(timeless: Reference) -> None:
    table = traffic(3, 5)
    timed = make_reference(CONTRACT, PROFILE, frame_of(table, CONTRACT), text="")
    assert timed.season is Season.day
    assert not asks_for_season(timed)
    assert alarms(watched(traffic(3, 6), timed, 3))[:3] == [set()] * 3
