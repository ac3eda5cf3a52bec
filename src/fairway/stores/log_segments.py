"""The prediction log on disk: Arrow IPC stream files, appended a batch at a time, bounded, oldest dropped first.

    <folder>/<model>/v<version>/<UTC time>-<writer>-<number>.arrows     predictions of a version
    <folder>/<model>/labels/<UTC time>-<writer>-<number>.arrows         labels that came as feedback

Any Arrow reader opens them. A file whose writer died ends in the middle of a batch; every batch before is whole. A
writer holds a lock (flock) on the segment it appends to, from before it has its name: who gets the lock knows that nobody will
append any more, whatever the clocks say.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO, FileIO
from pathlib import Path
from weakref import WeakSet

import msgspec
from nanoarrow import ipc

from fairway.core.columns import Array
from fairway.core.errors import StorageFull, Unavailable
from fairway.stores.arrow_columns import Nested, Texts, arrow_table
from fairway.stores.disk import sync_directory

LABELS = "labels"
"""The stream of a model's labels; the others are called `v<version>`."""
ENDING = ".arrows"
OPENING = ".opening"
"""Ends the name that a segment has until it is locked."""
MATRIX = "input"
"""The column of inputs that are a matrix of numbers; their names stand in the metadata under `FIELDS`, as JSON."""
FIELDS = "fairway.inputs"
_KEPT_BYTES = 4 * 1024 * 1024
"""The largest buffer that is kept for the next batch."""


class LogBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one stream of a model. `texts` and `columns` have a value a row, and there is a column; `metadata` is the
    same for all rows and stands in the file's schema. Of predictions a row is a request, and its own rows are `nested`:
    who asked and when is then written once a request."""

    model: str
    stream: str
    metadata: Mapping[str, str]
    texts: Mapping[str, Texts]
    columns: Mapping[str, Array]
    nested: Nested | None = None

    def __len__(self) -> int:
        """How many rows there are in all."""
        if self.nested is not None:
            return int(self.nested.counts.sum())
        return len(next(iter(self.columns.values())))

    @property
    def shape(self) -> tuple[object, ...]:
        """Batches of the same shape can stand in one file."""
        nested = self.nested
        inner = () if nested is None else (*nested.texts, *_types(nested.columns))
        return (self.model, self.stream, *self.metadata.items(), *self.texts, *_types(self.columns), *inner)


def _types(columns: Mapping[str, Array]) -> list[tuple[object, ...]]:
    return [(name, values.dtype.name, values.shape[1:]) for name, values in columns.items()]


def writer_name() -> str:
    """Names this process among those of all machines, as far as a file name may say it."""
    host = re.sub(r"[^A-Za-z0-9]+", "_", socket.gethostname())[:32] or "host"
    return f"{host}.{os.getpid()}"


class SegmentLog:
    """Writes batches below `folder`; one open segment a shape. Not safe to share between threads.

    `bounded`: the oldest segments of a model's versions go when they have more than `disk_bytes`, and
    `on_removed(model, segments)` hears of it. Otherwise nothing is ever removed, and StorageFull says that there is too
    much.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        disk_bytes: int,
        segment_seconds: float = 300.0,
        bounded: bool = True,
        on_removed: Callable[[str, int], None] = lambda model, segments: None,
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._disk_bytes = disk_bytes
        self._bounded = bounded
        self._on_removed = on_removed
        self._open: dict[tuple[object, ...], _Segment] = {}
        self._dirty: dict[tuple[object, ...], _Segment] = {}
        self._started = 0
        self._writer = writer_name()
        self.failures = 0
        """Counts up when something that had been appended may not have reached the disk."""
        self._failure = OSError()
        self._told = 0
        _LOGS.add(self)

    def append(self, batch: LogBatch) -> int:
        """Appends and hands to the operating system; returns how many bytes. Raises StorageFull or Unavailable; the
        batch is then lost and the segment is closed, so that the next batch starts a whole one."""
        key = batch.shape
        try:
            segment = self._open.get(key)
            if segment is not None and not segment.is_in_place():  # the folder was removed or replaced
                self._close(key, sync=False)
                segment = None
            if segment is None:
                segment = self._open[key] = self._start(batch)
            before = segment.size
            segment.write(batch)
        except OSError as error:
            self._close(key)
            raise _trouble(self._folder, error) from error
        self._dirty[key] = segment
        written = segment.size - before
        if segment.size >= self._segment_bytes:
            self._close(key)
        return written

    def sync(self, since: int | None = None) -> None:
        """Returns when everything appended is on the disk. Raises as `append`; what was appended since the last time may
        then be lost. Several who append in turn each say how many `failures` there were before they began: what failed
        since may have been theirs, whoever it was told."""
        for key in list(self._dirty):
            segment = self._dirty[key]
            if self._sync(segment):
                del self._dirty[key]
            else:
                self._close(key, sync=False)
        before, self._told = self._told if since is None else since, self.failures
        if self.failures > before:
            raise _trouble(self._folder, self._failure) from self._failure

    def close_old(self) -> None:
        """Closes segments that have been open for long, so that they can be compacted."""
        limit = time.monotonic() - self._segment_seconds
        for key in [key for key, segment in self._open.items() if segment.started < limit]:
            self._close(key)

    def close(self) -> None:
        for key in list(self._open):
            self._close(key)

    def leave(self) -> None:
        """In a forked process: the segments are the parent's, and locked for as long as anybody holds them open."""
        for segment in self._open.values():
            segment.leave()
        self._open, self._dirty = {}, {}
        self._writer = writer_name()

    def _start(self, batch: LogBatch) -> _Segment:
        model = self._folder / batch.model
        folder = model / batch.stream
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if new:
            with suppress(OSError):  # not every filesystem can
                for made in (self._folder.parent, self._folder, model):
                    sync_directory(made)
        self._make_room(model)
        self._started += 1
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return _Segment(folder / f"{stamp}-{self._writer}-{self._started}{ENDING}")

    def _make_room(self, model: Path) -> None:
        """Removes the oldest segments until the next one fits below the model's limit."""
        if not self._bounded:
            used = sum(map(_size, model.glob(f"{LABELS}/*{ENDING}")))
            if used > self._disk_bytes:
                raise OSError(errno.ENOSPC, f"{used} bytes wait to be compacted (log.label_bytes)")
            return
        segments = sorted((path.name, path) for path in model.glob(f"v*/*{ENDING}"))
        sizes = {path: _size(path) for _, path in segments}
        total = sum(sizes.values()) + self._segment_bytes
        removed = 0
        for _, path in segments:
            if total <= self._disk_bytes:
                break
            if is_closed(path):
                path.unlink(missing_ok=True)
                total -= sizes.get(path, 0)
                removed += 1
        if removed:
            self._on_removed(model.name, removed)

    def _close(self, key: tuple[object, ...], *, sync: bool = True) -> None:
        segment = self._open.pop(key, None)
        if segment is not None:
            if self._dirty.pop(key, None) is segment and sync:
                self._sync(segment)  # a failure is told by the next `sync`
            segment.close()

    def _sync(self, segment: _Segment) -> bool:
        try:
            segment.sync()
        except OSError as error:
            self.failures += 1
            self._failure = error
            return False
        return True


