"""A worker that follows its server's folder, and calls that are for all workers, without processes."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fairway.core.errors import (
    AlreadyExists,
    FairwayError,
    GoldenMismatch,
    ModelNotFound,
    NotFound,
    OutOfMemory,
    Unavailable,
)
from fairway.core.route import everything_to
from fairway.core.settings import ServingSettings, Settings
from fairway.inference.repository import RegistryHealth, RegistryState, State, VersionState
from fairway.inference.residents import Residents
from fairway.registry.snapshot import ServedModel, ServedVersion, ServingSnapshot
from fairway.serving import repository as repository_module
from fairway.serving.folder import Desired, ServerFolder, Watched, Wish, WorkerReport
from fairway.serving.reload import Reload, to_serve
from fairway.serving.repository import ServerRepository, error_of, merged
from fairway.stores.counters import Counters
from tests.unit.inference.test_residents import Library

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def served(name: str, version: int = 1) -> ServedModel:
    held = ServedVersion(
        version=version, digest=f"{name}{version}", aliases=(), directory=f"/nowhere/{name}{version}"
    )
    return ServedModel(route=everything_to(name, version), versions=(held,))


def snapshot(*models: ServedModel, revision: int = 1) -> ServingSnapshot:
    return ServingSnapshot(revision=revision, models=models)


class Worker:
    """What a worker process is, but for the sockets. `run` has it look again and again."""

    def __init__(self, folder: ServerFolder, number: int, load: str = "start") -> None:
        self.library = Library()
        self.counters = Counters()
        settings = Settings(serving=ServingSettings(load=load))  # type: ignore[arg-type]
        self.residents = Residents(self.counters, settings, self.library.load, self.library.describe)
        self.snapshots: list[int] = []
        self.reload = Reload(
            folder, number, self.residents, self.counters, lambda s: self.snapshots.append(s.revision)
        )

    def step(self) -> None:
        self.reload.look()
        self.reload.follow()

    @property
    def serves(self) -> dict[str, int]:
        return {live.route.model: live.primary.version for live in self.residents.table}


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    folder = ServerFolder(tmp_path)
    folder.write_snapshot(snapshot(served("a"), served("b")))
    return folder


@pytest.fixture
def start(folder: ServerFolder) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(number: int = 0, *, first: bool = True, load: str = "start", runs: bool = False) -> Worker:
        worker = Worker(folder, number, load)
        worker.reload.open(first=first)
        if runs:
            worker.reload.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.reload.stop()


def say(folder: ServerFolder, state: RegistryState = RegistryState.ok, **values: object) -> None:
    health = RegistryHealth(state=state, since=NOW, reason="" if state is RegistryState.ok else "cut off")
    folder.write_watched(Watched(health=health, **values))  # type: ignore[arg-type]


# What to serve


def test_what_was_asked_for_on_top_of_the_registry() -> None:
    brought = served("guest", 7)
    wishes = {
        "b": Wish(loaded=False, generation=1),
        "guest": Wish(loaded=True, generation=2, served=brought),
        "a": Wish(loaded=True, generation=3),
        "gone": Wish(loaded=False, generation=4),
        "not yet": Wish(loaded=True, generation=5),
    }
    models, unloaded = to_serve(snapshot(served("a"), served("b")), Desired(generation=5, models=wishes))
    assert models == [served("a"), brought]
    assert unloaded == {"b": served("b")}
    assert sorted(Desired(models=wishes).from_registry()) == ["a", "not yet"]


# Following


def test_it_follows_snapshots_and_reports(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    worker = start()
    assert worker.serves == {"a": 1, "b": 1}
    worker.step()
    assert worker.snapshots == []
    folder.write_snapshot(snapshot(served("a", 2), served("c"), revision=2))
    worker.step()
    assert worker.serves == {"a": 2, "c": 1}
    assert worker.snapshots == [2]
    report = folder.report(0)
    assert report is not None
    assert report.pid == os.getpid()
    assert [(s.model, s.version, s.state) for s in report.versions] == [
        ("a", 2, State.ready),
        ("c", 1, State.ready),
    ]
    before = folder.report_file(0).stat()
    worker.step()
    assert folder.report_file(0).stat() == before


def test_keys_do_not_wait_for_models(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    worker = start()
    worker.library.gate.clear()
    folder.write_snapshot(snapshot(served("a", 2), revision=2))
    stepping = threading.Thread(target=worker.step)
    stepping.start()
    while len(worker.library.loads) < 3:
        time.sleep(0.001)
    assert worker.snapshots == [2]
    folder.write_snapshot(snapshot(served("a", 3), revision=3))
    worker.reload.look()  # while the model before is still being loaded
    assert worker.snapshots == [2, 3]
    assert worker.serves["a"] == 1
    worker.library.gate.set()
    stepping.join()
    assert worker.serves["a"] == 2
    worker.reload.follow()
    assert worker.serves["a"] == 3


def test_what_could_not_be_read_or_followed_once_is_the_next_time(
    folder: ServerFolder, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has no file to spare for a moment must not miss that a key was revoked."""
    worker = start()

    def broken(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    for revision, owner, name in (
        (2, ServerFolder, "snapshot"),
        (3, ServerFolder, "desired"),
        (4, ServerFolder, "watched"),
        (5, Residents, "follow"),
    ):
        say(folder)
        folder.write_desired(Desired(generation=revision))
        folder.write_snapshot(snapshot(served("a", revision), revision=revision))
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            with pytest.raises(OSError, match="Too many open files"):
                worker.step()
        worker.step()
        assert worker.snapshots[-1] == revision
        assert worker.serves["a"] == revision
        report = folder.report(0)
        assert report is not None
        assert report.generation == revision


def test_what_is_loaded_on_demand_is_reported_too(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    worker = start(load="lazy")
    worker.residents.table["a"].load(None)
    worker.step()
    report = folder.report(0)
    assert report is not None
    assert [s.state for s in report.versions] == [State.ready, State.unloaded]


def test_a_failure_is_told_everywhere(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    worker = start()
    say(folder)
    worker.library.errors["a2"] = GoldenMismatch("golden row 3")
    folder.write_snapshot(snapshot(served("a", 2), served("b"), revision=2))
    worker.step()
    health = worker.reload.health(ready=True)
    assert health.models["a"].state is State.ready
    assert (health.models["a"].version, health.models["a"].reason) == (1, "golden row 3")
    assert health.models["b"].reason == ""
    assert health.without_reasons().models["a"].reason == ""
    report = folder.report(0)
    assert report is not None
    assert report.errors["a"].code == "golden_mismatch"
    assert (
        worker.counters.totals()[
            ("fairway_reload_failures_total", (("model", "a"), ("code", "golden_mismatch")))
        ]
        == 1.0
    )


def test_what_the_watcher_could_not_fetch_is_told(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    worker = start()
    assert worker.reload.health(ready=True).registry is None
    say(folder, failures={"a": "a:2 is torn"})
    worker.step()
    assert worker.reload.health(ready=True).models["a"].reason == "a:2 is torn"


def test_registry_away_and_back(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    worker = start()
    up = ("fairway_registry_up", ())
    for state, flag in ((RegistryState.ok, 1.0), (RegistryState.away, 0.0), (RegistryState.ok, 1.0)):
        say(folder, state)
        worker.step()
        health = worker.reload.health(ready=True)
        assert health.ready
        assert health.registry is not None
        assert health.registry.state is state
        assert worker.counters.totals()[up] == flag
    assert worker.serves == {"a": 1, "b": 1}


def test_the_first_workers_end_with_what_fails_and_later_ones_do_not(folder: ServerFolder) -> None:
    for first in (True, False):
        worker = Worker(folder, 0)
        worker.library.errors["a1"] = GoldenMismatch("row 1")
        if first:
            with pytest.raises(GoldenMismatch):
                worker.reload.open(first=True)
        else:
            worker.reload.open(first=False)
            assert worker.serves == {"b": 1}
            assert worker.reload.health(ready=True).models["a"].state is State.failed


def test_one_that_starts_late_serves_as_the_others_did(
    folder: ServerFolder, start: Callable[..., Worker]
) -> None:
    old = start()
    folder.write_snapshot(snapshot(served("a", 2), served("b"), revision=2))
    for number in (0, 1):
        worker = old if number == 0 else Worker(folder, 1)
        worker.library.errors["a2"] = GoldenMismatch("golden row 3")
        if number == 0:
            worker.step()
        else:
            worker.reload.open(first=False)
        assert worker.serves == {"a": 1, "b": 1}
        assert worker.reload.health(ready=True).models["a"].reason == "golden row 3"


# Loading and unloading for all


def calling(folder: ServerFolder, workers: int) -> ServerRepository:
    return ServerRepository(folder, workers, 20.0)


def test_every_worker_has_done_it_when_the_call_returns(
    folder: ServerFolder, start: Callable[..., Worker]
) -> None:
    workers = [start(number, runs=True) for number in range(3)]
    repository = calling(folder, 3)
    repository.unload("a")
    assert [worker.serves for worker in workers] == [{"b": 1}] * 3
    assert [(s.model, s.state) for s in repository.index()] == [("a", State.unloaded), ("b", State.ready)]
    repository.load("a")
    assert [worker.serves for worker in workers] == [{"a": 1, "b": 1}] * 3
    assert start(0, first=False).serves == {"a": 1, "b": 1}


def test_a_lazy_model_is_loaded_when_it_is_asked_to_be(
    folder: ServerFolder, start: Callable[..., Worker]
) -> None:
    worker = start(load="lazy", runs=True)
    calling(folder, 1).load("a")
    assert worker.library.loads == [("a", 1)]
    calling(folder, 1).load("a")  # it is loaded already
    assert worker.library.loads == [("a", 1)]


def test_the_first_that_fails_is_heard_and_what_was_there_stays(
    folder: ServerFolder, start: Callable[..., Worker]
) -> None:
    workers = [start(number, runs=True) for number in range(2)]
    repository = calling(folder, 2)
    repository.unload("a")
    workers[1].library.errors["a1"] = OutOfMemory("no room for a")
    with pytest.raises(OutOfMemory, match="no room for a"):
        repository.load("a")
    deadline = time.monotonic() + 20
    while workers[0].serves != {"b": 1}:  # what was asked for is taken back, so that all are alike
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert folder.desired().models["a"].loaded is False


def test_models_nobody_knows(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    start(runs=True)
    repository = calling(folder, 1)
    with pytest.raises(ModelNotFound, match="no model 'x' is loaded"):
        repository.unload("x")
    watching = threading.Event()

    def watch() -> None:  # the watcher says that the registry has none
        while not watching.is_set():
            say(folder, generation=folder.desired().generation)
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        with pytest.raises(ModelNotFound, match="The registry has no model 'x'"):
            repository.load("x")
        watching.set()
    assert "x" not in folder.desired().models


def test_a_model_that_the_registry_gives_later(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    worker = start(runs=True)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(calling(folder, 1).load, "late")
        while folder.desired().generation == 0:
            time.sleep(0.005)
        assert not loading.done()
        folder.write_snapshot(snapshot(served("a"), served("b"), served("late"), revision=2))
        say(folder, generation=1)
        loading.result(20)
    assert worker.serves["late"] == 1


def test_a_bundle_brought_along(
    folder: ServerFolder, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker = start(runs=True)
    repository = calling(folder, 1)
    with pytest.raises(NotFound, match="no bundle"):
        repository.load("guest", source=str(tmp_path / "nothing"))
    monkeypatch.setattr(repository_module, "_brought", lambda model, path: served(model, 1))
    repository.load("guest", source="x")
    assert worker.serves["guest"] == 1
    with pytest.raises(AlreadyExists, match="'guest' is loaded already"):
        repository.load("guest", source="x")
    repository.unload("guest")
    assert "guest" not in worker.serves
    assert folder.desired().models == {}
    repository.load("guest", source="x")
    assert worker.serves["guest"] == 1


def test_workers_that_take_too_long(folder: ServerFolder, start: Callable[..., Worker]) -> None:
    start(0, runs=True)  # the second one never comes
    with pytest.raises(Unavailable, match=r"[12] of 2 workers are not done after 0.1 s"):
        ServerRepository(folder, 2, 0.1).unload("a")


# Pure parts


def state(version: int, kind: State, reason: str = "") -> VersionState:
    return VersionState(model="m", version=version, state=kind, reason=reason)


def test_the_state_of_all_workers_is_the_one_that_most_needs_to_be_known() -> None:
    one = WorkerReport(
        pid=1,
        generation=1,
        versions=(state(1, State.ready), state(2, State.ready), state(3, State.unloaded)),
    )
    two = WorkerReport(
        pid=2,
        generation=1,
        versions=(state(1, State.failed, "row 1"), state(2, State.loading), state(3, State.ready)),
    )
    assert (
        merged([one, two])
        == merged([two, one])
        == [
            state(1, State.failed, "row 1"),
            state(2, State.loading),
            state(3, State.ready),
        ]
    )
    assert merged([]) == []


@pytest.mark.parametrize("kind", [OutOfMemory, ModelNotFound, GoldenMismatch, FairwayError])
def test_errors_by_code(kind: type[FairwayError]) -> None:
    assert error_of(kind.code) is kind
    assert error_of("what_a_newer_one_says") is Unavailable


def test_a_turn_taken_and_one_not_waited_for(folder: ServerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.serving.folder._TURN_SECONDS", 0.05)
    with folder.turn(), folder.turn():
        pass
    with folder.turn():
        pass
