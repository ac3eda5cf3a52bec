"""What the shards of one run tell each other: small notes beside its output, since nothing else is shared for certain.

`create` is the one operation that decides something: of several writers of a name the first wins, and all are told what
stands. It settles the plan of a run, and which shard ends it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from fairway.batch.sql import Place
from fairway.core.errors import InvalidInput, Unavailable
from fairway.stores.disk import disk_errors, sync_directory, write_whole

TABLE = "fairway_batch_notes"
_READERS = 8
_ATTEMPTS = 5


class Notes(Protocol):
    """Of one run. Every method raises Unavailable when the place is away."""

    def create(self, name: str, content: bytes) -> bytes:
        """Writes the note unless it is there; gives back what is there."""

    def put(self, name: str, content: bytes) -> None:
        """Writes the note, or replaces it."""

    def read(self, name: str) -> bytes | None: ...

    def all(self, beginning: str) -> dict[str, bytes]:
        """Notes whose names begin so."""

    def close(self) -> None: ...


class LocalNotes:
    """Files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str, content: bytes) -> bytes:
        with disk_errors("write a note", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = self._folder / f".{uuid.uuid4().hex}"
            try:
                write_whole(fresh, content)
                with suppress(FileExistsError):
                    os.link(fresh, self._folder / name)  # unlike a rename it does not replace
            finally:
                fresh.unlink(missing_ok=True)
            sync_directory(self._folder)
            return (self._folder / name).read_bytes()

    def put(self, name: str, content: bytes) -> None:
        with disk_errors("write a note", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / name, content)

    def read(self, name: str) -> bytes | None:
        with disk_errors("read a note", self._folder):
            try:
                return (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def all(self, beginning: str) -> dict[str, bytes]:
        with disk_errors("read the notes", self._folder):
            return {path.name: path.read_bytes() for path in sorted(self._folder.glob(f"{beginning}*"))}

    def close(self) -> None:
        return None


class StoreNotes:
    """Objects of a store that can write one only where none is (S3's `If-None-Match`)."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path

    def create(self, name: str, content: bytes) -> bytes:
        with self._errors("write"):
            try:
                self._fs.pipe_file(f"{self._path}/{name}", content, mode="create")
            except FileExistsError:
                pass
            found = self._fs.cat_file(f"{self._path}/{name}")
            return bytes(found)

    def put(self, name: str, content: bytes) -> None:
        with self._errors("write"):
            self._fs.pipe_file(f"{self._path}/{name}", content)

    def read(self, name: str) -> bytes | None:
        with self._errors("read"):
            try:
                return bytes(self._fs.cat_file(f"{self._path}/{name}"))
            except FileNotFoundError:
                return None

    def all(self, beginning: str) -> dict[str, bytes]:
        with self._errors("read"):
            paths = self._fs.find(self._path) if self._fs.exists(self._path) else []
            names = sorted(n for path in paths if (n := path.rpartition("/")[2]).startswith(beginning))
            with ThreadPoolExecutor(_READERS) as pool:
                contents = pool.map(lambda name: bytes(self._fs.cat_file(f"{self._path}/{name}")), names)
                return dict(zip(names, contents, strict=True))

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every store's client has errors of its own
            raise Unavailable(f"cannot {what} notes in {self._path}: {error}.") from error

    def close(self) -> None:
        return None


class SqlNotes:
    """A table beside the sink's."""

    def __init__(self, place: Place, run: str) -> None:
        self._place, self._run = place, run
        self._engine = sa.create_engine(place.url)
        self._table = sa.Table(
            TABLE,
            sa.MetaData(),
            sa.Column("run", sa.String(200), primary_key=True),
            sa.Column("name", sa.String(100), primary_key=True),
            sa.Column("content", sa.LargeBinary, nullable=False),
        )
        with self._errors("write to"):
            try:
                self._table.create(self._engine, checkfirst=True)
            except sa.exc.DatabaseError:  # another shard has made it in the same moment
                with self._engine.connect() as connection:
                    connection.execute(sa.select(self._table.c.run).limit(1))

    def create(self, name: str, content: bytes) -> bytes:
        with self._errors("write to"):
            try:
                with self._engine.begin() as connection:
                    connection.execute(self._table.insert().values(run=self._run, name=name, content=content))
            except sa.exc.IntegrityError:
                pass
        found = self.read(name)
        assert found is not None, "it was there, or has just been written"
        return found

    def put(self, name: str, content: bytes) -> None:
        with self._errors("write to"):
            for _ in range(_ATTEMPTS - 1):
                try:
                    self._replace(name, content)
                except sa.exc.IntegrityError:  # another process has just written the same note
                    continue
                return
            self._replace(name, content)

    def _replace(self, name: str, content: bytes) -> None:
        table = self._table
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(self._here(name)))
            connection.execute(table.insert().values(run=self._run, name=name, content=content))

    def read(self, name: str) -> bytes | None:
        with self._errors("read from"), self._engine.connect() as connection:
            found = connection.execute(sa.select(self._table.c.content).where(self._here(name))).first()
        return None if found is None else bytes(found[0])

    def all(self, beginning: str) -> dict[str, bytes]:
        table = self._table
        begins = table.c.name.startswith(beginning, autoescape=True)
        wanted = sa.select(table.c.name, table.c.content).where(table.c.run == self._run, begins)
        with self._errors("read from"), self._engine.connect() as connection:
            return {
                name: bytes(content) for name, content in connection.execute(wanted.order_by(table.c.name))
            }

    def _here(self, name: str) -> Any:
        return sa.and_(self._table.c.run == self._run, self._table.c.name == name)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sa.exc.OperationalError as error:
            raise Unavailable(f"cannot {what} {self._place.shown}: {error.orig}") from error
        except sa.exc.SQLAlchemyError as error:
            raise InvalidInput(f"cannot {what} {self._place.shown}: {error}") from error

    def close(self) -> None:
        self._engine.dispose()
