"""Intervals against the tables they were published with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairway.monitoring.performance import intervals


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_in_newcombe_1998_two_sided_intervals(
    successes: int, trials: int, lower: float, upper: float
) -> None:
    assert intervals.wilson(successes, trials) == pytest.approx((lower, upper), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "lower", "upper"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_as_in_newcombe_1998_table_2(
    a: tuple[int, int], b: tuple[int, int], lower: float, upper: float
) -> None:
    assert intervals.newcombe(a, b) == pytest.approx((lower, upper), abs=5e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 500), st.integers(1, 500), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_the_score_test_turned_round(successes: int, trials: int, confidence: float) -> None:
    successes = min(successes, trials)
    lower, upper = intervals.wilson(successes, trials, confidence)
    assert 0 <= lower <= successes / trials <= upper <= 1
    known = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (lower, upper) == pytest.approx((known.low, known.high), abs=1e-9)


def test_a_ratio_holds_its_value_and_goes_with_the_difference() -> None:
    low, high = intervals.ratio((56, 70), (48, 80))
    assert low < (56 / 70) / (48 / 80) < high
    assert low > 1  # as the difference of the same counts is above 0
    assert intervals.ratio((0, 10), (5, 10))[0] == 0.0
    assert intervals.ratio((5, 10), (0, 10))[1] == np.inf
    assert intervals.ratio((1, 0), (5, 10)) == (0.0, np.inf)


def test_no_trials_say_nothing() -> None:
    assert intervals.wilson(0, 0) == (0.0, 1.0)
    assert intervals.newcombe((0, 0), (1, 2)) == (-1.0, 1.0)


def test_the_mean_of_even_values_has_students_interval() -> None:
    values = np.arange(101.0)
    found = intervals.mean(values, freedom=100)
    known = stats.t.interval(0.95, 100, values.mean(), stats.sem(values))
    assert found == pytest.approx(known, rel=1e-3)


def test_skewed_values_have_a_longer_arm_on_the_long_side() -> None:
    values = np.random.default_rng(0).lognormal(size=200)
    found = intervals.mean(values)
    assert found is not None
    assert found[1] - values.mean() > values.mean() - found[0]


def test_values_that_do_not_vary_have_no_interval() -> None:
    assert intervals.mean(np.full(50, 0.3)) is None
    assert intervals.mean(np.array([1.0])) is None


def test_a_perfect_order_is_still_uncertain() -> None:
    lower, upper = intervals.rank_area(1.0, 10, 10)
    assert upper == 1.0
    assert 0.7 < lower < 0.9
    assert intervals.rank_area(1.0, 1000, 1000)[0] > 0.99
    assert intervals.rank_area(0.0, 10, 10) == pytest.approx((0.0, 1 - lower), abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 10))
def test_log_odds_stay_between_0_and_1(value: float, error: float) -> None:
    lower, upper = intervals.logit(value, error)
    assert 0 <= lower <= value <= upper <= 1


def test_a_mean_square_knows_that_a_few_errors_weigh_most() -> None:
    rng = np.random.default_rng(0)
    light, heavy = rng.normal(size=400) ** 2, rng.standard_t(2.5, size=400) ** 2
    widths = []
    for squares in (light, heavy):
        found = intervals.mean_square(squares)
        assert found is not None
        assert found[0] < squares.mean() < found[1]
        widths.append((found[1] - found[0]) / squares.mean())
    assert widths[1] > widths[0]
    assert intervals.mean_square(np.zeros(200)) is None
    assert intervals.mean_square(light[:99]) is None
    one = intervals.mean_square(np.array([*[0.0] * 99, 9.0]))  # one error is all there is
    assert one is not None
    assert one[1] > 100


@pytest.mark.parametrize("freedom", [5, 40])
def test_mean_squares_of_light_and_heavy_tails_are_covered(freedom: int) -> None:
    rng = np.random.default_rng(1)
    truth, held = freedom / (freedom - 2), 0  # the variance of Student's t
    for _ in range(600):
        low, high = intervals.mean_square(rng.standard_t(freedom, 200) ** 2) or (0.0, 0.0)
        held += low <= truth <= high
    assert 0.915 <= held / 600 <= 0.98


def test_losses_of_a_rare_class_are_covered() -> None:
    """One loss in ten is ten times as large."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(1_500):
        losses = np.where(rng.random(150) < 0.1, rng.gamma(4, 0.75, 150), rng.gamma(2, 0.15, 150))
        low, high = intervals.mean_of_rare(losses) or (0.0, 0.0)
        held += low <= 0.1 * 4 * 0.75 + 0.9 * 2 * 0.15 <= high
    assert 0.93 <= held / 1_500 <= 0.965
    assert intervals.mean_of_rare(np.full(9, 0.3)) is None
    assert intervals.mean_of_rare(np.array([0.3])) is None


def test_of_values_that_are_not_skewed_johnsons_is_students() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    known = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert intervals.mean_of_rare(values) == pytest.approx((known.low, known.high))
    skewed = np.array([1.0, 1.0, 2.0, 8.0])
    known = stats.ttest_1samp(skewed, 0.0).confidence_interval(0.9)
    quantile = stats.t.ppf(0.95, 3)
    moved = stats.moment(skewed, 3) / (6 * skewed.var(ddof=1) * 4) * (1 + 2 * quantile**2)
    assert intervals.mean_of_rare(skewed, 0.9) == pytest.approx((known.low + moved, known.high + moved))


def test_means_of_heavy_tails_are_covered() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1_500):
        low, high = intervals.mean(rng.standard_t(4, 50) * rng.gamma(4, 1, 50)) or (0.0, 0.0)
        held += low <= 0 <= high
    assert 0.935 <= held / 1_500 <= 0.975


def test_what_folds_say_has_few_degrees_of_freedom() -> None:
    assert intervals.with_learned(2.0, 0.0, 5) == (2.0, np.inf)
    error, freedom = intervals.with_learned(0.0, 2.0, 5)
    assert (error, freedom) == (2.0, 4.0)
    error, freedom = intervals.with_learned(3.0, 4.0, 5)
    assert (error, freedom) == (5.0, pytest.approx(4 * (5 / 4) ** 4))
    low, high = intervals.plain(0.0, 1.0, freedom=4.0)
    assert (low, high) == pytest.approx((-stats.t.ppf(0.975, 4), stats.t.ppf(0.975, 4)))
    assert intervals.plain(0.0, 1.0, freedom=np.inf) == intervals.plain(0.0, 1.0)
