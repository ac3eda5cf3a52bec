"""Limits of keys, counted over all workers of a server in one memory-mapped file.

A row belongs to a key: its id, its theoretical arrival time (see `security/rate.py`), and a cell per worker with how
many of the key's requests that worker has in flight. A worker changes its own cell only, so what a killed one left
behind is told apart: each worker holds a lock for as long as it lives, and whoever is about to refuse a request first
empties the cells whose lock nobody holds. Rows are changed under a file lock, which a killed process lets go of.

Keys without limits never come here. Time is one clock that all processes of the machine share and nobody sets:
`time.perf_counter`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path

from fairway.core.errors import Overloaded, RateLimited
from fairway.security.access import Caller
from fairway.security.rate import admit
from fairway.stores.disk import disk_errors

WORKERS = 512
ROWS = 4096
_CELLS_USED, _ROWS_USED, _FIRST = 0, 1, 2  # the table's head, in float64s, and where its rows begin
_ID_BYTES = 16
_ARRIVAL = _ID_BYTES // 8  # offsets in a row, in float64s
_CELLS = _ARRIVAL + 1
_ROW = _CELLS + WORKERS
_SWEEP_SECONDS = 0.05


class Limits:
    """This process's view. Safe from any thread. With a directory, all processes that open the same one count
    together; without one it counts alone."""

    def __init__(self, directory: Path | None = None) -> None:
        self._guard = threading.Lock()
        self._rows: dict[str, int] = {}
        self._directory = directory
        self._table = self._mine = -1
        self._closed = False
        self._swept = -_SWEEP_SECONDS
        size = (_FIRST + ROWS * _ROW) * 8
        if directory is None:
            self._bytes = mmap.mmap(-1, size)
            self._cell = 0
        else:
            with disk_errors("count what keys use", directory):
                directory.mkdir(parents=True, exist_ok=True)
                self._table = os.open(directory / "table", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.ftruncate(self._table, size)  # sparse: only rows in use take room
                self._bytes = mmap.mmap(self._table, size)
                self._cell, self._mine = _free_cell(directory)
        self._values = memoryview(self._bytes).cast("d")
        self._alone = _Alone(self._guard, self._table)
        with self._alone:
            values = self._values
            values[_CELLS_USED] = max(values[_CELLS_USED], self._cell + 1.0)
            for row in range(int(values[_ROWS_USED])):
                values[_base(row) + _CELLS + self._cell] = 0.0  # what a killed predecessor left

    def enter(self, caller: Caller, now: float) -> None:
        """Counts a request in, or raises `RateLimited`, which counts nothing. `now` is `time.perf_counter()`.

        Every `enter` that returns needs one `leave`, whatever becomes of the request.
        """
        if not caller.limited:
            return
        with self._alone:
            base = _base(self._row(caller.id, now))
            values = self._values
            if caller.concurrency is not None and self._in_flight(base) >= caller.concurrency:
                self._sweep(base, now)
                if self._in_flight(base) >= caller.concurrency:
                    raise RateLimited(
                        f"The API key {caller.name!r} may have {caller.concurrency} requests in flight, and has.",
                        1.0,
                        hint="Wait for an answer before asking again.",
                    )
            if caller.rate is not None:
                values[base + _ARRIVAL], wait = admit(
                    values[base + _ARRIVAL], now, rate=caller.rate, burst=caller.burst
                )
                if wait > 0:
                    raise RateLimited(
                        f"The API key {caller.name!r} may make {caller.rate:g} requests per second "
                        f"(burst {caller.burst}).",
                        wait,
                        hint=f"Try again in {wait:.3g} s.",
                    )
            values[base + _CELLS + self._cell] += 1.0

    def leave(self, caller: Caller) -> None:
        """Counts a request out that `enter` counted in."""
        if not caller.limited:
            return
        # No file lock: the cell is this process's own, and a row with something in flight stays whose it is.
        with self._guard:
            if not self._closed:
                at = _base(self._rows[caller.id]) + _CELLS + self._cell
                self._values[at] = max(0.0, self._values[at] - 1.0)

    def in_flight(self, caller: Caller) -> int:
        """Of one key, over all workers."""
        with self._alone:
            row = self._find(caller.id)
            return 0 if row is None else int(self._in_flight(_base(row)))

    def close(self) -> None:
        """Lets go of the worker's cell: what it still has in flight no longer counts."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            self._values.release()
            self._bytes.close()
            for handle in (self._table, self._mine):
                if handle >= 0:
                    os.close(handle)

    def _in_flight(self, base: int) -> float:
        first = base + _CELLS
        return sum(self._values[first : first + int(self._values[_CELLS_USED])])

    def _row(self, identity: str, now: float) -> int:
        """The key's row, made if it has none: the next one, or one that limits nobody any more."""
        row = self._find(identity)
        if row is None:
            row = self._rows[identity] = self._free_row(now)
            start = _base(row) * 8
            self._bytes[start : start + _ID_BYTES] = _padded(identity)
            self._values[_base(row) + _ARRIVAL] = 0.0
        return row

    def _find(self, identity: str) -> int | None:
        """The row is looked at each time: another worker may have given it to another key."""
        wanted = _padded(identity)
        known = self._rows.get(identity)
        for row in (known,) if known is not None and self._id_of(known) == wanted else range(self._used):
            if self._id_of(row) == wanted:
                self._rows[identity] = row
                return row
        return None

    def _free_row(self, now: float) -> int:
        used = self._used
        if used < ROWS:
            self._values[_ROWS_USED] = used + 1.0
            return used
        for row in range(used):
            base = _base(row)
            if self._values[base + _ARRIVAL] <= now and not self._in_flight(base):
                return row
        raise RateLimited(f"{ROWS} keys with limits are in use at once, and no more can be counted.")

    @property
    def _used(self) -> int:
        return int(self._values[_ROWS_USED])

    def _id_of(self, row: int) -> bytes:
        start = _base(row) * 8
        return self._bytes[start : start + _ID_BYTES]

    def _sweep(self, base: int, now: float) -> None:
        """Empties the key's cells of workers that are dead; not often, as refusing many should stay cheap."""
        if self._directory is None or 0 <= now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        for cell in range(int(self._values[_CELLS_USED])):
            if cell != self._cell and self._values[base + _CELLS + cell]:
                lock = _take_cell(self._directory, cell, make=False)
                if lock is not None:
                    self._values[base + _CELLS + cell] = 0.0
                    os.close(lock)


class _Alone:
    """One thread of one process at a time; without a file, of this process."""

    def __init__(self, guard: threading.Lock, file: int) -> None:
        self._guard = guard
        self._file = file

    def __enter__(self) -> None:
        self._guard.acquire()
        if self._file >= 0:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
            except BaseException:
                self._guard.release()
                raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._guard.release()


def _base(row: int) -> int:
    return _FIRST + row * _ROW


def _padded(identity: str) -> bytes:
    return identity.encode().ljust(_ID_BYTES, b"\0")


def _free_cell(directory: Path) -> tuple[int, int]:
    """The first cell that no living worker has, and the lock that keeps it, an open file."""
    for cell in range(WORKERS):
        lock = _take_cell(directory, cell)
        if lock is not None:
            return cell, lock
    raise Overloaded(f"More than {WORKERS} processes count requests in {directory}.")


def _take_cell(directory: Path, cell: int, *, make: bool = True) -> int | None:
    """The lock of a cell, an open file; None when a living worker has it, or nobody can tell."""
    try:
        lock = os.open(
            directory / f"worker-{cell}", os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600
        )
    except FileNotFoundError:  # somebody tidied the folder for temporary files
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
