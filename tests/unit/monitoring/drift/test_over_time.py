"""Seasons, alarms that last, streams."""

import math

import numpy as np
import pyarrow as pa
import pytest

from fairway.core.errors import InvalidInput
from fairway.monitoring.drift.online import DETECTORS, open_stream
from fairway.monitoring.drift.persistence import lasting_drift
from fairway.monitoring.drift.season import (
    Season,
    detect_season,
    matching_rows,
    season_numbers,
    strata_of,
)

HOUR = np.timedelta64(3600, "s")
START = np.datetime64("2026-01-05T00:00:00", "us")  # a Monday


def times(hours: int, each: int = 5) -> np.ndarray:
    return np.repeat(START + np.arange(hours) * HOUR, each)


def test_strata_are_hours_of_the_day_and_of_the_week() -> None:
    when = np.array(
        ["2026-01-05T00:30", "2026-01-06T23:10", "2026-01-11T05:00", "NaT"], dtype="datetime64[us]"
    )
    assert strata_of(when, Season.day).tolist() == [0, 23, 5, -1]
    assert strata_of(when, Season.week).tolist() == [0, 47, 149, -1]
    assert strata_of(when, Season.none).tolist() == [0, 0, 0, -1]
    old = np.array(["1960-02-29T13:00"], dtype="datetime64[us]")  # a Monday before 1970
    assert strata_of(old, Season.week).tolist() == [13]


def test_a_season_is_found_where_there_is_one_and_only_there() -> None:
    rng = np.random.default_rng(0)
    when = times(24 * 28)
    hour, day = strata_of(when, Season.day), strata_of(when, Season.week) // 24
    noise = rng.standard_normal(len(when))
    assert detect_season(when, {"x": noise}) is Season.none
    assert detect_season(when, {"x": noise, "y": noise + np.sin(hour / 24 * 2 * np.pi)}) is Season.day
    assert detect_season(when, {"x": noise + 1.0 * (day >= 5)}) is Season.week
    assert detect_season(when[:150], {"x": hour[:150].astype(float)}) is Season.none  # not two days
    assert detect_season(np.full(500, np.datetime64("NaT", "us")), {"x": np.arange(500.0)}) is Season.none
    assert detect_season(when, {"x": np.ones(len(when)), "y": np.full(len(when), np.nan)}) is Season.none


def test_matching_rows_have_the_hours_of_the_window() -> None:
    reference = times(24 * 28, 20)
    current = START + np.timedelta64(40, "D") + np.concatenate([np.full(60, 2), np.full(30, 3)]) * HOUR
    rows = matching_rows(reference, current, Season.day)
    hours = strata_of(reference[rows], Season.day)
    assert set(hours.tolist()) == {2, 3}
    assert (hours == 2).sum() == pytest.approx(2 * (hours == 3).sum(), abs=1)
    assert (hours == 2).sum() == 28 * 20
    assert len(matching_rows(reference, current, Season.none)) == len(reference)
    assert len(matching_rows(reference, current, Season.week, least=10**6)) == len(reference)
    assert len(matching_rows(reference, np.array(["NaT"], "datetime64[us]"), Season.day)) == len(reference)


@pytest.mark.parametrize(
    ("windows", "lasts"),
    [
        ([], ""),
        (["a"], ""),
        (["", "a", "a"], "a"),
        (["a", "", "a"], "a"),
        (["a", "", "", "a"], ""),
        (["a", "a", ""], ""),
        (["ab", "b", "ac"], "a"),
    ],
)
def test_drift_that_lasts(windows: list[str], lasts: str) -> None:
    assert lasting_drift(windows) == set(lasts)


def test_how_many_windows_are_asked_for() -> None:
    assert lasting_drift(["a"], need=1) == {"a"}
    assert lasting_drift(["a", "", "a"], need=3) == set()
    with pytest.raises(InvalidInput):
        lasting_drift([], need=4)


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_stream_tells_of_a_change_soon_and_not_before(name: str) -> None:
    """river's own example: 1,000 numbers of one distribution, then of another (river, drift, ADWIN)."""
    rng = np.random.default_rng(12345)
    values = np.concatenate([rng.normal(0.5, 0.1, 1000), rng.normal(0.9, 0.1, 500)])
    options = {"page-hinkley": {"threshold": 10.0}, "kswin": {"alpha": 1e-5, "seed": 1}}.get(name, {})
    stream = open_stream(name, **options)
    told = [i for i, value in enumerate(values) if stream.update(float(value))]
    assert told
    assert 1000 <= told[0] < 1200
    assert stream.changes == told
    assert stream.seen == len(values)


def test_what_is_no_number_is_passed_over() -> None:
    stream = open_stream("adwin")
    assert not any(stream.update(value) for value in (math.nan, math.inf, -math.inf, 1.0))
    assert (stream.seen, stream.skipped) == (1, 3)


def test_unknown_detectors_and_options_are_named() -> None:
    with pytest.raises(InvalidInput, match="there are: adwin"):
        open_stream("nope")
    with pytest.raises(InvalidInput, match="cannot be set up"):
        open_stream("adwin", nope=1)


def test_a_season_of_long_and_sorted_data_is_found_by_rows_of_all_its_days() -> None:
    when = times(24 * 28, 100)
    day = strata_of(when, Season.week) // 24
    values = np.random.default_rng(0).standard_normal(len(when)) + 0.5 * (day >= 5)
    assert detect_season(when, {"x": values}) is Season.week
    week = when < START + np.timedelta64(7, "D")
    assert detect_season(when[week], {"x": values[week]}) is Season.week  # workdays against the weekend
    assert detect_season(when.astype("datetime64[D]").astype("datetime64[us]"), {"x": values}) is Season.none


def test_categories_have_seasons_too() -> None:
    when = times(24 * 3, 40)
    night = strata_of(when, Season.day) < 8
    rng = np.random.default_rng(1)
    country = np.where(night & (rng.random(len(when)) < 0.4), "US", rng.choice(["DE", "FR"], len(when)))
    plain = pa.chunked_array([pa.array(rng.choice(["a", "b"], len(when)))])
    assert detect_season(when, season_numbers("c", pa.chunked_array([pa.array(country)]))) is Season.day
    assert detect_season(when, season_numbers("p", plain)) is Season.none
    assert season_numbers("t", pa.chunked_array([pa.array(when)])) == {}


def test_where_an_hour_has_few_rows_like_days_and_neighbours_stand_for_it() -> None:
    reference = times(24 * 14, 20)  # 40 rows of each hour of the week
    tuesday = START + np.timedelta64(15 * 24 + 3, "h") + np.zeros(50, "timedelta64[us]")
    rows = matching_rows(reference, tuesday, Season.week)
    assert set(strata_of(reference[rows], Season.day).tolist()) == {3}
    assert (strata_of(reference[rows], Season.week) // 24).max() < 5  # of workdays
    saturday = tuesday + np.timedelta64(4, "D")
    rows = matching_rows(reference, saturday, Season.week)
    assert set(strata_of(reference[rows], Season.day).tolist()) == {2, 3, 4}
    assert set((strata_of(reference[rows], Season.week) // 24).tolist()) == {5, 6}
