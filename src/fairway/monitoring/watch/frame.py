"""Rows of the log, or of a bundle's reference, as columns by the names that people know.

Inputs are called as in the contract, outputs `label` or `probabilities[fraud]`. An output that is called like an input is
`output.<name>`. What the log says of a row besides (its time, who answered) is apart.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fairway.core.columns import Array
from fairway.core.contract import Contract, Task
from fairway.core.errors import CorruptBundle
from fairway.monitoring.drift.profile import kinds_of
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.tables import HeldTable
from fairway.packaging.bundle import Bundle
from fairway.packaging.profile import CATEGORIES
from fairway.packaging.reference import FILE

ABOUT = ("time", "request_id", "row", "seconds", "arm", "source", "protocol", "violations")
"""Columns of the log that are about a row."""
ACTUAL = "actual"
_STORED = ("precomputed", "stale", "default")
"""Who answers without the model, which may be asked for a key alone."""


@dataclass(frozen=True)
class Frame:
    """`table` has inputs and outputs; `about` the rest, row by row. `actual` are labels, None where unknown."""

    table: pa.Table
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    about: pa.Table
    actual: pa.ChunkedArray | None = None

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def held(self) -> HeldTable:
        return HeldTable(self.table)

    def given(self) -> Frame:
        """The rows whose request had inputs: who asked for a precomputed answer by its key left out nothing."""
        if not self.inputs or "source" not in self.about.column_names:
            return self
        stored = pc.fill_null(pc.is_in(self.about["source"], pa.array(_STORED)), False).to_numpy()
        if not stored.any():
            return self
        for name in self.inputs:
            column = self.table[name]
            stored &= np.asarray(pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)))
        return self.take(np.flatnonzero(~stored)) if stored.any() else self

    def take(self, rows: Array) -> Frame:
        """The rows at these positions, in their order."""
        at = pa.array(rows)
        actual = None if self.actual is None else self.actual.take(at)
        return Frame(self.table.take(at), self.inputs, self.outputs, self.about.take(at), actual)

    @property
    def times(self) -> Array | None:
        """When each row was predicted, datetime64[us]; None where that is not known."""
        if "time" not in self.about.column_names:
            return None
        return np.asarray(self.about["time"].cast(pa.int64())).astype("datetime64[us]")

    def with_actual(self) -> pa.Table:
        """Inputs, outputs and labels in one table."""
        return self.table if self.actual is None else self.table.append_column(ACTUAL, self.actual)


def reference_rows(bundle: Bundle) -> Frame:
    """The rows that a bundle carries. Raises CorruptBundle."""
    path = bundle.directory / FILE
    try:
        rows = pq.read_table(io.BytesIO(path.read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise CorruptBundle(f"{path} cannot be read: {error}.") from error
    return frame_of(rows, bundle.contract)


def frame_of(rows: pa.Table, contract: Contract) -> Frame:
    """`rows` have columns `input.<field>` and `output.<output>`, as the log and references do; a column `label` is the
    label. Tensors of more than a few hundred elements a row are left out, and so are private fields: what the log has of
    them, if anything, is not their values."""
    columns: dict[str, pa.ChunkedArray] = {}
    inputs = []
    for field in contract:
        column = None if field.private is not None else _column(rows, f"input.{field.name}")
        if column is not None and not (field.dtype.is_numeric and pa.types.is_string(column.type)):
            columns[field.name] = column
            inputs.append(field.name)
    outputs = []
    for output in contract.outputs:
        column = _column(rows, f"output.{output.name}")
        if column is None:
            continue
        for name, part in _parts(output.name, output.labels, column).items():
            shown = f"output.{name}" if name in columns else name
            columns[shown] = part
            outputs.append(shown)
    about = rows.select([name for name in ABOUT if name in rows.column_names])
    actual = _actual(rows["label"]) if "label" in rows.column_names else None
    return Frame(pa.table(columns), tuple(inputs), tuple(outputs), about, actual)


def frame_kinds(frame: Frame, contract: Contract) -> Mapping[str, Kind]:
    """What each column is watched as: what the contract says of inputs, what outputs are by their task."""
    kinds: dict[str, Kind] = {name: kind for name, kind in kinds_of(contract).items() if name in frame.inputs}
    for name in frame.outputs:
        kind = frame.table.schema.field(name).type
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if name in {"label", "output.label"} and contract.task in (Task.classification, Task.anomaly):
            kinds[name] = Kind.category
        elif pa.types.is_boolean(kind):
            kinds[name] = Kind.boolean
        elif number:
            kinds[name] = Kind.number
        elif pa.types.is_fixed_size_list(kind):
            kinds[name] = Kind.tensor
    return kinds


def broken_rules(about: pa.Table) -> dict[str, int]:
    """Rows that broke a rule, by `field rule`, as the log has noted them."""
    counts: dict[str, int] = {}
    if "violations" not in about.column_names:
        return counts
    for text in about["violations"].drop_null().to_pylist():
        for told in msgspec.json.decode(text, type=list[_Violation]):
            name = f"{told.field} {told.rule}"
            counts[name] = counts.get(name, 0) + told.rows
    return counts


class _Violation(msgspec.Struct):
    field: str
    rule: str
    rows: int


def _column(rows: pa.Table, name: str) -> pa.ChunkedArray | None:
    return rows[name] if name in rows.column_names and not pa.types.is_null(rows[name].type) else None


def _parts(name: str, labels: tuple[str, ...], column: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """An output's numbers, one column each, named as in a bundle's profile."""
    if not pa.types.is_fixed_size_list(column.type):
        return {name: column}
    width = column.type.list_size
    if width > CATEGORIES:
        return {}
    shown = labels if len(labels) == width else tuple(map(str, range(width)))
    matrix = np.asarray(column.combine_chunks().flatten()).reshape(-1, width)
    parts = {f"{name}[{label}]": pa.chunked_array([pa.array(matrix[:, i])]) for i, label in enumerate(shown)}
    if name == "probabilities" and width == 2:  # the other one says the same
        del parts[f"{name}[{shown[0]}]"]
    return parts


def _actual(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Labels as they are; those that are JSON are decoded, to text unless all are numbers."""
    if not pa.types.is_string(column.type):
        return column
    values = [None if text is None else _decoded(text) for text in column.to_pylist()]
    if all(value is None or isinstance(value, float) for value in values):
        return pa.chunked_array([pa.array(values, pa.float64())])
    shown = [value if value is None or isinstance(value, str) else _number_text(value) for value in values]
    return pa.chunked_array([pa.array(shown, pa.string())])


