"""Arrow columns as what they are compared as."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fairway.core.columns import Array
from fairway.monitoring.drift.kinds import kind_of, kind_of_texts
from fairway.monitoring.drift.values import Kind

_TEXTS_SEEN = 5000


def kind_in(column: pa.ChunkedArray) -> Kind:
    """The kind of a column, by its type and, for text, its first values."""
    kind = kind_of(column.type)
    return kind if kind is not None else kind_of_texts(texts_of(column.slice(0, _TEXTS_SEEN)))


def is_numeric(type_: pa.DataType) -> bool:
    """Numbers, booleans, and nothing at all."""
    return kind_of(type_) in (Kind.number, Kind.boolean) or pa.types.is_null(type_)


def as_floats(column: pa.ChunkedArray) -> Array:
    """Float64, NaN for null."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        return as_floats(column.cast(type_.value_type))
    if not pa.types.is_floating(type_) or pa.types.is_float16(type_):
        column = column.cast(pa.float64(), safe=False)
    return np.asarray(column.to_numpy()).astype(np.float64, copy=False)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    type_ = column.type
    if pa.types.is_dictionary(type_):
        return as_text(column.cast(type_.value_type))
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return column
    return column.cast(pa.string())


def texts_of(column: pa.ChunkedArray) -> list[str | None]:
    return list(as_text(column).to_pylist())


def as_rows(column: pa.ChunkedArray) -> Array:
    """`[rows, elements]`, rows without a value or of another length NaN throughout."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=column.type)
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    flat, rows = array, len(array)
    while pa.types.is_fixed_size_list(flat.type) and not flat.null_count:
        flat = flat.flatten()
    if not pa.types.is_nested(flat.type) and rows and len(flat) % rows == 0:
        return np.asarray(pa.chunked_array([flat]).cast(pa.float64()).to_numpy()).reshape(rows, -1)
    listed = [
        None if value is None else np.ravel(np.array(value, dtype=float)) for value in array.to_pylist()
    ]
    sizes = [len(value) for value in listed if value is not None]
    width = max(set(sizes), key=sizes.count) if sizes else 0
    missing = np.full(width, np.nan)
    return np.array([missing if v is None or len(v) != width else v for v in listed]).reshape(rows, width)
