"""What a run has done, so that it can be killed at any moment and go on: one SQLite file in the run's folder.

A run, and each of its files:

    running  -> finished            every file read to its end, or failed for a reason of its own
    running  -> stopped             too many rejects, or Ctrl-C
    running  -> cancelled           `fairway batch cancel`
    running  -> failed              no room, no database, a model that fails: nothing to do with single rows
    anything but finished -> running   resumed; the process that holds the lock is the only one that does

    todo -> done | failed; failed -> todo when the run is resumed

"running" without a process that holds the lock means that it was killed. What counts is the list of parts: a part is
a stretch of one file's rows, and is in the list once its rows are where they belong for good:

    1. rows are written under a name that nobody reads, or in an open transaction
    2. rejects are written under a temporary name, and renamed
    3. rows are renamed to their name, which depends only on file and part; or the transaction commits, with a mark
       of this part in it
    4. the part is in the list, with the position behind it

Killed before 4, the part is done again from the position of the one before: the same rows under the same name (or,
in a database, none, because of the mark). So no row is there twice and none is missing. A power
cut is the same: the list may lose its last parts, never one in the middle, because SQLite's log is written in order;
that is why nothing waits for the disk before the end.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from fairway.batch.source import Position, SourceFile
from fairway.core.errors import Conflict, CorruptRegistry, RunNotFound, StorageFull, Unavailable

State = Literal["running", "finished", "stopped", "cancelled", "failed"]
FileState = Literal["todo", "done", "failed"]
LOCK = "lock"
"""The file in a run's folder that who works on the run holds."""
_LOOK_SECONDS = 0.01
_PATIENCE_SECONDS = 5.0
_T = TypeVar("_T")

