"""Databases that are held, away, full, damaged, read-only, older or newer: each says so in plain words."""

import os
import resource
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from fairway.core.errors import (
    CorruptRegistry,
    FairwayError,
    MissingExtra,
    NewerFormat,
    RegistryUnavailable,
    SettingsError,
    StorageFull,
)
from fairway.core.version import ModelVersion
from fairway.stores import migrate, schema, sql
from fairway.stores.disk import file_lock
from fairway.stores.revision import sqlite_revision
from fairway.stores.sql import SqlDatabase, open_sql
from tests.services import Postgres, free_port

_NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A registry in SQLite."""
    path = tmp_path / "registry.db"
    open_sql(path, lock_timeout_seconds=10).close()
    return path


@contextmanager
def _opened(url: str | Path, *, timeout: float = 0.2) -> Iterator[SqlDatabase]:
    database = open_sql(url, lock_timeout_seconds=timeout)
    try:
        yield database
    finally:
        database.close()


def _version(note: str = "") -> ModelVersion:
    return ModelVersion(
        model="m", version=1, digest="sha256:1", engine="onnx", created="", created_by="ann", note=note
    )


def _write(database: SqlDatabase, note: str = "") -> None:
    with database.writing() as rows:
        rows.add_version(_version(note), {})


# Held by another process


def test_a_writer_waits_its_time_for_a_held_sqlite_registry_and_readers_do_not(path: Path) -> None:
    with _opened(path) as database, closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryUnavailable, match=r"held the registry .*registry\.db for 0\.2 s.*Wait"):
            _write(database)
        assert database.revision() == 0
        holder.execute("ROLLBACK")
        _write(database)


def test_a_sqlite_registry_held_against_readers_too(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("UPDATE fairway_registry SET revision = 1")
        holder.execute("COMMIT")
        with pytest.raises(RegistryUnavailable, match="held the registry"), _opened(path):
            pass


def test_a_held_making_of_a_registry(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / "registry.db.lock", timeout_seconds=1),
        pytest.raises(RegistryUnavailable, match=r"registry\.db\.lock"),
        _opened(tmp_path / "registry.db"),
    ):
        pass


def test_a_held_postgresql_registry(postgres: Postgres) -> None:
    url = postgres.new_database()
    with _opened(url) as database, psycopg.connect(url) as holder:
        holder.execute("SELECT * FROM fairway_registry FOR UPDATE")
        with pytest.raises(RegistryUnavailable, match=r"held the registry postgresql.* for 0\.2 s"):
            _write(database)
        assert database.revision() == 0
        holder.execute("LOCK TABLE fairway_registry")
        with pytest.raises(RegistryUnavailable, match="held the registry"):
            database.revision()
        holder.rollback()
        _write(database)


# Away


def test_postgresql_that_is_not_there(postgres: Postgres) -> None:
    url = f"postgresql://ann:secret@127.0.0.1:{free_port()}/registry"
    with (
        pytest.raises(RegistryUnavailable, match=r"ann:\*\*\*@.*Check that PostgreSQL is up") as caught,
        _opened(url),
    ):
        pass
    assert "secret" not in str(caught.value)
    with pytest.raises(RegistryUnavailable, match="does not exist"), _opened(postgres.url("nothing")):
        pass


def test_postgresql_that_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/registry"
        with pytest.raises(RegistryUnavailable, match="timeout"), _opened(url):
            pass


def test_postgresql_that_comes_back_is_used_again(postgres: Postgres) -> None:
    url = postgres.new_database()
    with _opened(url, timeout=5) as database:
        _write(database)
        with psycopg.connect(postgres.url(), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [url.rsplit("/", 1)[1]],
            )
        with database.reading() as rows:
            assert rows.latest("m") == 1


def test_a_connection_that_breaks_in_a_transaction_is_an_error_by_meaning(postgres: Postgres) -> None:
    url = postgres.new_database()
    with _opened(url, timeout=5) as database:
        with pytest.raises(RegistryUnavailable), psycopg.connect(postgres.url(), autocommit=True) as admin:
            _write_while_cut_off(database, admin, url.rsplit("/", 1)[1])
        with database.reading() as rows:
            assert rows.latest("m") == 0


def _write_while_cut_off(database: SqlDatabase, admin: psycopg.Connection, name: str) -> None:
    with database.writing() as rows:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        rows.add_version(_version(), {})


def test_a_sqlite_file_that_was_deleted_is_not_made_anew(path: Path) -> None:
    with _opened(path) as database:
        path.unlink()
        with pytest.raises(RegistryUnavailable, match=r"registry\.db"):
            _write(database)
        assert not path.exists()


# Full


def test_a_full_disk_writes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _opened(path) as database:
        connect = database._dialect._connect

        def small() -> sqlite3.Connection:
            connection = connect()
            connection.execute("PRAGMA max_page_count=1")  # means: no page more than it has
            return connection

        database._dialect.engine = sa.create_engine("sqlite://", creator=small, poolclass=sa.NullPool)
        sa.event.listen(database._dialect.engine, "begin", sql._begin_writing)
        with pytest.raises(StorageFull, match=r"No room left.*registry\.db.*Free some space"):
            _write(database, note="x" * 100_000)
        with database.reading() as rows:
            assert rows.latest("m") == 0


def test_a_disk_without_any_room_can_still_be_read_from(path: Path) -> None:
    """Reading in WAL mode wants to make a file, which the system refuses here."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with _opened(path) as database:
        _write(database)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with database.reading() as rows:
                assert rows.latest("m") == 1
            assert sqlite_revision(path) == 0
            with pytest.raises(RegistryUnavailable, match="I/O error"):
                database.writing().__enter__()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_io_error_on_a_full_disk_says_that_it_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _opened(path) as database:
        monkeypatch.setattr(sql, "_ROOM_BYTES", 2**80)  # whatever is free is too little
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(StorageFull, match="No room left"):
                database.writing().__enter__()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Damaged


