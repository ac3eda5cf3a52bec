"""The registry's rows in this process's memory: for tests and for embedding without a disk."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from fairway.core.bundle import File
from fairway.core.route import Route
from fairway.core.version import Change, ModelVersion
from fairway.security.keys import AccessKey
from fairway.stores.memory_state import MemoryState


@dataclass
class _State:
    """Values are immutable, so a copy of the containers is a copy of the state."""

    versions: dict[str, tuple[ModelVersion, ...]] = field(default_factory=dict)
    files: dict[tuple[str, int], Mapping[str, File]] = field(default_factory=dict)
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    keys: dict[str, AccessKey] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    def copy(self) -> _State:
        return _State(
            dict(self.versions),
            dict(self.files),
            copy.deepcopy(self.aliases),
            dict(self.routes),
            dict(self.keys),
            self.changes,
        )


class MemoryRows:
    def __init__(self, state: _State) -> None:
        self._state = state

    def revision(self) -> int:
        return len(self._state.changes)

    def models(self) -> dict[str, tuple[int, int]]:
        return {name: (len(found), found[-1].version) for name, found in self._state.versions.items()}

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        names = self._state.aliases.get(model, {})
        return tuple(
            msgspec.structs.replace(
                version,
                aliases=tuple(sorted(alias for alias, number in names.items() if number == version.version)),
            )
            for version in self._state.versions.get(model, ())
        )

    def version(self, model: str, number: int) -> ModelVersion | None:
        return next((version for version in self.versions(model) if version.version == number), None)

    def version_with(self, model: str, digest: str) -> ModelVersion | None:
        return next((version for version in self.versions(model) if version.digest == digest), None)

    def latest(self, model: str) -> int:
        return self.models().get(model, (0, 0))[1]

    def files(self, model: str, number: int) -> dict[str, File]:
        return dict(self._state.files.get((model, number), {}))

    def kept(self) -> set[str]:
        return {file.sha256 for files in self._state.files.values() for file in files.values()}

    def aliases(self, model: str | None = None) -> dict[str, dict[str, int]]:
        return {
            name: dict(found)
            for name, found in self._state.aliases.items()
            if found and model in (None, name)
        }

    def routes(self, model: str | None = None) -> dict[str, Route]:
        return {name: route for name, route in self._state.routes.items() if model in (None, name)}

    def changes(self, model: str, *, what: str | None = None, limit: int | None = None) -> tuple[Change, ...]:
        found = [c for c in reversed(self._state.changes) if c.model == model and what in (None, c.what)]
        return tuple(found[:limit])

    def add_version(self, version: ModelVersion, contents: Mapping[str, File]) -> None:
        stored = msgspec.structs.replace(version, aliases=())
        self._state.versions[version.model] = (*self._state.versions.get(version.model, ()), stored)
        self._state.files[version.model, version.version] = dict(contents)

    def put_alias(self, model: str, alias: str, number: int | None) -> None:
        names = self._state.aliases.setdefault(model, {})
        if number is None:
            names.pop(alias, None)
        else:
            names[alias] = number

    def put_route(self, route: Route) -> None:
        self._state.routes[route.model] = route

    def access_keys(self) -> tuple[AccessKey, ...]:
        return tuple(sorted(self._state.keys.values(), key=lambda key: (key.created, key.id)))

    def put_access_key(self, key: AccessKey) -> None:
        self._state.keys[key.id] = key

    def append(self, change: Change) -> Change:
        stored = msgspec.structs.replace(change, sequence=self.revision() + 1)
        self._state.changes = (*self._state.changes, stored)
        return stored


class MemoryDatabase(MemoryState[_State, MemoryRows]):
    def __init__(self, *, lock_timeout_seconds: float = 10.0) -> None:
        super().__init__(_State(), MemoryRows, "the registry", lock_timeout_seconds=lock_timeout_seconds)

    def revision(self) -> int:
        return MemoryRows(self._state).revision()
