"""The process that watches the registry for all workers of a server.

Started by the supervisor as `python -m fairway.serving.watcher PLAN` once the workers are ready, so that the database
library is in memory once and in no worker. It looks at the registry's revision several times a second. When that has
moved, it writes the snapshot that workers follow: at once with what is already unpacked (routes, keys), and again as
each new bundle is. While the registry is away it says so, and everything stays as it was.
"""

from __future__ import annotations

import logging
import select
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import FairwayError, RegistryUnavailable
from fairway.core.priority import give_way
from fairway.core.settings import Settings
from fairway.core.version import ModelVersion
from fairway.inference.repository import RegistryHealth, RegistryState
from fairway.registry.snapshot import ServedModel, ServingSnapshot, write_snapshot
from fairway.serving.folder import ServerFolder, Watched
from fairway.serving.logs import set_up_logging
from fairway.stores.revision import read_revision

logger = logging.getLogger("fairway.watcher")

_LOOK_SECONDS = 0.15
_LIFE_SECONDS = 1.0
_FETCH_AGAIN_SECONDS = 5.0
_NICE = 10


class WatcherPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells the watcher. `lifeline` closes when the supervisor dies."""

    settings: Settings
    folder: str
    lifeline: int


class Watcher:
    """`look` is one look at the registry. `open_registry` is that of `fairway.registry.registry`."""

    def __init__(
        self,
        settings: Settings,
        folder: ServerFolder,
        open_registry: Callable[[Path, Any], Any] | None = None,
    ) -> None:
        snapshot = folder.snapshot()
        assert snapshot is not None, "the supervisor writes the first snapshot"
        self._home = Path(settings.home)
        self._settings = settings
        self._folder = folder
        self._open = open_registry
        self._registry: Any = None
        self._snapshot = snapshot
        self._seen: tuple[object, ...] | None = None
        self._generation = -1
        self._asked: set[str] = set()
        """Models that are there only because somebody asked for them."""
        self._watched: Watched | None = None
        self._missed = 0
        self._fetch_again = 0.0
        self._alive = 0.0

    def look(self) -> None:
        """Says in the folder what it finds; raises nothing that a registry or its disk may cause."""
        try:
            self._follow()
        except FairwayError as error:
            self._missed += 1
            if self._missed > 1 or self._watched is None:  # once may be a moment of somebody else's lock
                self._say(RegistryState.away, str(error))
        else:
            self._missed = 0
        now = time.monotonic()
        if self._watched is not None and now - self._alive > _LIFE_SECONDS:
            self._alive = now
            self._folder.sign_of_life()

    def close(self) -> None:
        if self._registry is not None:
            self._registry.close()

    def _follow(self) -> None:
        desired = self._folder.desired()
        seen = self._mark()
        due = self._fetch_again and time.monotonic() > self._fetch_again
        if seen == self._seen and desired.generation == self._generation and not due:
            self._say(RegistryState.ok, "")
            return
        asked = desired.from_registry()
        listing = self._opened().listing(self._snapshot.names, asked)
        before = {model.route.model: model for model in self._snapshot.models}
        gone = sorted(before.keys() - {listed.route.model for listed in listing.models} - self._asked)
        self._asked = {*asked} if not gone else self._asked
        if gone:
            raise RegistryUnavailable(
                f"The registry {self._registry.where} no longer has {', '.join(gone)}: it is not the one that was "
                "served from.",
                hint="Bring the old one back, or start the server again to serve what is there.",
            )
        folders = {v.digest: Path(v.directory) for model in before.values() for v in model.versions}
        fetched: dict[str, ServedModel] = {}
        for listed in listing.models:
            model = _model_of(listed, lambda v: folders.get(v.digest) or self._registry.unpacked(v))
            model = before.get(listed.route.model) if model is None else model
            if model is not None:
                fetched[listed.route.model] = model
        self._publish(listing, fetched)
        failures: dict[str, str] = {}
        for listed in listing.models:
            name = listed.route.model
            try:
                model = _model_of(listed, self._registry.fetch)
            except FairwayError as error:
                failures[name] = str(error)
                continue
            if fetched.get(name) != model:
                assert model is not None
                fetched[name] = model
                self._publish(listing, fetched)
        self._fetch_again = time.monotonic() + _FETCH_AGAIN_SECONDS if failures else 0.0
        self._seen, self._generation = (*seen[:-1], listing.revision), desired.generation
        self._say(RegistryState.ok, "", failures)
        if not failures and not asked:
            self._keep()

    def _mark(self) -> tuple[object, ...]:
        """Changes when the registry does; its last part is the revision."""
        url = self._settings.registry.database_url
        if url:
            return (url, self._opened().revision())
        path = self._home / "registry.db"
        revision = read_revision(path)
        with_identity = path.stat() if path.exists() else None
        return (with_identity and (with_identity.st_dev, with_identity.st_ino), revision)

    def _opened(self) -> Any:
        if self._registry is None:
            if self._open is None:
                # SQLAlchemy takes long to import: here, where nobody waits, and in no worker.
                from fairway.registry.registry import open_registry

                self._open = open_registry
            self._registry = self._open(self._home, self._settings.registry)
        return self._registry

    def _publish(self, listing: Any, fetched: dict[str, ServedModel]) -> None:
        """Has the workers see it, unless they do."""
        order = [listed.route.model for listed in listing.models]
        snapshot = ServingSnapshot(
            revision=listing.revision,
            models=tuple(fetched[name] for name in order if name in fetched),
            keys=listing.keys,
            names=self._snapshot.names,
            registry=self._registry.where,
        )
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._folder.write_snapshot(snapshot)

    def _keep(self) -> None:
        """What the next start of a server can use as it is."""
        try:
            write_snapshot(self._home, self._snapshot)
        except FairwayError as error:  # a home on a full or read-only disk is still good to serve from
            logger.warning("the next start will be slower: %s", error)

    def _say(self, state: RegistryState, reason: str, failures: dict[str, str] | None = None) -> None:
        last = self._watched
        if last is not None and (last.health.state, last.health.reason) == (state, reason):
            health = last.health
        else:
            since = (
                last.health.since if last is not None and last.health.state is state else datetime.now(UTC)
            )
            health = RegistryHealth(state=state, since=since, reason=reason)
            if last is not None and last.health.state is not state:
                if state is RegistryState.away:
                    logger.warning("serving goes on with what was live before: %s", reason)
                else:
                    logger.warning("the registry is back")
        if failures is None:
            failures = last.failures if last is not None else {}
        watched = Watched(health=health, generation=self._generation, failures=failures)
        if watched != last:
            for name in failures:
                if last is None or failures[name] != last.failures.get(name):
                    logger.error("%s goes on being served as it was: %s", name, failures[name])
            self._watched = watched
            self._folder.write_watched(watched)


def _model_of(listed: Any, folder: Callable[[ModelVersion], Path | None]) -> ServedModel | None:
    """The model with the folders of its versions; None when one that traffic needs has none. One that nobody needs
    is left out then, whether it has none or cannot be fetched."""
    from fairway.registry.registry import served  # as above

    needed = {*listed.route.versions, *(version.version for version in listed.versions if version.aliases)}
    versions = []
    for version in listed.versions:
        try:
            path = folder(version)
        except FairwayError:
            if version.version in needed:
                raise
            path = None
        if path is not None:
            versions.append(served(version, path))
        elif version.version in needed:
            return None
    return ServedModel(route=listed.route, versions=tuple(versions))


def main() -> int:
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=WatcherPlan)
    set_up_logging(plan.settings.telemetry, "watcher")
    give_way(_NICE)
    watcher = Watcher(plan.settings, ServerFolder(Path(plan.folder)))
    while not select.select([plan.lifeline], [], [], _LOOK_SECONDS)[0]:
        watcher.look()
    watcher.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
