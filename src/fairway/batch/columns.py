"""Between Arrow and the request path: a table's columns as a request's inputs, outputs as Arrow columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.columns import Array, Outputs
from fairway.core.conform import Values
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import MalformedInput, Problem
from fairway.core.request import Inputs


def to_inputs(table: pa.Table, contract: Contract) -> Inputs:
    """The contract's columns as arrays or lists. Raises MalformedInput for a
    column of a type that no field has, and for values that Arrow itself cannot hold in the field's type."""
    fields = [field for field in contract if field.name in table.column_names]
    problems = [
        Problem(f"is of the type {str(table.schema.field(field.name).type)[:80]}", field.name)
        for field in fields
        if not _readable(table.schema.field(field.name).type, bool(field.shape))
    ]
    if problems:
        raise MalformedInput("Some columns are of types that no field has.", tuple(problems))
    try:
        return {field.name: _values(table.column(field.name), field) for field in fields}
    except (pa.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise MalformedInput(f"Some values cannot be read: {str(error).splitlines()[0]}.") from None


def _readable(kind: pa.DataType, tensor: bool) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _readable(kind.value_type, tensor)
    if isinstance(kind, pa.BaseExtensionType):
        return _readable(kind.storage_type, tensor)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return tensor and _readable(kind.value_type, tensor)
    return bool(
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_decimal(kind)
        or types.is_timestamp(kind)
        or types.is_date(kind)
        or types.is_null(kind)
    )


def _values(column: pa.ChunkedArray, field: Field) -> Values:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.cast(kind.value_type), field)
    if field.shape:
        return _tensor(column, field)
    if pa.types.is_decimal(kind):
        return _values(column.cast(pa.float64()), field)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        # Nanoseconds are cut off; what does not fit 64 bits of microseconds is an error, which safe=False would hide.
        target = pa.timestamp("us", tz=getattr(kind, "tz", None))
        options = pc.CastOptions(target, allow_time_truncate=True)
        return np.asarray(column.cast(options=options).to_numpy()).astype("datetime64[us]")
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if pa.types.is_floating(kind) or (whole and not column.null_count):
        return np.asarray(column.to_numpy())
    listed: list[Any] = column.to_pylist()  # text, and whole numbers and booleans with nulls among them
    return listed


def _tensor(column: pa.ChunkedArray, field: Field) -> Values:
    """Fixed-size lists straight out of their buffer; other lists value by value."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=column.type)
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    flat = array
    while pa.types.is_fixed_size_list(flat.type) and not flat.null_count:
        flat = flat.flatten()
    numeric = pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)
    if numeric and not flat.null_count and len(array) and len(flat) == len(array) * math.prod(field.shape):
        return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), *field.shape)
    listed: list[Any] = array.to_pylist()
    return listed


def output_type(output: Output) -> pa.DataType:
    """The Arrow type that `output` has in every file, whatever its values are."""
    kind: pa.DataType
    if output.dtype is DType.timestamp:
        kind = pa.timestamp("us", tz="UTC")
    elif output.dtype is DType.string:
        kind = pa.string()
    elif output.dtype is DType.bool:
        kind = pa.bool_()
    else:
        kind = pa.from_numpy_dtype(np.dtype(output.dtype.value))
    for size in reversed(output.shape):
        kind = pa.list_(kind, size)
    return kind


def output_columns(outputs: Outputs, declared: Sequence[Output]) -> list[pa.Array]:
    """One array for each declared output, of its `output_type`; a shape that the model gives stands for a declared
    one that is open (-1)."""
    return [_output(outputs[output.name], output) for output in declared]


def _output(values: Array, output: Output) -> pa.Array:
    inner = output_type(Output(name=output.name, dtype=output.dtype))
    if output.dtype is DType.timestamp:
        flat = pa.array(values.astype("datetime64[us]").reshape(-1), type=inner)
    elif values.dtype.kind in "OU":
        flat = pa.array(values.reshape(-1).tolist(), type=inner)
    else:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1)).cast(inner)
    for size in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat


def flat_table(table: pa.Table) -> pa.Table:
    """For formats without lists (CSV, SQL): a column with several values a row is `name_0`, `name_1`, ..."""
    names: list[str] = []
    columns: list[Any] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        for i, part in enumerate(parts := _parts(column)):
            names.append(name if len(parts) == 1 and not _is_list(column.type) else f"{name}_{i}")
            columns.append(part)
    return pa.table(columns, names=names)


def without_nan(table: pa.Table) -> pa.Table:
    """NaN as null, which text and databases have a form for."""
    for i, column in enumerate(table.columns):
        if pa.types.is_floating(column.type):
            nan = pc.is_nan(column)
            if pc.any(nan).as_py():
                table = table.set_column(i, table.column_names[i], pc.if_else(nan, None, column))
    return table


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def _parts(column: pa.ChunkedArray) -> list[Any]:
    if not _is_list(column.type):
        return [column]
    pieces = (pc.list_element(column, i) for i in range(column.type.list_size))
    return [part for piece in pieces for part in _parts(piece)]
