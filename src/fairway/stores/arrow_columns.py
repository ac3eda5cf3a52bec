"""Arrays and texts as Arrow columns, by nanoarrow: a serving worker cannot afford pyarrow's 40 MB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def take(self, kept: Array) -> Texts:
        """The texts that the booleans `kept` select."""
        ends = np.cumsum(self.lengths)
        chosen = np.flatnonzero(kept)
        parts = [self.data[ends[i] - self.lengths[i] : ends[i]] for i in chosen.tolist()]
        present = None if self.present is None else self.present[kept]
        return Texts(self.lengths[kept], b"".join(parts), present)


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


def joined(texts: Sequence[Texts]) -> Texts:
    """All, one after the other."""
    present = None
    if any(part.present is not None for part in texts):
        present = np.concatenate(
            [np.ones(len(part), bool) if part.present is None else part.present for part in texts]
        )
    return Texts(
        np.concatenate([part.lengths for part in texts]), b"".join([part.data for part in texts]), present
    )


class Nested(msgspec.Struct, frozen=True):
    """`counts` rows (int32) of each row of another table, in order."""

    counts: Array
    texts: Mapping[str, Texts]
    columns: Mapping[str, Array]

    @property
    def bytes(self) -> int:
        return sum([values.nbytes for values in self.columns.values()])


def nested_together(parts: Sequence[Nested]) -> Nested:
    """All, one after the other; they have the same columns."""
    first = parts[0]
    return Nested(
        np.concatenate([part.counts for part in parts]),
        {name: joined([part.texts[name] for part in parts]) for name in first.texts},
        {name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns},
    )


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
        item = na.struct({name: schema for name, (schema, _) in fields.items()})
        size = int(nested.counts.sum())
        inner = na.c_array_from_buffers(item, size, [None], children=[array for _, array in fields.values()])
        schema = na.list_(item)
        offsets = _offsets(nested.counts)
        listed = na.c_array_from_buffers(schema, len(nested.counts), [None, offsets], children=[inner])
        pairs[ROWS] = schema, listed
    schema = na.c_schema(na.struct({name: schema for name, (schema, _) in pairs.items()}))
    schema = schema.modify(metadata={key.encode(): value.encode() for key, value in metadata.items()})
    rows = len(next(iter(columns.values()))) if columns else len(next(iter(texts.values())))
    return na.c_array_from_buffers(schema, rows, [None], children=[array for _, array in pairs.values()])


def _pairs(texts: Mapping[str, Texts], columns: Mapping[str, Array]) -> dict[str, tuple[Any, Any]]:
    return {name: _utf8(values) for name, values in texts.items()} | {
        name: _arrow(values) for name, values in columns.items()
    }


def _offsets(lengths: Array) -> Array:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


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
        return _utf8(texts_of([None if text is None else str(text) for text in values.tolist()]))
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


def _utf8(texts: Texts) -> tuple[Any, Any]:
    offsets = _offsets(texts.lengths)
    validity, nulls = (None, 0) if texts.present is None else _validity(texts.present)
    schema = na.string()
    return schema, na.c_array_from_buffers(
        schema, len(texts), [validity, offsets, texts.data], null_count=nulls
    )


def _validity(present: Array) -> tuple[Array | None, int]:
    nulls = int(len(present) - present.sum())
    return (np.packbits(present, bitorder="little") if nulls else None), nulls
