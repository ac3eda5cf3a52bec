"""The revision of a SQLite registry, read with the standard library alone.

A server compares it with a cached snapshot while it starts; SQLAlchemy alone takes longer to import than the
whole start may take.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from fairway.stores.sqlite_file import connect_reader

_BUSY_SECONDS = 0.1


def sqlite_revision(path: Path) -> int | None:
    """The revision, or None when it cannot be told quickly: no such file, not a registry, locked, damaged.

    The caller then opens the registry as usual, which either works or says what is wrong.
    """
    try:
        with closing(connect_reader(path, timeout_seconds=_BUSY_SECONDS)) as connection:
            row = connection.execute("SELECT revision FROM fairway_registry").fetchone()
    except (sqlite3.Error, OSError):
        return None
    return None if row is None else int(row[0])
