"""Loading and unloading models while serving, for every worker of the server at once.

A call comes to one worker. It writes what is wanted into the server's folder, where every worker sees it, and waits
until each has reported that it is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fairway.core.errors import AlreadyExists, FairwayError, ModelNotFound, Unavailable
from fairway.core.route import everything_to
from fairway.inference.repository import State, VersionState
from fairway.packaging.bundle import read_bundle
from fairway.registry.snapshot import ServedModel, ServedVersion
from fairway.serving.folder import Desired, ServerFolder, Wish, WorkerReport

_POLL_SECONDS = 0.02
_RANK = {State.failed: 3, State.loading: 2, State.ready: 1, State.unloaded: 0}


class ServerRepository:
    """See `Repository`. `workers` is how many the server has; `patience_seconds` how long to wait for them."""

    def __init__(self, folder: ServerFolder, workers: int, patience_seconds: float) -> None:
        self._folder = folder
        self._workers = workers
        self._patience = patience_seconds

    def index(self) -> list[VersionState]:
        reports = [report for report in map(self._folder.report, range(self._workers)) if report is not None]
        return merged(reports)

    def load(self, model: str, *, source: str = "") -> None:
        served = _brought(model, Path(source)) if source else None
        with self._folder.locked():
            desired = self._folder.desired()
            before = desired.models.get(model)
            if served is not None and self._is_there(model):
                raise AlreadyExists(f"model {model!r} is loaded already.", hint="Unload it first.")
            if served is None and before is not None and before.loaded:
                served = before.served
            generation = self._ask(desired, model, Wish(loaded=True, generation=0, served=served))
        try:
            self._wait(model, generation)
        except FairwayError:
            self._take_back(model, generation, before)
            raise

    def unload(self, model: str) -> None:
        with self._folder.locked():
            desired = self._folder.desired()
            if not self._is_there(model):
                raise ModelNotFound(f"no model {model!r} is loaded here.")
            wish = desired.models.get(model)
            brought = wish is not None and wish.served is not None
            generation = self._ask(desired, model, None if brought else Wish(loaded=False, generation=0))
        self._wait(model, generation)

    def _is_there(self, model: str) -> bool:
        """Whether it is served, loaded or ready to be when it is asked for."""
        wish = self._folder.desired().models.get(model)
        if wish is not None and not wish.loaded:
            return False
        return any(state.model == model for state in self.index())

    def _ask(self, desired: Desired, model: str, wish: Wish | None) -> int:
        """Writes what is wanted of `model`, None for nothing in particular; returns the number of the request."""
        generation = desired.generation + 1
        models = {name: known for name, known in desired.models.items() if name != model}
        if wish is not None:
            models[model] = msgspec.structs.replace(wish, generation=generation)
        self._folder.write_desired(Desired(generation=generation, models=models))
        return generation

    def _take_back(self, model: str, generation: int, before: Wish | None) -> None:
        """What failed is not wanted any more, unless somebody has asked again since."""
        with self._folder.locked():
            desired = self._folder.desired()
            wish = desired.models.get(model)
            if wish is not None and wish.generation == generation:
                self._ask(desired, model, before)

    def _wait(self, model: str, generation: int) -> None:
        """Until every worker is done; raises what the first that failed says."""
        deadline = time.monotonic() + self._patience
        waiting = set(range(self._workers))
        while True:
            for number in sorted(waiting):
                report = self._folder.report(number)
                if report is not None and report.generation >= generation:
                    waiting.discard(number)
                    if model in report.errors:
                        trouble = report.errors[model]
                        raise error_of(trouble.code)(trouble.message)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{len(waiting)} of {self._workers} workers are not done after {self._patience:g} s "
                    "(serving.load_seconds).",
                    hint="They go on; ask for the repository's index.",
                )
            time.sleep(_POLL_SECONDS)


def merged(reports: Iterable[WorkerReport]) -> list[VersionState]:
    """The versions of all workers: each in the state that most needs to be known."""
    states: dict[tuple[str, int], VersionState] = {}
    for report in reports:
        for state in report.versions:
            key = (state.model, state.version)
            known = states.get(key)
            if known is None or _RANK[state.state] > _RANK[known.state]:
                states[key] = state
    return [states[key] for key in sorted(states)]


def error_of(code: str) -> type[FairwayError]:
    """The error class of a code; `Unavailable` for one that this process does not know."""
    kinds: list[type[FairwayError]] = [FairwayError]
    while kinds:
        kind = kinds.pop()
        if kind.code == code:
            return kind
        kinds += kind.__subclasses__()
    return Unavailable


def _brought(model: str, directory: Path) -> ServedModel:
    """A bundle's folder as version 1 of a model that no registry knows."""
    bundle = read_bundle(directory.absolute(), check_files=False)
    version = ServedVersion(version=1, digest=bundle.digest, aliases=(), directory=str(directory.absolute()))
    return ServedModel(route=everything_to(model, 1), versions=(version,))
