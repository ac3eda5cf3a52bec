"""The one function that scores a chunk of rows, for every engine: local threads and processes now, others later.

A chunk goes the way a request goes: `LiveVersion.split` is the validation of a request, row by row where that is
needed, and `LiveVersion.run` the same call of the same engine. What a row gets does not depend on the rows that come
with it (`inference/merging.py`), so it gets what the server would have answered, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa

from fairway.batch.columns import output_columns, output_type
from fairway.batch.seen import Watch
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.conform import to_columns
from fairway.core.contract import Output
from fairway.core.errors import FairwayError, InvalidInput, ModelFailed
from fairway.core.request import Inputs
from fairway.inference.entries import key_bytes
from fairway.inference.live import LiveVersion
from fairway.inference.predictions import in_sample

_MOST_CALL_ROWS = 8192
_PROVED_ROWS = 100
"""`find_floor` has tried calls of up to so many rows."""
_SLOW_SECONDS = 0.25
_MOST_VALUES = 256 * 1024
_MOST_PROBLEMS = 20_000
"""Where so many values have more of them, one a row is kept: they are in memory until their part is committed."""
_SAMPLED = 512
"""About so many rows of a chunk are counted by a `Watch`."""


class Reject(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row that was not scored: its place in its file (the first row of data is 0), the field and the reason."""

    row: int
    reason: str
    field: str | None = None
    file: str = ""


class Parsed(msgspec.Struct, frozen=True):
    """A chunk's rows as its format gave them. `inputs` holds the contract's columns, `kept` the columns that go to
    the output, both of the same rows; `places` `[n]` are those rows' places in the chunk, None when it is all of
    them; `total` counts the rows with those that could not be read, which are in `rejects`."""

    inputs: Inputs
    kept: pa.Table
    total: int
    places: Array | None = None
    rejects: tuple[Reject, ...] = ()


class ForLog(msgspec.Struct, frozen=True):
    """Rows that go to the prediction log: each under its key, in the kept column `column`; `share` of the keys."""

    column: str
    share: float = 1.0


class LogRows(msgspec.Struct, frozen=True):
    """Rows as the model was asked and as it answered, and the key of each."""

    columns: Columns
    outputs: Outputs
    keys: list[bytes]


class Scored(msgspec.Struct, frozen=True):
    """The rows that were scored, in their order: kept columns, then outputs. Rows of `rejects` count within the
    chunk. `total` is both together; `seen` is what a `Watch` counted, `broken` counts (field, rule, rows) that were
    let through, clipped or imputed; `logged` is for the prediction log."""

    table: pa.Table
    rejects: tuple[Reject, ...]
    total: int
    seen: Array | None = None
    broken: tuple[tuple[str, str, int], ...] = ()
    logged: tuple[LogRows, ...] = ()