_LOGS: WeakSet[SegmentLog] = WeakSet()


def _leave_all() -> None:
    for log in _LOGS:
        log.leave()


os.register_at_fork(after_in_child=_leave_all)


def is_closed(path: Path) -> bool:
    """Whether nobody appends to a segment any more: its writer has closed it, or is dead."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _trouble(folder: Path, error: OSError) -> Unavailable:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    kind = StorageFull if full else Unavailable
    return kind(
        f"the prediction log at {folder} cannot be written: {error.strerror or error}.",
        hint="Make room, or let `fairway log compact` do so." if full else "It is tried again.",
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process made room too
        return 0


class _Segment:
    """An open file. A batch is put together in memory and written in one piece, so that a failure is the disk's own
    error, and what was half written can be cut off again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        opening = path.with_suffix(OPENING)
        self._file = FileIO(opening, "x")
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX)
            opening.rename(path)
        except OSError:
            self._file.close()
            opening.unlink(missing_ok=True)
            raise
        self._encoded = BytesIO()
        self._writer = ipc.StreamWriter.from_writable(self._encoded)
        self._named = False
        self.started = time.monotonic()
        self.size = 0
        """Bytes of whole batches."""

    def is_in_place(self) -> bool:
        """Whether the file still stands under its name."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def write(self, batch: LogBatch) -> None:
        self._writer.write_array(arrow_table(batch.texts, batch.columns, batch.metadata, batch.nested))
        try:
            self._flush()
        except OSError:
            with suppress(OSError):
                self._file.truncate(self.size)
            raise

    def sync(self) -> None:
        os.fdatasync(self._file.fileno())
        if not self._named:
            sync_directory(self._path.parent)
            self._named = True

    def close(self) -> None:
        """Closes the file, or removes it when it holds nothing. The end mark, which readers do without, is left out
        where it finds no room."""
        empty = self.size == 0
        self._writer.release()
        with suppress(OSError):
            if not empty:
                self._flush()
        with suppress(OSError):
            self._file.close()
        if empty:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Closes the file as it is."""
        with suppress(OSError):
            self._file.close()

    def _flush(self) -> None:
        """Writes what is encoded. Its buffer is kept, because memory that is new each time costs as much as writing."""
        size, written = self._encoded.tell(), 0
        self._encoded.seek(0)
        with self._encoded.getbuffer() as buffer:
            while written < size:
                written += self._file.write(buffer[written:size])
        if size > _KEPT_BYTES:
            self._encoded.truncate()
        self.size += size
