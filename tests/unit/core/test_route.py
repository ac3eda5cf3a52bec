import msgspec
import pytest

from fairway.core.route import Arm, Route, everything_to


def test_everything_to_one_version() -> None:
    route = everything_to("m", 3, revision=2)
    assert (route.arms, route.versions, route.revision) == ((Arm(3, 1.0),), (3,), 2)


def test_versions_are_arms_then_shadows_once_each() -> None:
    route = Route(model="m", arms=(Arm(2, 0.9), Arm(1, 0.1)), shadows=(5, 1))
    assert route.versions == (2, 1, 5)


def test_the_main_version_has_the_most_traffic_and_of_equals_is_the_first() -> None:
    assert Route(model="m", arms=(Arm(1, 0.4), Arm(2, 0.6)), shadows=(3,)).main == 2
    assert Route(model="m", arms=(Arm(2, 0.5), Arm(1, 0.5))).main == 2


@pytest.mark.parametrize(
    ("arms", "why"),
    [
        ((), "at least one arm"),
        ((Arm(1, 0.0), Arm(2, 1.0)), "above 0"),
        ((Arm(1, -0.5), Arm(2, 1.5)), "above 0"),
        ((Arm(1, 0.5), Arm(2, 0.4)), "add up to 1"),
        ((Arm(1, float("nan")), Arm(2, 0.5)), "above 0"),
        ((Arm(1, 0.5), Arm(1, 0.5)), "one arm only"),
    ],
)
def test_what_is_not_a_route(arms: tuple[Arm, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Route(model="m", arms=arms)


def test_shares_may_miss_one_by_rounding() -> None:
    assert len(Route(model="m", arms=tuple(Arm(i, 0.1) for i in range(1, 11))).arms) == 10


def test_as_json_and_back_checked_again() -> None:
    route = Route(model="m", arms=(Arm(1, 0.25), Arm(2, 0.75)), shadows=(3,), salt="s", revision=9)
    text = msgspec.json.encode(route)
    assert msgspec.json.decode(text, type=Route) == route
    with pytest.raises(msgspec.ValidationError, match="add up to 1"):
        msgspec.json.decode(text.replace(b"0.25", b"0.5"), type=Route)