@pytest.mark.parametrize("damage", ["text", "torn", "page"])
def test_a_damaged_sqlite_file(path: Path, damage: str) -> None:
    with _opened(path) as database:
        _write(database, note="x" * 50_000)
    content = path.read_bytes()
    if damage == "text":
        path.write_bytes(b"This is not a database. " * 1000)
    elif damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:100] + b"\xff" * 4000 + content[4100:])
    with pytest.raises(CorruptRegistry, match=r"registry\.db is damaged.*Restore"), _opened(path) as database:
        _write(database)


# Not writable


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may write everywhere, so a read-only folder needs somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that may be read and not written, outside pytest's, which is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="fairway-read-only-"))
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_home(read_only: Path) -> None:
    for path in (read_only / "registry.db", read_only / "home" / "registry.db"):
        with (
            _as_nobody(),
            pytest.raises(RegistryUnavailable, match=r"May not .* in .*Make the folder writable"),
        ):
            open_sql(path, lock_timeout_seconds=1)


def test_a_registry_in_a_read_only_home_can_be_read(read_only: Path) -> None:
    read_only.chmod(0o755)
    path = read_only / "registry.db"
    with _opened(path) as database:
        _write(database)
    path.chmod(0o444)
    read_only.chmod(0o555)
    with _as_nobody(), _opened(path) as database:
        with database.reading() as rows:
            assert rows.latest("m") == 1
        assert sqlite_revision(path) == 0
        with pytest.raises(
            RegistryUnavailable, match=r"registry\.db .*Make the file and its folder writable"
        ):
            _write(database)


def test_postgresql_that_refuses_writing(postgres: Postgres) -> None:
    url = postgres.new_database()
    _opened_once(url)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{url.rsplit("/", 1)[1]}" SET default_transaction_read_only = on')
    with _opened(url) as database, pytest.raises(RegistryUnavailable, match="refuses to be written"):
        _write(database)


# Schema


def _opened_once(url: str | Path) -> None:
    with _opened(url, timeout=5):
        pass


def test_a_registry_of_a_newer_fairway_is_refused(path: Path, postgres: Postgres) -> None:
    url = postgres.new_database()
    _opened_once(url)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE fairway_schema SET version_num = '0099'")
    with closing(sqlite3.connect(path)) as lite, lite:
        lite.execute("UPDATE fairway_schema SET version_num = '0099'")
    for newer in (url, path):
        with pytest.raises(NewerFormat, match=r"newer Fairway .*0099.*Upgrade Fairway"), _opened(newer):
            pass