def score(
    live: LiveVersion,
    parsed: Parsed,
    *,
    call_rows: int = _PROVED_ROWS,
    watch: Watch | None = None,
    for_log: ForLog | None = None,
) -> Scored:
    """Scores what can be scored; `watch` counts what the rows are like, `for_log` says which go to the log. Raises ContractViolation or MalformedInput when
    the columns are not those of the contract, ModelFailed when the model fails on every row of a call.

    When a call fails its rows are tried one by one, as requests would be: one row cannot fail the others. Rows are looked
    at some thousands at a time: they stay in a core's cache, and however many problems they have stays small.
    """
    rows = len(parsed.kept)
    step = max(1, _MOST_VALUES // max(1, len(live.contract.inputs)))
    sampled = max(1, _SAMPLED * min(step, rows) // max(1, rows))
    places = np.arange(rows) if parsed.places is None else parsed.places
    parts: list[Scored] = []
    for begin in range(0, rows, step):
        end = begin + step
        inputs = parsed.inputs if step >= rows else {n: v[begin:end] for n, v in parsed.inputs.items()}
        some = Parsed(inputs, parsed.kept.slice(begin, step), 0, places[begin:end])
        parts.append(_score(live, some, call_rows, watch, sampled, for_log))
    rejects = [*parsed.rejects, *(reject for part in parts for reject in part.rejects)]
    rejects.sort(key=lambda reject: reject.row)
    tables = [part.table for part in parts if len(part.table)]
    tables = tables or [_scored(parsed.kept, {}, live.contract.outputs)]
    seen = None
    for part in parts:
        if watch is not None and part.seen is not None:
            seen = part.seen if seen is None else watch.add(seen, part.seen)
    broken = tuple(note for part in parts for note in part.broken)
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    logged = tuple(rows for part in parts for rows in part.logged)
    return Scored(table, tuple(rejects), parsed.total, seen, broken, logged)


def _score(
    live: LiveVersion,
    parsed: Parsed,
    call_rows: int,
    watch: Watch | None,
    sampled: int,
    for_log: ForLog | None,
) -> Scored:
    """Some rows of a chunk."""
    places = parsed.places
    assert places is not None, "the rows know where they stand"
    broken: list[tuple[str, str, int]] = []
    split = live.split(parsed.inputs, lambda *note: broken.append(note))
    problems = split.problems
    if len(problems) > _MOST_PROBLEMS:  # the first of each row, as the dictionary is filled from the end
        problems = tuple({p.row: p for p in reversed(problems)}.values())
    rejects = [Reject(int(places[p.row or 0]), p.reason, p.field) for p in problems]
    good = split.rows
    outputs: Outputs = {}
    columns: Columns | None = None
    seen = None
    if split.columns is not None:
        outputs, failed = _run(live, split.columns, call_rows)
        columns = split.columns
        if failed:
            rejects += [Reject(int(places[good[row]]), reason) for row, reason in failed.items()]
            left = np.delete(np.arange(len(good)), list(failed))
            good, columns = good[left], columns.take(left)
        if watch is not None and outputs:
            seen = watch.see(columns, outputs, sampled)
    kept = parsed.kept if len(good) == len(parsed.kept) else parsed.kept.take(pa.array(good))
    table = _scored(kept, outputs, live.contract.outputs)
    logged: tuple[LogRows, ...] = ()
    if for_log is not None and columns is not None and outputs:
        logged = _for_log(for_log, kept, columns, outputs)
    return Scored(table, tuple(rejects), parsed.total, seen, tuple(broken), logged)


def _for_log(for_log: ForLog, kept: pa.Table, columns: Columns, outputs: Outputs) -> tuple[LogRows, ...]:
    """The rows of a sample, chosen by their keys so that a customer is in it every night or never. One whose key cannot
    be one (null, a fraction) is in none."""
    rows, keys = [], []
    for row, value in enumerate(kept.column(for_log.column).to_pylist()):
        try:
            key = key_bytes(value)
        except InvalidInput:
            continue
        if for_log.share >= 1.0 or in_sample(key.decode(), for_log.share):
            rows.append(row)
            keys.append(key)
    if not rows:
        return ()
    if len(rows) == columns.rows:
        return (LogRows(columns, outputs, keys),)
    chosen = np.array(rows)
    return (LogRows(columns.take(chosen), {name: values[chosen] for name, values in outputs.items()}, keys),)


def _scored(kept: pa.Table, outputs: Outputs, declared: Sequence[Output]) -> pa.Table:
    if outputs:
        columns = output_columns(outputs, declared)
    else:
        columns = [pa.array([], type=output_type(output)) for output in declared]
        kept = kept.slice(0, 0)
    return pa.table([*kept.columns, *columns], names=[*kept.column_names, *(o.name for o in declared)])


def _run(live: LiveVersion, columns: Columns, call_rows: int) -> tuple[Outputs, dict[int, str]]:
    """Outputs of the rows that the model takes, and why it failed on others, by their place."""
    parts: list[Outputs] = []
    failed: dict[int, str] = {}
    for begin in range(0, columns.rows, call_rows):
        part = columns if call_rows >= columns.rows else columns.take(slice(begin, begin + call_rows))
        try:
            parts.append(_checked(live.run(part), part.rows))
        except ModelFailed as error:
            for row in range(part.rows):
                try:
                    parts.append(_checked(live.run(part.take(slice(row, row + 1))), 1))
                except ModelFailed as own:
                    failed[begin + row] = str(own)
            if part.rows > 1 and all(begin + row in failed for row in range(part.rows)):
                raise error
    if not parts:
        return {}, failed
    if len(parts) == 1:
        return parts[0], failed
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, failed


def _checked(outputs: Outputs, rows: int) -> Outputs:
    for name, values in outputs.items():
        if len(values) != rows:
            raise ModelFailed(f"output {name!r} has {len(values)} rows for {rows} rows of input")
    return outputs


class Calls(msgspec.Struct, frozen=True):
    """How a version is best called: rows a call, seconds a row, and a note where answers may differ from single
    requests."""

    rows: int
    seconds_a_row: float
    note: str = ""


def plan_calls(live: LiveVersion) -> Calls:
    """The largest calls whose rows are proved to get, to the bit, what they get alone."""
    floor = live.floor.rows
    golden = live.bundle.golden.inputs
    one = max(live.cost.expect(1), 1e-9)
    if floor is None:
        note = f"answers may differ from single requests in the last bits: {live.floor.reason}"
        return Calls(_PROVED_ROWS if one < _SLOW_SECONDS else 1, one, note)
    many = _MOST_CALL_ROWS
    while many > _PROVED_ROWS and live.cost.expect(many) > _SLOW_SECONDS:
        many //= 2
    if many <= _PROVED_ROWS or not golden:
        return Calls(_PROVED_ROWS, live.cost.expect(_PROVED_ROWS) / _PROVED_ROWS)
    columns = to_columns(live.contract, golden)
    order = np.arange(many) % columns.rows
    try:
        few = live.run(columns)
        together = live.run(columns.take(order))
    except FairwayError:
        return Calls(_PROVED_ROWS, one)
    same = all(_bits(values[order]) == _bits(together[name]) for name, values in few.items())
    rows = many if same else _PROVED_ROWS
    return Calls(rows, live.cost.expect(rows) / rows)


def _bits(values: Array) -> object:
    return values.tolist() if values.dtype.kind == "O" else np.ascontiguousarray(values).tobytes()
