"""Golden rows: a few rows with the answers they must keep giving, re-checked at every load.

A server imports this module: it needs nothing but the core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fairway.core.bundle import GoldenRows
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.conform import nulls_of, to_columns
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import ContractViolation, GoldenMismatch, ModelFailed

ROWS = 16
ELEMENTS = 200_000
"""Most numbers in all golden rows together: images get fewer rows, or the file would be larger than the model."""
SEED = 16
_FREQUENT = 8
_FIELDS = 500
"""Most fields whose extremes are looked for."""


class Predicts(Protocol):
    def predict(self, columns: Columns) -> Outputs: ...


def pick_rows(contract: Contract, columns: Columns, *, rows: int = ROWS, seed: int = SEED) -> Array:
    """Positions of about `rows` diverse rows, ascending: extremes, nulls, frequent categories, then chance.

    Rows that hold an infinity are left out where others are there: JSON has no form for it.
    """
    per_row = sum(math.prod(field.shape) for field in contract)
    rows = max(1, min(rows, columns.rows, ELEMENTS // max(per_row, 1)))
    usable = np.ones(columns.rows, dtype=bool)
    for field in contract:
        usable &= ~_infinite(columns[field.name])
    if not usable.any():
        usable[:] = True
    candidates = np.flatnonzero(usable)
    shows: dict[int, set[tuple[str, str]]] = {}
    for field in contract.inputs[:_FIELDS]:
        for what, row in _telling_rows(field, columns[field.name], candidates):
            shows.setdefault(row, set()).add((field.name, what))
    chosen = _cover(shows, rows)
    rest = np.setdiff1d(candidates, chosen)
    more = np.random.default_rng(seed).permutation(rest)[: rows - len(chosen)]
    return np.sort(np.concatenate([np.array(chosen, dtype=np.intp), more.astype(np.intp)]))


def _infinite(values: Array) -> Array:
    if values.dtype.kind != "f":
        return np.zeros(len(values), dtype=bool)
    return np.asarray(np.isinf(values).reshape(len(values), -1).any(axis=1))


def _telling_rows(field: Field, values: Array, candidates: Array) -> list[tuple[str, int]]:
    """(what it shows, row) for rows that show something of a scalar field."""
    if field.shape:
        return []
    values = values[candidates]
    nulls = nulls_of(values)
    found = [("null", int(candidates[np.flatnonzero(nulls)[0]]))] if nulls.any() else []
    known = np.flatnonzero(~nulls)
    if len(known) == 0:
        return found
    if values.dtype.kind != "O":
        found.append(("minimum", int(candidates[known[np.argmin(values[known])]])))
        found.append(("maximum", int(candidates[known[np.argmax(values[known])]])))
    if field.categories:
        first: dict[Any, int] = {}
        for position, value in zip(known.tolist(), values[known].tolist(), strict=True):
            first.setdefault(value, position)
        frequent = [category.value for category in field.categories[:_FREQUENT]]
        found += [(f"={value!r}", int(candidates[first[value]])) for value in frequent if value in first]
    elif values.dtype.kind == "O":
        lengths = np.fromiter(map(len, values[known]), dtype=np.int64, count=len(known))
        found.append(("longest", int(candidates[known[np.argmax(lengths)]])))
    return found


def _cover(shows: Mapping[int, set[tuple[str, str]]], rows: int) -> list[int]:
    """Rows that show the most between them, greedily: each next row is the one that shows most that is new."""
    left = {row: set(what) for row, what in shows.items()}
    chosen: list[int] = []
    while left and len(chosen) < rows:
        best = max(left, key=lambda row: (len(left[row]), -row))
        seen = left.pop(best)
        if not seen:
            break
        chosen.append(best)
        for what in left.values():
            what -= seen
    return chosen


def make_golden(
    engine: Predicts, contract: Contract, columns: Columns, *, tolerance: float = 1e-5
) -> GoldenRows:
    """Picks golden rows of the sample's `columns` and has the served engine answer them, read from wire form."""
    chosen = columns.take(pick_rows(contract, columns))
    inputs = {field.name: wire_values(field, chosen[field.name]) for field in contract}
    outputs = engine.predict(to_columns(contract, inputs))
    return GoldenRows(
        inputs=inputs,
        outputs={name: _answer_values(values) for name, values in outputs.items()},
        tolerance=tolerance,
    )


