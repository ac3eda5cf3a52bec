"""What an Arrow IPC message claims to hold, out of its flatbuffer, before anything of it is unpacked.

A few bytes may say that they unpack to gigabytes. Source: Message.fbs of the Arrow columnar format,
https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_DICTIONARY_BATCH = 2


def batch_claims(metadata: memoryview, body: memoryview) -> tuple[int, int]:
    """Rows and unpacked bytes of a record batch or dictionary message. Raises ValueError, struct.error or IndexError for
    one that is none."""
    message = _Flat.root(metadata)
    kind, header = message.byte(1), message.table(2)
    if kind == _DICTIONARY_BATCH and header is not None:
        header = header.table(1)
    if header is None:
        return 0, 0
    rows = header.long(0)
    packed = header.table(3) is not None
    size = 0
    for offset, length in header.pairs(2):
        if packed and length >= 8:
            claimed = struct.unpack_from("<q", body, offset)[0]  # of a packed buffer: its true size, or -1
            size += length if claimed < 0 else claimed
        else:
            size += length
    if rows < 0:
        raise ValueError("a batch with a negative number of rows")
    return rows, size


class _Flat:
    """A table of a flatbuffer, read field by field; struct.error where it points outside."""

    def __init__(self, buffer: memoryview, at: int) -> None:
        self._buffer, self._at = buffer, at
        self._fields = at - struct.unpack_from("<i", buffer, at)[0]

    @staticmethod
    def root(buffer: memoryview) -> _Flat:
        return _Flat(buffer, struct.unpack_from("<I", buffer, 0)[0])

    def _place(self, field: int) -> int:
        size = struct.unpack_from("<H", self._buffer, self._fields)[0]
        entry = 4 + 2 * field
        offset = struct.unpack_from("<H", self._buffer, self._fields + entry)[0] if entry < size else 0
        return self._at + offset if offset else 0

    def byte(self, field: int) -> int:
        place = self._place(field)
        return int(struct.unpack_from("<B", self._buffer, place)[0]) if place else 0

    def long(self, field: int) -> int:
        place = self._place(field)
        return int(struct.unpack_from("<q", self._buffer, place)[0]) if place else 0

    def table(self, field: int) -> _Flat | None:
        place = self._place(field)
        if not place:
            return None
        return _Flat(self._buffer, place + struct.unpack_from("<I", self._buffer, place)[0])

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of two 64-bit integers each."""
        place = self._place(field)
        if not place:
            return
        begin = place + struct.unpack_from("<I", self._buffer, place)[0]
        count = struct.unpack_from("<I", self._buffer, begin)[0]
        for i in range(count):
            yield struct.unpack_from("<qq", self._buffer, begin + 4 + 16 * i)
