"""One look at the registry after the other: what is published, when, and what is said."""

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.core.errors import CorruptBundle, RegistryUnavailable
from fairway.core.route import everything_to
from fairway.core.settings import RegistrySettings, Settings
from fairway.core.version import ModelVersion
from fairway.inference.repository import RegistryState
from fairway.registry.registry import Registry, open_registry
from fairway.registry.snapshot import ServingSnapshot, read_snapshot
from fairway.serving.folder import Desired, ServerFolder, Wish
from fairway.serving.watcher import Watcher
from tests.bundles import register


class Home:
    """A registry with models of a few bytes, and a server's folder that is watched."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home"
        self.path.mkdir()
        self.settings = Settings(home=str(self.path))
        self.registry: Registry = open_registry(self.path, self.settings.registry)
        self._folder = folder
        (folder / "server").mkdir()
        self.server = ServerFolder(folder / "server")
        self.watcher: Watcher | None = None
        self._bundles = 0

    def register(self, name: str, *, live: bool = True) -> int:
        self._bundles += 1
        number = register(
            self.registry, self._folder / f"b{self._bundles}", b"%d" % self._bundles, name
        ).version
        if live:
            self.route(name, number)
        return number

    def route(self, name: str, version: int) -> None:
        now = self.registry.route(name)
        self.registry.set_route(
            everything_to(name, version),
            expected_revision=0 if now is None else now.revision,
            who="ann",
            why="test",
        )

    def watch(self, *names: str, opener: Any = open_registry) -> Watcher:
        self.server.write_snapshot(self.registry.snapshot(names))
        self.watcher = Watcher(self.settings, self.server, opener)
        return self.watcher

    def look(self) -> ServingSnapshot:
        assert self.watcher is not None
        self.watcher.look()
        snapshot = self.server.snapshot()
        assert snapshot is not None
        return snapshot

    def routed(self) -> dict[str, int]:
        return {model.route.model: model.route.arms[0].version for model in self.look().models}

    def said(self) -> tuple[RegistryState, str]:
        watched = self.server.watched()
        assert watched is not None
        return watched.health.state, watched.health.reason

    def ask(self, name: str, *, loaded: bool = True) -> int:
        desired = self.server.desired()
        generation = desired.generation + 1
        wish = Wish(loaded=loaded, generation=generation)
        self.server.write_desired(Desired(generation=generation, models={**desired.models, name: wish}))
        return generation


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    home.register("a")
    yield home
    if home.watcher is not None:
        home.watcher.close()
    home.registry.close()


def test_nothing_is_written_while_nothing_changes(home: Home) -> None:
    home.watch()
    home.look()
    before = home.server.snapshot_file.stat()
    for _ in range(3):
        home.look()
    assert home.server.snapshot_file.stat() == before
    assert home.said() == (RegistryState.ok, "")


def test_what_changes_is_published_and_kept_for_the_next_start(home: Home) -> None:
    home.watch()
    home.look()
    assert home.register("a") == 2
    assert home.routed() == {"a": 2}
    home.register("b")
    assert home.routed() == {"a": 2, "b": 1}
    home.registry.rollback("a", who="ann", why="test")
    home.registry.set_alias("a", "blue", 2, who="ann", why="test")
    snapshot = home.look()
    [a, _] = snapshot.models
    assert a.route.arms[0].version == 1
    assert [version.aliases for version in a.versions] == [(), ("blue",)]
    assert all(Path(version.directory).is_dir() for model in snapshot.models for version in model.versions)
    assert read_snapshot(home.path) == snapshot


def test_a_server_of_some_models_sees_those(home: Home) -> None:
    home.register("b")
    home.watch("b")
    home.register("a")
    home.register("b")
    assert home.routed() == {"b": 2}
    assert home.look().names == ("b",)


def test_what_is_unpacked_already_does_not_wait_for_what_is_not(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.watch()
    home.look()
    home.register("b")
    home.register("a")
    home.registry.set_alias("a", "old", 1, who="ann", why="test")
    published: list[dict[str, int]] = []
    write = home.server.write_snapshot

    def keep(snapshot: ServingSnapshot) -> None:
        published.append({m.route.model: m.route.arms[0].version for m in snapshot.models})
        write(snapshot)

    monkeypatch.setattr(home.server, "write_snapshot", keep)
    home.look()
    assert published == [{"a": 1}, {"a": 2}, {"a": 2, "b": 1}]


class Failing:
    """A registry from which some versions cannot be fetched."""

    def __init__(self, inner: Registry, broken: set[str]) -> None:
        self._inner = inner
        self._broken = broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def unpacked(self, version: ModelVersion) -> Path | None:
        return None if f"{version.model}:{version.version}" in self._broken else self._inner.unpacked(version)

    def fetch(self, version: ModelVersion) -> Path:
        if f"{version.model}:{version.version}" in self._broken:
            raise CorruptBundle(f"{version.model}:{version.version} is torn.")
        return self._inner.fetch(version)


def test_what_cannot_be_fetched_stays_as_it_was_and_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"a:2"}
    home.watch(opener=lambda path, settings: Failing(open_registry(path, settings), broken))
    home.look()
    home.register("a")
    home.register("b")
    assert home.routed() == {"a": 1, "b": 1}
    watched = home.server.watched()
    assert watched is not None
    assert watched.failures == {"a": "a:2 is torn."}
    assert "a goes on being served as it was: a:2 is torn." in caplog.text
    broken.clear()
    assert home.routed() == {"a": 1, "b": 1}  # not at once
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert home.routed() == {"a": 2, "b": 1}
    watched = home.server.watched()
    assert watched is not None
    assert watched.failures == {}


def test_a_version_that_nothing_needs_may_be_missing(home: Home) -> None:
    home.register("a")
    home.watch(opener=lambda path, settings: Failing(open_registry(path, settings), {"a:1"}))
    home.registry.set_alias("a", "blue", 2, who="ann", why="test")
    [a] = home.look().models
    assert [version.version for version in a.versions] in ([2], [1, 2])
    assert home.said() == (RegistryState.ok, "")


def test_gone_and_back(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.watch()
    before = home.look()
    path = home.path / "registry.db"
    path.rename(home.path / "kept")
    assert home.look() == before
    assert home.said() == (RegistryState.ok, "")  # once may be a moment
    assert home.look() == before
    state, reason = home.said()
    assert state is RegistryState.away
    assert "the file is gone" in reason
    assert not path.exists()  # nothing made a new, empty registry
    watched = home.server.watched()
    assert watched is not None
    since = watched.health.since
    home.look()
    watched = home.server.watched()
    assert watched is not None
    assert watched.health.since == since
    (home.path / "kept").rename(path)
    home.look()
    assert home.said() == (RegistryState.ok, "")
    assert [r.levelno for r in caplog.records if r.name == "fairway.watcher"] == [logging.WARNING] * 2


def test_away_from_the_first_look(home: Home) -> None:
    home.watch()
    (home.path / "registry.db").rename(home.path / "kept")
    home.look()
    assert home.said()[0] is RegistryState.away


def test_another_registry_in_its_place_is_refused_whole(home: Home, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with open_registry(other, home.settings.registry) as registry:
        register(registry, tmp_path / "x", b"x", "stranger")
    home.watch()
    before = home.look()
    home.registry.close()
    for name in ("registry.db-wal", "registry.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    shutil.copy(other / "registry.db", home.path / "registry.db")
    for _ in range(2):
        assert home.look() == before
    state, reason = home.said()
    assert state is RegistryState.away
    assert "no longer has a" in reason
    assert "start the server again" in reason


def test_a_database_that_does_not_answer(home: Home) -> None:
    home.settings = Settings(
        home=str(home.path), registry=RegistrySettings(database_url="postgresql://nobody@localhost/x")
    )
    answers: list[Any] = [RegistryUnavailable("refused"), home.registry]

    def opener(path: Path, settings: object) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    home.watch(opener=opener)
    home.look()
    assert home.said() == (RegistryState.away, "refused")
    home.look()
    assert home.said() == (RegistryState.ok, "")


def test_models_that_were_asked_for_come_along(home: Home) -> None:
    home.register("spare", live=False)
    home.watch()
    assert home.routed() == {"a": 1}
    generation = home.ask("spare")
    home.ask("nobody")
    assert home.routed() == {"a": 1, "spare": 1}
    watched = home.server.watched()
    assert watched is not None
    assert watched.generation == generation + 1
    home.ask("spare", loaded=False)
    assert home.routed() == {"a": 1}
    assert home.said() == (RegistryState.ok, "")  # nobody thinks that the registry was replaced


def test_a_watcher_not_heard_of_is_taken_for_dead(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.watch()
    home.look()
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    state, reason = home.said()
    assert state is RegistryState.away
    assert "has not been heard of" in reason


def test_a_sign_of_life(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.watch()
    home.look()
    before = home.server.watched_file.stat()
    later = time.monotonic() + 5
    monkeypatch.setattr(time, "monotonic", lambda: later)
    home.look()
    after = home.server.watched_file.stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns
