"""A model in one process: what the registry says of it, what of it is in memory, and what is told of that."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec

from fairway.core.errors import FairwayError
from fairway.inference.live import LiveModel, LiveVersion
from fairway.inference.repository import State, VersionState
from fairway.inference.residency import Key
from fairway.registry.snapshot import ServedModel, ServedVersion


class Failure(msgspec.Struct, frozen=True):
    """Why a version is not in memory though somebody asked. `when` is on `time.monotonic`."""

    error: FairwayError
    when: float


@dataclass
class HeldModel:
    """A model as the registry has it, and what of it is in memory. Changed under the lock of `Residents` alone."""

    served: ServedModel
    loaded: dict[int, LiveVersion] = field(default_factory=dict)
    demanded: set[int] = field(default_factory=set)
    """Versions that nothing routes to and somebody asked for: once loaded, they stay while there is room."""
    known: LiveVersion | None = None
    """Describes the model while its main version is not loaded."""
    failures: dict[Key, Failure] = field(default_factory=dict)
    refused: tuple[ServedModel, str] | None = None
    """What was to take its place and could not, and why."""
    live: LiveModel | None = None

    @property
    def name(self) -> str:
        return self.served.route.model

    @property
    def routed(self) -> set[int]:
        """Versions that the route or an alias names."""
        return {*self.served.route.versions, *(v.version for v in self.served.versions if v.aliases)}

    @property
    def main(self) -> int:
        return self.served.route.main

    def key(self, number: int) -> Key:
        return Key(self.name, number, self.by_number[number].digest)

    @property
    def by_number(self) -> dict[int, ServedVersion]:
        return {version.version: version for version in self.served.versions}


def told(model: HeldModel, version: ServedVersion, loading: Collection[Key]) -> VersionState:
    key, live = model.key(version.version), model.loaded.get(version.version)
    state, reason = State.unloaded, ""
    if live is not None:
        state = State.ready
    elif key in loading:
        state = State.loading
    elif key in model.failures:
        state, reason = State.failed, str(model.failures[key].error)
    return VersionState(
        model=model.name,
        version=version.version,
        state=state,
        reason=reason,
        aliases=version.aliases,
        bytes=0 if live is None else live.bytes,
    )


def refused_states(
    refused: Iterable[tuple[ServedModel, str]], told: Collection[VersionState]
) -> list[VersionState]:
    """Versions that were to serve and could not, those already told of left out."""
    ready = {(state.model, state.version) for state in told if state.state is State.ready}
    return [
        VersionState(
            model=served.route.model,
            version=version.version,
            state=State.failed,
            reason=why,
            aliases=version.aliases,
        )
        for served, why in refused
        for version in served.versions
        if version.version in served.route.versions and (served.route.model, version.version) not in ready
    ]
