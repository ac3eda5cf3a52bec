"""Moments of the open loop: rate, order, and that client processes share one schedule."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bench.schedule import Arrivals, schedule


@given(st.floats(0.5, 500), st.floats(0.1, 20), st.integers(1, 5))
def test_processes_share_an_even_schedule(rate: float, seconds: float, shares: int) -> None:
    whole = list(schedule(Arrivals.fixed, rate, seconds))
    parts = [list(schedule(Arrivals.fixed, rate, seconds, share=i, shares=shares)) for i in range(shares)]
    assert sorted(itertools.chain(*parts)) == whole
    assert whole == [i / rate for i in range(len(whole))]
    assert len(whole) / rate >= seconds > (len(whole) - 1) / rate


def test_poisson_arrivals_are_exponential_and_at_the_rate() -> None:
    parts = [list(schedule(Arrivals.poisson, 1000, 50, share=i, shares=2, seed=3)) for i in range(2)]
    assert parts[0] != parts[1]
    gaps = np.diff(np.sort(np.concatenate(parts)))
    # 50,000 arrivals: the mean gap has a standard error of 0.45 %, its deviation of about 0.6 %
    assert gaps.mean() == pytest.approx(1e-3, rel=0.02)
    assert gaps.std() == pytest.approx(1e-3, rel=0.03)
    assert (gaps > 1e-3).mean() == pytest.approx(np.exp(-1), abs=0.01)
    assert max(max(part) for part in parts) < 50
    assert all(a < b for part in parts for a, b in itertools.pairwise(part))


def test_the_same_seed_gives_the_same_moments() -> None:
    first, again, other = (list(schedule(Arrivals.poisson, 100, 5, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
