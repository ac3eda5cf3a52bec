"""The registry's rows in SQLite or PostgreSQL.

SQLite: one file in WAL mode, so readers never wait; a writer begins IMMEDIATE, so it waits for its turn at the
start and never loses in the middle; every commit is synced. Not for network folders: WAL needs one machine.
PostgreSQL: a writer locks the registry's one row first; a reader sees one snapshot (REPEATABLE READ).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from fairway.core.errors import (
    CorruptRegistry,
    MissingExtra,
    NewerFormat,
    RegistryUnavailable,
    SettingsError,
    StorageFull,
)
from fairway.stores import schema, sqlite_file
from fairway.stores.disk import disk_errors, file_lock
from fairway.stores.sql_rows import SqlRows

_MIGRATION_LOCK = 0x66616972  # any number of our own: PostgreSQL advisory locks share one space
_CONNECT_SECONDS = 5.0
_ROOM_BYTES = 64 * 1024
_PAUSE_MILLISECONDS = 5_000


def open_sql(url: str | Path, *, lock_timeout_seconds: float) -> SqlDatabase:
    """Opens the SQLite file at a path, or the database at a SQLAlchemy URL; makes or upgrades its tables."""
    try:
        parsed = URL.create("sqlite", database=str(url)) if isinstance(url, Path) else make_url(url)
    except exc.ArgumentError as error:
        raise SettingsError(
            "registry.database_url is not a database URL.",
            hint="Write sqlite:////path/registry.db or postgresql://user@host/database.",
        ) from error
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return SqlDatabase(_Sqlite(parsed, lock_timeout_seconds))
    if kind in ("postgresql", "postgres"):
        return SqlDatabase(_PostgreSQL(parsed, lock_timeout_seconds))
    raise SettingsError(
        f"registry.database_url names {kind!r}, which is not a database for the registry.",
        hint="Use sqlite or postgresql.",
    )


class SqlDatabase:
    def __init__(self, dialect: _Sqlite | _PostgreSQL) -> None:
        self._dialect = dialect
        try:
            self._upgrade()
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> str:
        return self._dialect.where

    @contextmanager
    def reading(self) -> Iterator[SqlRows]:
        with self._dialect.errors(), self._dialect.reading() as connection:
            yield SqlRows(connection)

    @contextmanager
    def writing(self) -> Iterator[SqlRows]:
        with self._dialect.errors(), self._dialect.writing() as connection:
            self._dialect.lock_rows(connection)
            yield SqlRows(connection)

    @contextmanager
    def transaction(self, *, writing: bool) -> Iterator[sa.Connection]:
        """For tables with rules of their own: without the lock that makes the registry's writers take turns."""
        dialect = self._dialect
        with dialect.errors(), dialect.writing() if writing else dialect.reading() as connection:
            dialect.limit_pauses(connection)
            yield connection

    def revision(self) -> int:
        with self.reading() as rows:
            return rows.revision()

    def close(self) -> None:
        self._dialect.engine.dispose()

    def _upgrade(self) -> None:
        with self._dialect.errors():
            if self._is_current():
                return
            with self._dialect.migrating() as connection:
                if _schema_version(connection) != schema.HEAD:  # another process may have been first
                    # Imported here: alembic takes about a second to import and is needed once per schema.
                    from fairway.stores.migrate import upgrade

                    upgrade(connection)

    def _is_current(self) -> bool:
        if not self._dialect.is_there():
            return False
        with self._dialect.reading() as connection:
            version = _schema_version(connection)
        if version is not None and version > schema.HEAD:
            raise NewerFormat(
                f"The registry at {self.where} was written by a newer Fairway (schema {version}; "
                f"this one knows up to {schema.HEAD}).",
                hint="Upgrade Fairway: pip install --upgrade fairway",
            )
        return version == schema.HEAD


def _schema_version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    table = sa.table(schema.VERSION_TABLE, sa.column("version_num", sa.Text))
    return connection.execute(sa.select(table.c.version_num)).scalar()


