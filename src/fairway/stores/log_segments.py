"""The prediction log on disk: Arrow IPC stream files, appended a batch at a time, bounded, oldest dropped first.

    <root>/<model>/v<version>/<UTC time>-<process>-<number>.arrows

Any Arrow reader opens them. A file whose writer died ends in the middle of a batch; every batch before is whole.
nanoarrow writes them because a serving worker cannot afford pyarrow's 40 MB.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

import msgspec
import nanoarrow as na
import numpy as np
from nanoarrow import ipc

from fairway.core.columns import Array
from fairway.core.errors import StorageFull, Unavailable


class LogBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows predicted by one version.

    `request_ids` has one ASCII id a request and `counts` how many rows it had; `rows` is each row's place within
    its request; `times` are int64 microseconds since 1970 UTC; `seconds` is how long the request took. `inputs` and `outputs` are `[n, ...]` arrays. The
    digest stands in the file's schema metadata, since it is the same in every row.
    """

    model: str
    version: int
    digest: str
    request_ids: list[bytes]
    counts: list[int]
    rows: Array
    times: Array
    seconds: Array
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.rows)


class SegmentLog:
    """Writes batches below `root`; one open segment a version. Not safe to share between threads."""

    def __init__(self, root: Path, *, segment_bytes: int, disk_bytes: int) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._disk_bytes = disk_bytes
        self._open: dict[tuple[str, int], _Segment] = {}
        self._started = 0

    def append(self, batch: LogBatch) -> None:
        """Appends and hands to the operating system. Raises StorageFull or Unavailable; the batch is then lost
        and the segment is closed, so that the next batch starts a whole one."""
        key = (batch.model, batch.version)
        segment = self._open.get(key)
        try:
            if segment is None:
                segment = self._open[key] = self._start(batch)
            segment.write(batch)
        except OSError as error:
            self._close(key)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            kind = StorageFull if full else Unavailable
            raise kind(
                f"the prediction log at {self._root} cannot be written: {error.strerror or error}"
            ) from error
        if segment.size >= self._segment_bytes:
            self._close(key)

    def close(self) -> None:
        for key in list(self._open):
            self._close(key)

    def _start(self, batch: LogBatch) -> _Segment:
        model = self._root / batch.model
        folder = model / f"v{batch.version}"
        folder.mkdir(parents=True, exist_ok=True)
        self._make_room(model)
        self._started += 1
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return _Segment(folder / f"{stamp}-{os.getpid()}-{self._started}.arrows")

    def _make_room(self, model: Path) -> None:
        """Removes the oldest segments until the next one fits below the model's limit."""
        segments = sorted((path.name, path) for path in model.glob("v*/*.arrows"))
        sizes = {path: _size(path) for _, path in segments}
        total = sum(sizes.values()) + self._segment_bytes
        for _, path in segments:
            if total <= self._disk_bytes:
                return
            path.unlink(missing_ok=True)
            total -= sizes.get(path, 0)

    def _close(self, key: tuple[str, int]) -> None:
        segment = self._open.pop(key, None)
        if segment is not None:
            segment.close()


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
        self._file = FileIO(path, "x")
        self._encoded = BytesIO()
        self._writer = ipc.StreamWriter.from_writable(self._encoded)
        self.size = 0
        """Bytes of whole batches."""

    def write(self, batch: LogBatch) -> None:
        table = arrow_table(
            {"request_id": _repeated(batch.request_ids, batch.counts)},
            {
                "row": batch.rows,
                "time": batch.times.view("datetime64[us]"),
                "version": np.full(len(batch), batch.version, dtype=np.int32),
                "seconds": batch.seconds,
                **{f"input.{name}": values for name, values in batch.inputs.items()},
                **{f"output.{name}": values for name, values in batch.outputs.items()},
            },
            {"fairway.model": batch.model, "fairway.digest": batch.digest},
        )
        self._writer.write_array(table)
        try:
            self._flush()
        except OSError:
            with suppress(OSError):
                self._file.truncate(self.size)
            raise

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
            self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        left = memoryview(self._encoded.getvalue())
        self._encoded.seek(0)
        self._encoded.truncate()
        size = len(left)
        while left:
            left = left[self._file.write(left) :]
        self.size += size


def arrow_table(
    texts: Mapping[str, tuple[Array, bytes]], columns: Mapping[str, Array], metadata: Mapping[str, str]
) -> Any:
    """Texts (lengths and UTF-8 bytes) and arrays by name, all of one length, as one Arrow record batch that shares
    memory where it can."""
    pairs = {name: _utf8(lengths, data, None) for name, (lengths, data) in texts.items()}
    pairs |= {name: _arrow(values) for name, values in columns.items()}
    schema = na.c_schema(na.struct({name: schema for name, (schema, _) in pairs.items()}))
    schema = schema.modify(metadata={key.encode(): value.encode() for key, value in metadata.items()})
    rows = len(next(iter(columns.values())))
    return na.c_array_from_buffers(schema, rows, [None], children=[array for _, array in pairs.values()])


_TYPES: dict[str, Any] = {
    "int8": na.int8, "int16": na.int16, "int32": na.int32, "int64": na.int64,
    "uint8": na.uint8, "uint16": na.uint16, "uint32": na.uint32, "uint64": na.uint64,
    "float16": na.float16, "float32": na.float32, "float64": na.float64,
}  # fmt: skip


def _arrow(values: Array) -> tuple[Any, Any]:
    """Schema and array of one column. Tensors become fixed-size lists."""
    if values.ndim > 1:
        width = int(np.prod(values.shape[1:]))
        item, leaf = _arrow(values.reshape(-1))
        schema = na.fixed_size_list(item, width)
        return schema, na.c_array_from_buffers(schema, len(values), [None], children=[leaf])
    kind = values.dtype.kind
    if kind in {"O", "U"}:
        return _strings(values)
    if kind == "b":
        schema = na.bool_()
        bits = np.packbits(values, bitorder="little")
        return schema, na.c_array_from_buffers(schema, len(values), [None, bits])
    if kind == "M":
        moments = values.astype("datetime64[us]").view(np.int64)
        schema = na.timestamp("us", timezone="UTC")
        validity, nulls = _validity(~np.isnat(values))
        return schema, na.c_array_from_buffers(schema, len(values), [validity, moments], null_count=nulls)
    schema = _TYPES[values.dtype.name]()
    return schema, na.c_array_from_buffers(schema, len(values), [None, np.ascontiguousarray(values)])


def _strings(values: Array) -> tuple[Any, Any]:
    texts = values.tolist()
    present = np.array([text is not None for text in texts], dtype=bool)
    encoded = [b"" if text is None else str(text).encode() for text in texts]
    return _utf8(np.array([*map(len, encoded)], dtype=np.int32), b"".join(encoded), present)


def _repeated(texts: list[bytes], counts: list[int]) -> tuple[Array, bytes]:
    """Each text as often as its count says: lengths and joined bytes, without a loop over the copies."""
    lengths = np.repeat(np.array([*map(len, texts)], dtype=np.int32), counts)
    return lengths, b"".join([text * count for text, count in zip(texts, counts, strict=True)])


def _utf8(lengths: Array, data: bytes, present: Array | None) -> tuple[Any, Any]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    validity, nulls = (None, 0) if present is None else _validity(present)
    schema = na.string()
    return schema, na.c_array_from_buffers(schema, len(lengths), [validity, offsets, data], null_count=nulls)


def _validity(present: Array) -> tuple[Array | None, int]:
    nulls = int(len(present) - present.sum())
    return (np.packbits(present, bitorder="little") if nulls else None), nulls
