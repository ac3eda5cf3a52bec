"""Operations against their own history."""

import numpy as np
import pytest

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.operations import DAY, judge_operations
from fairway.monitoring.told import Anomaly, Measure

HOUR = 3_600.0


def series(measure: Measure, seed: int, hours: int = 24 * 15) -> tuple[Array, Array, Array | None]:
    """Busier by day, as most services are."""
    rng = np.random.default_rng(seed)
    times = np.arange(hours) * HOUR + 1_700_000_000
    day = 1 + 0.6 * np.sin(2 * np.pi * times / DAY)
    if measure is Measure.traffic:
        return times, rng.poisson(300 * day).astype(np.float64), None
    if measure is Measure.latency:
        return times, 0.05 * np.exp(0.15 * rng.standard_normal(hours) + 0.2 * day), None
    if measure is Measure.errors:
        totals = rng.poisson(2_000 * day).astype(np.float64)
        return times, rng.binomial(totals.astype(int), 0.01).astype(np.float64), totals
    return times, np.clip(0.4 * day + rng.normal(0, 0.03, hours), 0, 1), None


def judge(measure: Measure, seed: int, factor: float = 1.0) -> Anomaly:
    times, values, totals = series(measure, seed)
    values[-1] *= factor
    return judge_operations(measure, times, values, totals=totals)


@pytest.mark.parametrize("measure", Measure)
def test_an_ordinary_hour_is_no_anomaly(measure: Measure) -> None:
    found = [judge(measure, seed) for seed in range(10)]
    assert sum(one.anomalous for one in found) == 0
    for one in found:
        assert one.lower is not None
        assert one.expected is not None
        assert one.upper is not None
        assert one.lower <= one.expected <= one.upper


@pytest.mark.parametrize(
    ("measure", "factor"),
    [
        (Measure.traffic, 0.3),
        (Measure.traffic, 2.5),
        (Measure.latency, 4.0),
        (Measure.errors, 6.0),
        (Measure.saturation, 3.0),
    ],
)
def test_what_is_far_off_is(measure: Measure, factor: float) -> None:
    assert all(judge(measure, seed, factor).anomalous for seed in range(5))


def test_the_hour_of_the_day_is_known() -> None:
    found = judge(Measure.traffic, 0)
    assert found.rhythm == "day"
    times, values, _ = series(Measure.traffic, 0)
    night = int(np.argmin(values[-24:])) - 24
    quiet = values.copy()
    quiet[-1] = values[night]  # a night's traffic at the hour of the last value
    peak = np.flatnonzero(values[:-1] > 400)[-1]
    assert judge_operations(
        Measure.traffic, times[: peak + 1], np.append(values[:peak], values[night])
    ).anomalous


def test_good_news_is_none() -> None:
    assert not judge(Measure.latency, 1, 0.05).anomalous
    assert not judge(Measure.errors, 1, 0.0).anomalous


def test_histories_that_say_little() -> None:
    short = judge_operations(Measure.latency, np.arange(10.0), np.ones(10))
    assert (short.anomalous, short.note) == (False, "9 earlier values; 24 are needed")
    constant = np.ones(100)
    assert not judge_operations(Measure.saturation, np.arange(100.0), constant).anomalous
    constant[-1] = 1.5
    assert judge_operations(Measure.saturation, np.arange(100.0), constant).anomalous
    zeros = np.zeros(60)
    assert not judge_operations(Measure.traffic, np.arange(60.0), zeros).anomalous


def test_clocks_that_jump_and_gaps_do_no_harm() -> None:
    times, values, _ = series(Measure.traffic, 3)
    order = np.random.default_rng(0).permutation(len(times) - 1)
    mixed = judge_operations(
        Measure.traffic, np.append(times[order], times[-1]), np.append(values[order], values[-1])
    )
    assert mixed == judge_operations(Measure.traffic, times, values)
    values[40:90] = np.nan
    assert not judge_operations(Measure.traffic, times, values).anomalous
    same = judge_operations(Measure.traffic, np.full(50, 5.0), np.full(50, 7.0))
    assert not same.anomalous


def test_what_cannot_be_judged_is_told() -> None:
    with pytest.raises(InvalidInput, match="give totals"):
        judge_operations(Measure.errors, np.zeros(3), np.zeros(3))
    with pytest.raises(InvalidInput, match="3 times have 2 values"):
        judge_operations(Measure.latency, np.zeros(3), np.zeros(2))
    with pytest.raises(InvalidInput, match="no value"):
        judge_operations(Measure.latency, np.zeros(0), np.zeros(0))
