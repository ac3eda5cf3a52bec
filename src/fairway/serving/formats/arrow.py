"""Arrow IPC (stream and file) and Parquet, through pyarrow.

What comes may be made to hurt: buffers that point elsewhere, a few bytes that unpack to gigabytes. So the size that a
body claims to have once unpacked is looked at first, and every table is validated in full before it is used.
Sources: https://arrow.apache.org/docs/format/Columnar.html and .../CDataInterface, Message.fbs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairway.core.arrow_claims import batch_claims
from fairway.core.columns import Array, Outputs
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import MalformedInput, PayloadTooLarge, Problem, UnsupportedContent
from fairway.core.request import Inputs

MOST_BYTES = 512 * 1024 * 1024
"""Most bytes that the columns of one body may take once unpacked."""
MOST_ROWS = 10_000_000
_FILE_MAGIC = b"ARROW1"


def read_stream(body: bytes, contract: Contract) -> Inputs:
    pa = _pyarrow()
    try:
        _check_messages(pa, body)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_schema(pa, reader.schema, contract)
            table = reader.read_all()
    except (pa.ArrowException, OSError, ValueError, IndexError, struct.error) as error:
        raise _malformed("an Arrow stream", error) from None
    return _columns(pa, table, contract, "an Arrow stream")


def read_file(body: bytes, contract: Contract) -> Inputs:
    """An Arrow file is a stream between its magic, padded to 8 bytes, and a footer for those who seek."""
    if not body.startswith(_FILE_MAGIC) or not body.endswith(_FILE_MAGIC):
        raise MalformedInput("The body is not an Arrow file: it does not begin and end with ARROW1.")
    return read_stream(body[8:], contract)


def read_parquet(body: bytes, contract: Contract) -> Inputs:
    pa = _pyarrow()
    import pyarrow.parquet as pq  # beside pyarrow, and like it only when it is used

    try:
        source = pa.BufferReader(body)
        metadata = pq.read_metadata(source)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        _check_size(metadata.num_rows, sum(group.total_byte_size for group in groups))
        schema = metadata.schema.to_arrow_schema()
        _check_schema(pa, schema, contract)
        # As dictionaries, one long text in a million rows stays one text.
        texts = [column.name for column in schema if pa.types.is_string(column.type)]
        # Rows are read in this thread: a request has one core, like every other.
        file = pq.ParquetFile(pa.BufferReader(body), read_dictionary=texts)
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _malformed("Parquet", error) from None
    return _columns(pa, table, contract, "Parquet")


def write_stream(chosen: Sequence[Output], outputs: Outputs) -> bytes:
    pa = _pyarrow()
    return _written(pa, _table(pa, chosen, outputs), pa.ipc.new_stream)


def write_file(chosen: Sequence[Output], outputs: Outputs) -> bytes:
    pa = _pyarrow()
    return _written(pa, _table(pa, chosen, outputs), pa.ipc.new_file)


def write_parquet(chosen: Sequence[Output], outputs: Outputs) -> bytes:
    pa = _pyarrow()
    import pyarrow.parquet as pq  # beside pyarrow, and like it only when it is used

    sink = pa.BufferOutputStream()
    pq.write_table(_table(pa, chosen, outputs), sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written


READERS: dict[str, Callable[[bytes, Contract], Inputs]] = {
    "arrow-stream": read_stream,
    "arrow-file": read_file,
    "parquet": read_parquet,
}
WRITERS: dict[str, Callable[[Sequence[Output], Outputs], bytes]] = {
    "arrow-stream": write_stream,
    "arrow-file": write_file,
    "parquet": write_parquet,
}


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # 40 MB: only a worker that gets such a body pays for it
        import pyarrow.compute
    except ImportError:
        raise UnsupportedContent(
            "Arrow and Parquet are not read here: pyarrow is not installed.", hint="pip install pyarrow"
        ) from None
    return pa


def _malformed(what: str, error: Exception) -> MalformedInput:
    first = (str(error).splitlines() or [""])[0][:200].rstrip(".")
    return MalformedInput(f"The body cannot be read as {what}: {first}.")


def _check_size(rows: int, size: int) -> None:
    if not 0 <= rows <= MOST_ROWS:
        raise PayloadTooLarge(f"The body claims {rows} rows; the most is {MOST_ROWS}.")
    if not 0 <= size <= MOST_BYTES:
        raise PayloadTooLarge(
            f"The body claims {size} bytes once unpacked; the most is {MOST_BYTES}.",
            hint="Send fewer rows a request.",
        )


def _check_messages(pa: Any, body: bytes) -> None:
    """Adds up what the record batches of a stream claim to be, before anything is unpacked."""
    source = pa.BufferReader(body)
    rows = size = 0
    while True:
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            break
        if message.type in ("record batch", "dictionary"):
            claimed_rows, claimed = batch_claims(
                memoryview(message.metadata), memoryview(message.body or b"")
            )
            rows, size = rows + claimed_rows, size + claimed
            _check_size(rows, size)


def _check_schema(pa: Any, schema: Any, contract: Contract) -> None:
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MalformedInput(f"Column names repeat: {', '.join(twice)[:200]}.")
    fields = {field.name: field for field in contract}
    problems = [
        Problem(f"is of the type {str(column.type)[:80]}, which is not read here", column.name)
        for column in schema
        if column.name in fields and not _readable(pa, column.type, fields[column.name])
    ]
    if problems:
        raise MalformedInput("Some columns are of types that no field has.", tuple(problems))


def _readable(pa: Any, kind: Any, field: Field) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _readable(pa, kind.value_type, field)
    if field.shape:
        while isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            kind = kind.value_type
    plain = (
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_decimal,
        types.is_timestamp,
        types.is_date,
        types.is_null,
    )
    return any(fits(kind) for fits in plain)


def _columns(pa: Any, table: Any, contract: Contract, what: str) -> Inputs:
    """The contract's columns as arrays or lists; others keep only their names, which a contract may refuse."""
    fields = {field.name: field for field in contract}
    try:
        table.validate(full=True)
        _check_size(table.num_rows, table.nbytes)
        found = {
            name: _column(pa, table.column(name), fields[name])
            if name in fields
            else np.zeros(table.num_rows, dtype=np.bool_)
            for name in table.column_names
        }
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise _malformed(what, error) from None
    return _as_matrix(found, contract)


