"""Arrays and texts as Arrow columns, by nanoarrow: a serving worker cannot afford pyarrow's 40 MB."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec
import nanoarrow as na
import numpy as np

from fairway.core.columns import Array


class Texts(msgspec.Struct, frozen=True):
    """Texts, one after the other: their lengths in bytes (int32), their UTF-8 bytes, and, where some are null, which
    are present."""

    lengths: Array
    data: bytes
    present: Array | None = None

    def __len__(self) -> int:
        return len(self.lengths)


def same_text(text: str | None, rows: int) -> Texts:
    """One text, or null, in every row."""
    if text is None:
        return Texts(np.zeros(rows, np.int32), b"", np.zeros(rows, bool))
    data = text.encode()
    return Texts(np.full(rows, len(data), np.int32), data * rows)


def texts_of(values: Sequence[str | None]) -> Texts:
    """A text or null in each row. What cannot be written as UTF-8 (half of a surrogate pair) is written as `?`."""
    if None not in values:
        joined = "".join(values)  # type: ignore[arg-type]
        if joined.isascii():
            return Texts(np.array([*map(len, values)], dtype=np.int32), joined.encode())  # type: ignore[arg-type]
        present = None
    else:
        present = np.array([value is not None for value in values], dtype=bool)
    encoded = [b"" if value is None else value.encode("utf-8", "replace") for value in values]
    return Texts(np.array([*map(len, encoded)], dtype=np.int32), b"".join(encoded), present)


class GrowingTexts:
    """Texts, none of them null, that come a few at a time."""

    def __init__(self) -> None:
        self._lengths = array("i")
        self._data = bytearray()

    def add(self, values: Sequence[str]) -> None:
        """Behind the others, written as `texts_of` does."""
        together = "".join(values)
        if together.isascii():
            self._data += together.encode()
            self._lengths.extend(map(len, values))
        else:
            encoded = [value.encode("utf-8", "replace") for value in values]
            self._data += b"".join(encoded)
            self._lengths.extend(map(len, encoded))

    def clear(self) -> None:
        del self._lengths[:]
        self._data.clear()

    def texts(self) -> Texts:
        """All until now."""
        return Texts(np.array(self._lengths), bytes(self._data))


class Nested(msgspec.Struct, frozen=True):
    """`counts` rows (int32) of each row of another table, in order."""

    counts: Array
    texts: Mapping[str, Texts]
    columns: Mapping[str, Array]


ROWS = "rows"
"""What the column of nested rows is called."""


def arrow_table(
    texts: Mapping[str, Texts],
    columns: Mapping[str, Array],
    metadata: Mapping[str, str],
    nested: Nested | None = None,
) -> Any:
    """Texts and arrays by name, all of one length, as one Arrow record batch that shares memory where it can. `nested`
    becomes a list of structs in each row."""
    pairs = _pairs(texts, columns)
    if nested is not None:
        fields = _pairs(nested.texts, nested.columns)
        item = _struct_of(fields)
        size = int(nested.counts.sum())
        inner = na.c_array_from_buffers(_schema(item), size, [None], children=_arrays(fields))
        kind = ("list", item)
        offsets = _offsets(nested.counts)
        listed = na.c_array_from_buffers(_schema(kind), len(nested.counts), [None, offsets], children=[inner])
        pairs[ROWS] = kind, listed
    schema = _with_metadata(_struct_of(pairs), tuple(metadata.items()))
    rows = len(next(iter(columns.values()))) if columns else len(next(iter(texts.values())))
    return na.c_array_from_buffers(schema, rows, [None], children=_arrays(pairs))


_Kind = tuple[Any, ...]
"""What an Arrow type is made from: its name, then what it is of."""
_Pairs = dict[str, tuple[_Kind, Any]]
"""Columns: their kinds and arrays."""


def _pairs(texts: Mapping[str, Texts], columns: Mapping[str, Array]) -> _Pairs:
    return {name: _utf8(values) for name, values in texts.items()} | {
        name: _arrow(values) for name, values in columns.items()
    }


def _arrays(pairs: _Pairs) -> list[Any]:
    return [array for _, array in pairs.values()]


def _struct_of(pairs: _Pairs) -> _Kind:
    return ("struct", *[(name, kind) for name, (kind, _) in pairs.items()])


@lru_cache(maxsize=256)
def _schema(kind: _Kind) -> Any:
    """Kept, since it takes longer to make than the array of a small batch."""
    name, *of = kind
    if name == "fixed":
        made = na.fixed_size_list(_schema(of[0]), of[1])
    elif name == "list":
        made = na.list_(_schema(of[0]))
    elif name == "struct":
        made = na.struct({field: _schema(inner) for field, inner in of})
    else:
        made = _TYPES[name]()
    return na.c_schema(made)


@lru_cache(maxsize=64)
def _with_metadata(kind: _Kind, metadata: tuple[tuple[str, str], ...]) -> Any:
    return _schema(kind).modify(metadata={key.encode(): value.encode() for key, value in metadata})


def _offsets(lengths: Array) -> Array:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


_TYPES: dict[str, Callable[[], Any]] = {
    "text": na.string, "bool": na.bool_, "time": partial(na.timestamp, "us", timezone="UTC"),
    "int8": na.int8, "int16": na.int16, "int32": na.int32, "int64": na.int64,
    "uint8": na.uint8, "uint16": na.uint16, "uint32": na.uint32, "uint64": na.uint64,
    "float16": na.float16, "float32": na.float32, "float64": na.float64,
}  # fmt: skip


def _arrow(values: Array) -> tuple[_Kind, Any]:
    """Kind and array of one column. Tensors become fixed-size lists."""
    if values.ndim > 1:
        width = int(np.prod(values.shape[1:]))
        item, leaf = _arrow(values.reshape(-1))
        kind: _Kind = ("fixed", item, width)
        return kind, na.c_array_from_buffers(_schema(kind), len(values), [None], children=[leaf])
    if values.dtype.kind in {"O", "U"}:
        return _utf8(texts_of([None if text is None else str(text) for text in values.tolist()]))
    if values.dtype.kind == "b":
        kind = ("bool",)
        bits = np.packbits(values, bitorder="little")
        return kind, na.c_array_from_buffers(_schema(kind), len(values), [None, bits])
    if values.dtype.kind == "M":
        moments = values.astype("datetime64[us]").view(np.int64)
        kind = ("time",)
        validity, nulls = _validity(~np.isnat(values))
        buffers = [validity, moments]
        return kind, na.c_array_from_buffers(_schema(kind), len(values), buffers, null_count=nulls)
    kind = (values.dtype.name,)
    buffer = np.ascontiguousarray(values)
    return kind, na.c_array_from_buffers(_schema(kind), len(values), [None, buffer])


def _utf8(texts: Texts) -> tuple[_Kind, Any]:
    validity, nulls = (None, 0) if texts.present is None else _validity(texts.present)
    kind = ("text",)
    buffers = [validity, _offsets(texts.lengths), texts.data]
    return kind, na.c_array_from_buffers(_schema(kind), len(texts), buffers, null_count=nulls)


def _validity(present: Array) -> tuple[Array | None, int]:
    nulls = int(len(present) - present.sum())
    return (np.packbits(present, bitorder="little") if nulls else None), nulls
