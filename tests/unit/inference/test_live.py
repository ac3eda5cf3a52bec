"""Finding the version that answers, and learning what a call costs."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import (
    AliasNotFound,
    Conflict,
    ModelFailed,
    ModelNotFound,
    StorageFull,
    VersionNotFound,
)
from fairway.core.route import Arm, Route, everything_to
from fairway.inference.live import CostCurve, LiveModel, LiveVersion, Table
from tests.planes import Adding, live_version, split


def model(**options: object) -> LiveModel:
    versions = {1: live_version(1), 3: live_version(3)}
    return LiveModel(everything_to("m", 3), versions, {"champion": 3, "old": 1}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "number"), [(None, 3), ("1", 1), ("3", 3), ("champion", 3), ("old", 1), ("001", 1)]
)
def test_by_route_number_or_alias(wanted: str | None, number: int) -> None:
    assert model().pick(wanted, "key").version == number


@pytest.mark.parametrize(
    ("wanted", "error"),
    [("2", VersionNotFound), ("0", VersionNotFound), ("challenger", AliasNotFound), ("", AliasNotFound), ("-1", AliasNotFound), ("9" * 5000, AliasNotFound), ("٣٣", VersionNotFound)],
)  # fmt: skip
def test_what_is_not_there(wanted: str, error: type[Exception]) -> None:
    live = model()
    assert not live.has(wanted)
    assert not live.needs_loading(wanted)
    with pytest.raises(error, match="m has no"):
        live.pick(wanted, "key")


@given(st.text())
def test_any_text_is_found_or_not(wanted: str) -> None:
    live = model()
    try:
        found = live.pick(wanted, "key")
    except (VersionNotFound, AliasNotFound):
        assert not live.has(wanted)
    else:
        assert live.has(wanted)
        assert found in live.versions.values()


def test_a_route_to_what_is_not_loaded_is_refused() -> None:
    with pytest.raises(VersionNotFound, match=r"not loaded: \[2\]"):
        LiveModel(Route(model="m", arms=(Arm(1, 0.5), Arm(2, 0.5))), {1: live_version(1)}, {})


def test_a_split_gives_each_key_its_arm_and_metadata_the_largest() -> None:
    live = split("m", 0.2, 0.8)
    assert live.primary.version == 2
    assert {live.pick(None, str(i)).version for i in range(50)} == {1, 2}
    assert live.pick(None, "k") is live.pick(None, "k")


def test_other_versions_are_loaded_once_when_asked_for() -> None:
    loaded: list[int] = []
    gate = threading.Barrier(4)

    def load() -> LiveVersion:
        loaded.append(2)
        return live_version(2)

    live = model(unloaded={2: load})
    assert live.has("2")
    assert live.needs_loading("2")
    assert live.numbers == [1, 2, 3]

    def ask() -> None:
        gate.wait()
        live.load("2")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [2]
    assert not live.needs_loading("2")
    assert live.pick("2", "").version == 2


def test_a_version_that_fails_to_load_may_be_asked_for_again() -> None:
    failures = [StorageFull("no room")]

    def load() -> LiveVersion:
        if failures:
            raise failures.pop()
        return live_version(2)

    live = model(unloaded={2: load})
    with pytest.raises(StorageFull):
        live.load("2")
    live.load("2")
    assert live.pick("2", "").version == 2


def test_a_table_of_models() -> None:
    table = Table([model()])
    assert table["m"].route.model == "m"
    assert table.find("x") is None
    with pytest.raises(ModelNotFound, match="no model 'x' is being served; there is m"):
        table["x"]
    with pytest.raises(ModelNotFound, match="there is no model"):
        Table([])["x"]


def test_what_the_model_raises_is_a_model_failure_and_ours_stay_what_they_are() -> None:
    for raised, expected in ((ZeroDivisionError("oops"), ModelFailed), (Conflict("ours"), Conflict)):

        def fail(columns: object, raised: Exception = raised) -> None:
            raise raised

        version = live_version(1, Adding(before=fail))
        columns = version.validate({"a": [1.0], "b": [1.0]})
        with pytest.raises(expected, match=str(raised)):
            version.run(columns)


def test_a_version_validates_runs_and_learns() -> None:
    version = live_version(1)
    columns = version.validate({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    assert version.run(columns)["sum"].tolist() == [2.0, 4.0]
    assert version.cost.expect(2) > 0
    engine = Adding()
    live_version(1, engine).unload()
    assert engine.unloaded


def test_the_cost_curve() -> None:
    curve = CostCurve()
    assert curve.expect(1) == 0.0
    curve.learn(1, 0.001)
    assert curve.expect(1) == 0.001
    assert curve.expect(100) == pytest.approx(0.001 * 2**6)  # not seen yet: scaled up
    curve.learn(100, 0.002)
    assert curve.expect(100) == curve.expect(127) == 0.002
    assert curve.expect(50) > curve.expect(1)
    curve.learn(1, 0.1)  # one slow call says little
    assert curve.expect(1) < 0.003
    for _ in range(1000):
        curve.learn(1, 0.005)
    assert curve.expect(1) == pytest.approx(0.005, rel=0.01)
    for _ in range(30):
        curve.learn(1, 0.001)
    assert curve.expect(1) == pytest.approx(0.001, rel=0.05)
    only_large = CostCurve()
    only_large.learn(1000, 0.5)
    assert only_large.expect(1) == 0.5
    assert np.isfinite(only_large.expect(10**6))
