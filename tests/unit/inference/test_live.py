"""Finding the version that answers, and learning what a call costs."""

import time
from collections.abc import Collection
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import (
    AliasNotFound,
    Conflict,
    DeadlineExceeded,
    ModelFailed,
    ModelNotFound,
    Overloaded,
    StorageFull,
    VersionNotFound,
)
from fairway.core.route import Arm, Route, everything_to
from fairway.inference.live import Absent, LiveModel, Table
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


class Shelf:
    """Loads what it is asked for when `go` is called."""

    patience_seconds = 0.05

    def __init__(self, *errors: Exception) -> None:
        self.asked: list[tuple[str, list[int]]] = []
        self.futures: list[Future[LiveModel]] = []

    def load_soon(self, name: str, versions: Collection[int]) -> Future[LiveModel]:
        self.asked.append((name, list(versions)))
        self.futures.append(Future())
        return self.futures[-1]


def cold(shelf: Shelf) -> LiveModel:
    route = Route(model="m", arms=(Arm(1, 0.3), Arm(2, 0.7)))
    return LiveModel(
        route, {1: live_version(1)}, {"old": 1, "new": 2}, [2, 3], shelf, live_version(2, Absent())
    )


@pytest.mark.parametrize(
    ("wanted", "asked"), [(None, [2]), ("2", [2]), ("02", [2]), ("new", [2]), ("3", [3])]
)
def test_what_is_not_loaded_is_asked_for(wanted: str | None, asked: list[int]) -> None:
    shelf = Shelf()
    live = cold(shelf)
    assert wanted is None or live.has(wanted)
    assert live.needs_loading(wanted)
    assert live.numbers == [1, 2, 3]
    found = live.load_soon(wanted)
    assert shelf.asked == [("m", asked)]
    shelf.futures[0].set_result(live)
    assert found.result() is live


@pytest.mark.parametrize("wanted", ["1", "old", "4", "nobody"])
def test_what_is_loaded_or_unknown_is_not(wanted: str) -> None:
    assert not cold(Shelf()).needs_loading(wanted)


def test_a_model_that_is_not_loaded_is_described() -> None:
    live = cold(Shelf())
    assert live.primary.version == 2
    with pytest.raises(Overloaded, match="not loaded now"):
        live.primary.run(live.primary.validate({"a": [1.0], "b": [1.0]}))
    with pytest.raises(VersionNotFound, match=r"not loaded: \[2\]"):
        LiveModel(everything_to("m", 2), {}, {}, [2], Shelf())


def test_waiting_for_a_load_ends_with_the_deadline_or_with_patience() -> None:
    live = cold(Shelf())
    with pytest.raises(DeadlineExceeded, match="while m was being loaded"):
        live.load("2", deadline=time.perf_counter() + 0.01)
    with pytest.raises(DeadlineExceeded):
        live.load("2", deadline=time.perf_counter() - 1)
    for deadline in (None, time.perf_counter() + 60):
        with pytest.raises(Overloaded, match=r"still being loaded after 0.05 s \(serving.load_seconds\)"):
            live.load("2", deadline)


def test_what_loading_raises_reaches_who_waits() -> None:
    class Broken(Shelf):
        def load_soon(self, name: str, versions: Collection[int]) -> Future[LiveModel]:
            future = super().load_soon(name, versions)
            future.set_exception(error)
            return future

    for error in (StorageFull("no room"), TimeoutError("the model's own")):
        with pytest.raises(type(error), match=str(error)):
            cold(Broken()).load(None)


def test_loading_that_is_called_off() -> None:
    class Stopping(Shelf):
        def load_soon(self, name: str, versions: Collection[int]) -> Future[LiveModel]:
            future = super().load_soon(name, versions)
            future.cancel()
            return future

    with pytest.raises(Overloaded, match="the server stops"):
        cold(Stopping()).load(None)


def test_a_version_knows_when_it_was_used() -> None:
    version = live_version(1)
    before = version.used
    version.run(version.validate({"a": [1.0], "b": [1.0]}))
    assert version.used > before


def test_a_table_of_models() -> None:
    table = Table([model()])
    assert table["m"].route.model == "m"
    assert table.find("x") is None
    with pytest.raises(ModelNotFound, match="no model 'x' is being served; there is m"):
        table["x"]
    with pytest.raises(ModelNotFound, match=r"Ask for models/m/versions/champion\.$"):
        table["m@champion"]
    with pytest.raises(ModelNotFound) as failure:
        table["x" * 5000]
    assert len(str(failure.value)) < 200
    with pytest.raises(ModelNotFound, match="'y' is not being served: it broke"):
        Table([model()], absent={"y": "it broke"})["y"]
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
    assert live_version(1, engine).engine is engine
