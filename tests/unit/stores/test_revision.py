"""The revision of a SQLite registry by the standard library."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fairway.core.errors import RegistryUnavailable
from fairway.core.settings import RegistrySettings
from fairway.core.version import Change
from fairway.stores.base import RegistryDatabase
from fairway.stores.opening import open_database, sqlite_path
from fairway.stores.revision import read_revision, sqlite_revision


def _append(database: RegistryDatabase) -> None:
    change = Change(sequence=0, model="m", what="route", before=None, after=None, who="", why="", when="")
    with database.writing() as rows:
        rows.append(change)


def test_it_is_the_revision_that_the_registry_tells(tmp_path: Path) -> None:
    home = tmp_path / "a home? #1 %20"
    database = open_database(home, RegistrySettings())
    for _ in range(3):
        assert sqlite_revision(sqlite_path(home)) == database.revision()
        _append(database)
    assert sqlite_revision(sqlite_path(home)) == 3
    with database.writing() as rows:
        rows.append(rows.changes("m")[0])
        assert sqlite_revision(sqlite_path(home)) == 3  # not committed yet
    assert sqlite_revision(sqlite_path(home)) == 4
    database.close()


def test_what_cannot_be_told_is_none(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    assert sqlite_revision(path) is None
    assert not path.exists()
    path.touch()
    assert sqlite_revision(path) is None
    path.write_bytes(b"not a database" * 100)
    assert sqlite_revision(path) is None
    assert sqlite_revision(tmp_path) is None


def test_a_locked_registry_is_none(tmp_path: Path) -> None:
    database = open_database(tmp_path, RegistrySettings())
    _append(database)
    with closing(sqlite3.connect(sqlite_path(tmp_path), isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("UPDATE fairway_registry SET revision = revision")
        assert sqlite_revision(sqlite_path(tmp_path)) is None
    database.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "the file is gone"), (b"", "no such table"), (b"not a database" * 100, "not a database")],
)
def test_why_it_cannot_be_told(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "registry.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegistryUnavailable, match=rf"registry\.db cannot be read: .*{reason}"):
        read_revision(path)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE fairway_registry (revision INTEGER)")
    with pytest.raises(RegistryUnavailable, match="is not a registry of Fairway"):
        read_revision(path)
