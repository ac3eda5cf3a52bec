"""How a worker follows what the server's folder says, in threads of its own beside those that serve.

One looks several times a second: keys take effect at once, however long models take. The other does what follows:
each model as it is loaded, checked and warm, while the one before serves. What a worker has loaded it writes back, for
the others to tell.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fairway.core.errors import FairwayError
from fairway.inference.memory import step_back
from fairway.inference.repository import Health, ModelHealth, RegistryState, State
from fairway.inference.residents import NICE, Residents
from fairway.registry.snapshot import ServedModel, ServingSnapshot
from fairway.serving.folder import STALE_SECONDS, Desired, ServerFolder, Trouble, Watched, WorkerReport
from fairway.stores.counters import Counters

logger = logging.getLogger("fairway.serving")

_LOOK_SECONDS = 0.06
_TROUBLE_SECONDS = 1.0


def to_serve(snapshot: ServingSnapshot, desired: Desired) -> tuple[list[ServedModel], dict[str, ServedModel]]:
    """The models to serve, and those of the registry that were unloaded by request."""
    models = {model.route.model: model for model in snapshot.models}
    unloaded: dict[str, ServedModel] = {}
    for name, wish in desired.models.items():
        if wish.loaded and wish.served is not None:
            models[name] = wish.served
        elif not wish.loaded and name in models:
            unloaded[name] = models.pop(name)
    return list(models.values()), unloaded


class Reload:
    """Follows the folder for worker `number`. `on_snapshot` is told of every snapshot before its models are loaded."""

    def __init__(
        self,
        folder: ServerFolder,
        number: int,
        residents: Residents,
        counters: Counters,
        on_snapshot: Callable[[ServingSnapshot], None] = lambda snapshot: None,
    ) -> None:
        snapshot = folder.snapshot()
        assert snapshot is not None, "the supervisor writes the first snapshot"
        self.on_snapshot = on_snapshot
        self._folder = folder
        self._number = number
        self._residents = residents
        self._counters = counters
        self._snapshot = snapshot
        self._desired = folder.desired()
        self._followed = self._desired
        """What was asked for when models were last followed."""
        self._due = False
        self._watched: Watched | None = None
        self._errors: dict[str, Trouble] = {}
        self._generation = 0
        self._files: dict[Path, object] = {path: _mark(path) for path in self._paths()}
        self._see_again = 0.0
        self._reported = -1
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def _paths(self) -> tuple[Path, ...]:
        return (self._folder.snapshot_file, self._folder.desired_file, self._folder.watched_file)

    @property
    def snapshot(self) -> ServingSnapshot:
        return self._snapshot

    def open(self, *, first: bool) -> None:
        """Loads what is to be there from the start. The `first` workers of a server raise what fails; one that takes
        the place of another serves what it can, as it was served before where that is needed."""
        models, _unloaded = to_serve(self._snapshot, self._desired)
        if first:
            self._residents.open(models)
            self._folder.note_good(self._residents.serving())
        else:
            good = self._folder.good()
            self._follow(self._snapshot, self._desired)
            for model in models:
                name = model.route.model
                why = self._residents.refusals().get(name)
                if why is not None and good.get(name, model) != model:
                    try:
                        self._residents.fall_back(good[name], model, why)
                    except FairwayError as error:
                        logger.error("%s cannot be served as it was either: %s", name, error)
        self._settle(self._snapshot)
        self._report()

    def start(self) -> None:
        for name, step, nice in (("fairway-look", self.look, 0), ("fairway-follow", self.follow, NICE)):
            threading.Thread(target=self._again_and_again, args=(step, nice), name=name, daemon=True).start()

    def stop(self) -> None:
        """Follows nothing any more. A load under way is not waited for."""
        self._stopping.set()
        self._residents.close()

    def health(self, *, ready: bool) -> Health:
        """What readiness tells."""
        watched = self._watched
        refused = self._residents.refusals()
        if watched is not None:
            refused |= {name: why for name, why in watched.failures.items() if name not in refused}
        states = {(state.model, state.version): state for state in self._residents.states()}
        models: dict[str, ModelHealth] = {}
        for live in self._residents.table:
            name, version = live.route.model, live.primary.version
            state = states.get((name, version))
            models[name] = ModelHealth(
                state=State.ready if state is None else state.state,
                version=version,
                reason=refused.get(name, "" if state is None else state.reason),
            )
        for (name, version), state in states.items():
            if name not in models:
                models[name] = ModelHealth(state=state.state, version=version, reason=state.reason)
        return Health(ready=ready, registry=None if watched is None else watched.health, models=models)

    def look(self) -> None:
        """Sees what has changed. Keys are in force when this returns; models are for `follow`. What could not be read is
        read the next time."""
        marks = {
            path: _mark(path) for path in self._paths()
        }  # before reading: what comes meanwhile is seen again
        changed = {path for path, mark in marks.items() if self._files[path] != mark}
        snapshot = self._folder.snapshot() if self._folder.snapshot_file in changed else None
        if snapshot is not None:
            self.on_snapshot(snapshot)
        with self._lock:
            self._snapshot = snapshot or self._snapshot
            if self._folder.desired_file in changed:
                self._desired = self._folder.desired()
            self._due = self._due or bool(changed - {self._folder.watched_file})
        watched = marks.pop(self._folder.watched_file)
        self._files.update(marks)
        if self._folder.watched_file in changed or time.monotonic() > self._see_again:
            self._see_registry()
            self._files[self._folder.watched_file] = watched

    def follow(self) -> None:
        """Does what `look` has seen to be due, tidies up, reports."""
        with self._lock:
            due, self._due = self._due, False
            snapshot, desired = self._snapshot, self._desired
        if due:
            try:
                self._follow(snapshot, desired)
            except BaseException:
                with self._lock:
                    self._due = True
                raise
        self._residents.tidy()
        if self._settle(snapshot) or self._residents.changes != self._reported:
            self._report()

    def _again_and_again(self, step: Callable[[], None], nice: int) -> None:
        if nice:
            step_back(nice)
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                step()
            except Exception:
                logger.exception("following the registry failed; trying again")
                self._stopping.wait(_TROUBLE_SECONDS)

    def _follow(self, snapshot: ServingSnapshot, desired: Desired) -> None:
        models, unloaded = to_serve(snapshot, desired)
        known = {live.route.model for live in self._residents.table}
        now = {
            name
            for name, wish in desired.models.items()
            if wish.loaded and (wish.generation > self._generation or name not in known)
        }
        failed = self._residents.follow(models, unloaded=unloaded, now=now, turn=self._folder.turn)
        self._errors = {name: Trouble(error.code, str(error)) for name, error in failed.items()}
        self._followed = desired
        self._folder.note_good(self._residents.serving())

    def _settle(self, snapshot: ServingSnapshot) -> bool:
        """Whether requests up to a later one are done now. One for a model that the registry has yet to give is not."""
        listed = {model.route.model for model in snapshot.models}
        waiting = [name for name in self._followed.from_registry() if name not in listed]
        done = self._followed.generation
        if waiting and (self._watched is None or self._watched.generation < done):
            return False
        for name in waiting:
            assert self._watched is not None
            if name in self._watched.failures:
                self._errors[name] = Trouble("registry_unavailable", self._watched.failures[name])
            else:
                self._errors[name] = Trouble("model_not_found", f"The registry has no model {name!r}.")
        newer = done != self._generation
        self._generation = done
        return newer

    def _report(self) -> None:
        self._reported = self._residents.changes
        report = WorkerReport(
            pid=os.getpid(),
            generation=self._generation,
            versions=tuple(self._residents.states()),
            errors=self._errors,
        )
        self._folder.write_report(self._number, report)

    def _see_registry(self) -> None:
        """What the watcher says, and now and again whether there still is one."""
        self._see_again = time.monotonic() + STALE_SECONDS / 5
        self._watched = self._folder.watched()
        up = self._watched is not None and self._watched.health.state is RegistryState.ok
        self._counters.values[self._counters.slot("fairway_registry_up")] = float(up)


def _mark(path: Path) -> object:
    """Changes with every whole new file, and with a sign of life."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
