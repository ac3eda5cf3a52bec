"""`Profile`: a window of rows as sketches. What workers, machines and devices send, and what is kept for long.

profile = Profile.of(table)             # or Profile(kinds_of(contract)), then update(...) as rows come
profile.merge(other)
Profile.from_bytes(profile.to_bytes())
compare_profiles(reference, profile)    # drift.compare_profiles
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.columns import Array
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import MalformedInput, NewerFormat, PayloadTooLarge
from fairway.monitoring.drift.columns import as_floats, as_rows, as_text, kind_in
from fairway.monitoring.drift.sketches import QUANTILES_K, ColumnSketch, SketchState
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.tables import Table

FORMAT = 1
MOST_BYTES = 256 * 1024 * 1024
"""Largest profile that is read."""
_BATCH = 131_072


class _State(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    rows: int
    k: Annotated[int, msgspec.Meta(ge=8, le=65_535)]
    start: str = ""
    end: str = ""
    columns: dict[str, SketchState] = {}


def kinds_of(contract: Contract) -> dict[str, Kind]:
    """What each input of a contract is watched as."""
    return {field.name: _kind_of_field(field) for field in contract}


def _kind_of_field(field: Field) -> Kind:
    if field.shape:
        return Kind.tensor
    if field.dtype is DType.timestamp:
        return Kind.time
    if field.dtype is DType.bool:
        return Kind.boolean
    if field.dtype is DType.string:
        return Kind.category if field.categories else Kind.text
    return Kind.number


class Profile:
    """`rows` rows of columns, each a sketch. `start` and `end` (ISO 8601, UTC) are the window's, where it has any.

    The kinds of columns are fixed when they are first seen, or by `kinds`; columns beyond `kinds` are passed over.
    Merging profiles gives what one profile of all their rows would have been, within the sketches' error: counts,
    gaps, moments and times exactly, quantiles within 0.27% of rank at the default `k`.
    """

    def __init__(
        self, kinds: Mapping[str, Kind] | None = None, *, k: int = QUANTILES_K, start: str = "", end: str = ""
    ) -> None:
        self.rows = 0
        self.start, self.end, self.k = start, end, k
        self._open = kinds is None
        self.columns = {name: ColumnSketch(kind, k) for name, kind in (kinds or {}).items()}

    @classmethod
    def of(
        cls, table: Table | pa.Table | pa.RecordBatch | Mapping[str, Array], kinds: Mapping[str, Kind] | None = None,
        *, k: int = QUANTILES_K, start: str = "", end: str = "",
    ) -> Profile:  # fmt: skip
        """Profile of a whole table, column by column; or of a window of arrays."""
        profile = cls(kinds, k=k, start=start, end=end)
        if isinstance(table, pa.Table | pa.RecordBatch | Mapping):
            profile.update(table)
            return profile
        for name in table.names:
            if kinds is None or name in kinds:
                profile._update_column(name, table.column(name))
        profile.rows = table.rows
        return profile

    def watch(self, kinds: Mapping[str, Kind]) -> None:
        """From now on these columns too; those that are known stay of their kind."""
        for name, kind in kinds.items():
            if name not in self.columns:
                self.columns[name] = ColumnSketch(kind, self.k)

    def update(self, rows: pa.Table | pa.RecordBatch | Mapping[str, Array], *, counted: bool = True) -> None:
        """Adds rows: Arrow, or arrays by name (see `core.columns` for their nulls). Not `counted`, they are further columns of
        rows that were."""
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        if isinstance(rows, pa.Table):
            for name in rows.column_names:
                self._update_column(name, rows.column(name))
            self.rows += rows.num_rows if counted else 0
            return
        size = 0
        for name, values in rows.items():
            size = len(values)
            if values.ndim > 1:
                self._sketch(name, Kind.tensor, lambda sketch, values=values: sketch.update_tensors(values))
            else:
                kind = values.dtype.kind
                listed = values.tolist() if kind in "OUS" else values
                column = pa.array(listed, from_pandas=True)
                self._update_column(name, pa.chunked_array([column]))
        self.rows += size if counted else 0

    def merge(self, other: Profile) -> None:
        """Adds the rows of `other`, which stays as it is. A column that only one side has is kept as it is there. Raises MalformedInput for columns of different kinds."""
        for name, sketch in other.columns.items():
            if name in self.columns:
                self.columns[name].merge(sketch)
            else:
                self.columns[name] = ColumnSketch.of(sketch.state(), self.k)
        self.rows += other.rows
        self.start = min(filter(None, (self.start, other.start)), default="")
        self.end = max(self.end, other.end)

    def to_bytes(self) -> bytes:
        state = _State(
            format=FORMAT, rows=self.rows, k=self.k, start=self.start, end=self.end,
            columns={name: sketch.state() for name, sketch in self.columns.items()},
        )  # fmt: skip
        return msgspec.msgpack.encode(state)

    @classmethod
    def from_bytes(cls, content: bytes) -> Profile:
        """Raises MalformedInput for what is no profile, NewerFormat for one of a newer Fairway, PayloadTooLarge."""
        if len(content) > MOST_BYTES:
            raise PayloadTooLarge(f"A profile of {len(content):,} bytes: at most {MOST_BYTES:,} are read.")
        try:
            state = msgspec.msgpack.decode(content, type=_State)
        except msgspec.DecodeError as error:
            raise MalformedInput(f"This is no profile: {error}.") from error
        if state.format > FORMAT:
            raise NewerFormat(f"The profile has format {state.format}; this Fairway reads {FORMAT}.")
        profile = cls(k=state.k, start=state.start, end=state.end)
        profile.rows = state.rows
        profile.columns = {name: ColumnSketch.of(column, state.k) for name, column in state.columns.items()}
        return profile

    def _sketch(self, name: str, kind: Kind, update: object) -> None:
        sketch = self.columns.get(name)
        if sketch is None and self._open:
            sketch = self.columns[name] = ColumnSketch(kind, self.k)
        if sketch is not None and callable(update):
            update(sketch)

    def _update_column(self, name: str, column: pa.ChunkedArray) -> None:
        sketch = self.columns.get(name)
        if sketch is None and self._open:
            if pa.types.is_null(column.type):
                return
            sketch = self.columns[name] = ColumnSketch(kind_in(column), self.k)
        if sketch is None:
            return
        for start in range(0, len(column), _BATCH):
            _update(sketch, column.slice(start, _BATCH))


def _update(sketch: ColumnSketch, column: pa.ChunkedArray) -> None:
    kind = sketch.kind
    try:
        if kind is Kind.number:
            sketch.update_numbers(as_floats(column))
        elif kind in (Kind.category, Kind.boolean):
            counted = pc.value_counts(as_text(column))
            values, rows = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
            sketch.update_categories(dict(zip(values, rows, strict=True)))
        elif kind in (Kind.text, Kind.identifier):
            sketch.update_texts(as_text(column).to_pylist())
        elif kind is Kind.tensor:
            sketch.update_tensors(as_rows(column))
        elif kind is Kind.time:
            sketch.update_times(
                np.asarray(
                    column.cast(
                        pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False
                    ).to_numpy()
                )
            )
        else:
            sketch.rows += len(column)
            sketch.missing += column.null_count
    except (pa.ArrowException, ValueError) as error:
        text = (str(error).splitlines() or [""])[0]
        raise MalformedInput(f"a column of {column.type} is no {kind.value}: {text}.") from error
