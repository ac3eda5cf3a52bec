"""Finds the backend that the settings name. Backends are imported only when they are used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fairway.core.settings import RegistrySettings
from fairway.stores.alerts import AlertStore
from fairway.stores.base import BlobStore, RegistryDatabase
from fairway.stores.control import ControlStore
from fairway.stores.windows import WindowStore

BACKENDS = {
    "sql": "fairway.stores.sql:open_sql",
    "rows in memory": "fairway.stores.memory:MemoryDatabase",
    "control in sql": "fairway.stores.control_sql:SqlControlStore",
    "control in memory": "fairway.stores.control_memory:MemoryControlStore",
    "incidents in sql": "fairway.stores.alerts_sql:SqlAlerts",
    "incidents in memory": "fairway.stores.alerts_memory:MemoryAlerts",
    "windows in sql": "fairway.stores.windows_sql:SqlWindows",
    "windows in memory": "fairway.stores.windows_memory:MemoryWindows",
    "local blobs": "fairway.stores.blobs_local:LocalBlobs",
    "fsspec blobs": "fairway.stores.blobs_fsspec:FsspecBlobs",
    "blobs in memory": "fairway.stores.blobs_memory:MemoryBlobs",
}


def open_database(home: Path, settings: RegistrySettings) -> RegistryDatabase:
    """`memory://`, a SQLAlchemy URL, or SQLite at `<home>/registry.db`."""
    database: RegistryDatabase
    if settings.database_url.startswith("memory:"):
        database = _backend("rows in memory")(lock_timeout_seconds=settings.lock_timeout_seconds)
    else:
        database = _sql(home, settings)
    return database


def open_control(home: Path, settings: RegistrySettings) -> ControlStore:
    """Leases and schedules, in the registry's database."""
    store: ControlStore = _beside_registry("control", home, settings)
    return store


def open_alerts(home: Path, settings: RegistrySettings) -> AlertStore:
    """Incidents and the outbox, in the registry's database."""
    store: AlertStore = _beside_registry("incidents", home, settings)
    return store


def open_windows(home: Path, settings: RegistrySettings) -> WindowStore:
    """What monitors saw, in the registry's database."""
    store: WindowStore = _beside_registry("windows", home, settings)
    return store


def _beside_registry(what: str, home: Path, settings: RegistrySettings) -> Any:
    if settings.database_url.startswith("memory:"):
        return _backend(f"{what} in memory")()
    return _backend(f"{what} in sql")(_sql(home, settings))


def _sql(home: Path, settings: RegistrySettings) -> Any:
    url = settings.database_url or sqlite_path(home)
    return _backend("sql")(url, lock_timeout_seconds=settings.lock_timeout_seconds)


def sqlite_path(home: Path) -> Path:
    """Where the default registry is."""
    return home.absolute() / "registry.db"


def open_blobs(home: Path, settings: RegistrySettings) -> BlobStore:
    """`memory://`, a folder, any other fsspec URL, or `<home>/blobs`."""
    url = settings.blobs_url
    blobs: BlobStore
    if url.startswith("memory:"):
        blobs = _backend("blobs in memory")()
    elif not url or "://" not in url or url.startswith("file://"):
        folder = (
            Path(unquote(urlsplit(url).path)) if url.startswith("file://") else Path(url or home / "blobs")
        )
        blobs = _backend("local blobs")(folder.absolute())
    else:
        blobs = _backend("fsspec blobs")(url, settings.blobs_options)
    return blobs


def _backend(name: str) -> Callable[..., Any]:
    module, _, attribute = BACKENDS[name].partition(":")
    backend: Callable[..., Any] = getattr(import_module(module), attribute)
    return backend
