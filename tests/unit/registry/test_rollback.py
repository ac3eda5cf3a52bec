"""Which route a rollback brings back."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.route import Arm, Route, everything_to
from fairway.core.version import Change
from fairway.registry.rollback import rollback_target, traffic, trail


def _history(*routes: Route) -> list[Change]:
    return [_change(number, route) for number, route in enumerate(routes, 1)]


def _change(sequence: int, route: Route, restores: int | None = None) -> Change:
    return Change(
        sequence=sequence,
        model=route.model,
        what="route",
        before=None,
        after=msgspec.json.encode(route).decode(),
        who="ann",
        why="",
        when="",
        restores=restores,
    )


def _to(version: int) -> Route:
    return everything_to("m", version)


def _split(**shares: float) -> Route:
    """`_split(v1=0.9, v2=0.1)`"""
    return Route(model="m", arms=tuple(Arm(int(name[1:]), share) for name, share in shares.items()))


def _back(*routes: Route) -> Route | None:
    target = rollback_target(_history(*routes))
    return None if target is None else target[1]


def test_the_version_before_comes_back() -> None:
    assert _back(_to(1), _to(2)) == _to(1)
    assert _back(_to(1), _to(2), _to(1)) == _to(2)
    assert _back(_to(3), _to(1), _to(2)) == _to(1)


def test_there_may_be_nothing_to_go_back_to() -> None:
    assert _back() is None
    assert _back(_to(1)) is None
    assert _back(_to(1), _to(1)) is None


def test_the_steps_of_a_rollout_are_passed_over() -> None:
    steps = [_to(1), _split(v1=0.9, v2=0.1), _split(v1=0.5, v2=0.5), _to(2)]
    assert _back(*steps) == _to(1)
    assert _back(*steps[:3]) == _to(1)
    assert _back(*steps[:2]) == _to(1)
    assert _back(*steps, _split(v2=0.9, v3=0.1), _to(3)) == _to(2)


def test_a_rollout_that_was_given_up_does_not_count() -> None:
    assert _back(_to(7), _to(1), _split(v1=0.9, v2=0.1), _to(1)) == _to(7)


def test_a_split_that_stood_before_comes_back_whole() -> None:
    split = _split(v1=0.5, v2=0.5)
    assert _back(_to(1), split, _to(3)) == split


def test_without_a_route_lacking_the_new_version_the_one_before_comes_back() -> None:
    shadowed = Route(model="m", arms=(Arm(1),), shadows=(2,))
    assert _back(_to(1), shadowed) == _to(1)
    assert _back(_split(v1=0.5, v2=0.5), _split(v1=0.7, v2=0.3)) == _split(v1=0.5, v2=0.5)


def test_traffic_ignores_revision_and_order() -> None:
    one = Route(model="m", arms=(Arm(1, 0.4), Arm(2, 0.6)), shadows=(3, 4), revision=1)
    other = Route(model="m", arms=(Arm(2, 0.6), Arm(1, 0.4)), shadows=(4, 3), revision=9)
    assert traffic(one) == traffic(other)
    assert traffic(one) != traffic(msgspec.structs.replace(one, salt="x"))


_ROUTES = st.one_of(
    st.integers(1, 4).map(_to),
    st.sampled_from([0.1, 0.25, 0.5]).flatmap(
        lambda share: st.permutations([1, 2, 3, 4]).map(
            lambda order: Route(model="m", arms=(Arm(order[0], share), Arm(order[1], 1 - share)))
        )
    ),
)


def _roll_back_to_the_end(changes: Sequence[Change]) -> list[Change]:
    changes = list(changes)
    while (target := rollback_target(changes)) is not None:
        changes.append(_change(len(changes) + 1, target[1], restores=target[0]))
    return changes


@given(st.lists(_ROUTES, min_size=1, max_size=8))
def test_rolling_back_again_and_again_ends_and_never_repeats_a_route(routes: list[Route]) -> None:
    changes = _roll_back_to_the_end(_history(*routes))
    restored = [change.restores for change in changes if change.restores is not None]
    assert restored == sorted(set(restored), reverse=True)
    assert len(restored) < len(routes)


@given(st.lists(_ROUTES, min_size=2, max_size=8))
def test_a_rollback_changes_the_traffic_and_removes_a_live_version_if_it_can(routes: list[Route]) -> None:
    target = rollback_target(_history(*routes))
    current = {arm.version for arm in routes[-1].arms}
    if target is None:
        assert {traffic(route) for route in routes} == {traffic(routes[-1])}
        return
    assert traffic(target[1]) != traffic(routes[-1])
    if any(not current & {arm.version for arm in route.arms} for route in routes):
        assert current - {arm.version for arm in target[1].arms}


@given(st.lists(_ROUTES, min_size=1, max_size=6), _ROUTES)
def test_a_route_set_after_a_rollback_continues_from_the_restored_one(
    routes: list[Route], new: Route
) -> None:
    changes = _history(*routes)
    target = rollback_target(changes)
    if target is None:
        return
    changes.append(_change(len(changes) + 1, target[1], restores=target[0]))
    assert trail(changes) == trail(_history(*routes))[: target[0]]
    changes.append(_change(len(changes) + 1, new))
    assert trail(changes)[-1] == (len(changes), new)
    assert trail(changes)[-2][0] == target[0]
