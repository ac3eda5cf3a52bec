"""A segment of the prediction log read back, whatever has become of it.

A file whose writer died, or is writing now, ends in the middle of a message: what is whole before counts, and nothing is
damaged. Anything else that cannot be read is damage (a disk that lost a block, somebody's editor): the batch is left out,
the next whole message is looked for, and the damage is counted, so that the file can be kept for a person. Nothing is
believed: what a message claims to unpack to is looked at first, and every batch is validated in full, because a wrong
offset would take the process with it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.arrow_claims import batch_claims
from fairway.stores.arrow_columns import ROWS
from fairway.stores.log_segments import FIELDS, LABELS, MATRIX

MOST_BYTES = 512 * 1024 * 1024
"""Most bytes that one batch may take, unpacked and with what is said once a request in each of its rows."""
MOST_ROWS = 10_000_000
_MARK = b"\xff\xff\xff\xff"
"""Every message begins with it, at a multiple of eight bytes."""
_MOST_TRIES = 10_000
"""Places where a next message is looked for."""
_BROKEN = (
    pa.ArrowException, OSError, EOFError, ValueError, IndexError, OverflowError, struct.error, msgspec.MsgspecError,
)  # fmt: skip
_CLOCK = ("time",)
_CLOCKS = {LABELS: ("received", "time")}
_TEXTS = {LABELS: ("key", "label", "caller")}
_INTEGERS = {LABELS: ("row",)}
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Microseconds of the years 1 and 9999."""
_NO_TIME = np.array([_LAST + 1])


class Damage(msgspec.Struct):
    """How often something in a file could not be read that should have been."""

    places: int = 0


def whole_batches(path: Path, stream: str, damage: Damage) -> Iterator[pa.RecordBatch]:
    """The batches of a segment, as its writer wrote them. A file that has gone meanwhile has none."""
    try:
        source = pa.memory_map(str(path))
    except FileNotFoundError:
        return
    except (OSError, pa.ArrowInvalid):  # an empty file cannot be mapped
        damage.places += path.exists() and path.stat().st_size > 0
        return
    with source:
        try:
            first = pa.ipc.read_message(source)
            if first.type != "schema":  # pyarrow would not look
                raise ValueError(f"it begins with a message of the type {first.type}")
            schema = pa.ipc.read_schema(first)
            _check_schema(schema, stream)
        except _BROKEN:
            damage.places += 1
            return
        yield from _batches(path, source, schema, stream, damage)


def _batches(
    path: Path, source: pa.MemoryMappedFile, schema: pa.Schema, stream: str, damage: Damage
) -> Iterator[pa.RecordBatch]:
    size, place, clocks = source.size(), source.tell(), _CLOCKS.get(stream, _CLOCK)
    while place < size:
        source.seek(place)
        try:
            message = pa.ipc.read_message(source)
        except _BROKEN:  # EOFError at the end mark, which nothing should follow
            following = _next_message(path, source, place)
            if following is None:
                return
            damage.places += 1
            place = following
            continue
        place = source.tell()
        try:
            batch = _checked(message, schema, clocks)
        except _BROKEN:
            damage.places += 1
        else:
            yield batch


def _next_message(path: Path, source: pa.MemoryMappedFile, place: int) -> int | None:
    """Where the next message begins that can be read whole; None: there is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as seen:
        at, tries = place, 0
        while (at := seen.find(_MARK, at + 1, source.size())) >= 0 and tries < _MOST_TRIES:
            if at % 8:
                continue
            tries += 1
            source.seek(at)
            try:
                pa.ipc.read_message(source)
            except _BROKEN:
                continue
            return at
    return None


def _checked(message: Any, schema: pa.Schema, clocks: Sequence[str]) -> pa.RecordBatch:
    if message.type != "record batch":
        raise ValueError(f"a message of the type {message.type}")
    rows, size = batch_claims(memoryview(message.metadata), memoryview(message.body or b""))
    if rows > MOST_ROWS or not 0 <= size <= MOST_BYTES:
        raise ValueError(f"a batch of {rows} rows and {size} bytes")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    for name in clocks:
        _check_times(batch.column(name))
    if ROWS in schema.names:
        _check_rows(batch, size)
    return batch


def _check_times(times: pa.Array) -> None:
    """Within the years that calendars have; never null."""
    micro = times.cast(pa.int64()).to_numpy() if not times.null_count else _NO_TIME
    if len(micro) and not _FIRST <= micro.min() <= micro.max() <= _LAST:
        raise ValueError("a time that is none")


def _check_rows(batch: pa.RecordBatch, size: int) -> None:
    """What is said once a request is written in each of its rows later: a long text in many rows is many bytes."""
    nested = batch.column(ROWS)
    if nested.null_count or nested.flatten().null_count:
        raise ValueError("requests without rows")
    counts = pc.list_value_length(nested).to_numpy()
    if len(counts) and size * int(counts.max()) > MOST_BYTES:
        texts = [column for column in batch.columns if pa.types.is_string(column.type)]
        lengths = sum(
            pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.float64) for column in texts
        )
        size = int((lengths * counts).sum())
    if len(nested.flatten()) > MOST_ROWS or size > MOST_BYTES:
        raise ValueError(f"requests of {size} bytes once each row has them")


def _check_schema(schema: pa.Schema, stream: str) -> None:
    """ValueError where it is not one that a log's writer makes."""
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("column names repeat")
    known = dict(zip(schema.names, schema.types, strict=True))
    nested = known.pop(ROWS, None)
    inner = {}
    if nested is not None:
        if not (pa.types.is_list(nested) and pa.types.is_struct(nested.value_type)):
            raise ValueError("rows that are no rows")
        inner = {field.name: field.type for field in nested.value_type}
        if known.keys() & (inner.keys() - {MATRIX}) or len(inner) < nested.value_type.num_fields:
            raise ValueError("column names repeat")
    if not all(_is_plain(kind) for kind in (*known.values(), *inner.values())):
        raise ValueError("a column of a type that is not written")
    for name in _CLOCKS.get(stream, _CLOCK):
        if not pa.types.is_timestamp(known.get(name, pa.null())):
            raise ValueError(f"no {name}")
    for name in ("request_id", *_TEXTS.get(stream, ())):
        if not pa.types.is_string({**inner, **known}.get(name, pa.null())):
            raise ValueError(f"no {name}")
    for name in _INTEGERS.get(stream, ()):
        if not pa.types.is_integer(known.get(name, pa.null())):
            raise ValueError(f"no {name}")
    told = schema.metadata or {}
    float(told.get(b"fairway.sample", b"1"))
    for key in (b"fairway.digest", b"fairway.writer"):
        told.get(key, b"").decode()
    if MATRIX in inner:
        names = msgspec.json.decode(told.get(FIELDS.encode(), b""), type=list[str])
        if not pa.types.is_fixed_size_list(inner[MATRIX]) or inner[MATRIX].list_size != len(names):
            raise ValueError("inputs without names")


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return kind.list_size > 0 and _is_plain(kind.value_type)
    tests = (
        pa.types.is_string,
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_timestamp,
    )
    return any(test(kind) for test in tests)
