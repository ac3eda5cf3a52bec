"""The reference: rows with the served model's answers and, where they are known, the labels, kept in the bundle.

Monitors compare later traffic with these rows: drift of each column and of columns together, and estimates of performance,
which have to learn from labelled rows how far the model's probabilities can be believed. Columns are called as in the
prediction log: `input.<field>`, `output.<output>`, `label`, `time` where the data says when its rows were: an evening is
then compared with evenings; and `request_id` where it says which rows are one list, as if each had been a request. Private fields are left out, as they are from the log.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract

FILE = "reference.parquet"
LABEL = "label"
TIME = "time"
REQUEST = "request_id"
WIDEST = 1024
"""Most elements of a row of a tensor that is kept."""
MOST_BYTES = 16 * 1024 * 1024
"""Of the rows before they are compressed: beyond it there are fewer rows."""


def make_reference(
    contract: Contract,
    columns: Columns,
    outputs: Outputs,
    target: Array | None,
    times: Array | None = None,
    lists: Array | None = None,
) -> bytes:
    """Parquet of the canonical `columns`, of the answers to them, of their labels, times and lists, row by row. Of lists there
    are whole ones only."""
    names = [
        field.name
        for field in contract
        if field.private is None and int(np.prod(field.shape, dtype=np.int64)) <= WIDEST
    ]
    found: dict[str, Array] = {f"input.{name}": columns[name] for name in names}
    found |= {
        f"output.{name}": values for name, values in outputs.items() if np.prod(values.shape[1:]) <= WIDEST
    }
    if target is not None:
        found[LABEL] = target
    if times is not None:
        found[TIME] = times
    if lists is not None:
        found[REQUEST] = lists
    width = sum(values[:1].nbytes for values in found.values())
    most = max(1, MOST_BYTES // max(width, 1))
    cut = set() if lists is None else set(lists[most:].tolist())
    kept = [row for row in range(min(most, columns.rows)) if lists is None or lists[row] not in cut]
    table = pa.table({name: _arrow(values[kept]) for name, values in found.items()})
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    return written.getvalue()


def without_private(content: bytes, contract: Contract) -> bytes:
    """The reference without fields that a contract says are private; the same bytes where there are none."""
    private = {f"input.{field.name}" for field in contract if field.private is not None}
    table = pq.read_table(io.BytesIO(content))
    gone = [name for name in table.column_names if name in private]
    if not gone:
        return content
    written = io.BytesIO()
    pq.write_table(table.drop_columns(gone), written, compression="zstd")
    return written.getvalue()


def _arrow(values: Array) -> Any:
    if values.ndim > 1:
        flat = values.reshape(len(values), -1)
        return pa.FixedSizeListArray.from_arrays(_arrow(flat.reshape(-1)), flat.shape[1])
    if values.dtype.kind in "OU":
        return pa.array(values.tolist(), from_pandas=True)
    if values.dtype.kind == "M":
        return pa.array(values, pa.timestamp("us", "UTC"))
    return pa.array(values, from_pandas=values.dtype.kind != "f")
