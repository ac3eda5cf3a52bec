"""Reads sample data: one pandas frame of scalar features, tensors beside it, the target apart.

The frame is what the model was trained on, as nearly as can be told: the columns of a DataFrame (or of a
Parquet file that pandas wrote) keep their dtypes, everything else is what pandas itself would have read. Where
pandas loses a type, whole numbers and booleans with gaps, `Sample.dtypes` keeps it for the contract.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.columns import Array
from fairway.core.conform import frame_arrays
from fairway.core.contract import DType
from fairway.core.errors import MalformedInput, UnsupportedContent
from fairway.core.listing import listed
from fairway.packaging.source import Sample
from fairway.packaging.tables import read_table

SAMPLE_ROWS = 100_000
"""Most rows kept; of more, a seeded random sample in their own order."""
COLUMNS = 20_000
"""Most columns of a sample."""
SEED = 20

_DTYPES = {
    **{getattr(pa, name)(): DType(name) for name in ("int8", "int16", "int32", "int64")},
    **{getattr(pa, name)(): DType(name) for name in ("uint8", "uint16", "uint32", "uint64")},
    pa.bool_(): DType.bool,
}


def read_sample(data: Any, *, target: Any = None, rows: int = SAMPLE_ROWS) -> Sample:
    """Sample rows of any kind `tables.read_table` takes.

    `target` names the label column, which is split off, or is the labels themselves (one per row). Raises
    MalformedInput for data without rows or columns, for a target that is not there (naming the columns that
    are), and for columns of mixed or unequal content; UnsupportedContent for columns of a kind no model takes.
    """
    table, as_frame = read_table(data)
    originals = _pandas_columns(data, table)
    if table.num_columns == 0:
        raise MalformedInput("the sample data has no columns.")
    if table.num_columns > COLUMNS:
        raise MalformedInput(
            f"the sample data has {table.num_columns:,} columns; at most {COLUMNS:,} are read."
        )
    if table.num_rows == 0:
        raise MalformedInput(
            f"the sample data has {table.num_columns} columns and no rows.", hint="Give at least a few rows."
        )
    labels = _given_labels(target, table.num_rows)
    if isinstance(target, str) and target not in table.column_names:
        raise MalformedInput(
            f"there is no column {target!r} in the sample data; there are: {listed(table.column_names, 30)}."
        )
    if table.num_rows > rows:
        chosen = np.sort(np.random.default_rng(SEED).choice(table.num_rows, size=rows, replace=False))
        table = table.take(pa.array(chosen))
        originals = {name: series.iloc[chosen] for name, series in originals.items()}
        labels = labels[chosen] if labels is not None else None
    if isinstance(target, str):
        # A bare array's columns are renamed once its label column is gone: the model counts features only.
        labels = _labels(target, table[target])
        table = table.drop_columns([target])
        originals.pop(target, None)
        if not as_frame:
            names = dict(zip(table.column_names, (f"x{i}" for i in range(table.num_columns)), strict=True))
            table = table.rename_columns(names)
            originals = {names[name]: series for name, series in originals.items()}
        if table.num_columns == 0:
            raise MalformedInput(f"besides the target {target!r} the sample data has no columns.")
    return _split(table, originals, as_frame, labels)


def _pandas_columns(data: Any, table: pa.Table) -> dict[str, pd.Series[Any]]:
    """The columns as pandas holds or stored them, by their names in `table`; empty when pandas had no part in it."""
    if isinstance(data, pd.DataFrame):
        return {name: data.iloc[:, i] for i, name in enumerate(table.column_names)}
    if table.schema.pandas_metadata is not None:
        frame = table.to_pandas()
        return {name: frame[name] for name in table.column_names if name in frame}
    return {}


def _given_labels(target: Any, rows: int) -> Array | None:
    if target is None or isinstance(target, str):
        return None
    labels = frame_arrays(pd.DataFrame({"target": pd.Series(np.asarray(target).reshape(-1))}))["target"]
    if len(labels) != rows:
        raise MalformedInput(f"there are {len(labels)} target values for {rows} rows of sample data.")
    return labels


def _labels(name: str, column: pa.ChunkedArray) -> Array:
    if _is_list(column.type):
        raise UnsupportedContent(f"the target {name!r} holds arrays; it must hold one value per row.")
    return frame_arrays(pd.DataFrame({name: _scalar(name, column)}))[name]


def _split(table: pa.Table, originals: dict[str, Any], as_frame: bool, labels: Array | None) -> Sample:
    scalars: dict[str, pd.Series[Any]] = {}
    tensors: dict[str, Array] = {}
    dtypes: dict[str, DType] = {}
    index = pd.RangeIndex(table.num_rows)
    for name in table.column_names:
        column = table[name]
        if _is_list(column.type):
            tensors[name] = _tensor(name, column)
        elif name in originals and _is_plain(originals[name].dtype, column.type):
            scalars[name] = originals[name].set_axis(index)
        else:
            scalars[name] = _scalar(name, column)
            if column.null_count and column.type in _DTYPES:
                dtypes[name] = _DTYPES[column.type]
    frame = pd.DataFrame(scalars, index=index)
    return Sample(frame=frame, as_frame=as_frame, tensors=tensors, target=labels, dtypes=dtypes)


def _is_plain(dtype: Any, kind: pa.DataType) -> bool:
    """True for a pandas dtype that has a contract type of its own and may stay as it is."""
    if isinstance(dtype, pd.CategoricalDtype):
        return _is_text(kind.value_type) or pa.types.is_integer(kind.value_type)
    if isinstance(dtype, pd.StringDtype):
        return True
    if str(dtype) == "object":
        return _is_text(kind)
    if isinstance(dtype, np.dtype) or hasattr(dtype, "numpy_dtype"):
        return not isinstance(dtype, pd.ArrowDtype | pd.SparseDtype) and dtype.kind in "biufM"
    return isinstance(dtype, pd.DatetimeTZDtype)


def _scalar(name: str, column: pa.ChunkedArray) -> pd.Series[Any]:
    """One Arrow column as pandas would have read it: gaps are NaN, text is whatever pandas keeps text in."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _category(name, column)
    if pa.types.is_null(kind):
        return pd.Series(np.full(len(column), np.nan))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _moments(name, column)
    if pa.types.is_time(kind):
        return _text([None if value is None else value.isoformat() for value in column.to_pylist()])
    if _is_text(kind):
        return _text(column.cast(pa.large_string()).to_pylist())
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UnsupportedContent(
            f"column {name!r} is of type {kind}, which no model takes.",
            hint="Drop it, or make it numbers, text, true/false, timestamps or arrays of one fixed shape.",
        )
    if pa.types.is_boolean(kind) and column.null_count:
        return pd.Series([np.nan if value is None else value for value in column.to_pylist()], dtype=object)
    return pd.Series(np.array(column.to_numpy()))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text(values: list[str | None]) -> pd.Series[Any]:
    return pd.Series([np.nan if value is None else value for value in values])


