"""Memory that a server and a child process share without a name: nothing is left behind when either is killed."""

from __future__ import annotations

import fcntl
import os
import tempfile

from fairway.runtimes.isolated.child import LEAST_BYTES, Shared


def open_shared(most_bytes: int) -> Shared:
    """A small shared file without a name, to be inherited by its descriptor. Never made smaller: whoever reads it
    while the other side cuts it off would be killed."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("fairway", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, LEAST_BYTES)
    return Shared(descriptor, max(most_bytes, LEAST_BYTES))


class Tail:
    """The last of what a process wrote, bounded; and a bounded share of it for the log.

    `lines` takes in bytes and gives the lines that may be logged: `per_minute` of them, each at most
    `LINE_CHARACTERS` long.
    """

    LINE_CHARACTERS = 500
    PART_BYTES = 4096
    KEPT_LINES = 20

    def __init__(self, per_minute: int = 120) -> None:
        self._per_minute = per_minute
        self._kept: list[str] = []
        self._part = b""
        self._began = float("-inf")
        self._logged = 0
        self._left_out = 0

    def lines(self, content: bytes, now: float) -> list[str]:
        """`now` is in seconds of any steady clock."""
        *whole, self._part = (self._part + content).split(b"\n")
        if len(self._part) > self.PART_BYTES:  # who never ends a line has each part taken for one
            whole.append(self._part)
            self._part = b""
        texts = [text for line in whole if (text := self._text(line))]
        self._kept = [*self._kept, *texts][-self.KEPT_LINES :]
        told: list[str] = []
        if now - self._began >= 60:
            if self._left_out:
                told.append(f"({self._left_out} more lines were left out)")
            self._began, self._logged, self._left_out = now, 0, 0
        allowed = self._per_minute - self._logged
        told += texts[:allowed]
        self._logged += len(texts[:allowed])
        self._left_out += len(texts[allowed:])
        return told

    def words(self) -> str:
        """The last lines, one after the other."""
        last = self._text(self._part)
        return "\n".join([*self._kept, last] if last else self._kept)

    def _text(self, line: bytes) -> str:
        text = line[: self.LINE_CHARACTERS * 4].decode(errors="replace").strip()
        return "".join(c if c.isprintable() else " " for c in text)[: self.LINE_CHARACTERS]


def read_some(descriptor: int, most: int = 1 << 16) -> bytes | None:
    """What can be read now without waiting: b"" at the end, None when there is nothing yet."""
    try:
        return os.read(descriptor, most)
    except BlockingIOError:
        return None
    except OSError:
        return b""
