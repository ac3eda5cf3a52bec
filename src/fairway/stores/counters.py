"""Counters that every worker adds to and any worker can read: one memory-mapped file a process.

A slot is a float64. What a slot counts is written once, as a JSON line, to the index beside the values. Files of
dead workers stay until the server stops, so a total never goes backwards.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

SLOTS = 65_536
_OVERFLOW = ("fairway_counters_overflow_total", ())

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]


class Counters:
    """This process's slots. `add` and reading single slots are safe under the interpreter lock of CPython only
    when one thread writes a slot; `lock` is there for those that several threads write."""

    def __init__(self, directory: Path | None = None) -> None:
        """With a directory, other processes can read the slots; without one they are private."""
        self.lock = threading.Lock()
        self._slots: dict[Key, int] = {}
        if directory is None:
            self.values = memoryview(bytearray(SLOTS * 8)).cast("d")
            self._index = None
        else:
            directory.mkdir(parents=True, exist_ok=True)
            path = _unused(directory)
            with path.open("w+b") as file:
                file.truncate(SLOTS * 8)  # sparse: only pages in use take room
                fcntl.flock(
                    file, fcntl.LOCK_EX | fcntl.LOCK_NB
                )  # the mapping keeps it for as long as it lives
                self.values = memoryview(mmap.mmap(file.fileno(), SLOTS * 8)).cast("d")
            self._index = path.with_suffix(".index").open("ab", buffering=0)
        self.slot(*_OVERFLOW)

    def slot(self, name: str, labels: Labels = ()) -> int:
        """The slot of a counter, made at first use. When all are taken, the overflow slot."""
        key = (name, labels)
        with self.lock:
            found = self._slots.get(key)
            if found is not None:
                return found
            if len(self._slots) >= SLOTS:
                return 0
            slot = self._slots[key] = len(self._slots)
            if self._index is not None:
                self._index.write(msgspec.json.encode(key) + b"\n")
            return slot

    def add(self, slot: int, amount: float = 1.0) -> None:
        with self.lock:
            self.values[slot] += amount

    def close(self) -> None:
        """Makes no more slots; those there are can still be counted in."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def totals(self) -> dict[Key, float]:
        with self.lock:
            return {key: self.values[slot] for key, slot in self._slots.items()}


def _unused(directory: Path) -> Path:
    """A file of this process. A process id comes again, in a container soon, while the dead one's file stays."""
    for number in itertools.count():
        path = directory / f"{os.getpid()}-{number}.values"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


_COUNTED = ("_total", "_bucket", "_sum")
"""How names end of what only grows. Anything else says how things are now."""


def read_totals(directory: Path) -> dict[Key, float]:
    """Every process's counters below `directory`, added up. How things were in a process that has died is left out."""
    totals: dict[Key, float] = {}
    for alive, key, value in _every_slot(directory):
        if alive or key[0].endswith(_COUNTED):
            totals[key] = totals.get(key, 0.0) + value
    return totals


def _is_alive(values: int) -> bool:
    """Whether the process that counts in an open file lives: it holds a lock. Its number may be another's by now."""
    try:
        fcntl.flock(values, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _every_slot(directory: Path) -> Iterator[tuple[bool, Key, float]]:
    """Whether its process is alive, what a slot counts, and its value."""
    decoder = msgspec.json.Decoder(tuple[str, Labels])
    for index in sorted(directory.glob("*.index")):
        keys = [decoder.decode(line) for line in index.read_bytes().split(b"\n")[:-1]]
        with index.with_suffix(".values").open("rb") as file:
            alive = _is_alive(file.fileno())
            values = memoryview(file.read(len(keys) * 8)).cast("d")
        yield from ((alive, key, value) for key, value in zip(keys, values, strict=False))