def test_an_interrupted_making_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "registry.db").touch()  # all that a process killed at its first step leaves
    with _opened(tmp_path / "registry.db") as database:
        assert database.revision() == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_migrations_make_exactly_the_tables_of_the_code(
    kind: str, path: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = path if kind == "sqlite" else request.getfixturevalue("postgres").new_database()
    fresh = (
        f"sqlite:///{tmp_path}/fresh.db"
        if kind == "sqlite"
        else request.getfixturevalue("postgres").new_database()
    )
    with _opened(made, timeout=5) as database:
        engine = sa.create_engine(fresh.replace("postgresql:", "postgresql+psycopg:"))
        schema.metadata.create_all(engine)
        migrated, declared = _tables(database._dialect.engine), _tables(engine)
        engine.dispose()
    assert migrated.pop(schema.VERSION_TABLE)
    assert migrated == declared


def _tables(engine: sa.Engine) -> dict[str, object]:
    inspector = sa.inspect(engine)
    return {
        name: (
            [
                (column["name"], str(column["type"]), column["nullable"])
                for column in inspector.get_columns(name)
            ],
            inspector.get_pk_constraint(name)["constrained_columns"],
            sorted(str(key) for key in inspector.get_foreign_keys(name)),
            sorted(_index(index) for index in inspector.get_indexes(name)),
            sorted(str(unique) for unique in inspector.get_unique_constraints(name)),
            sorted(str(check) for check in inspector.get_check_constraints(name)),
        )
        for name in inspector.get_table_names()
    }


def _index(index: Any) -> str:
    """A partial index's condition is an object, and told apart by its text."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return str({**index, "dialect_options": options})


def test_the_newest_migration_is_the_one_the_code_expects() -> None:
    names = [path.name for path in (Path(sql.__file__).parent / "migrations/versions").glob("v*.py")]
    assert max(names)[1:5] == schema.HEAD


@pytest.fixture
def next_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Fairway with one more migration than this one, which adds a table."""
    following = f"{int(schema.HEAD) + 1:04}"
    migrations = tmp_path / "migrations"
    shutil.copytree(migrate._MIGRATIONS, migrations)
    file = migrations / "versions" / f"v{following}_next.py"
    file.write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '{following}', '{schema.HEAD}'\n"
        "def upgrade():\n    op.create_table('fairway_next', sa.Column('id', sa.Integer, primary_key=True))\n"
    )
    monkeypatch.setattr(migrate, "_MIGRATIONS", migrations)
    monkeypatch.setattr(schema, "HEAD", following)
    return file


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_older_registry_is_upgraded_once_and_keeps_its_rows(
    kind: str, request: pytest.FixtureRequest, path: Path
) -> None:
    url: str | Path = path
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    with _opened(url, timeout=5) as database:
        _write(database)
    request.getfixturevalue("next_migration")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: _opened_once(url), range(4)))
    with _opened(url, timeout=5) as database, database.reading() as rows:
        assert rows.latest("m") == 1
        assert "fairway_next" in sa.inspect(database._dialect.engine).get_table_names()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_migration_that_fails_changes_nothing(
    kind: str, request: pytest.FixtureRequest, path: Path
) -> None:
    url: str | Path = path
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    _opened_once(url)
    head = schema.HEAD
    file = request.getfixturevalue("next_migration")
    file.write_text(file.read_text() + "    op.execute('SELECT * FROM nowhere')\n")
    with pytest.raises(RegistryUnavailable, match="nowhere"):
        _opened_once(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "HEAD", head)
        with _opened(url, timeout=5) as database:
            assert "fairway_next" not in sa.inspect(database._dialect.engine).get_table_names()


# Settings


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://host/database", "'mysql'"),
        ("sqlite://", "without a file"),
        ("sqlite:///:memory:", "without a file"),
    ],
)
def test_a_database_url_that_cannot_be_used(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        open_sql(url, lock_timeout_seconds=1)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"fairway\[postgres\]"):
        open_sql("postgresql://host/database", lock_timeout_seconds=1)


def test_every_failure_is_a_fairway_error(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE fairway_registry")
    with _opened(path) as database, pytest.raises(FairwayError, match="no such table"):
        database.revision()
