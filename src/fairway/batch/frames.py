"""Tables that somebody else reads and writes, scored: what `fairway.spark` and `fairway.ray` map over their batches.

Every row comes back, in its place. One that breaks the contract has nulls for outputs and, in the column `reject`,
what is wrong with it: a framework's rows have no file and no number by which a rejects file could name them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import msgspec
import pyarrow as pa

from fairway.batch.bundles import Loaded
from fairway.batch.columns import output_type
from fairway.batch.plan import output_names
from fairway.batch.score import Reject, score
from fairway.batch.source import no_columns, table_rows
from fairway.core.contract import Contract
from fairway.core.errors import ContractViolation, InvalidInput, Problem

REJECT = "reject"
OnReject = Literal["column", "raise"]
_SHOWN = 10


class Frame(msgspec.Struct, frozen=True):
    """How tables are scored. `keep` are the columns that come along, None for all; `on_reject` "column" gives rejected
    rows nulls and says why in the column `reject`, "raise" fails the whole job."""

    keep: tuple[str, ...] | None = None
    on_reject: OnReject = "column"


def frame_schema(schema: pa.Schema, contract: Contract, frame: Frame) -> pa.Schema:
    """Of what `score_frame` gives for tables of `schema`. Raises InvalidInput for columns that are not there, or that
    would have one name."""
    keep = schema.names if frame.keep is None else frame.keep
    absent = [name for name in (*keep, *(f.name for f in contract)) if name not in schema.names]
    if absent:
        raise InvalidInput(
            f"there is no column {', '.join(dict.fromkeys(absent))}; there are {', '.join(schema.names)}."
        )
    kept = pa.schema([schema.field(name) for name in keep])
    names = output_names(kept, contract)
    fields = [pa.field(name, field.type) for name, field in zip(names, kept, strict=True)]
    fields += [pa.field(output.name, output_type(output)) for output in contract.outputs]
    if frame.on_reject == "column":
        fields.append(pa.field(REJECT, pa.string()))
    twice = sorted({f.name for f in fields if sum(g.name == f.name for g in fields) > 1})
    if twice:
        raise InvalidInput(
            f"two columns would be called {', '.join(twice)}.", hint="Leave them out with keep=[...]."
        )
    return pa.schema(fields)


def score_frame(loaded: Loaded, table: pa.Table, frame: Frame) -> pa.Table:
    """The rows of `table` in their order, of `frame_schema`. Raises ContractViolation when rows are rejected and
    `on_reject` is "raise", and what `score` raises."""
    contract = loaded.live.contract
    schema = frame_schema(table.schema, contract, frame)
    parsed = table_rows(table, contract, pa.schema([]))
    parsed = msgspec.structs.replace(parsed, kept=no_columns(table.num_rows))
    scored = score(loaded.live, parsed, call_rows=loaded.call_rows)
    why = _reasons(scored.rejects)
    if why and frame.on_reject == "raise":
        problems = tuple(Problem(r.reason, r.field, r.row) for r in scored.rejects[:_SHOWN])
        first = next(iter(why.values()))
        raise ContractViolation(f"{len(why)} of {table.num_rows} rows break the contract: {first}", problems)
    places = iter(range(len(scored.table)))
    order = pa.array([None if row in why else next(places) for row in range(table.num_rows)], pa.int64())
    keep = table.column_names if frame.keep is None else frame.keep
    columns = [table.column(name) for name in keep]
    for output in contract.outputs:
        column = scored.table.column(output.name)
        columns.append(column.take(order) if why else column)
    if frame.on_reject == "column":
        columns.append(pa.array([why.get(row) for row in range(table.num_rows)], pa.string()))
    return pa.table(columns, names=schema.names)


def _reasons(rejects: Sequence[Reject]) -> dict[int, str]:
    """By row, all that is wrong with it."""
    found: dict[int, list[str]] = defaultdict(list)
    for reject in rejects:
        found[reject.row].append(f"{reject.field}: {reject.reason}" if reject.field else reject.reason)
    return {row: "; ".join(reasons) for row, reasons in found.items()}
