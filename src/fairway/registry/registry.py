"""The registry: immutable versions, movable aliases, one `Route` per model, and the history of all of it.

Every change is one transaction: it is read, checked, written and recorded in the history, or nothing happened.
Files are stored before the transaction that names them, so a version that is listed is whole; a process that
dies in between leaves files nobody names, which `clean` removes after a day.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from fairway.core.bundle import UNSEALED, File
from fairway.core.clock import utc_now
from fairway.core.errors import (
    Conflict,
    CorruptBundle,
    FairwayError,
    NotFound,
    RegistryUnavailable,
    RouteConflict,
)
from fairway.core.route import Route, everything_to
from fairway.core.settings import RegistrySettings
from fairway.core.version import (
    Change,
    ModelVersion,
    Reference,
    check_alias,
    check_model_name,
    parse_reference,
)
from fairway.registry.bundles import UnpackedBundles
from fairway.registry.changes import change
from fairway.registry.contents import sealed_files
from fairway.registry.keys import HISTORY, add_key, revoke_key
from fairway.registry.lookup import (
    aliased,
    check_compatible,
    check_texts,
    known_version,
    latest_version,
    no_such_model,
    resolved,
)
from fairway.registry.rollback import rollback_target, traffic
from fairway.registry.snapshot import ServedModel, ServedVersion, ServingSnapshot
from fairway.security.keys import AccessKey
from fairway.stores.base import BlobStore, RegistryDatabase, Rows
from fairway.stores.disk import disk_errors
from fairway.stores.opening import open_blobs, open_database

DAY = 86_400.0
_ATTEMPTS = 3

log = logging.getLogger("fairway.registry")


RECENT = 5


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A model to serve, its versions ascending."""

    route: Route
    versions: tuple[ModelVersion, ...]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served at one revision. `keys` are all API keys, the revoked ones too."""

    revision: int
    models: tuple[Listed, ...]
    keys: tuple[AccessKey, ...]


class Anything(enum.Enum):
    token = 0


ANY = Anything.token
"""For `set_alias`: whatever the alias points to now, or nothing."""


class Registered(ModelVersion, frozen=True, kw_only=True):
    """A version just asked for; `is_new` is False when the same digest was registered before."""

    is_new: bool


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    versions: int
    latest: int
    aliases: dict[str, int]
    route: Route | None


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """How many stored files nobody names, and how many half-unpacked bundles, were removed."""

    blobs: int
    bundles: int


def open_registry(home: Path, settings: RegistrySettings) -> Registry:
    """Opens, or makes, the registry of `home`. Errors: as `RegistryDatabase`."""
    home = home.absolute()
    return Registry(home, open_database(home, settings), open_blobs(home, settings))


class Registry:
    """May be used from several threads at once."""

    def __init__(self, home: Path, database: RegistryDatabase, blobs: BlobStore) -> None:
        self.home = home
        self._database = database
        self._blobs = blobs
        self._bundles = UnpackedBundles(home / "bundles", blobs)

    @property
    def where(self) -> str:
        return self._database.where

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Versions

    def register(
        self,
        name: str,
        bundle_directory: Path,
        *,
        digest: str,
        engine: str,
        input_signature: str,
        who: str,
        why: str,
        note: str = "",
    ) -> Registered:
        """Stores the bundle and gives it the next version of `name`.

        The same digest under the same name gives the version it already has; its missing or damaged files are
        stored again. Errors: `CorruptBundle` when a file is not as the manifest says, `StorageFull`,
        `RegistryUnavailable`; after any of them nothing is registered.
        """
        check_model_name(name)
        check_texts(who=who, why=why, note=note)
        registered = None
        for _ in range(_ATTEMPTS):
            files = self._store(bundle_directory, digest)
            with self._database.writing() as rows:
                if not all(self._blobs.exists(file.sha256) for file in files.values()):
                    continue  # a cleaning elsewhere took a file that nobody named yet
                version = ModelVersion(
                    model=name,
                    version=rows.latest(name) + 1,
                    digest=digest,
                    engine=engine,
                    input_signature=input_signature,
                    created=utc_now(),
                    created_by=who,
                    note=note,
                )
                registered = _add_version(rows, version, files, why)
                break
        if registered is None:
            raise RegistryUnavailable(
                f"Stored files vanish from {self._blobs.where} while they are being registered.",
                hint="Try again.",
            )
        state = "registered" if registered.is_new else "was registered before"
        log.info("%s:%d %s (%s)", name, registered.version, state, digest)
        self._clean_daily()
        return registered

    def models(self) -> tuple[ModelSummary, ...]:
        """All models by name."""
        with self._database.reading() as rows:
            counts, aliases, routes = rows.models(), rows.aliases(), rows.routes()
        return tuple(
            ModelSummary(
                name=name,
                versions=count,
                latest=latest,
                aliases=dict(sorted(aliases.get(name, {}).items())),
                route=routes.get(name),
            )
            for name, (count, latest) in sorted(counts.items())
        )

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """All versions, ascending. `ModelNotFound`."""
        with self._database.reading() as rows:
            found = rows.versions(name)
            if not found:
                raise no_such_model(rows, name)
        return found

    def version(self, name: str, ref: Reference | int | str | None = None) -> ModelVersion:
        """The version that a number, an alias or a reference names. None means what `resolve` does for a name."""
        if isinstance(ref, Reference):
            return self.resolve(ref)
        if isinstance(ref, str):
            return self.resolve(Reference(name, alias=ref))
        return self.resolve(Reference(name, version=ref))

    def resolve(self, reference: Reference | str) -> ModelVersion:
        """`name:3` is that version, `name@champion` the alias's; a plain `name` is the first arm of its route,
        or its latest version when it has none. `ModelNotFound`, `VersionNotFound`, `AliasNotFound`."""
        if isinstance(reference, str):
            reference = parse_reference(reference)
        with self._database.reading() as rows:
            return resolved(rows, reference)

    def fetch(self, version: ModelVersion) -> Path:
        """The folder of the version's bundle, unpacked below `<home>/bundles` if it is not there yet.

        An unpacked bundle is found without the database. `CorruptBundle` names the file that is not as it was
        registered."""

        def files() -> Mapping[str, File]:
            with self._database.reading() as rows:
                return rows.files(version.model, version.version)

        return self._bundles.fetch(version.digest, files, name=f"{version.model}:{version.version}")

    # Aliases

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        who: str,
        why: str,
        expected: int | Anything | None = ANY,
    ) -> None:
        """Points the alias to the version. With `expected` (a version, or None for "not set"), only if it is
        so now: `Conflict` otherwise."""
        check_alias(alias)
        check_texts(who=who, why=why)
        with self._database.writing() as rows:
            known_version(rows, name, version)
            now = rows.aliases(name).get(name, {}).get(alias)
            if expected is not ANY and now != expected:
                raise Conflict(
                    f"{name}@{alias} is {_number(now)}, not {_number(expected)}: somebody changed it first.",
                    hint="Look again and decide anew.",
                )
            if now != version:
                rows.put_alias(name, alias, version)
                rows.append(change(name, f"alias:{alias}", now, version, who, why))

    def delete_alias(self, name: str, alias: str, *, who: str, why: str) -> None:
        """`AliasNotFound` when there is none."""
        check_texts(who=who, why=why)
        with self._database.writing() as rows:
            number = aliased(rows, name, alias)
            rows.put_alias(name, alias, None)
            rows.append(change(name, f"alias:{alias}", number, None, who, why))

    # Routes

    def route(self, name: str) -> Route | None:
        """The live traffic of a model; None when it was never routed. `ModelNotFound`."""
        with self._database.reading() as rows:
            latest_version(rows, name)
            return rows.routes(name).get(name)

    def set_route(self, route: Route, *, expected_revision: int, who: str, why: str) -> Route:
        """Makes `route` the live traffic if the current route still has `expected_revision` (0: none yet).

        Returns it with its new revision; the same traffic as now changes nothing. Errors: `RouteConflict`,
        `VersionNotFound`, `IncompatibleContract`.
        """
        check_texts(who=who, why=why, salt=route.salt)
        with self._database.writing() as rows:
            versions = [known_version(rows, route.model, number) for number in route.versions]
            check_compatible(versions)
            now = rows.routes(route.model).get(route.model)
            revision = 0 if now is None else now.revision
            if revision != expected_revision:
                raise RouteConflict(
                    f"The route of {route.model} is at revision {revision}, not {expected_revision}: "
                    "somebody changed it first.",
                    hint="Look at the route again and decide anew.",
                )
            if now is not None and traffic(now) == traffic(route):
                return now
            return _put_route(rows, now, route, who=who, why=why)

    def rollback(self, name: str, *, who: str, why: str) -> Route:
        """Takes the version that came last out of live traffic; `rollback.py` has the rule.

        Again goes further back. `NotFound` when there is nothing to go back to.
        """
        check_texts(who=who, why=why)
        with self._database.writing() as rows:
            latest_version(rows, name)
            target = rollback_target(rows.changes(name, what="route")[::-1])
            if target is None:
                raise NotFound(
                    f"{name} has no earlier route to go back to.",
                    hint=f"See what was live with: fairway history {name}",
                )
            sequence, route = target
            now = rows.routes(name).get(name)
            return _put_route(rows, now, route, who=who, why=why, restores=sequence)

    # Keys

    def keys(self) -> tuple[AccessKey, ...]:
        """Every API key, the revoked ones too, by time of creation."""
        return self.keys_at()[1]

    def keys_at(self) -> tuple[int, tuple[AccessKey, ...]]:
        """The revision, and every key as of then."""
        with self._database.reading() as rows:
            return rows.revision(), rows.access_keys()

    def add_key(self, key: AccessKey, *, who: str, why: str) -> AccessKey:
        """Errors: `AlreadyExists` when a key of that name is in use, `ModelNotFound` for one of its models."""
        check_texts(who=who, why=why)
        with self._database.writing() as rows:
            return add_key(rows, key, who=who, why=why)

    def revoke_key(self, name: str, *, who: str, why: str) -> AccessKey:
        """The key as it now is: known, and refused everywhere. `KeyNotFound`."""
        check_texts(who=who, why=why)
        with self._database.writing() as rows:
            return revoke_key(rows, name, who=who, why=why)

    def key_history(self, limit: int | None = 100) -> tuple[Change, ...]:
        """Who made and revoked which key, when and why; the newest first. Neither secrets nor hashes are in it."""
        with self._database.reading() as rows:
            return rows.changes(HISTORY, limit=limit)

    # History

    def history(self, name: str, limit: int | None = 100) -> tuple[Change, ...]:
        """Who changed what from what to what, when and why; the newest first. `ModelNotFound`."""
        with self._database.reading() as rows:
            latest_version(rows, name)
            return rows.changes(name, limit=limit)

    def revision(self) -> int:
        """Counts up with every change to any model or key."""
        return self._database.revision()

    def snapshot(self, names: tuple[str, ...] = ()) -> ServingSnapshot:
        """What a server of `names` needs (of all routed models when empty), its bundles unpacked; see `listing`.
        `ModelNotFound`, and as `fetch`."""
        listing = self.listing(names)
        models = tuple(
            ServedModel(
                route=listed.route,
                versions=tuple(served(version, self.fetch(version)) for version in listed.versions),
            )
            for listed in listing.models
        )
        return ServingSnapshot(
            revision=listing.revision, models=models, keys=listing.keys, names=names, registry=self.where
        )

    def listing(self, names: tuple[str, ...] = (), also: Collection[str] = ()) -> Listing:
        """What a server of `names` serves (all routed models when empty), and of `also` those that there are.

        That is every version that the route or an alias names, and the `RECENT` newest, so that a caller can ask
        for the one before by number. A named model without a route is served by its latest version. `ModelNotFound`.
        """
        models: list[Listed] = []
        with self._database.reading() as rows:
            revision = rows.revision()
            keys = rows.access_keys()
            routes = rows.routes()
            known = [name for name in sorted(also) if rows.latest(name)]
            for name in dict.fromkeys([*(names or sorted(routes)), *known]):
                latest = latest_version(rows, name)
                route = routes.get(name) or everything_to(name, latest)
                numbers = {*route.versions, *rows.aliases(name).get(name, {}).values()}
                numbers.update(range(max(1, latest - RECENT + 1), latest + 1))
                versions = tuple(known_version(rows, name, number) for number in sorted(numbers))
                models.append(Listed(route=route, versions=versions))
        return Listing(revision=revision, models=tuple(models), keys=keys)

    def unpacked(self, version: ModelVersion) -> Path | None:
        """The folder of the version's bundle if it is unpacked."""
        return self._bundles.find(version.digest)

    # Files

    def clean(self, *, older_than_seconds: float = DAY) -> Cleaned:
        """Removes what processes that died left behind, when it is older than that.

        Nobody can register meanwhile, so no file is removed that is about to be named.
        """
        with self._database.writing() as rows:
            blobs = self._blobs.sweep(rows.kept(), older_than_seconds=older_than_seconds)
        return Cleaned(blobs=blobs, bundles=self._bundles.sweep(older_than_seconds=older_than_seconds))

    def _clean_daily(self) -> None:
        mark = self.home / ".cleaned"
        try:
            with disk_errors("note the last cleaning", self.home):
                self.home.mkdir(parents=True, exist_ok=True)
                if mark.exists() and time.time() - mark.stat().st_mtime < DAY:
                    return
                mark.touch()
            self.clean()
        except FairwayError as error:  # the version is registered all the same; tomorrow is another day
            log.warning("leftovers were not cleaned up: %s", error)

    def _store(self, directory: Path, digest: str) -> dict[str, File]:
        """Stores every file of the bundle; returns them by path."""
        sealed = sealed_files(directory, digest)
        stored: dict[str, File] = {}
        for path in [*sealed, *sorted(UNSEALED)]:
            source = directory / path
            if not source.is_file():
                if path in sealed:
                    raise CorruptBundle(f"{source} is missing.", hint="Package the model again.")
                continue
            with disk_errors("read a bundle", directory):
                size = source.stat().st_size
            stored[path] = File(sha256=self._blobs.put(source), size=size)
            if path in sealed and stored[path] != sealed[path]:
                raise CorruptBundle(
                    f"{source} is not the file its manifest seals.", hint="Package the model again."
                )
        return stored


def _add_version(rows: Rows, version: ModelVersion, files: Mapping[str, File], why: str) -> Registered:
    known = rows.version_with(version.model, version.digest)
    if known is not None:
        return Registered(**msgspec.structs.asdict(known), is_new=False)
    rows.add_version(version, files)
    after = {"version": version.version, "digest": version.digest}
    rows.append(change(version.model, "version", None, after, version.created_by, why))
    return Registered(**msgspec.structs.asdict(version), is_new=True)


def _put_route(
    rows: Rows, now: Route | None, route: Route, *, who: str, why: str, restores: int | None = None
) -> Route:
    new = msgspec.structs.replace(route, revision=1 if now is None else now.revision + 1)
    rows.put_route(new)
    rows.append(change(route.model, "route", now, new, who, why, restores))
    return new


def _number(version: object) -> str:
    return "not set" if version is None else f"version {version}"


def served(version: ModelVersion, directory: Path) -> ServedVersion:
    """The version as a server needs it."""
    return ServedVersion(
        version=version.version, digest=version.digest, aliases=version.aliases, directory=str(directory)
    )
