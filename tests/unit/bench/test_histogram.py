"""Quantiles against the exact ones of the raw samples; adding up against counting together."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bench.histogram import Histogram

durations = st.lists(
    st.one_of(st.floats(0, 1e-6), st.floats(0, 1e-2), st.floats(0, 900)), min_size=1, max_size=300
)
shares = st.floats(0, 1)


def of(values: list[float], bits: int = 10) -> Histogram:
    histogram = Histogram(bits)
    histogram.add(values)
    return histogram


def exact(values: list[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed."""
    return sorted(values)[max(math.ceil(round(share * len(values), 6)), 1) - 1]


@given(durations, shares, st.sampled_from([4, 6, 10]))
def test_a_quantile_is_never_too_low_and_at_most_one_bin_too_high(
    values: list[float], share: float, bits: int
) -> None:
    true = exact(values, share)
    found = of(values, bits).quantile(share)
    assert true <= found * (1 + 1e-12)
    assert found <= true * (1 + 2**-bits) + 2e-9


@given(durations)
def test_the_exact_quantile_is_numpys(values: list[float]) -> None:
    for share in (0.25, 0.5, 0.75, 1.0):
        if (share * len(values)).is_integer():
            assert exact(values, share) == np.percentile(values, share * 100, method="inverted_cdf")


@given(durations, st.lists(durations, max_size=3))
def test_histograms_add_up(values: list[float], others: list[list[float]]) -> None:
    total = of(values)
    for other in others:
        total.merge(Histogram.of(of(other).counted()))
    together = of([v for part in [values, *others] for v in part])
    assert total.counted().bins == together.counted().bins
    assert total.counted().counts == together.counted().counts
    assert total.count == together.count
    assert total.largest == together.largest
    assert total.smallest == together.smallest
    assert total.mean == pytest.approx(together.mean, abs=1e-9)


@given(durations)
def test_a_histogram_survives_the_way_between_processes(values: list[float]) -> None:
    before = of(values, 6)
    after = Histogram.of(before.counted())
    assert after.counted() == before.counted()
    assert after.quantiles([0.1, 0.5, 0.99]) == before.quantiles([0.1, 0.5, 0.99])


def test_the_largest_is_exact_and_the_smallest_bounds_the_lowest() -> None:
    histogram = of([0.123456789, 0.1, 0.2])
    assert histogram.quantile(1.0) == 0.2
    assert histogram.smallest == 0.1
    assert 0.1 <= histogram.quantile(0.0) <= 0.1 * (1 + 2**-10)


def test_an_empty_one_gives_zeros() -> None:
    empty = Histogram()
    assert (empty.count, empty.mean, empty.largest, empty.smallest) == (0, 0.0, 0.0, 0.0)
    assert empty.quantiles([0.5, 1.0]) == [0.0, 0.0]
    assert Histogram.of(empty.counted()).counted() == empty.counted()


def test_what_is_too_long_or_negative_is_clipped() -> None:
    histogram = of([-1.0, 5000.0])
    assert histogram.count == 2
    assert histogram.smallest == 0.0
    assert histogram.quantile(1.0) == 5000.0


def test_different_precisions_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="6 bits"):
        Histogram(10).merge(Histogram(6))
