"""What every registry database does: SQLite, PostgreSQL, memory."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from fairway.core.bundle import File
from fairway.core.clock import utc_now
from fairway.core.errors import FairwayError
from fairway.core.route import Arm, Route
from fairway.core.settings import RegistrySettings
from fairway.core.version import Change, ModelVersion
from fairway.security.keys import AccessKey, new_key
from fairway.stores.base import RegistryDatabase, Rows
from fairway.stores.opening import open_database

OpenDatabase = Callable[[], RegistryDatabase]


@pytest.fixture(params=["sqlite", "sqlite url", "postgresql", "memory"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> OpenDatabase:
    """Opens the same database as often as it is called."""
    url = ""
    if request.param == "sqlite url":
        url = f"sqlite:///{tmp_path}/elsewhere/r.db"
    elif request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    elif request.param == "memory":
        database = open_database(tmp_path, RegistrySettings(database_url="memory://"))
        return lambda: database
    return lambda: open_database(
        tmp_path / "home ? %20", RegistrySettings(database_url=url, lock_timeout_seconds=30)
    )


@pytest.fixture
def database(open_again: OpenDatabase) -> Iterator[RegistryDatabase]:
    database = open_again()
    yield database
    database.close()


def _version(model: str, number: int, **values: str) -> ModelVersion:
    return ModelVersion(
        model=model,
        version=number,
        digest=f"sha256:{number}",
        engine="onnx",
        created=utc_now(),
        created_by="ann",
        **values,
    )


def _change(model: str = "m", what: str = "route", restores: int | None = None) -> Change:
    return Change(
        sequence=0,
        model=model,
        what=what,
        before=None,
        after="1",
        who="ann",
        why="a 'why' with ünïcode",
        when=utc_now(),
        restores=restores,
    )


def test_a_new_database_is_empty(database: RegistryDatabase) -> None:
    with database.reading() as rows:
        assert rows.revision() == 0
        assert rows.models() == {}
        assert rows.versions("m") == ()
        assert rows.version("m", 1) is None
        assert rows.version_with("m", "sha256:1") is None
        assert rows.latest("m") == 0
        assert rows.files("m", 1) == {}
        assert rows.kept() == set()
        assert rows.aliases() == {}
        assert rows.routes() == {}
        assert rows.changes("m") == ()
        assert rows.access_keys() == ()


def test_what_is_written_is_read_by_another_opening(
    database: RegistryDatabase, open_again: OpenDatabase
) -> None:
    files = {"a": File(sha256="f" * 64, size=2**40), "b/c": File(sha256="e" * 64, size=0)}
    route = Route(model="m", arms=(Arm(2, 0.25), Arm(1, 0.75)), shadows=(2,), salt="s", revision=4)
    second = _version("m", 2, note="two", input_signature="sig")
    with database.writing() as rows:
        rows.add_version(_version("m", 1), files)
        rows.add_version(second, {"a": files["a"]})
        rows.add_version(_version("other", 1), {})
        rows.put_alias("m", "champion", 1)
        rows.put_alias("m", "champion", 2)
        rows.put_alias("m", "best", 2)
        rows.put_alias("m", "old", 1)
        rows.put_alias("m", "old", None)
        rows.put_route(Route(model="m", arms=(Arm(1),), revision=3))
        rows.put_route(route)
    other = open_again()
    with other.reading() as rows:
        assert rows.models() == {"m": (2, 2), "other": (1, 1)}
        assert [version.version for version in rows.versions("m")] == [1, 2]
        assert rows.version("m", 2) == ModelVersion(**{**_fields(second), "aliases": ("best", "champion")})
        assert rows.version_with("m", "sha256:2") == rows.version("m", 2)
        assert rows.version_with("other", "sha256:2") is None
        assert rows.latest("m") == 2
        assert rows.files("m", 1) == files
        assert rows.kept() == {"f" * 64, "e" * 64}
        assert rows.aliases() == {"m": {"champion": 2, "best": 2}}
        assert rows.aliases("other") == {}
        assert rows.routes() == rows.routes("m") == {"m": route}
        assert rows.routes("other") == {}
    other.close()


def _fields(version: ModelVersion) -> dict[str, object]:
    return {name: getattr(version, name) for name in version.__struct_fields__}


def _key(name: str = "app", **values: Any) -> AccessKey:
    return new_key(name, scopes=("infer",), now=datetime.now(UTC), **values)[0]


def test_keys_are_kept_whole_in_the_order_they_were_made(
    database: RegistryDatabase, open_again: OpenDatabase
) -> None:
    second = _key(
        models=("m", "n"), rate=0.5, concurrency=3, expires=datetime(2090, 1, 1, tzinfo=UTC), who="änn"
    )
    first = msgspec.structs.replace(_key("first"), created="2001-01-01T00:00:00.000000Z")
    with database.writing() as rows:
        rows.put_access_key(second)
        rows.put_access_key(first)
    other = open_again()
    with other.reading() as rows:
        assert rows.access_keys() == (first, second)
    revoked = msgspec.structs.replace(second, revoked=utc_now())
    again = _key()  # the name is free once its key is revoked
    with other.writing() as rows:
        rows.put_access_key(revoked)
        rows.put_access_key(again)
    with database.reading() as rows:
        assert rows.access_keys() == (first, revoked, again)
    other.close()


def test_every_change_has_the_next_sequence_which_is_the_revision(database: RegistryDatabase) -> None:
    with database.writing() as rows:
        first = rows.append(_change())
        second = rows.append(_change("n"))
        third = rows.append(_change(what="alias:a", restores=1))
    assert [first.sequence, second.sequence, third.sequence] == [1, 2, 3]
    assert database.revision() == 3
    with database.reading() as rows:
        assert rows.changes("m") == (third, first)
        assert rows.changes("m", what="route") == (first,)
        assert rows.changes("m", limit=1) == (third,)
        assert rows.changes("x") == ()


def test_a_block_that_raises_writes_nothing(database: RegistryDatabase) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        _write_and_raise(database)
    test_a_new_database_is_empty(database)


def _write_and_raise(database: RegistryDatabase) -> None:
    with database.writing() as rows:
        rows.add_version(_version("m", 1), {"a": File(sha256="f" * 64, size=1)})
        rows.put_alias("m", "champion", 1)
        rows.put_route(Route(model="m", arms=(Arm(1),)))
        rows.append(_change())
        raise RuntimeError("stop")


def test_a_reader_sees_one_state_while_a_writer_commits(
    database: RegistryDatabase, open_again: OpenDatabase
) -> None:
    with database.writing() as rows:
        rows.append(_change())
    with database.reading() as before:
        assert before.revision() == 1
        other = open_again()
        with other.writing() as rows:
            rows.append(_change())
            rows.add_version(_version("m", 1), {})
        assert before.revision() == 1
        assert before.latest("m") == 0
        assert len(before.changes("m")) == 1
    assert database.revision() == 2
    other.close()


def test_writers_take_turns(database: RegistryDatabase, open_again: OpenDatabase) -> None:
    """Every writer reads a count and writes the next: a lost update would repeat one."""

    def write() -> None:
        mine = open_again()
        for _ in range(10):
            with mine.writing() as rows:
                _add_next(rows)
        mine.close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as rows:
        assert [version.version for version in rows.versions("m")] == list(range(1, 41))
        assert [change.sequence for change in rows.changes("m")] == list(range(40, 0, -1))
        assert rows.revision() == 40


def _add_next(rows: Rows) -> None:
    rows.add_version(_version("m", rows.latest("m") + 1), {})
    rows.append(_change())


def test_processes_that_open_a_new_database_at_once_all_can(open_again: OpenDatabase) -> None:
    opened: list[int] = []

    def opening() -> None:
        database = open_again()
        opened.append(database.revision())
        database.close()

    threads = [threading.Thread(target=opening) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [0] * 6


@pytest.mark.parametrize("table", ["fairway_changes", "fairway_versions", "fairway_files"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET model = 'x'"])
def test_history_and_versions_cannot_be_rewritten_even_in_sql(
    tmp_path: Path, request: pytest.FixtureRequest, table: str, statement: str
) -> None:
    postgres_url = request.getfixturevalue("postgres").new_database()
    for url in (f"sqlite:///{tmp_path}/r.db", postgres_url):
        database = open_database(tmp_path, RegistrySettings(database_url=url))
        with database.writing() as rows:
            rows.add_version(_version("m", 1), {"a": File(sha256="f" * 64, size=1)})
            rows.append(_change())
        database.close()
    with (
        pytest.raises(psycopg.errors.RaiseException, match="append-only"),
        psycopg.connect(postgres_url) as connection,
    ):
        connection.execute(statement.format(table))
    lite = sqlite3.connect(tmp_path / "r.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        lite.execute(statement.format(table))
    lite.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM fairway_keys",
        "UPDATE fairway_keys SET revoked = NULL",
        "UPDATE fairway_keys SET key = 'x'",
    ],
)
def test_a_revoked_key_stays_revoked_even_in_sql(
    tmp_path: Path, request: pytest.FixtureRequest, statement: str
) -> None:
    postgres_url = request.getfixturevalue("postgres").new_database()
    for url in (f"sqlite:///{tmp_path}/r.db", postgres_url):
        database = open_database(tmp_path, RegistrySettings(database_url=url))
        with database.writing() as rows:
            rows.put_access_key(msgspec.structs.replace(_key(), revoked=utc_now()))
        database.close()
    with (
        pytest.raises(psycopg.errors.RaiseException, match="revoked, never deleted"),
        psycopg.connect(postgres_url) as connection,
    ):
        connection.execute(statement)
    lite = sqlite3.connect(tmp_path / "r.db")
    with pytest.raises(sqlite3.IntegrityError, match=r"never deleted|stay revoked"):
        lite.execute(statement)
    lite.close()


def test_two_keys_in_use_never_have_one_name_even_in_sql(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for url in (f"sqlite:///{tmp_path}/r.db", request.getfixturevalue("postgres").new_database()):
        database = open_database(tmp_path, RegistrySettings(database_url=url))
        with pytest.raises(FairwayError), database.writing() as rows:
            _put(rows, _key(), _key())
        with database.reading() as rows:
            assert rows.access_keys() == ()
        database.close()


def _put(rows: Rows, *keys: AccessKey) -> None:
    for key in keys:
        rows.put_access_key(key)
