"""Precomputed answers in one LMDB file a generation: `<folder>/<model>/current.lmdb`, and `<id>.writing` before that.

Publishing is a rename. A published file is never written again, so readers take no locks: a read is a lookup in
mapped memory, which all workers share. They look at each read whether the file is another one by now; who is in the
middle of one keeps the old file until it is done.

An unfinished file is not made safe against a power cut: keys come in any order, and waiting for the disk after each
write would write 50 times as much. A killed process loses nothing. What was begun before the machine last started is not
resumed, and a file is made safe before it is published.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb
import msgspec

from fairway.core.errors import AnswersUnavailable, StorageFull
from fairway.stores.answers import KEY_BYTES, Generation, Stored, read_generation
from fairway.stores.disk import sync_directory

_FIRST_MAP_BYTES = 64 * 1024 * 1024
_HEADER, _MARK, _BOOT = b"generation", b"mark", b"boot"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ATTEMPTS = 100
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_Identity = tuple[int, int]
_OPENED: WeakValueDictionary[_Identity, _File] = WeakValueDictionary()
_OPENING = threading.Lock()


class LmdbAnswers:
    """`folder` holds the stores of all models; it is made when something is written."""

    may_block = False

    def __init__(self, folder: Path, model: str) -> None:
        self.where = str(folder)
        self._folder = folder / model
        self._path = self._folder / "current.lmdb"
        self._path_text = str(self._path)  # a Path is made into text at every call
        self._file: _File | None = None

    def current(self) -> Generation | None:
        file = self._current()
        return None if file is None else file.generation

    def get(self, key: bytes) -> Stored | None:
        file = self._current()
        if file is None or not key:
            return None
        entry = file.get(key)
        return None if entry is None else Stored(file.generation, entry)

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        file = self._current()
        if file is None:
            return [None] * len(keys)
        found = file.get_many(keys)
        return [None if entry is None else Stored(file.generation, entry) for entry in found]

    def begin(self, generation: Generation) -> LmdbWriter:
        lock = self._lock()
        try:
            with _errors(self.where):
                for left in self._folder.glob("*.writing"):
                    left.unlink()
            return LmdbWriter(self._folder, self._folder / f"{generation.id}.writing", lock, generation)
        except BaseException:
            os.close(lock)
            raise

    def resume(self) -> LmdbWriter | None:
        if not self._folder.is_dir():
            return None
        lock = self._lock()
        try:
            for path in sorted(self._folder.glob("*.writing"), reverse=True):
                writer = LmdbWriter.of(self._folder, path, lock)
                if writer is not None:
                    return writer
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None

    def delete(self, digest: str | None = None) -> int:
        if not self._folder.is_dir():
            return 0
        lock = self._lock()
        try:
            gone = 0
            for path in [self._path, *self._folder.glob("*.writing")]:
                if path.exists() and digest in (None, self._digest(path)):
                    with _errors(self.where):
                        path.unlink()
                    gone += 1
            return gone
        finally:
            os.close(lock)

    def count(self) -> int:
        file = self._current()
        return 0 if file is None else file.count()

    def remove(self, keys: Sequence[bytes]) -> int:
        """Readers take no locks, so the file is copied without them; the copy is made twice, because LMDB leaves what is
        deleted in the pages that it will use again."""
        if not self._path.exists():
            return 0
        lock = self._lock()
        copy, compact = self._folder / "1.removing", self._folder / "2.removing"
        try:
            with _errors(self.where):
                shutil.copyfile(self._path, copy)
                compact.unlink(missing_ok=True)
                size = max(_FIRST_MAP_BYTES, 2 * copy.stat().st_size)
                environment = lmdb.open(str(copy), subdir=False, lock=False, max_dbs=2, map_size=size)
                try:
                    answers = environment.open_db(b"answers", create=False)
                    with environment.begin(write=True, db=answers) as transaction:
                        gone = sum(transaction.delete(key) for key in keys if 0 < len(key) <= KEY_BYTES)
                    if gone:
                        environment.copy(str(compact), compact=True)
                finally:
                    environment.close()
                if gone:
                    with compact.open("rb") as whole:
                        os.fsync(whole.fileno())
                    compact.replace(self._path)
                    sync_directory(self._folder)
                return gone
        except FileNotFoundError:
            return 0
        finally:
            copy.unlink(missing_ok=True)
            compact.unlink(missing_ok=True)
            os.close(lock)

    def close(self) -> None:
        self._file = None

    def _current(self) -> _File | None:
        """The published file as it is now."""
        try:
            told = os.stat(self._path_text)
        except FileNotFoundError:
            self._file = None
            return None
        except OSError as error:
            raise AnswersUnavailable(f"{self.where} cannot be read: {error.strerror}.") from error
        file = self._file
        if file is None or file.identity != (told.st_dev, told.st_ino):
            file = self._file = self._open(self._path)
        return file

    def _digest(self, path: Path) -> str:
        """Empty for a file that was never begun."""
        try:
            file = self._open(path)
        except AnswersUnavailable:
            return ""
        return "" if file is None else file.generation.digest

    def _open(self, path: Path) -> _File | None:
        """The file at `path`, opened once in this process; None when there is none."""
        for _ in range(_ATTEMPTS):
            with _OPENING, _held(path) as identity:
                if identity is None:
                    return None
                file = _OPENED.get(identity)
                if file is None:
                    try:
                        with _errors(str(path)):
                            file = _File(path, identity)
                        if _identity(os.stat(path)) != identity:  # replaced meanwhile: which one was opened?
                            del file
                            continue
                    except FileNotFoundError:
                        return None
                    _OPENED[identity] = file
                return file
        raise AnswersUnavailable(
            f"{path} is replaced all the time.", hint="Is something publishing in a loop?"
        )

    def _lock(self) -> int:
        """Who writes holds this; the system lets go of it when the process dies."""
        with _errors(self.where):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise AnswersUnavailable(
                f"Another process is writing answers in {self._folder}.", hint="Wait for it to finish."
            ) from error
        return handle


class _File:
    """A file open for reading. It is unmapped when nobody uses it any more."""

    def __init__(self, path: Path, identity: _Identity) -> None:
        self.identity = identity
        self._environment = lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=2, create=False
        )
        meta = self._environment.open_db(b"meta", create=False)
        self._answers = self._environment.open_db(b"answers", create=False)
        with self._environment.begin(db=meta) as transaction:
            self.generation = read_generation(bytes(transaction.get(_HEADER, b"")), str(path))

    def count(self) -> int:
        with _errors(self._environment.path()), self._environment.begin() as transaction:
            return int(transaction.stat(self._answers)["entries"])

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            with self._environment.begin(db=self._answers) as transaction:
                get = transaction.get
                return [get(key) if 0 < len(key) <= KEY_BYTES else None for key in keys]
        except lmdb.Error as error:
            raise AnswersUnavailable(f"{self._environment.path()} cannot be read: {error}.") from error

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._environment.begin(db=self._answers) as transaction:
                found: bytes | None = transaction.get(key)
                return found
        except lmdb.BadValsizeError:  # longer than any key there is
            return None
        except lmdb.Error as error:
            raise AnswersUnavailable(f"{self._environment.path()} cannot be read: {error}.") from error


class LmdbWriter:
    def __init__(self, folder: Path, path: Path, lock: int, generation: Generation | None) -> None:
        """A new file for `generation`, or with None the one that is there."""
        self._folder = folder
        self._path = path
        self._lock = lock
        boot = _boot()
        with _errors(str(path)):
            self._environment = lmdb.open(
                str(path),
                subdir=False,
                lock=False,
                max_dbs=2,
                map_size=self._map_bytes(),
                readahead=False,
                sync=not boot,
            )
            self._meta = self._environment.open_db(b"meta")
            self._answers = self._environment.open_db(b"answers")
            with self._environment.begin(write=generation is not None, db=self._meta) as transaction:
                if generation is not None:
                    transaction.put(_HEADER, msgspec.msgpack.encode(generation))
                    transaction.put(_BOOT, boot)
                header = bytes(transaction.get(_HEADER, b""))
                self._mark = bytes(transaction.get(_MARK, b""))
                since = bytes(transaction.get(_BOOT, b""))
        if not header or since != boot:
            self._environment.close()
            raise AnswersUnavailable(f"{path} was never begun, or before this machine was started.")
        self._generation = read_generation(header, str(path))

    @classmethod
    def of(cls, folder: Path, path: Path, lock: int) -> LmdbWriter | None:
        """What was begun at `path`; None, and the file is removed, when there is nothing to go on from."""
        try:
            return cls(folder, path, lock, None)
        except AnswersUnavailable:
            path.unlink(missing_ok=True)
            return None

    @property
    def generation(self) -> Generation:
        return self._generation

    @property
    def mark(self) -> bytes:
        return self._mark

    def write(self, entries: Iterable[tuple[bytes, bytes]], mark: bytes) -> None:
        ordered = sorted(dict(entries).items())  # neighbours share pages
        with _errors(str(self._path)):
            while True:
                try:
                    with self._environment.begin(write=True, db=self._answers) as transaction:
                        transaction.cursor().putmulti(ordered)
                        transaction.put(_MARK, mark, db=self._meta)
                    break
                except lmdb.MapFullError:  # room in memory, not on disk; nothing was written
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        self._mark = mark

    def keys(self) -> int:
        with _errors(str(self._path)), self._environment.begin() as transaction:
            return int(transaction.stat(self._answers)["entries"])

    def publish(self) -> None:
        with _errors(str(self._path)):
            self._environment.sync(True)
            self._environment.close()
            self._path.replace(self._folder / "current.lmdb")
            sync_directory(self._folder)
        self._release()

    def close(self) -> None:
        self._environment.close()
        self._release()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _map_bytes(self) -> int:
        size = self._path.stat().st_size if self._path.exists() else 0
        return max(_FIRST_MAP_BYTES, 2 * size)


def _boot() -> bytes:
    """Changes when the machine starts; empty where that cannot be told, and every write waits for the disk."""
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:
        return b""


def _identity(told: os.stat_result) -> _Identity:
    return told.st_dev, told.st_ino


@contextmanager
def _held(path: Path) -> Iterator[_Identity | None]:
    """Which file stands at `path`, None for none. Until the end no other file gets this identity, as the file is open."""
    try:
        with _errors(str(path)):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield _identity(os.fstat(handle))
    finally:
        os.close(handle)


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """LMDB's and the system's errors by meaning. FileNotFoundError passes: who asked knows what it means."""
    try:
        yield
    except FileNotFoundError:
        raise
    except lmdb.DiskError as error:
        raise _full(where, error) from error
    except OSError as error:
        if error.errno in _FULL:
            raise _full(where, error) from error
        raise AnswersUnavailable(
            f"Precomputed answers in {where} cannot be used: {error.strerror}.",
            hint="Is it a folder that this user may write to?",
        ) from error
    except lmdb.Error as error:
        text = str(error)
        if "No such file" in text:
            raise FileNotFoundError(errno.ENOENT, text, where) from error
        # The second is what LMDB says when a write was cut short.
        if "No space left" in text or "Input/output error" in text:
            raise _full(where, error) from error
        raise AnswersUnavailable(
            f"{where} is not a whole file of precomputed answers: {error}.", hint="Precompute them again."
        ) from error


def _full(where: str, error: Exception) -> StorageFull:
    return StorageFull(
        f"No room left for precomputed answers in {where} ({error}).",
        hint="Free some space there and try again.",
    )
