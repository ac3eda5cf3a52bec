"""How the registry's SQLite file is opened, with the standard library alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote


def connect(path: Path, *, timeout_seconds: float) -> sqlite3.Connection:
    """For reading and writing. A file that is not there is an error, not a new empty registry."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=rw",
        uri=True,
        timeout=timeout_seconds,
        isolation_level=None,  # transactions begin where the caller says, not where the driver guesses
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path, *, timeout_seconds: float) -> sqlite3.Connection:
    """For reading, also where nothing can be written: a full disk, a read-only home.

    WAL wants a small file beside the registry even to read. Where that cannot be made and there is no log of
    writes still to be merged, nobody writes, and the file is read as it stands.
    """
    try:
        return connect(path, timeout_seconds=timeout_seconds)
    except sqlite3.OperationalError as error:
        name = error.sqlite_errorname
        if not name.startswith(("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_FULL")):
            raise
        wal = path.with_name(path.name + "-wal")
        if not path.is_file() or (wal.exists() and wal.stat().st_size):
            raise
        return sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
