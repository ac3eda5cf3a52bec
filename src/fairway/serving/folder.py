"""The folder through which the processes of one server tell each other what is and what should be.

Each file is written whole by one writer, or under the folder's lock, and read by whoever looks; nobody waits for
anybody who has died. The supervisor makes the folder, and removes it at the end.

    snapshot.json     the registry, as the watcher last saw it
    registry.json     whether the registry can be seen; written again and again as a sign of life
    desired.json      which models were asked to be loaded or unloaded
    good.json         what each model was last served as
    workers/N.json    what worker N has loaded
    counters/         every process's counters
    limits/           requests in progress by API key
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fairway.core.errors import RegistryUnavailable
from fairway.inference.repository import RegistryHealth, RegistryState, VersionState
from fairway.registry.snapshot import ServedModel, ServingSnapshot
from fairway.stores.disk import disk_errors, file_lock

STALE_SECONDS = 15.0
"""A watcher that has given no sign for so long is taken for dead."""
_LOCK_SECONDS = 10.0
_TURN_SECONDS = 60.0
_Value = TypeVar("_Value")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for a model, the last time as request number `generation`. `served` is a bundle that no registry
    knows, brought by who asked."""

    loaded: bool
    generation: int
    served: ServedModel | None = None


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """`generation` counts the requests."""

    generation: int = 0
    models: dict[str, Wish] = {}

    def from_registry(self) -> list[str]:
        """Models that were asked for by name."""
        return [name for name, wish in self.models.items() if wish.loaded and wish.served is None]


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What the watcher knows. `generation` is the request up to which the snapshot has what was asked for; `missing`
    says why it has not."""

    health: RegistryHealth
    generation: int = 0
    failures: dict[str, str] = {}
    """Models that could not be fetched as the registry has them now, and why: they are served as before."""


class Trouble(msgspec.Struct, frozen=True):
    """An error on its way from one process to another."""

    code: str
    message: str


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has done: requests up to `generation`, with the errors of models that failed."""

    pid: int
    generation: int
    versions: tuple[VersionState, ...] = ()
    errors: dict[str, Trouble] = {}


class ServerFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.snapshot_file = path / "snapshot.json"
        self.watched_file = path / "registry.json"
        self.desired_file = path / "desired.json"
        self._good_file = path / "good.json"

    @property
    def counters(self) -> Path:
        return self.path / "counters"

    def report_file(self, worker: int) -> Path:
        return self.path / "workers" / f"{worker}.json"

    def locked(self) -> AbstractContextManager[None]:
        """For who reads a file in order to write it."""
        return file_lock(self.path / "lock", timeout_seconds=_LOCK_SECONDS)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Held while a model is loaded, so that workers load one after the other. One that takes very long is not
        waited for: late together is better than never."""
        turn = file_lock(self.path / "turn", timeout_seconds=_TURN_SECONDS)
        try:
            turn.__enter__()
        except RegistryUnavailable:
            yield
            return
        try:
            yield
        finally:
            turn.__exit__(None, None, None)

    # Each file. Reading gives None, or an empty value, where nothing was written yet.

    def write_snapshot(self, snapshot: ServingSnapshot) -> None:
        self._write(self.snapshot_file, snapshot)

    def snapshot(self) -> ServingSnapshot | None:
        return self._read(self.snapshot_file, ServingSnapshot)

    def write_watched(self, watched: Watched) -> None:
        self._write(self.watched_file, watched)

    def sign_of_life(self) -> None:
        """Says that what the watcher last wrote is still so."""
        with disk_errors("note that the registry is watched", self.path):
            os.utime(self.watched_file)

    def watched(self) -> Watched | None:
        """As the watcher says, or that there has been none for a while."""
        watched = self._read(self.watched_file, Watched)
        if watched is None:
            return None
        try:
            seen = self.watched_file.stat().st_mtime
        except OSError:
            return None
        if time.time() - seen <= STALE_SECONDS:
            return watched
        away = RegistryHealth(
            state=RegistryState.away,
            since=datetime.fromtimestamp(seen, UTC),
            reason="the process that watches the registry has not been heard of",
        )
        return msgspec.structs.replace(watched, health=away)

    def write_desired(self, desired: Desired) -> None:
        """With the folder `locked`."""
        self._write(self.desired_file, desired)

    def desired(self) -> Desired:
        return self._read(self.desired_file, Desired) or Desired()

    def note_good(self, models: dict[str, ServedModel]) -> None:
        """Remembers what models are served as, for workers that start while the registry has something that fails."""
        if models.items() <= self.good().items():
            return
        with self.locked():
            self._write(self._good_file, self.good() | models)

    def good(self) -> dict[str, ServedModel]:
        return self._read(self._good_file, dict[str, ServedModel]) or {}

    def write_report(self, worker: int, report: WorkerReport) -> None:
        path = self.report_file(worker)
        path.parent.mkdir(exist_ok=True)
        self._write(path, report)

    def report(self, worker: int) -> WorkerReport | None:
        return self._read(self.report_file(worker), WorkerReport)

    def _read(self, path: Path, kind: type[_Value]) -> _Value | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None

    def _write(self, path: Path, value: Any) -> None:
        """Whole or not at all, for its owner alone. Not synced: none of it outlives the server."""
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        with disk_errors("write", path.parent):
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(handle, "wb") as file:
                file.write(msgspec.json.encode(value))
            os.replace(temporary, path)
