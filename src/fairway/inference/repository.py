"""The port through which protocols ask a server what it has loaded, and to load or unload a model."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec


class State(StrEnum):
    loading = "loading"
    ready = "ready"
    unloaded = "unloaded"
    """Known and not loaded: the first request loads it, where that is allowed."""
    failed = "failed"


class VersionState(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one model on this server. `reason` says why it failed or was unloaded."""

    model: str
    version: int
    state: State
    reason: str = ""
    aliases: tuple[str, ...] = ()
    bytes: int = 0
    """Memory it was seen to take; 0 while not loaded."""


class RegistryState(StrEnum):
    ok = "ok"
    away = "away"
    """It cannot be read, or is not the one that was: serving goes on with what was live before."""


class RegistryHealth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the registry can be seen, and since when that is so."""

    state: RegistryState
    since: datetime
    reason: str = ""


class ModelHealth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The version with most of the traffic. `reason`: what the registry has now could not be loaded."""

    state: State
    version: int
    reason: str = ""


class LogHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this worker's predictions are being recorded, since when that is so, and why not. Serving goes on either
    way; rows that are not recorded are counted."""

    recording: bool = True
    since: datetime
    reason: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What readiness tells. `registry` is None while nobody watches one, `log` while nothing is recorded."""

    ready: bool
    registry: RegistryHealth | None = None
    models: dict[str, ModelHealth] = {}
    log: LogHealth | None = None

    def without_reasons(self) -> Health:
        """Why something failed may name places, people and fields."""
        return msgspec.structs.replace(
            self,
            registry=None if self.registry is None else msgspec.structs.replace(self.registry, reason=""),
            models={name: msgspec.structs.replace(model, reason="") for name, model in self.models.items()},
            log=None if self.log is None else msgspec.structs.replace(self.log, reason=""),
        )

    def of_models(self, names: Collection[str]) -> Health:
        return msgspec.structs.replace(
            self, models={name: model for name, model in self.models.items() if name in names}
        )


class Repository(Protocol):
    """Every call is for the whole server, not for one worker, and returns when each worker has done it. All block:
    call them from a thread."""

    def index(self) -> list[VersionState]:
        """Every version known here, by model and version."""

    def load(self, model: str, *, source: str = "") -> None:
        """Loads a registered model again or anew. `source` is a bundle's folder to take in under this name, for
        protocols that bring their own (SageMaker's multi-model endpoints). Raises ModelNotFound, AlreadyExists,
        OutOfMemory when it does not fit, or what loading raises; what was loaded before stays then."""

    def unload(self, model: str) -> None:
        """Stops serving it and frees its memory. Raises ModelNotFound."""
