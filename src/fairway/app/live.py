"""From a bundle to live traffic: register it, route to it, leave a warm start behind."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fairway.app.environments import make_environment
from fairway.app.home import Home, current_user
from fairway.app.serve import keep_snapshot
from fairway.core.contract import Contract
from fairway.core.errors import RouteConflict
from fairway.core.route import everything_to
from fairway.core.version import CHAMPION, ModelVersion
from fairway.registry.registry import Registered

_ATTEMPTS = 10


class Sealed(Protocol):
    """A bundle on disk, as packaging made it or as it was read."""

    @property
    def directory(self) -> Path: ...
    @property
    def digest(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def contract(self) -> Contract: ...


def register_bundle(home: Home, name: str, bundle: Sealed, *, why: str) -> Registered:
    """The bundle as a version of `name`: its next one, or the one it already is.

    The environment that its model needs, if it has one of its own, is made first: never while a request waits for it.
    """
    make_environment(home.settings, bundle.directory, bundle.engine)
    return home.registry.register(
        name,
        bundle.directory,
        digest=bundle.digest,
        engine=bundle.engine,
        input_signature=bundle.contract.input_signature(),
        who=current_user(),
        why=why,
    )


def make_live(home: Home, version: ModelVersion, *, why: str) -> None:
    """All traffic of the model to `version`, and the champion alias with it. RouteConflict when others keep
    changing the route meanwhile."""
    who, name = current_user(), version.model
    for attempt in range(_ATTEMPTS):
        now = home.registry.route(name)
        try:
            home.registry.set_route(
                everything_to(name, version.version),
                expected_revision=0 if now is None else now.revision,
                who=who,
                why=why,
            )
            break
        except RouteConflict:
            if attempt == _ATTEMPTS - 1:
                raise
    home.registry.set_alias(name, CHAMPION, version.version, who=who, why=why)
    registry = home.settings.registry
    if (
        not registry.database_url and not registry.blobs_url
    ):  # elsewhere, this machine may not be the one that serves
        for names in ((), (name,)):
            keep_snapshot(home.path, home.registry.snapshot(names))
