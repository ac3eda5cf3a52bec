"""Versions in memory: swapped in one assignment, loaded once, let go with the last request, never more than fits."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from fairway.core.errors import (
    CorruptBundle,
    FairwayError,
    GoldenMismatch,
    ModelNotFound,
    OutOfMemory,
    Overloaded,
    VersionNotFound,
)
from fairway.core.route import Arm, Route, everything_to
from fairway.core.settings import ModelSettings, ServingSettings, Settings
from fairway.inference.live import Absent, LiveVersion, Table
from fairway.inference.repository import State
from fairway.inference.residents import Residents
from fairway.inference.stats import VersionStats
from fairway.registry.snapshot import ServedModel, ServedVersion
from fairway.stores.counters import Counters
from tests.planes import TWO_NUMBERS, Adding, bundle


class Library:
    """Makes versions out of nothing: `sizes` and `errors` by digest; `gate` holds every load up."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, int]] = []
        self.engines: dict[str, list[weakref.ref[Adding]]] = {}
        self.unloaded: list[str] = []
        self.errors: dict[str, FairwayError | Exception] = {}
        self.wrong: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def load(
        self, model: str, version: int, directory: Path, counters: Counters, settings: Settings
    ) -> LiveVersion:
        digest = directory.name
        self.loads.append((model, version))
        assert self.gate.wait(20)
        if digest in self.errors:
            raise type(self.errors[digest])(str(self.errors[digest]))
        library = self

        class Engine(Adding):
            def unload(self) -> None:
                library.unloaded.append(digest)

        engine = Engine(shift=float(version))
        self.engines.setdefault(digest, []).append(weakref.ref(engine))
        found = "sha256:other" if digest in self.wrong else digest
        stats = VersionStats(counters, model, version, digest)
        return LiveVersion(model, version, bundle(TWO_NUMBERS, found), engine, stats, settings)

    def describe(
        self, model: str, version: int, directory: Path, counters: Counters, settings: Settings
    ) -> LiveVersion:
        stats = VersionStats(counters, model, version, directory.name)
        return LiveVersion(model, version, bundle(TWO_NUMBERS, directory.name), Absent(), stats, settings)

    def living(self, digest: str) -> int:
        return sum(engine() is not None for engine in self.engines.get(digest, []))


class Place:
    """Bundles on disk that are as large as they say, and the residents of one process."""

    def __init__(self, folder: Path, **serving: object) -> None:
        self.folder = folder
        self.library = Library()
        self.counters = Counters()
        models = serving.pop("models", {})
        settings = Settings(serving=ServingSettings(**serving), models=models)  # type: ignore[arg-type]
        self.residents = Residents(self.counters, settings, self.library.load, self.library.describe)

    def served(
        self, name: str, route: int | Route, *versions: int, size: int = 0, digest: str = "", **aliases: int
    ) -> ServedModel:
        """A model whose versions have digests like `a1`; `size` bytes each on disk."""
        held = []
        for number in versions or (route,):
            assert isinstance(number, int)
            told = digest or f"{name}{number}"
            directory = self.folder / told
            (directory / "engine").mkdir(parents=True, exist_ok=True)
            with (directory / "engine" / "model").open("wb") as file:
                file.truncate(size)
            pointing = tuple(alias for alias, to in aliases.items() if to == number)
            held.append(
                ServedVersion(version=number, digest=told, aliases=pointing, directory=str(directory))
            )
        chosen = everything_to(name, route) if isinstance(route, int) else route
        return ServedModel(route=chosen, versions=tuple(held))

    def states(self) -> dict[str, str]:
        return {f"{s.model}:{s.version}": s.state.value for s in self.residents.states()}

    def metric(self, name: str) -> float:
        return sum(value for (found, _), value in self.counters.totals().items() if found == name)

    def ask(self, model: str, wanted: str | None = None) -> float:
        """What the version that is meant adds: its number."""
        live = self.residents.table[model]
        if live.needs_loading(wanted):
            live = live.load(wanted)
        version = live.pick(wanted, "")
        return float(version.run(version.validate({"a": [0.0], "b": [0.0]}))["sum"][0])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(**serving: object) -> Place:
        made.append(Place(tmp_path, **serving))
        return made[-1]

    yield make
    for place in made:
        place.library.gate.set()
        place.residents.close()


