"""What is stored for one key: the outputs of one row, when they were computed, and from which features.

An entry, in order (little endian):

    u8       form: 0, laid out as its generation says; 1, with a layout of its own
    f64      when it was computed, seconds since 1970
    16 bytes blake2b of the row's validated features
    u16 + .. the layout, in form 1 only
    ...      every fixed-size output as its bytes
    ...      every value of the other outputs (text), as one MessagePack list

A layout is a MessagePack list of [name, dtype, shape of one row]; dtype `O` is text, nulls and other plain values.
Values come back exactly, to the bit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.errors import AnswersUnavailable, InvalidInput, MalformedInput, Problem
from fairway.stores.answers import KEY_BYTES

HASH_BYTES = 16
_HEAD = struct.Struct("<Bd16s")
HEAD_BYTES = _HEAD.size
_SIZE = struct.Struct("<H")
_MOMENT = struct.Struct("<d")
_PLAIN, _OWN_LAYOUT = 0, 1
_TEXT = "O"
_KEPT = frozenset([str, int, float, bool, bytes, type(None)])


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One output: numpy's name of its dtype, and the shape of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """`outputs` have one row. `computed` is in seconds since 1970."""

    outputs: Outputs
    computed: float
    features: bytes


def layout_of(outputs: Outputs) -> bytes:
    """How rows of these outputs are laid out."""
    return msgspec.msgpack.encode(
        [Part(name, _dtype(values), values.shape[1:]) for name, values in outputs.items()]
    )


def encode_rows(outputs: Outputs, features: Sequence[bytes], computed: float, layout: bytes) -> list[bytes]:
    """One entry a row, for a generation whose layout is `layout`. Raises InvalidInput for values that cannot be kept
    (anything but numbers, text, booleans, bytes and nulls)."""
    own = layout_of(outputs)
    form, inline = (_PLAIN, b"") if own == layout else (_OWN_LAYOUT, _SIZE.pack(len(own)) + own)
    fixed: list[Array] = []
    texts: list[list[list[Any]]] = []
    rows = len(features)
    for values in outputs.values():
        if _dtype(values) == _TEXT:
            texts.append(values.reshape(rows, -1).tolist())
        else:
            whole = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
            fixed.append(whole.reshape(rows, -1).view(np.uint8).reshape(rows, -1))
    joined = np.concatenate(fixed, axis=1) if fixed else np.zeros((rows, 0), np.uint8)
    content, width = joined.tobytes(), joined.shape[1]
    try:
        tails = [_tail(row) for row in zip(*texts, strict=True)] if texts else None
    except (TypeError, ValueError, OverflowError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidInput(f"an answer holds a value that cannot be stored: {error}.") from error
    return [
        _HEAD.pack(form, computed, features[row])
        + inline
        + content[row * width : (row + 1) * width]
        + (b"" if tails is None else tails[row])
        for row in range(rows)
    ]


def _tail(row: Sequence[list[Any]]) -> bytes:
    values = [value for part in row for value in part]
    for value in values:
        if type(value) not in _KEPT:  # MessagePack would make something else of some
            raise TypeError(f"{value!r:.40} is a {type(value).__name__}")
    return msgspec.msgpack.encode(values)


def read_head(entry: bytes) -> tuple[float, bytes]:
    """When it was computed and the hash of its features. AnswersUnavailable when it is no entry."""
    if len(entry) < _HEAD.size or entry[0] > _OWN_LAYOUT:
        raise AnswersUnavailable(
            "An entry of the precomputed answers cannot be read.",
            hint="Was it written by a newer Fairway? Precompute again with this one.",
        )
    _, computed, features = _HEAD.unpack_from(entry)
    return computed, features


def computed_at(entry: bytes) -> float:
    """When a row was computed; for an entry whose head is known to be one."""
    moment: float = _MOMENT.unpack_from(entry, 1)[0]
    return moment


def decode_entry(entry: bytes, layout: bytes) -> Entry:
    """The outputs of one entry, its arrays read-only. AnswersUnavailable when it is damaged."""
    computed, features = read_head(entry)
    offset = _HEAD.size
    try:
        if entry[0] == _OWN_LAYOUT:
            (size,) = _SIZE.unpack_from(entry, offset)
            offset += _SIZE.size
            layout = entry[offset : offset + size]
            offset += size
        plan = _plan(layout)
        outputs: Outputs = {}
        for name, dtype, shape, count in plan.fixed:
            values = np.frombuffer(entry, dtype, count, offset)
            outputs[name] = values if not shape else values.reshape((1, *shape))
            offset += values.nbytes
        if plan.texts:
            flat = msgspec.msgpack.decode(memoryview(entry)[offset:], type=list[Any])
            start = 0
            for name, shape, count in plan.texts:
                values = np.empty(count, dtype=object)
                values[:] = flat[start : start + count]
                outputs[name] = values.reshape((1, *shape))
                start += count
        elif offset != len(entry):
            raise ValueError("it is longer than its layout")
        if not plan.in_order:
            outputs = {name: outputs[name] for name in plan.names}
    except (ValueError, struct.error, msgspec.MsgspecError, TypeError) as error:
        raise AnswersUnavailable(
            f"An entry of the precomputed answers is damaged: {error}.", hint="Precompute again."
        ) from error
    return Entry(outputs, computed, features)


def decode_rows(entries: Sequence[bytes], layout: bytes) -> Outputs | None:
    """The outputs of several entries of one generation, a row each, as `decode_entry` would give them; None where that
    does not go at once: for layouts with text, for entries that have a layout of their own or are damaged."""
    try:
        table = _plan(layout).table
        if table is None:
            return None
        size = table.itemsize
        if not all(len(entry) == size and entry[0] == _PLAIN for entry in entries):
            return None
        rows = np.frombuffer(b"".join(entries), table)
        return {name: np.ascontiguousarray(rows[name]) for name in table.names or ()}
    except (ValueError, TypeError, msgspec.MsgspecError):
        return None


class _Plan(msgspec.Struct, frozen=True):
    """A layout, ready to read by. `table` is the dtype of whole entries, None where they have no fixed size."""

    names: tuple[str, ...]
    fixed: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]
    texts: tuple[tuple[str, tuple[int, ...], int], ...]
    in_order: bool
    table: np.dtype[Any] | None


@lru_cache(maxsize=256)
def _plan(layout: bytes) -> _Plan:
    parts = msgspec.msgpack.decode(layout, type=tuple[Part, ...])
    fixed = tuple(
        (part.name, np.dtype(part.dtype), part.shape, _count(part.shape))
        for part in parts
        if part.dtype != _TEXT
    )
    texts = tuple((part.name, part.shape, _count(part.shape)) for part in parts if part.dtype == _TEXT)
    order = [name for name, *_ in fixed] + [name for name, *_ in texts]
    names = tuple(part.name for part in parts)
    return _Plan(names, fixed, texts, order == [*names], None if texts else _table(fixed))


def _table(fixed: Sequence[tuple[str, np.dtype[Any], tuple[int, ...], int]]) -> np.dtype[Any]:
    at, offsets = _HEAD.size, []
    for _, dtype, _, count in fixed:
        offsets.append(at)
        at += dtype.itemsize * count
    return np.dtype(
        {
            "names": [name for name, *_ in fixed],
            "formats": [(dtype, shape) for _, dtype, shape, _ in fixed],
            "offsets": offsets,
            "itemsize": at,
        }
    )


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _dtype(values: Array) -> str:
    """`O` for text of either kind; else little endian, whatever the machine."""
    return _TEXT if values.dtype.kind in "OU" else values.dtype.newbyteorder("<").str


def features_of(columns: Columns) -> list[bytes]:
    """A hash of each row's validated values, exact to the bit (every NaN counts as the same one). It depends on
    nothing but the row: not on the others beside it, nor on the machine."""
    packed = columns.packed
    if packed is not None:
        content, width = _fixed(packed)
        return [_hash(content[start : start + width]) for start in range(0, columns.rows * width, width)]
    parts: list[list[bytes]] = []
    for values in columns.arrays:
        if values.dtype.kind == "O":
            parts.append([_text(row) for row in values.reshape(columns.rows, -1).tolist()])
        else:
            content, width = _fixed(values)
            parts.append([content[row * width : (row + 1) * width] for row in range(columns.rows)])
    return [_hash(b"".join(row)) for row in zip(*parts, strict=True)]


def _fixed(values: Array) -> tuple[bytes, int]:
    """The bytes of all rows, and of how many each consists."""
    if values.dtype.kind == "f":
        nulls = np.isnan(values)
        if nulls.any():
            values = np.where(nulls, values.dtype.type(np.nan), values)
    content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return content, len(content) // len(values)


def _text(row: list[Any]) -> bytes:
    """Values that are text or null; each with its length, so that no two rows look alike."""
    parts = []
    for value in row:
        if value is None:
            parts.append(b"\x00")
        else:
            encoded = value.encode("utf-8", "surrogatepass")
            parts.append(b"\x01" + len(encoded).to_bytes(8, "little") + encoded)
    return b"".join(parts)


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH_BYTES).digest()


def key_bytes(value: Any) -> bytes:
    """A key as it is stored: text as UTF-8, a whole number as its digits, so that 42 and "42" are the same key.

    Raises MalformedInput for anything else, for an empty key and for one longer than 480 bytes.
    """
    if type(value) is str and value and value.isascii() and len(value) <= KEY_BYTES:
        return value.encode()
    if isinstance(value, bool | np.bool_):
        raise MalformedInput(f"a key is text or a whole number, not {value}.")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # a column of whole numbers with gaps is read as floats
    if isinstance(value, int | np.integer):
        return str(int(value)).encode()
    if not isinstance(value, str):
        shown = "null" if value is None or str(value) in ("nan", "<NA>", "NaT") else repr(value)[:40]
        raise MalformedInput(f"a key is text or a whole number, not {shown}.")
    try:
        key = value.encode()
    except UnicodeEncodeError as error:
        raise MalformedInput(f"the key {value!r:.40} is not valid text.") from error
    if not key:
        raise MalformedInput("the key is empty.")
    if len(key) > KEY_BYTES:
        raise MalformedInput(f"the key has {len(key)} bytes; {KEY_BYTES} is the most.")
    return key


def keys_of(value: Any) -> list[bytes]:
    """What a request gives for its key as one key a row: a value, or a list or array of them. Raises MalformedInput,
    naming the row."""
    if type(value) is str:
        return [key_bytes(value)]
    if isinstance(value, np.ndarray):
        value = value.reshape(-1).tolist()
    if not isinstance(value, list | tuple):
        return [key_bytes(value)]
    keys = []
    for row, one in enumerate(value):
        try:
            keys.append(key_bytes(one))
        except MalformedInput as error:
            raise MalformedInput(f"row {row}: {error}", (Problem(str(error), row=row),)) from None
    return keys
