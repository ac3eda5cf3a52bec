"""The environments that registered models need: which there are, and making what is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from fairway.core.bundle import Manifest
from fairway.core.errors import FairwayError, Unavailable
from fairway.core.settings import Settings
from fairway.registry.snapshot import ServingSnapshot
from fairway.runtimes.base import ISOLATED
from fairway.runtimes.isolated.engine import bundle_lock
from fairway.runtimes.isolated.environments import Environments
from fairway.runtimes.isolated.lock import Lock

logger = logging.getLogger("fairway.serving")


def make_environment(settings: Settings, directory: Path, engine: str) -> None:
    """Makes the environment of the bundle at `directory`, if its model has one of its own and it is not there yet."""
    if engine.startswith(ISOLATED):
        lock = lock_at(directory)
        if lock is not None:
            Environments(settings.isolation_at_home()).use(lock).close()


def lock_at(directory: Path) -> Lock | None:
    """The lock of an unpacked bundle; None when its model runs in the server's environment."""
    content = (directory / "manifest.json").read_bytes()
    if ISOLATED.encode() not in content:
        return None
    spec = msgspec.json.decode(content, type=Manifest).engine
    return bundle_lock(directory, spec) if spec.kind.startswith(ISOLATED) else None


def locks_of(snapshot: ServingSnapshot) -> Iterator[tuple[str, Lock]]:
    """(model:version, lock) of every version in the snapshot whose model has an environment of its own."""
    for model in snapshot.models:
        for version in model.versions:
            lock = lock_at(Path(version.directory))
            if lock is not None:
                yield f"{model.route.model}:{version.version}", lock


class Need(msgspec.Struct, frozen=True):
    """An environment, and the versions ("legacy:1") that run in it."""

    lock: Lock
    models: tuple[str, ...]


def needed(snapshot: ServingSnapshot) -> list[Need]:
    """The environments of everything that takes traffic or has an alias."""
    needs: dict[str, Need] = {}
    for name, lock in locks_of(snapshot):
        known = needs.get(lock.digest, Need(lock, ()))
        needs[lock.digest] = Need(lock, (*known.models, name))
    return list(needs.values())


def mend(environments: Environments, needs: Iterable[Need]) -> Iterator[Need]:
    """Makes those that are missing, and broken ones again; gives each that was made. Raises EnvironmentFailed, and
    Unavailable for a broken one that is in use."""
    for need in needs:
        digest = need.lock.digest
        if not environments.complaint(digest):
            continue
        if not environments.remove(digest):
            raise Unavailable(
                f"the environment {digest[:12]} of {', '.join(need.models)} is broken and in use.",
                hint="Stop the servers that use it, and mend it again.",
            )
        environments.use(need.lock).close()
        yield need


def make_ready(settings: Settings, locks: Iterable[tuple[str, Lock]]) -> None:
    """Makes what is missing before workers start: they have only so long until they must be ready.

    What cannot be made is told and left to the worker, which says which model it cannot load.
    """
    for name, lock in locks:
        try:
            Environments(settings.isolation_at_home()).use(lock).close()
        except FairwayError as error:
            logger.warning("%s: %s", name, error)