@contextmanager
def no_collector() -> Iterator[None]:
    """What is freed in here is freed by counting alone."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def test_what_takes_traffic_is_there_from_the_start_and_the_rest_when_asked_for(
    place: Callable[..., Place],
) -> None:
    here = place()
    here.residents.open([here.served("a", 2, 1, 2, 3, old=1)])
    assert here.states() == {"a:1": "ready", "a:2": "ready", "a:3": "unloaded"}
    assert here.ask("a") == 2
    assert here.ask("a", "old") == 1
    assert here.ask("a", "3") == 3
    assert here.library.loads == [("a", 1), ("a", 2), ("a", 3)]
    assert here.metric("fairway_model_loads_total") == 3


def test_the_first_that_fails_ends_the_start(place: Callable[..., Place]) -> None:
    here = place()
    here.library.errors["b1"] = GoldenMismatch("row 3")
    with pytest.raises(GoldenMismatch, match="row 3"):
        here.residents.open([here.served("a", 1), here.served("b", 1)])


@pytest.mark.parametrize("wrong", ["another digest", "a library's own error"])
def test_a_bundle_that_is_not_what_it_should_be(place: Callable[..., Place], wrong: str) -> None:
    here = place()
    if wrong == "another digest":
        here.library.wrong.add("a1")
    else:
        here.library.errors["a1"] = ZeroDivisionError("oops")
    with pytest.raises(CorruptBundle, match="sha256:other" if "digest" in wrong else "oops"):
        here.residents.open([here.served("a", 1)])


def test_a_new_version_takes_the_place_of_the_old_one_which_goes_with_its_last_request(
    place: Callable[..., Place],
) -> None:
    here = place()
    here.residents.open([here.served("a", 1), here.served("b", 1)])
    tables: list[Table] = []
    here.residents.publish = tables.append
    before, b = here.residents.table, here.residents.table["b"]
    in_flight = before["a"].pick(None, "")
    with no_collector():
        assert here.residents.follow([here.served("a", 2, 1, 2), here.served("b", 1)]) == {}
        del before
        assert here.ask("a") == 2
        assert here.residents.table["b"] is b  # nothing about it has changed
        assert tables[-1] is here.residents.table
        assert here.library.living("a1") == 1
        assert in_flight.run(in_flight.validate({"a": [0.0], "b": [0.0]}))["sum"][0] == 1.0
        assert here.residents.tidy() == 0
        tables.clear()
        del in_flight
        assert here.library.living("a1") == 1  # who had it last does not pay for freeing it
        assert here.residents.tidy() == 1
        assert here.library.living("a1") == 0
    assert here.library.unloaded == ["a1"]
    assert here.states() == {"a:1": "unloaded", "a:2": "ready", "b:1": "ready"}
    assert here.library.loads == [("a", 1), ("b", 1), ("a", 2)]


def test_the_same_version_keeps_what_it_has_learned(place: Callable[..., Place]) -> None:
    here = place()
    here.residents.open([here.served("a", 1, 1, 2)])
    version = here.residents.table["a"].primary
    split = Route(model="a", arms=(Arm(1, 0.5), Arm(2, 0.5)))
    here.residents.follow([here.served("a", split, 1, 2, champion=1)])
    live = here.residents.table["a"]
    assert live.versions[1] is version
    assert live.aliases == {"champion": 1}
    assert here.library.loads == [("a", 1), ("a", 2)]


def test_the_same_number_of_another_digest_is_loaded_anew(place: Callable[..., Place]) -> None:
    here = place()
    here.residents.open([here.served("a", 1)])
    here.residents.follow([here.served("a", 1, digest="other")])
    assert here.residents.table["a"].primary.digest == "other"
    here.residents.tidy()
    assert here.library.unloaded == ["a1"]


def test_a_version_that_fails_leaves_the_old_one_and_is_tried_again(place: Callable[..., Place]) -> None:
    here = place()
    here.residents.open([here.served("a", 1), here.served("b", 1)])
    new = [here.served("a", 2, 1, 2), here.served("b", 2)]
    here.library.errors["a2"] = GoldenMismatch("golden row 7")
    for attempt in (1, 2):
        failed = here.residents.follow(new)
        assert {name: str(error) for name, error in failed.items()} == {"a": "golden row 7"}
        assert here.metric("fairway_reload_failures_total") == attempt
    assert here.ask("a") == 1
    assert here.ask("b") == 2  # the others go on
    assert here.residents.refusals() == {"a": "golden row 7"}
    states = {(s.model, s.version): s for s in here.residents.states()}
    assert states["a", 1].state is State.ready
    assert (states["a", 2].state, states["a", 2].reason) == (State.failed, "golden row 7")
    del here.library.errors["a2"]
    assert here.residents.follow(new) == {}
    assert here.ask("a") == 2
    assert here.residents.refusals() == {}


def test_going_back_to_what_serves_ends_the_complaint(place: Callable[..., Place]) -> None:
    here = place()
    here.residents.open([here.served("a", 1)])
    here.library.errors["a2"] = GoldenMismatch("no")
    here.residents.follow([here.served("a", 2)])
    assert here.residents.refusals()
    here.residents.follow([here.served("a", 1)])
    assert here.residents.refusals() == {}
    assert here.library.loads == [("a", 1), ("a", 2)]


def test_a_new_model_that_fails_is_not_served_and_says_why(place: Callable[..., Place]) -> None:
    here = place()
    here.residents.open([])
    here.library.errors["a1"] = GoldenMismatch("golden row 7")
    here.residents.follow([here.served("a", 1)])
    with pytest.raises(ModelNotFound, match="'a' is not being served: golden row 7"):
        here.residents.table["a"]
    assert here.states() == {"a:1": "failed"}
    here.residents.follow([])
    assert here.states() == {}


def test_half_loaded_is_let_go(place: Callable[..., Place]) -> None:
    here = place()
    here.residents.open([here.served("a", 1)])
    here.library.errors["a3"] = GoldenMismatch("no")
    split = Route(model="a", arms=(Arm(2, 0.5), Arm(3, 0.5)))
    failed = here.residents.follow([here.served("a", split, 1, 2, 3)])
    assert set(failed) == {"a"}
    here.residents.tidy()
    assert here.library.living("a2") == 0
    assert "a2" in here.library.unloaded


def test_a_worker_that_starts_late_serves_what_the_others_do(place: Callable[..., Place]) -> None:
    here = place()
    here.library.errors["a2"] = GoldenMismatch("golden row 7")
    new = here.served("a", 2, 1, 2)
    here.residents.follow([new])
    here.residents.fall_back(here.served("a", 1), new, "golden row 7")
    assert here.ask("a") == 1
    assert here.residents.refusals() == {"a": "golden row 7"}


def test_unloaded_by_request(place: Callable[..., Place]) -> None:
    here = place()
    a = here.served("a", 1, 1, 2)
    here.residents.open([a])
    held = here.residents.table["a"]
    here.residents.follow([], unloaded={"a": a})
    with pytest.raises(ModelNotFound, match="unloaded on request"):
        here.residents.table["a"]
    assert here.states() == {"a:1": "unloaded", "a:2": "unloaded"}
    with pytest.raises(ModelNotFound, match="'a' is being served any more"):
        held.load("2")  # somebody who had it still
    del held
    here.residents.tidy()
    assert here.library.unloaded == ["a1"]
    here.residents.follow([a], now={"a"})
    assert here.ask("a") == 1


def test_a_version_in_a_circle_is_found_by_the_collector(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place()
    here.residents.open([here.served("a", 1)])
    circle: list[object] = [here.residents.table["a"]]
    circle.append(circle)
    with no_collector():
        del circle
        here.residents.follow([here.served("a", 2)])
        assert here.residents.tidy() == 0
        later = time.monotonic() + 60
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert here.residents.tidy() == 1
    assert here.library.living("a1") == 0


# Lazy


def test_lazy_models_are_described_and_loaded_once_however_many_ask(place: Callable[..., Place]) -> None:
    here = place(load="lazy")
    here.residents.open([here.served("a", 1), here.served("b", 1)])
    assert here.library.loads == []
    assert here.residents.table["a"].primary.contract == TWO_NUMBERS
    assert here.metric("fairway_model_info") == 0
    here.library.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(here.ask, "a") for _ in range(8)]
        while not here.library.loads:
            time.sleep(0.001)
        assert here.states() == {"a:1": "loading", "b:1": "unloaded"}
        here.library.gate.set()
        assert [asked.result() for asked in asking] == [1.0] * 8
    assert here.library.loads == [("a", 1)]
    assert here.metric("fairway_model_info") == 1


def test_one_who_gives_up_takes_nothing_from_the_others(place: Callable[..., Place]) -> None:
    here = place(load="lazy")
    here.residents.open([here.served("a", 1)])
    here.library.gate.clear()
    live = here.residents.table["a"]
    first, second = live.load_soon(None), live.load_soon(None)
    assert first.cancel()
    here.library.gate.set()
    assert second.result(20).pick(None, "").version == 1
    assert here.library.loads == [("a", 1)]


def test_a_model_that_was_loaded_is_loaded_anew_before_anybody_asks(place: Callable[..., Place]) -> None:
    here = place(load="lazy")
    here.residents.open([here.served("a", 1), here.served("b", 1)])
    assert here.ask("a") == 1
    here.residents.follow([here.served("a", 2), here.served("b", 2)])
    assert here.states() == {"a:2": "ready", "b:2": "unloaded"}
    assert here.residents.table["b"].primary.version == 2


def test_a_load_that_failed_is_not_tried_for_each_request(place: Callable[..., Place]) -> None:
    here = place(load="lazy")
    here.residents.open([here.served("a", 1)])
    here.library.errors["a1"] = CorruptBundle("torn")
    for _ in range(3):
        with pytest.raises(CorruptBundle, match="torn"):
            here.ask("a")
    assert here.library.loads == [("a", 1)]
    assert here.states() == {"a:1": "failed"}
    assert here.residents.states()[0].reason == "torn"


def test_a_model_changed_while_it_was_loaded_is_loaded_as_it_is_now(place: Callable[..., Place]) -> None:
    here = place(load="lazy")
    here.residents.open([here.served("a", 1, 1, 2)])
    here.library.gate.clear()
    loading = here.residents.table["a"].load_soon(None)
    while not here.library.loads:
        time.sleep(0.001)
    here.residents.follow([here.served("a", 1, 1, 2, champion=1)])
    here.library.gate.set()
    assert loading.result(20) is here.residents.table["a"]
    assert here.residents.table["a"].aliases == {"champion": 1}


def test_a_version_that_went_while_somebody_waited_for_it(place: Callable[..., Place]) -> None:
    here = place(load="lazy")
    here.residents.open([here.served("a", 1, 1, 2)])
    held = here.residents.table["a"]
    here.residents.follow([here.served("a", 2)])
    with pytest.raises(VersionNotFound, match="no version 1 here any more"):
        held.load("1")


def test_nothing_is_loaded_any_more_when_the_server_stops(place: Callable[..., Place]) -> None:
    here = place(load="lazy")
    here.residents.open([here.served("a", 1)])
    here.residents.close()
    with pytest.raises(Overloaded, match="the server stops"):
        here.ask("a")


# A budget


MB = 2**20


def test_the_least_recently_used_goes_and_pinned_ones_stay(place: Callable[..., Place]) -> None:
    # Sizes are those of the files: what the tests' engines take is nothing beside 100 MB.
    here = place(load="lazy", memory_bytes=350 * MB, models={"p": ModelSettings(pinned=True)})
    names = ["a", "b", "c", "p"]
    here.residents.open([here.served(name, 1, size=100 * MB) for name in names])
    assert here.states()["p:1"] == "ready"
    for name in "aba":
        here.ask(name)
    here.ask("c")
    assert here.states() == {"a:1": "ready", "b:1": "unloaded", "c:1": "ready", "p:1": "ready"}
    assert here.ask("b") == 1
    assert here.states() == {"a:1": "unloaded", "b:1": "ready", "c:1": "ready", "p:1": "ready"}
    here.residents.tidy()
    assert sorted(here.library.unloaded) == ["a1", "b1"]
    told = {s.model: s.bytes for s in here.residents.states()}
    assert told["a"] == 0
    assert told["b"] >= 100 * MB
    assert here.residents.table["a"].primary.contract == TWO_NUMBERS


def test_what_its_calls_take_is_known_when_it_comes_back(place: Callable[..., Place]) -> None:
    here = place(load="lazy", memory_bytes=150 * MB)
    here.residents.open([here.served(name, 1, size=100 * MB) for name in "ab"])
    here.ask("a")
    learned = here.residents.table["a"].primary.cost
    here.ask("b")
    here.ask("a")
    assert here.residents.table["a"].primary.cost is learned


def test_what_can_never_fit_is_out_of_memory_and_costs_nobody_its_place(place: Callable[..., Place]) -> None:
    here = place(load="lazy", memory_bytes=150 * MB)
    here.residents.open([here.served("a", 1, size=100 * MB), here.served("b", 1, size=200 * MB)])
    here.ask("a")
    for _ in range(2):
        with pytest.raises(OutOfMemory, match=r"b:1 takes 200 MB.*of the 150 MB.*serving.memory_bytes"):
            here.ask("b")
    assert here.states() == {"a:1": "ready", "b:1": "unloaded"}
    assert here.library.loads == [("a", 1)]


def test_what_turns_out_larger_than_its_files_is_let_go_again(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place(load="lazy", memory_bytes=150 * MB)
    here.residents.open([here.served("a", 1, size=MB)])
    sizes = iter([0, 200 * MB])
    monkeypatch.setattr("fairway.inference.residents.resident_bytes", lambda: next(sizes))
    with pytest.raises(OutOfMemory, match="a:1 takes 200 MB"):
        here.ask("a")
    assert here.states() == {"a:1": "unloaded"}
    here.residents.tidy()
    assert here.library.unloaded == ["a1"]
    with pytest.raises(OutOfMemory, match="a:1 takes 200 MB"):  # known now, so it is not even tried
        here.ask("a")
    assert len(here.library.loads) == 1


def test_what_fits_is_loaded_at_the_start_and_the_rest_when_asked_for(place: Callable[..., Place]) -> None:
    here = place(memory_bytes=250 * MB)
    here.residents.open([here.served(name, 1, size=100 * MB) for name in "abc"])
    assert here.states() == {"a:1": "ready", "b:1": "ready", "c:1": "unloaded"}
    assert here.ask("c") == 1
    assert here.states() == {"a:1": "unloaded", "b:1": "ready", "c:1": "ready"}


def test_pinned_models_that_do_not_fit_end_the_start(place: Callable[..., Place]) -> None:
    pinned = {name: ModelSettings(pinned=True) for name in "ab"}
    here = place(memory_bytes=150 * MB, models=pinned)
    with pytest.raises(OutOfMemory, match="b:1"):
        here.residents.open([here.served(name, 1, size=100 * MB) for name in "ab"])


def test_a_new_version_may_take_the_room_of_its_old_one_and_of_others(place: Callable[..., Place]) -> None:
    here = place(memory_bytes=250 * MB)
    here.residents.open([here.served(name, 1, size=100 * MB) for name in "ab"])
    here.ask("a")
    here.residents.follow([here.served("a", 2, size=200 * MB), here.served("b", 1, size=100 * MB)])
    assert here.states() == {"a:2": "ready", "b:1": "unloaded"}
    failed = here.residents.follow([here.served("a", 3, size=300 * MB), here.served("b", 1, size=100 * MB)])
    assert isinstance(failed["a"], OutOfMemory)
    assert here.ask("a") == 2


def test_a_hundred_reloads_leave_one_version(place: Callable[..., Place]) -> None:
    here = place()
    here.residents.open([here.served("a", 1)])
    with no_collector():
        gc.freeze()  # what other tests left would be looked through a hundred times
        for turn in range(100):
            here.residents.follow([here.served("a", 2 - turn % 2)])
            here.residents.tidy()
            assert here.library.living("a1") + here.library.living("a2") == 1
    assert here.metric("fairway_model_loads_total") == 101
    assert here.metric("fairway_model_unloads_total") == 100
    assert msgspec.json.encode(here.residents.states())