def _column(pa: Any, column: Any, field: Field) -> Array | list[Any]:
    types = pa.types
    kind = column.type
    if types.is_dictionary(kind):
        return _from_dictionary(pa, column, field)
    if field.shape:
        return _tensor(pa, column, field)
    if types.is_decimal(kind):
        return _column(pa, column.cast(pa.float64()), field)
    if types.is_timestamp(kind) or types.is_date(kind):
        # Nanoseconds are cut off; what does not fit 64 bits of microseconds is an error, which safe=False would hide.
        target = pa.timestamp("us", tz=getattr(kind, "tz", None))
        options = pa.compute.CastOptions(target, allow_time_truncate=True)
        return np.asarray(column.cast(options=options).to_numpy()).astype("datetime64[us]")
    if types.is_floating(kind) or (types.is_integer(kind) and not column.null_count):
        return np.asarray(column.to_numpy())
    if types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy())
    listed: list[Any] = column.to_pylist()  # text, and whole numbers and booleans with nulls among them
    return listed


def _from_dictionary(pa: Any, column: Any, field: Field) -> Array | list[Any]:
    """Each value of the dictionary is read once."""
    values: list[Any] = []
    for chunk in column.chunks:
        known = _column(pa, pa.chunked_array([chunk.dictionary]), field)
        known = list(known) if isinstance(known, np.ndarray) else known
        values += [None if place is None else known[place] for place in chunk.indices.to_pylist()]
    if values and isinstance(values[0], np.generic):
        return [
            value.item() if isinstance(value, np.generic) and value.dtype.kind != "M" else value
            for value in values
        ]
    return values


def _tensor(pa: Any, column: Any, field: Field) -> Array | list[Any]:
    """Fixed-size lists straight out of their buffer; other lists value by value."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=column.type)
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    rows, flat = len(array), array
    while pa.types.is_fixed_size_list(flat.type) and not flat.null_count:
        flat = flat.flatten()
    numeric = pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)
    if numeric and not flat.null_count and rows and len(flat) == rows * math.prod(field.shape):
        return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(rows, *field.shape)
    listed: list[Any] = array.to_pylist()
    return listed


def _as_matrix(columns: dict[str, Array | list[Any]], contract: Contract) -> Inputs:
    """Columns that are all floats as the one matrix that validation is quickest with."""
    names = [field.name for field in contract]
    whole = contract.is_matrix and len(names) > 1 and set(names) <= set(columns)
    if not whole or (contract.extra_fields == "reject" and len(columns) != len(names)):
        return columns
    wanted = [columns[name] for name in names]
    if not all(isinstance(values, np.ndarray) and values.dtype.kind == "f" for values in wanted):
        return columns
    if len({values.dtype for values in wanted if isinstance(values, np.ndarray)}) > 1:
        return columns
    return {"": np.column_stack(wanted)}


def _table(pa: Any, chosen: Sequence[Output], outputs: Outputs) -> Any:
    columns = {}
    for output in chosen:
        values = outputs[output.name]
        if output.dtype is DType.timestamp:
            flat = pa.array(values.astype("datetime64[us]").reshape(-1), type=pa.timestamp("us", tz="UTC"))
        else:
            flat = pa.array(
                values.reshape(-1).tolist()
                if values.dtype.kind == "O"
                else np.ascontiguousarray(values).reshape(-1)
            )
        for size in reversed(values.shape[1:]):
            flat = pa.FixedSizeListArray.from_arrays(flat, size)
        columns[output.name] = flat
    return pa.table(columns)


def _written(pa: Any, table: Any, begin: Callable[..., Any]) -> bytes:
    sink = pa.BufferOutputStream()
    with begin(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written
