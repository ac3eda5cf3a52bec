import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from fairway.monitoring.drift import effects, levels
from fairway.monitoring.drift.levels import Side, codes_of, count, cuts

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=60)


def both(before: np.ndarray, after: np.ndarray) -> tuple[Side, Side]:
    pooled = np.concatenate([before, after])
    edges = cuts(pooled[np.isfinite(pooled)], 0.05)
    made = [count(values, codes_of(values, edges), len(edges) + 1) for values in (before, after)]
    return made[0], made[1]


@given(numbers, numbers)
@settings(max_examples=60, deadline=None)
def test_every_row_is_at_one_level_and_levels_keep_the_order(before: list[float], after: list[float]) -> None:
    values = np.array(before + after, dtype=float)
    edges = cuts(values, 0.05)
    codes = codes_of(values, edges)
    assert ((codes >= 0) & (codes <= len(edges))).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(codes[order]) >= 0).all()
    side = count(values, codes, len(edges) + 1)
    assert side.rows == len(values)


def test_gaps_and_infinities_are_counted_apart() -> None:
    values = np.array([1.0, np.nan, np.inf, -np.inf, np.inf, 2.0])
    edges = cuts(np.array([1.0, 2.0]), 0.05)
    side = count(values, codes_of(values, edges), len(edges) + 1)
    assert side.known.tolist() == [1, 1]
    assert side.special.tolist() == [1, 2, 1]
    assert side.values.tolist() == [1, 2]
    assert side.rate(levels.MISSING) == pytest.approx(1 / 6)


@pytest.mark.parametrize("make", ["normal", "lognormal", "cauchy", "whole", "constant", "halves"])
def test_the_grid_finds_the_level_that_a_search_finds(make: str) -> None:
    rng = np.random.default_rng(0)
    size = 60_000
    values = {
        "normal": rng.standard_normal(size),
        "lognormal": np.exp(2 * rng.standard_normal(size)),
        "cauchy": rng.standard_cauchy(size),
        "whole": rng.integers(0, 150, size).astype(float),
        "constant": np.full(size, 3.0),
        "halves": np.where(rng.random(size) < 0.5, 0.0, rng.random(size)),
    }[make]
    values[::1000], values[1::1000], values[2::1000] = np.nan, np.inf, -np.inf
    edges = cuts(values[np.isfinite(values)][:5000], 0.002)
    known = np.isfinite(values)
    assert np.array_equal(codes_of(values, edges)[known], np.searchsorted(edges, values[known], side="left"))


def test_sizes_are_scipys_where_every_number_is_a_level() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 100, 300).astype(float), rng.integers(5, 115, 200).astype(float)
    reference, current = both(before, after)
    assert effects.kolmogorov_smirnov(reference.known, current.known) == pytest.approx(
        stats.ks_2samp(before, after).statistic
    )
    assert effects.spread_of(reference) == pytest.approx(before.std())
    assert effects.mean_of(current) == pytest.approx(after.mean())
    expected = stats.wasserstein_distance(before, after) / before.std()
    assert effects.wasserstein(reference, current, before.std()) == pytest.approx(expected)


def test_sizes_are_near_scipys_in_levels() -> None:
    rng = np.random.default_rng(2)
    before, after = np.exp(rng.standard_normal(20_000)), np.exp(rng.standard_normal(9_000) + 0.2)
    reference, current = both(before, after)
    assert effects.kolmogorov_smirnov(reference.known, current.known) == pytest.approx(
        stats.ks_2samp(before, after).statistic, abs=0.005
    )
    expected = stats.wasserstein_distance(before, after) / before.std()
    assert effects.wasserstein(reference, current, effects.spread_of(reference)) == pytest.approx(
        expected, rel=0.05
    )


def test_population_stability_of_a_worked_example() -> None:
    """Ten bins 10% each against 5% and 15% by turns: 5 * (0.05 ln 1.5 + 0.05 ln 2)."""
    reference = np.full(10, 100_000.0)
    current = np.tile([50_000.0, 150_000.0], 5)
    expected = 5 * (0.05 * np.log(1.5) + 0.05 * np.log(2))
    assert effects.population_stability(reference, current) == pytest.approx(expected, rel=1e-3)
    assert effects.population_stability(reference, reference) == 0
    assert np.isfinite(effects.category_stability(np.array([5.0, 0.0]), np.array([0.0, 5.0])))


def test_distances_of_categories() -> None:
    before, after = np.array([6.0, 4.0, 0.0]), np.array([3.0, 4.0, 3.0])
    assert effects.total_variation(before, after) == pytest.approx(0.3)
    assert effects.jensen_shannon(before, after) == pytest.approx(
        distance.jensenshannon(before, after, base=2)
    )
    assert effects.jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)


def test_an_empty_side_has_no_distance() -> None:
    none = np.zeros(3)
    some = np.ones(3)
    for size in (
        effects.total_variation,
        effects.jensen_shannon,
        effects.kolmogorov_smirnov,
        effects.population_stability,
    ):
        assert size(none, some) == 0
        assert size(some, none) == 0


def test_huge_numbers_do_not_overflow_into_the_answer() -> None:
    reference, current = both(np.array([-1e308, 1e308, 0.0]), np.array([1e308, 1e308, -1e308]))
    assert np.isfinite(effects.wasserstein(reference, current, effects.spread_of(reference)))