def _decoded(text: str) -> float | str:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:  # a reference of texts
        return text
    if isinstance(value, bool):
        return str(value).lower()
    return float(value) if isinstance(value, int | float) else str(value)


def _number_text(value: float) -> str:
    return str(int(value)) if value.is_integer() else str(value)


def latest_time(about: pa.Table) -> object:
    return pc.max(about["time"]).as_py() if "time" in about.column_names and about.num_rows else None


def together(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """One table of the columns that more than half of all rows have, of the rows that have them all, in the order of the
    first. Rows that were answered by their key have no inputs, which are null then; and one column's type differs between
    parts of the log: numbers become floats, texts text, and what is neither is left out."""
    counts: dict[str, int] = {}
    rows = dict.fromkeys((False, True), 0)
    for batch in batches:
        for name in batch.schema.names:
            counts[name] = counts.get(name, 0) + batch.num_rows
        rows[False] += batch.num_rows
        rows[True] += batch.num_rows * _has_inputs(batch)
    names = [name for name, count in counts.items() if 2 * count > rows[_is_input(name)]]
    needed = {given: {name for name in names if given or not _is_input(name)} for given in (False, True)}
    whole = [batch for batch in batches if needed[_has_inputs(batch)] <= set(batch.schema.names)]
    found = {}
    for name in names:
        kind = _common({batch.schema.field(name).type for batch in whole if name in batch.schema.names})
        if kind is not None:
            found[name] = pa.chunked_array(
                [
                    batch.column(name).cast(kind)
                    if name in batch.schema.names
                    else pa.nulls(batch.num_rows, kind)
                    for batch in whole
                ],
                kind,
            )
    return pa.table(found)


def _is_input(name: str) -> bool:
    return name.startswith("input.")


def _has_inputs(batch: pa.RecordBatch) -> bool:
    return any(map(_is_input, batch.schema.names))


def _common(kinds: set[pa.DataType]) -> pa.DataType | None:
    if len(kinds) == 1:
        return next(iter(kinds))
    if all(pa.types.is_integer(k) or pa.types.is_floating(k) or pa.types.is_boolean(k) for k in kinds):
        return pa.float64()
    values = {kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds}
    return pa.string() if all(pa.types.is_string(k) or pa.types.is_large_string(k) for k in values) else None