def _category(name: str, column: pa.ChunkedArray) -> pd.Series[Any]:
    """Levels of text stay a category, in their order; other levels become plain values."""
    if not _is_text(column.type.value_type):
        return _scalar(name, column.cast(column.type.value_type))
    unified = column.unify_dictionaries().combine_chunks()
    if isinstance(unified, pa.ChunkedArray):
        unified = unified.chunk(0)
    codes = unified.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    levels = pd.Index(unified.dictionary.to_pylist(), dtype=object)
    return pd.Series(pd.Categorical.from_codes(codes, categories=levels, ordered=bool(column.type.ordered)))


def _moments(name: str, column: pa.ChunkedArray) -> pd.Series[Any]:
    zone = getattr(column.type, "tz", None)
    try:
        moments = column.cast(pa.timestamp("us", tz=zone), safe=False)
    except pa.ArrowInvalid as error:
        raise MalformedInput(f"column {name!r} holds dates out of range: {error}") from error
    numbers = moments.cast(pa.int64()).to_numpy() if not moments.null_count else None
    if numbers is None:
        filled = moments.cast(pa.int64()).fill_null(np.iinfo(np.int64).min)  # NaT
        numbers = filled.to_numpy()
    return pd.Series(np.array(numbers, dtype=np.int64).view("datetime64[us]"))


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or isinstance(kind, pa.FixedShapeTensorType)
    )


def _tensor(name: str, column: pa.ChunkedArray) -> Array:
    """`[n, ...]` from lists that all have one shape."""
    joined = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if isinstance(joined.type, pa.FixedShapeTensorType):
        return np.array(joined.to_numpy_ndarray())
    rows = len(joined)
    shape: list[int] = []
    while _is_list(joined.type):
        if joined.null_count:
            raise MalformedInput(f"column {name!r} holds arrays and nulls; every row needs an array.")
        lengths = pc.unique(pc.list_value_length(joined)).to_pylist()
        if len(lengths) != 1:
            told = f"{min(lengths)} to {max(lengths)}"
            raise UnsupportedContent(
                f"column {name!r} holds lists of {told} elements; a tensor input has one fixed shape.",
                hint="Pad or cut them to one length.",
            )
        shape.append(int(lengths[0]))
        joined = joined.flatten()
    if not (
        pa.types.is_integer(joined.type)
        or pa.types.is_floating(joined.type)
        or pa.types.is_boolean(joined.type)
    ):
        raise UnsupportedContent(
            f"column {name!r} holds arrays of {joined.type}; only arrays of numbers are read."
        )
    if joined.null_count and not pa.types.is_floating(joined.type):
        raise MalformedInput(f"column {name!r} holds nulls inside its arrays of {joined.type}.")
    if math.prod(shape) == 0:
        raise MalformedInput(f"column {name!r} holds empty arrays.")
    return np.array(joined.to_numpy(zero_copy_only=False)).reshape(rows, *shape)
