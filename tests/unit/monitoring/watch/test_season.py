"""Days: a window of an evening is compared with the reference's evenings."""

import dataclasses
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.clock import utc_text
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.drift.season import Season
from fairway.monitoring.watch.frame import frame_kinds, frame_of
from fairway.monitoring.watch.look import About, Asked, look
from fairway.monitoring.watch.reference import Reference, make_reference
from fairway.monitoring.watch.values import Report
from tests.unit.monitoring.watch.rows import CONTRACT, NOON, PROFILE, log_table

MIDNIGHT = NOON.replace(hour=0)
DAYS = 7


def of_the_hour(table: pa.Table) -> pa.Table:
    """Amounts that are large in the evening and small in the morning."""
    hours = np.array([moment.hour for moment in table["time"].to_pylist()])
    amount = np.asarray(table["input.amount"]) * np.exp(np.sin(hours / 24 * 2 * np.pi))
    return table.set_column(table.column_names.index("input.amount"), "input.amount", pa.array(amount))


@pytest.fixture(scope="module")
def week() -> Reference:
    rows = of_the_hour(log_table(40_000, seed=1, start=MIDNIGHT, seconds=DAYS * 86_400))
    return make_reference(CONTRACT, PROFILE, frame_of(rows, CONTRACT), text="its own predictions of a week")


def seen(table: pa.Table, reference: Reference, start: datetime) -> Report:
    frame = frame_of(table, CONTRACT)
    profile = Profile(frame_kinds(frame, CONTRACT))
    profile.update(frame.table)
    end = start + timedelta(hours=1)
    about = About(model="m", version=1, digest="d", start=utc_text(start), end=utc_text(end))
    return look(about, frame, profile, reference, (), Asked(), end)


def test_the_reference_knows_its_season(week: Reference) -> None:
    assert week.season is Season.day
    plain = log_table(5000, seed=2, start=MIDNIGHT, seconds=DAYS * 86_400)
    assert make_reference(CONTRACT, PROFILE, frame_of(plain, CONTRACT), text="").season is Season.none
    timeless = plain.drop_columns(["time"])
    assert make_reference(CONTRACT, PROFILE, frame_of(timeless, CONTRACT), text="").season is Season.none


@settings(deadline=None, max_examples=4)
@given(hour=st.integers(0, 23))
def test_law_an_hour_like_every_day_is_no_drift_and_one_that_is_not_is(week: Reference, hour: int) -> None:
    start = MIDNIGHT + timedelta(days=DAYS, hours=hour)
    same = seen(of_the_hour(log_table(800, seed=17, start=start)), week, start)
    amount = next(column for column in same.columns if column.name == "amount")
    assert amount.drift is not None
    assert not amount.drift.drifted
    assert any("of the same hours" in note for note in same.notes)
    moved = seen(of_the_hour(log_table(800, seed=hour, start=start, shift=0.6)), week, start)
    assert "amount" in {c.name for c in moved.columns if c.drift is not None and c.drift.drifted}
    drawn = next(column.shape for column in same.columns if column.name == "amount")
    assert drawn is not None
    assert drawn.mean[0] == pytest.approx(drawn.mean[1], rel=0.25)  # what was compared is what is drawn


def test_without_hours_the_evening_would_be_an_alarm(week: Reference) -> None:
    start = MIDNIGHT + timedelta(days=DAYS, hours=18)
    timeless = dataclasses.replace(week, season=Season.none)
    report = seen(of_the_hour(log_table(800, seed=17, start=start)), timeless, start)
    assert report.drifted