class _Sqlite:
    def __init__(self, url: URL, lock_timeout_seconds: float) -> None:
        if not url.database or url.database == ":memory:":
            raise SettingsError(
                "registry.database_url is a SQLite URL without a file.",
                hint="For a registry in memory use memory://",
            )
        self.path = Path(url.database).absolute()
        self._timeout = lock_timeout_seconds
        # A connection costs a fraction of a millisecond, and none outlives a fork or is shared by threads.
        self.engine = sa.create_engine("sqlite://", creator=self._connect, poolclass=sa.NullPool)
        self._reader = sa.create_engine("sqlite://", creator=self._connect_reader, poolclass=sa.NullPool)
        sa.event.listen(self.engine, "begin", _begin_writing)
        sa.event.listen(self._reader, "begin", _begin_reading)

    @property
    def where(self) -> str:
        return str(self.path)

    def is_there(self) -> bool:
        return self.path.exists()

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self._reader.begin()

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self.engine.begin()

    def lock_rows(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE has done it."""

    def limit_pauses(self, connection: sa.Connection) -> None:
        """Nothing can be done here about a process that stops while it writes."""

    @contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        with disk_errors("make the registry", self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        # Turning WAL on does not wait for other connections as a transaction does, hence a lock of our own.
        with file_lock(self.path.with_name(self.path.name + ".lock"), timeout_seconds=self._timeout):
            with disk_errors("make the registry", self.path.parent):
                self.path.touch()
            connection = self._connect()
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            finally:
                connection.close()
            with self.writing() as migrating:
                yield migrating

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._meaning(error) from error
        except exc.DBAPIError as error:
            raise self._meaning(error.orig) from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite_file.connect(self.path, timeout_seconds=self._timeout)

    def _connect_reader(self) -> sqlite3.Connection:
        return sqlite_file.connect_reader(self.path, timeout_seconds=self._timeout)

    def _meaning(self, error: BaseException | None) -> Exception:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return RegistryUnavailable(
                f"Another process has held the registry {self.path} for {self._timeout:g} s.",
                hint="Wait for it to finish (fuser names it), or raise registry.lock_timeout_seconds.",
            )
        if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and _is_full(self.path.parent)):
            return StorageFull(
                f"No room left to write the registry {self.path}.",
                hint="Free some space there and try again.",
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return CorruptRegistry(
                f"The registry {self.path} is damaged ({error}).",
                hint="Restore it from a backup, or save what can be read with: sqlite3 registry.db .recover",
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return RegistryUnavailable(
                f"The registry {self.path} cannot be opened for writing ({error}).",
                hint="Make the file and its folder writable for this user, or choose another home with --home.",
            )
        return RegistryUnavailable(f"The registry {self.path} failed: {error}.")


def _begin_reading(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_full(directory: Path) -> bool:
    """SQLite says "disk I/O error" when it cannot grow its shared memory."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _ROOM_BYTES


class _PostgreSQL:
    def __init__(self, url: URL, lock_timeout_seconds: float) -> None:
        self._url = url
        self._timeout = lock_timeout_seconds
        connect: dict[str, Any] = {
            "connect_timeout": max(
                2, round(min(lock_timeout_seconds, _CONNECT_SECONDS))
            ),  # libpq's least is 2
            "tcp_user_timeout": 20_000,  # milliseconds; a server whose machine vanished is noticed
            "prepare_threshold": None,  # poolers in transaction mode lose prepared statements
            "application_name": "fairway",
        }
        connect = {name: value for name, value in connect.items() if name not in url.query}
        try:
            self.engine = sa.create_engine(
                url.set(drivername="postgresql+psycopg"),
                connect_args=connect,
                pool_size=2,
                max_overflow=8,
                pool_timeout=lock_timeout_seconds,
                pool_pre_ping=True,
            )
        except ImportError as error:
            raise MissingExtra(
                f"A registry on PostgreSQL needs the package psycopg ({error}).",
                hint="Install it with: pip install 'fairway[postgres]'",
            ) from error

    @property
    def where(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def is_there(self) -> bool:
        return True

    def reading(self) -> AbstractContextManager[sa.Connection]:
        return self._transaction(self.engine.execution_options(isolation_level="REPEATABLE READ"))

    def writing(self) -> AbstractContextManager[sa.Connection]:
        return self._transaction(self.engine)

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {max(1, round(self._timeout * 1000))}")
            yield connection

    def lock_rows(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(schema.registry.c.id).with_for_update())

    def limit_pauses(self, connection: sa.Connection) -> None:
        """A process that stops in the middle must not keep its locks from the others."""
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {_PAUSE_MILLISECONDS}")

    @contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        with self.writing() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            yield connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except (exc.DBAPIError, exc.TimeoutError) as error:
            raise self._meaning(error) from error

    def _meaning(self, error: exc.SQLAlchemyError) -> Exception:
        cause = getattr(error, "orig", None) or error
        state = getattr(cause, "sqlstate", None) or ""
        meaning: Callable[..., Exception] = RegistryUnavailable
        if state == "55P03":
            text = f"Another process has held the registry {self.where} for {self._timeout:g} s."
            hint = (
                "Wait for it to finish (pg_stat_activity names it), or raise registry.lock_timeout_seconds."
            )
        elif state == "53100":
            meaning = StorageFull
            text, hint = f"No room left to write the registry {self.where}.", "Free some space on its server."
        elif state.startswith("XX"):
            meaning = CorruptRegistry
            text, hint = f"The registry {self.where} is damaged ({cause}).", "Restore it from a backup."
        elif state in ("42501", "25006"):
            text = f"The registry {self.where} refuses to be written ({cause})."
            hint = "Grant this user CREATE on the schema and write access to its fairway_ tables."
        else:
            reason = " ".join(str(cause).split()).rstrip("?.")
            text = f"The registry {self.where} does not answer as it should: {reason}."
            hint = "Check that PostgreSQL is up and that registry.database_url is right."
        return meaning(text, hint=hint)
