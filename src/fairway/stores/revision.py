"""The revision of a SQLite registry, read with the standard library alone.

A server compares it with a cached snapshot while it starts; SQLAlchemy alone takes longer to import than the
whole start may take.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from fairway.core.errors import RegistryUnavailable
from fairway.stores.sqlite_file import connect_reader

_BUSY_SECONDS = 0.1


def sqlite_revision(path: Path) -> int | None:
    """The revision, or None when it cannot be told quickly: no such file, not a registry, locked, damaged.

    The caller then opens the registry as usual, which either works or says what is wrong.
    """
    try:
        return read_revision(path)
    except RegistryUnavailable:
        return None


def read_revision(path: Path) -> int:
    """As `sqlite_revision`; RegistryUnavailable says what is wrong."""
    try:
        with closing(connect_reader(path, timeout_seconds=_BUSY_SECONDS)) as connection:
            row = connection.execute("SELECT revision FROM fairway_registry").fetchone()
    except (sqlite3.Error, OSError) as error:
        reason = str(error) if path.exists() else "the file is gone"
        raise RegistryUnavailable(f"The registry {path} cannot be read: {reason}.") from error
    if row is None:
        raise RegistryUnavailable(f"{path} is not a registry of Fairway.")
    return int(row[0])
