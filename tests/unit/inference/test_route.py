"""Routing is a pure function: sticky, by weight, and a change of weights moves no more keys than it must."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.route import Arm, Route, everything_to
from fairway.inference.route import choose


@st.composite
def routes(draw: st.DrawFn) -> Route:
    parts = draw(st.lists(st.integers(1, 100), min_size=1, max_size=5))
    arms = tuple(Arm(i + 1, part / sum(parts)) for i, part in enumerate(parts))
    return Route(model="m", arms=arms, salt=draw(st.text(max_size=3)))


@given(routes(), st.text())
def test_the_same_key_gets_the_same_arm(route: Route, key: str) -> None:
    chosen = choose(route, key)
    assert chosen in route.versions
    again = Route(model="other", arms=route.arms, salt=route.salt, revision=99, shadows=(77,))
    assert choose(again, key) == chosen


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.99, 0.01), (0.2, 0.3, 0.5)])
def test_shares_converge_to_the_weights(shares: tuple[float, ...]) -> None:
    """Chi-square on 20,000 keys, at the 0.001 level; keys are fixed, so this does not vary from run to run."""
    route = Route(model="m", arms=tuple(Arm(i, share) for i, share in enumerate(shares)), salt="s")
    keys = 20_000
    seen = Counter(choose(route, f"customer-{i}") for i in range(keys))
    statistic = sum((seen[i] - share * keys) ** 2 / (share * keys) for i, share in enumerate(shares))
    critical = {1: 10.83, 2: 13.82}[len(shares) - 1]
    assert statistic < critical


def test_more_weight_to_the_newcomer_moves_keys_only_to_it() -> None:
    before = Route(model="m", arms=(Arm(1, 0.9), Arm(2, 0.1)), salt="s")
    after = Route(model="m", arms=(Arm(1, 0.7), Arm(2, 0.3)), salt="s")
    moves = Counter((choose(before, str(i)), choose(after, str(i))) for i in range(5000))
    assert moves[2, 1] == 0
    assert moves[1, 2] > 0


def test_another_salt_deals_anew() -> None:
    one, two = (Route(model="m", arms=(Arm(1, 0.5), Arm(2, 0.5)), salt=salt) for salt in "ab")
    same = sum(choose(one, str(i)) == choose(two, str(i)) for i in range(2000))
    assert 850 < same < 1150


def test_one_arm_takes_everything_and_rounding_leaves_no_gap() -> None:
    assert choose(everything_to("m", 4), "any") == 4
    thirds = Route(model="m", arms=tuple(Arm(i, 1 / 3) for i in (1, 2, 3)))
    assert {choose(thirds, str(i)) for i in range(200)} == {1, 2, 3}
