"""Merging calls of one engine into one, so that nobody can tell.

Engines compute a row alone differently from the same row among others: ONNX Runtime multiplies one row by a matrix
with another kernel than two rows, and the last bit differs; from two rows on the bits are the same whatever else is
in the call. So each version is asked, when it is loaded, for its `floor`: the smallest number of rows from which on
a row's answer does not depend, to the last bit, on how many rows come with it. Every call is filled up to the floor,
and then any mix of calls gives exactly the answers that each would have got alone. A model without a floor (one that
looks at its whole batch, say) is not merged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.errors import FairwayError, ModelFailed

Predict = Callable[[Columns], Outputs]

_FLOORS = (1, 2, 4)
_SIZES = (2, 3, 4, 5, 7, 8, 13, 16, 31, 64, 100)
_SLOW_ROWS = 4


class Floor(msgspec.Struct, frozen=True):
    """`rows` is None where no floor was found, and `reason` says why. `seconds` are calls made: (rows, seconds)."""

    rows: int | None
    reason: str
    seconds: tuple[tuple[int, float], ...] = ()


def find_floor(
    predict: Predict,
    columns: Columns,
    *,
    budget_seconds: float = 0.25,
    clock: Callable[[], float] = time.perf_counter,
) -> Floor:
    """Runs `columns` (a model's golden rows) alone, together, and in sizes between.

    Slow models are tried on fewer rows and sizes, so that loading takes about `budget_seconds` longer, and at most
    what a handful of their calls take. `clock` is what calls are timed with.
    """
    timed: list[tuple[int, float]] = []

    def call(rows: Columns) -> Outputs:
        began = clock()
        outputs = predict(rows)
        timed.append((rows.rows, clock() - began))
        return outputs

    try:
        call(columns.take(slice(0, 1)))
        one = timed[-1][1]
        slow = one * 16 * columns.rows > budget_seconds
        if one > budget_seconds:
            return Floor(None, f"one row takes {one:.2f} s, too long to try it out", tuple(timed))
        rows = columns.take(slice(0, _SLOW_ROWS)) if slow else columns
        for floor in _FLOORS:
            alone = [call(repeated(rows.take(slice(i, i + 1)), floor)) for i in range(rows.rows)]
            if any(len(values) != floor for outputs in alone for values in outputs.values()):
                return Floor(None, "its answers have other rows than were asked", tuple(timed))
            expected = {name: np.concatenate([part[name][:1] for part in alone]) for name in alone[0]}
            if _holds(call, rows, expected, floor, _SIZES[:3] if slow else _SIZES):
                return Floor(floor, "", tuple(timed))
    except Exception as error:  # noqa: BLE001 - a model's own error is one more reason not to merge its calls
        return Floor(None, f"it fails on some numbers of rows: {error}", tuple(timed))
    return Floor(None, "a row's answer depends on the rows that come with it", tuple(timed))


def _holds(call: Predict, columns: Columns, expected: Outputs, floor: int, sizes: Sequence[int]) -> bool:
    """Whether each row has the answer `expected` in calls of every size from `floor` on, at changing places."""
    for size in (size for size in sizes if size >= floor):
        order = np.arange(size) * 7 % columns.rows if size > columns.rows else np.arange(size)
        given = call(columns.take(order))
        if not all(_same(given[name], values[order]) for name, values in expected.items()):
            return False
    return True


def _same(one: Array, other: Array) -> bool:
    """To the bit; NaN equals NaN of the same bits."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "O":
        return bool(np.array_equal(one, other))
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def repeated(columns: Columns, floor: int) -> Columns:
    """Filled up to `floor` rows with copies of the last."""
    if columns.rows >= floor:
        return columns
    packed = columns.packed
    if packed is not None:
        filled = np.empty((floor, packed.shape[1]), packed.dtype)
        filled[: columns.rows] = packed
        filled[columns.rows :] = packed[-1]
        return Columns(columns.names, floor, packed=filled)
    return columns.take(np.minimum(np.arange(floor), columns.rows - 1))


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of all, in order. All come from one validator, so their names and dtypes are the same."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    rows = sum(part.rows for part in parts)
    if first.packed is not None:
        return Columns(first.names, rows, packed=np.concatenate([part.packed for part in parts]))
    arrays = [np.concatenate([part.arrays[i] for part in parts]) for i in range(len(first.names))]
    return Columns(first.names, rows, arrays=arrays)


def run_together(run: Predict, parts: Sequence[Columns]) -> list[Outputs | FairwayError]:
    """One call for all parts, each part's outputs. When the call fails, or gives another number of rows than it was
    asked, each part is run alone, so that what is wrong with one is its own."""
    if len(parts) > 1:
        columns = joined(parts)
        try:
            outputs = run(columns)
        except FairwayError:
            pass
        else:
            if all(len(values) == columns.rows for values in outputs.values()):
                return shares(outputs, [part.rows for part in parts])
    return [_alone(run, part) for part in parts]


def shares(outputs: Outputs, counts: Sequence[int]) -> list[Outputs | FairwayError]:
    """Each caller's rows of a merged call."""
    shared: list[Outputs | FairwayError] = []
    begin = 0
    for count in counts:
        end = begin + count
        shared.append({name: values[begin:end] for name, values in outputs.items()})
        begin = end
    return shared


def _alone(run: Predict, columns: Columns) -> Outputs | FairwayError:
    try:
        outputs = run(columns)
    except FairwayError as error:
        return error
    for name, values in outputs.items():
        if len(values) != columns.rows:
            return ModelFailed(f"output {name!r} has {len(values)} rows for {columns.rows} rows of input")
    return outputs