def wire_values(field: Field, values: Array) -> list[Any]:
    """A canonical array as JSON values, one per row; None for nulls, ISO 8601 text for timestamps."""
    if field.shape:
        wire: list[Any] = _without_nan(_finite(field, values).tolist())
        return wire
    nulls = nulls_of(values)
    if field.dtype is DType.timestamp:
        texts = np.datetime_as_string(values.astype("datetime64[us]"))
        return [None if null else f"{text}Z" for null, text in zip(nulls, texts, strict=True)]
    plain = _finite(field, values).tolist()
    kind = bool if field.dtype is DType.bool else int if field.dtype.is_integer else None
    return [
        None if null else value if kind is None else kind(value)
        for null, value in zip(nulls, plain, strict=True)
    ]


def _finite(field: Field, values: Array) -> Array:
    """Infinities, which only a sample made of nothing else leaves us, as the field's finite limits."""
    if values.dtype.kind != "f" or not np.isinf(values).any():
        return values
    return np.nan_to_num(values, nan=np.nan, posinf=field.maximum or 0.0, neginf=field.minimum or 0.0)


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _answer_values(values: Array) -> list[Any]:
    return [_answer_value(value) for value in values.tolist()]


def _answer_value(value: Any) -> Any:
    """JSON has no NaN and no infinity; in golden answers they are text."""
    if isinstance(value, list):
        return [_answer_value(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def check_golden(engine: Predicts, contract: Contract, golden: GoldenRows) -> None:
    """Has the engine answer the golden rows again.

    Raises GoldenMismatch naming the row, the output, the expected and the given answer.
    """
    try:
        outputs = engine.predict(to_columns(contract, golden.inputs))
    except (ModelFailed, ContractViolation) as error:
        raise GoldenMismatch(f"the model fails on its golden rows: {error}", hint=_HINT) from error
    for name, expected in golden.outputs.items():
        if name not in outputs:
            raise GoldenMismatch(f"the model no longer gives the output {name!r}.", hint=_HINT)
        _compare(name, expected, outputs[name], golden.tolerance)


_HINT = "This model is not the one that was packaged, or runs on libraries that compute differently: package it again."


def _compare(name: str, expected: list[Any], given: Array, tolerance: float) -> None:
    if len(given) != len(expected):
        raise GoldenMismatch(
            f"output {name!r} has {len(given)} rows for {len(expected)} golden rows.", hint=_HINT
        )
    answers = _answer_values(given)
    for row, (wanted, answer) in enumerate(zip(expected, answers, strict=True)):
        if not _agrees(wanted, answer, tolerance):
            raise GoldenMismatch(
                f"golden row {row}, output {name!r}: expected {_shown(wanted)}, got {_shown(answer)}.",
                hint=_HINT,
            )


def _agrees(wanted: Any, answer: Any, tolerance: float) -> bool:
    if isinstance(wanted, list):
        return (
            isinstance(answer, list)
            and len(wanted) == len(answer)
            and all(_agrees(a, b, tolerance) for a, b in zip(wanted, answer, strict=True))
        )
    if isinstance(answer, float):
        if not isinstance(wanted, int | float) or isinstance(wanted, bool):
            return False
        # JSON may have written 1.0 as 1, so a whole number stands for a float here.
        return abs(wanted - answer) <= tolerance + tolerance * abs(wanted)
    return type(wanted) is type(answer) and bool(wanted == answer)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
