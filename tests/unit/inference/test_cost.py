"""What calls cost and how far merging pays, learned from calls."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.inference.cost import CostCurve

FOREST = [(1, 14), (2, 21), (4, 29), (8, 57), (16, 103), (32, 198), (64, 536), (256, 2059)]
"""Microseconds seen for 200 trees in ONNX Runtime 1.2x."""
MLP = [(1, 530), (2, 521), (4, 618), (8, 1064), (16, 1750), (32, 3291), (64, 6106), (128, 13000)]


def curve(calls: list[tuple[int, float]], **options: float) -> CostCurve:
    learned = CostCurve(**options)  # type: ignore[arg-type]
    for rows, microseconds in calls:
        learned.learn(rows, microseconds * 1e-6)
    return learned


def test_expectations_lie_between_what_was_seen() -> None:
    assert CostCurve().expect(1) == 0.0
    one = curve([(1, 1000)])
    assert one.expect(1) == 0.001
    assert one.expect(100) == pytest.approx(0.1)  # not seen yet: as many times the nearest
    two = curve([(1, 1000), (101, 2000)])
    assert two.expect(51) == pytest.approx(0.0015)
    assert two.expect(202) == pytest.approx(0.004)
    assert curve([(1000, 500_000)]).expect(1) == 0.5


def test_it_falls_fast_and_rises_slowly() -> None:
    learned = curve([(1, 1000)])
    learned.learn(1, 0.1)
    assert learned.expect(1) < 0.003  # one slow call says little
    for _ in range(1000):
        learned.learn(1, 0.005)
    assert learned.expect(1) == pytest.approx(0.005, rel=0.01)
    for _ in range(15):
        learned.learn(1, 0.001)
    assert learned.expect(1) == pytest.approx(0.001, rel=0.05)


def test_merging_pays_as_long_as_a_row_gets_cheaper() -> None:
    assert curve(FOREST).pays_rows >= 63
    assert curve(MLP).pays_rows >= 255
    assert (
        curve([(1, 11), (2, 30), (8, 208)]).pays_rows == 1
    )  # a forest whose batches cost more than their rows alone
    assert curve([(1, 10)]).pays_rows == 3  # what was not tried yet is tried
    assert curve(MLP, most_rows=50).pays_rows == 50


def test_how_many_rows_an_event_loop_may_wait_for() -> None:
    assert curve(FOREST, inline_seconds=0.0001).inline_rows == 15
    assert curve(MLP, inline_seconds=0.0005).inline_rows == 0
    assert curve(FOREST).inline_rows >= 2**30
    assert CostCurve(inline_seconds=0.001).inline_rows > 10**6  # nothing known: nothing to fear


def test_a_size_that_was_slow_once_is_tried_again() -> None:
    learned = curve([(1, 10), (2, 11), (4, 90_000)])
    assert learned.pays_rows == 3
    for _ in range(64 * 20):
        learned.learn(1, 10e-6)
        learned.learn(2, 11e-6)
    assert learned.pays_rows == 7


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-7, 10.0)), min_size=1, max_size=200),
    st.floats(0, 1),
    st.integers(1, 4096),
)
def test_any_history_gives_limits_that_hold(
    calls: list[tuple[int, float]], inline_seconds: float, most_rows: int
) -> None:
    learned = CostCurve(inline_seconds=inline_seconds, most_rows=most_rows)
    for rows, seconds in calls:
        learned.learn(rows, seconds)
        assert 1 <= learned.pays_rows <= most_rows
        assert learned.inline_rows >= 0
    for rows in (1, 7, 5000, 10**6):
        assert 0 < learned.expect(rows) < math.inf
