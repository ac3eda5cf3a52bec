"""What a server starts from, found in milliseconds when nothing changed since it last started."""

from __future__ import annotations

import logging
from pathlib import Path

from fairway.core.errors import CorruptRegistry, FairwayError, ModelNotFound, Unavailable
from fairway.core.settings import Settings
from fairway.registry.snapshot import ServingSnapshot, read_snapshot, write_snapshot
from fairway.stores.revision import sqlite_revision

logger = logging.getLogger("fairway.serving")


def serving_snapshot(settings: Settings, names: tuple[str, ...]) -> ServingSnapshot:
    """The models to serve, their own environments made where they have any. The cached snapshot when the registry has
    not changed since, or cannot be reached."""
    snapshot = _current(settings, names)
    directories = [Path(version.directory) for model in snapshot.models for version in model.versions]
    if any(_has_environment(directory) for directory in directories):
        # Needs numpy, which the supervisor of other models is started without.
        from fairway.app.environments import locks_of, make_ready

        make_ready(settings, locks_of(snapshot))
    return snapshot


def _has_environment(bundle: Path) -> bool:
    """Whether the bundle's model may have an environment of its own; its manifest is a few KB."""
    try:
        return b'"isolated:' in (bundle / "manifest.json").read_bytes()
    except OSError:
        return False  # whoever loads it says what is wrong


def _current(settings: Settings, names: tuple[str, ...]) -> ServingSnapshot:
    home = Path(settings.home)
    cached = read_snapshot(home, names)
    if cached is not None and not settings.registry.database_url:
        revision = sqlite_revision(home / "registry.db")
        if revision is not None and revision == cached.revision:
            return cached
    try:
        snapshot = _fresh(settings, names)
    except (Unavailable, CorruptRegistry) as error:
        if cached is None:
            raise
        logger.warning("serving what was live before: %s", error)
        return cached
    if not snapshot.models:
        raise ModelNotFound(
            f"no model in {home} takes traffic yet.",
            hint="Deploy one: fairway deploy MODEL --data DATA --name NAME",
        )
    keep_snapshot(home, snapshot)
    return snapshot


def keep_snapshot(home: Path, snapshot: ServingSnapshot) -> None:
    """Saves what the next start of a server can use as it is."""
    try:
        write_snapshot(home, snapshot)
    except FairwayError as error:  # a home on a full or read-only disk is still good to serve from
        logger.warning("the next start will be slower: %s", error)


def _fresh(settings: Settings, names: tuple[str, ...]) -> ServingSnapshot:
    # SQLAlchemy, which the registry needs, takes longer to import than a server may take to start.
    from fairway.registry.registry import open_registry

    with open_registry(Path(settings.home), settings.registry) as registry:
        return registry.snapshot(names)