_TABLES = """
CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', cancel INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0,
    rows INTEGER NOT NULL DEFAULT 0, rejects INTEGER NOT NULL DEFAULT 0, report BLOB);
CREATE TABLE IF NOT EXISTS files (number INTEGER PRIMARY KEY, file BLOB NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS parts (file INTEGER NOT NULL, part INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (file, part));
"""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A committed stretch of a file: rows `first` to `end.row`. `rejected` counts by field and reason; `seen` is what a
    `Watch` counted; `broken` counts by field and rule; `logged` are rows for the prediction log."""

    file: int
    part: int
    first: int
    end: Position
    scored: int
    rejects: int
    name: str
    bytes: int
    sha256: str
    rejects_name: str = ""
    rejected: dict[str, int] = {}
    broken: dict[str, int] = {}
    seen: list[float] = []
    logged: int = 0


class FileRecord(msgspec.Struct, frozen=True):
    number: int
    file: SourceFile
    state: FileState
    reason: str = ""


class Ledger:
    """One run's. Every method is a transaction of its own; StorageFull and Unavailable say what went wrong."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """Opens what `create` made. Without `durable` nothing waits for the disk: for a ledger that is thrown away when
        its process dies. Raises RunNotFound."""
        path = folder / "ledger.db"
        if not path.exists():
            raise RunNotFound(f"there is no run {folder.name}.", hint="`fairway batch list` names them.")
        self.folder = folder
        self._identity = _identity(path)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._durable = durable
        try:
            with _errors(folder):
                self._db.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def create(folder: Path, plan: bytes, files: Sequence[SourceFile], *, durable: bool = True) -> Ledger:
        """A new run's ledger, whole or not at all, in the place of any before: with the folder held (`hold`)."""
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"ledger.db.{uuid.uuid4().hex[:12]}"
        with closing(sqlite3.connect(fresh, isolation_level=None)) as db, _errors(folder):
            if not durable:
                db.execute("PRAGMA synchronous = OFF")
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_TABLES)
            db.execute("BEGIN")
            db.execute("INSERT INTO run (id, plan, state) VALUES (1, ?, 'running')", (plan,))
            rows = [(i, msgspec.json.encode(file)) for i, file in enumerate(files)]
            db.executemany("INSERT INTO files (number, file, state) VALUES (?, ?, 'todo')", rows)
            db.execute("COMMIT")
        os.replace(fresh, folder / "ledger.db")
        return Ledger(folder, durable=durable)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """As `hold`. Raises Conflict also when the run has been removed or begun anew since this was opened."""
        with hold(self.folder):
            if _identity(self.folder / "ledger.db") != self._identity:
                raise Conflict(f"another process has begun run {self.folder.name} anew.", hint="Do it again.")
            yield

    @property
    def is_locked(self) -> bool:
        """Whether a process works on the run. Who looks holds the lock shared for a moment, which who takes it waits for."""
        try:
            handle = os.open(self.folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _locked(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def plan(self, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(self._one("SELECT plan FROM run"), type=kind)
        except msgspec.MsgspecError as error:
            raise CorruptRegistry(f"the ledger of run {self.folder.name} cannot be read: {error}.") from error

    @property
    def state(self) -> tuple[State, str]:
        """What it is in, and why. "running" says nothing of whether a process works on it: see `is_locked`."""
        with _errors(self.folder):
            state, reason = self._db.execute("SELECT state, reason FROM run").fetchone()
        return state, reason

    def begin(self) -> None:
        """Resumed: failed files are tried again from where they failed."""
        with _errors(self.folder), self._transaction():
            self._db.execute("UPDATE run SET state = 'running', reason = ''")
            self._db.execute("UPDATE files SET state = 'todo', reason = '' WHERE state = 'failed'")

    def end(self, state: State, reason: str, report: bytes, seconds: float) -> None:
        """The one transaction that waits for the disk: what is kept for resuming may be dropped after it."""
        with _errors(self.folder):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
        self._do(
            "UPDATE run SET state = ?, reason = ?, report = ?, seconds = seconds + ?",
            (state, reason, report, seconds),
        )

    @property
    def seconds(self) -> float:
        """What earlier goes at this run took."""
        return float(self._one("SELECT seconds FROM run"))

    @property
    def report(self) -> bytes | None:
        with _errors(self.folder):
            (found,) = self._db.execute("SELECT report FROM run").fetchone()
        return found if found is None else bytes(found)

    def cancel(self) -> None:
        """Asks the process that works on the run to stop; it does so after the chunk it is at."""
        self._do("UPDATE run SET cancel = 1")

    def heed(self) -> None:
        """With the lock just taken: what asked an earlier process to stop is done with, what comes from now on counts."""
        self._do("UPDATE run SET cancel = 0")

    @property
    def is_cancelled(self) -> bool:
        return bool(self._one("SELECT cancel FROM run"))

    def files(self) -> list[FileRecord]:
        with _errors(self.folder):
            rows = self._db.execute(
                "SELECT number, file, state, reason FROM files ORDER BY number"
            ).fetchall()
        return [FileRecord(n, msgspec.json.decode(f, type=SourceFile), s, r) for n, f, s, r in rows]

    def end_file(self, number: int, state: FileState, reason: str = "") -> None:
        self._do("UPDATE files SET state = ?, reason = ? WHERE number = ?", (state, reason, number))

    def parts(self) -> list[Part]:
        """Ascending by file and part."""
        with _errors(self.folder):
            rows = self._db.execute("SELECT content FROM parts ORDER BY file, part").fetchall()
        return [msgspec.json.decode(content, type=Part) for (content,) in rows]

    def commit(self, part: Part, *, ends_file: bool = False) -> None:
        """Step 4: from here on the part is done; and its file, when it was the last."""
        content = msgspec.json.encode(part)
        rows = part.end.row - part.first
        with _errors(self.folder), self._transaction():
            self._db.execute(
                "INSERT INTO parts (file, part, content) VALUES (?, ?, ?)", (part.file, part.part, content)
            )
            self._db.execute("UPDATE run SET rows = rows + ?, rejects = rejects + ?", (rows, part.rejects))
            if ends_file:
                self._db.execute(
                    "UPDATE files SET state = 'done', reason = '' WHERE number = ?", (part.file,)
                )

    @property
    def totals(self) -> tuple[int, int]:
        """Rows committed, and how many of them were rejected; without reading the parts."""
        with _errors(self.folder):
            rows, rejects = self._db.execute("SELECT rows, rejects FROM run").fetchone()
        return int(rows), int(rejects)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # the disk that was full for a row is full for going back too
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _do(self, statement: str, values: Sequence[object] = ()) -> None:
        with _errors(self.folder):
            self._db.execute(statement, values)

    def _one(self, statement: str) -> bytes:
        with _errors(self.folder):
            (value,) = self._db.execute(statement).fetchone()
        return value  # type: ignore[no-any-return]


@contextmanager
def hold(folder: Path, *, new: bool = False) -> Iterator[None]:
    """Held by the one process that works on the run in `folder`, until it ends in whatever way. Raises Conflict; with
    `new` also when another process has begun the same run in the same moment."""
    try:
        handle = _held(folder / LOCK)
    except FileNotFoundError as error:
        raise Conflict(f"another process has removed run {folder.name}.", hint="Do it again.") from error
    try:
        if new and (folder / "ledger.db").exists():
            raise Conflict(
                f"another process has just begun run {folder.name}.",
                hint="Do it again: that goes on with the run, or tells what it gave.",
            )
        yield
    finally:
        os.close(handle)


def _held(path: Path) -> int:
    """The open lock. Whoever only looks whether somebody holds it is waited for; and one that was removed with its folder,
    while this process waited, is no lock any more."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            told = os.fstat(handle)
            if _locked(handle, fcntl.LOCK_EX):
                if _identity(path) == (told.st_dev, told.st_ino):
                    held, handle = handle, -1
                    return held
            elif not _locked(handle, fcntl.LOCK_SH) or time.monotonic() > deadline:
                raise Conflict(f"another process works on run {path.parent.name}.")
        finally:
            if handle >= 0:
                os.close(handle)
        time.sleep(_LOOK_SECONDS)


def _locked(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        told = os.stat(path)
    except FileNotFoundError:
        return None
    return told.st_dev, told.st_ino


@contextmanager
def _errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise StorageFull(
                f"no room left for the ledger in {folder}.", hint="Free some space, then resume."
            ) from error
        raise Unavailable(f"the ledger in {folder} cannot be used: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise CorruptRegistry(f"the ledger in {folder} is damaged: {error}.") from error


def starts(parts: Sequence[Part]) -> dict[int, tuple[int, Position]]:
    """By file that was begun: the number of its next part, and where that begins."""
    return {part.file: (part.part + 1, part.end) for part in parts}
