"""Columns of a table as windows of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.columns import Array
from fairway.core.contract import Task
from fairway.core.errors import InvalidInput, Problem
from fairway.monitoring.performance.values import Classified, Regressed

CLASSES = 100
"""Most classes of a classifier."""
_ONE_SUM = 0.01


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns are what.

    `proba` maps a class to the column of its probability; one pair with the empty class is a single column, that of
    the positive class. `features` None takes all columns that are nothing else and not one value a row.
    """

    prediction: str | None = None
    target: str
    proba: tuple[tuple[str, str], ...] = ()
    time: str | None = None
    features: tuple[str, ...] | None = None
    positive: str | None = None

    @property
    def named(self) -> set[str]:
        """Columns that have a part to play."""
        return {
            name for name in (self.prediction, self.target, self.time, *(c for _, c in self.proba)) if name
        }


def read_proba(proba: str | Sequence[str] | Mapping[Any, str] | None) -> tuple[tuple[str, str], ...]:
    """`"p"`, `"low=p_low,high=p_high"`, `["low=p_low", ...]` or a mapping of class to column, as `Reading.proba`."""
    if proba is None:
        return ()
    if isinstance(proba, Mapping):
        return tuple((label_text(label), column) for label, column in proba.items())
    parts = [
        part for text in ([proba] if isinstance(proba, str) else proba) for part in text.split(",") if part
    ]
    pairs = tuple((label, column) for label, equals, column in (p.partition("=") for p in parts) if equals)
    if not pairs and len(parts) == 1:
        return (("", parts[0]),)
    if len(pairs) != len(parts) or len(pairs) < 2:
        raise InvalidInput(
            "probabilities of several classes are given as CLASS=COLUMN, such as low=p_low,mid=p_mid,high=p_high; "
            "of two classes the column of the positive one alone will do."
        )
    return pairs


def check_columns(table: pa.Table, wanted: Iterable[str], what: str) -> None:
    """Raises InvalidInput naming every column that is not there."""
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        there = ", ".join(table.column_names[:30])
        raise InvalidInput(
            f"{what} has no column {', '.join(map(repr, missing))}; there are: {there}.",
            tuple(Problem("no such column", field=name) for name in missing),
        )


def guess_task(table: pa.Table, reading: Reading) -> Task:
    """Classification with probabilities or labels that are not numbers with fractions, else regression."""
    if reading.proba:
        return Task.classification
    kind = table.schema.field(reading.target).type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Task.regression
    if pa.types.is_integer(kind) and pc.count_distinct(table[reading.target]).as_py() > 20:
        return Task.regression
    raise InvalidInput(
        "estimating a classifier's performance needs its probabilities: name their column with --proba (proba=), "
        "or say --task regression if the target is a number."
    )


def find_classes(table: pa.Table, reading: Reading) -> tuple[str, ...]:
    """The classes, the positive one last of two. Raises InvalidInput where it cannot be told which is positive."""
    if len(reading.proba) > 1:
        classes = tuple(label for label, _ in reading.proba)
        if len(classes) > CLASSES:
            raise InvalidInput(f"{len(classes)} classes; at most {CLASSES} are known.")
        if len(classes) == 2 and reading.positive is not None:
            classes = tuple(sorted(classes, key=lambda label: label == reading.positive))
        return classes
    seen = {
        label for label in map(label_text, pc.unique(table[reading.target]).to_pylist()) if label is not None
    }
    if len(seen) > 2:
        raise InvalidInput(
            f"the target {reading.target!r} has {len(seen)} classes, but there is one column of probabilities: "
            "name one per class, such as --proba low=p_low,mid=p_mid,high=p_high."
        )
    if reading.positive is not None:
        others = seen - {reading.positive}
        if reading.positive not in seen or len(others) > 1:
            raise InvalidInput(
                f"the target has no class {reading.positive!r}; there are: {', '.join(sorted(seen))}."
            )
        return (*(others or {f"not {reading.positive}"}), reading.positive)
    if seen <= {"0", "1"}:
        return "0", "1"
    if seen <= {"-1", "1"}:
        return "-1", "1"
    raise InvalidInput(
        f"which of {', '.join(sorted(seen))} has the probability {reading.proba[0][1]!r}? Say --positive CLASS (positive=)."
    )


def label_text(value: Any) -> str:
    """A label as text: 1, 1.0 and True are "1"."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def classified(table: pa.Table, reading: Reading, classes: tuple[str, ...], what: str) -> Classified:
    """Raises InvalidInput for probabilities outside 0..1, or that do not add up, and labels that are no class."""
    rows = table.num_rows
    if len(reading.proba) == 1:
        p = numbers(table, reading.proba[0][1], what)
        probabilities = np.column_stack([1 - p, p])
    else:
        column = dict(reading.proba)
        probabilities = np.column_stack([numbers(table, column[label], what) for label in classes])
    known = np.isfinite(probabilities).all(axis=1)
    wrong = known & ((probabilities < -1e-6) | (probabilities > 1 + 1e-6)).any(axis=1)
    wrong |= known & (np.abs(probabilities.sum(axis=1) - 1) > _ONE_SUM)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InvalidInput(
            f"{what}: {int(wrong.sum()):,} rows have probabilities outside 0..1 or that do not add up to 1, the first at "
            f"row {row}: {probabilities[row].tolist()}.",
            (Problem("not a probability", row=row),),
        )
    probabilities = np.clip(probabilities, 0.0, 1.0)
    if reading.prediction is None:
        predicted = np.where(known, probabilities.argmax(axis=1), -1)
    else:
        predicted = codes(table, reading.prediction, classes, what)
    if reading.target in table.column_names:
        actual = codes(table, reading.target, classes, what)
    else:
        actual = np.full(rows, -1, dtype=np.int64)
    return Classified(classes, probabilities, predicted, actual, features_of(table, reading))


def regressed(table: pa.Table, reading: Reading, what: str) -> Regressed:
    if reading.prediction is None:
        raise InvalidInput("name the column of predictions with --prediction (prediction=).")
    predicted = numbers(table, reading.prediction, what)
    there = reading.target in table.column_names
    actual = numbers(table, reading.target, what) if there else np.full(table.num_rows, np.nan)
    return Regressed(predicted, actual, features_of(table, reading))


def codes(table: pa.Table, column: str, classes: tuple[str, ...], what: str) -> Array:
    """Positions in `classes`, -1 for nulls. Raises InvalidInput for a label that is no class."""
    values = table[column].combine_chunks()
    encoded = pc.dictionary_encode(values)
    position = {label: number for number, label in enumerate(classes)}
    known = []
    for value in encoded.dictionary.to_pylist():
        null = value is None or (isinstance(value, float) and np.isnan(value))
        label = label_text(value)
        if not null and label not in position:
            raise InvalidInput(
                f"{what}: column {column!r} holds {label!r}, which is none of the classes {', '.join(classes)}.",
                (Problem("no such class", field=column),),
            )
        known.append(-1 if null else position[label])
    indices = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    return np.asarray(np.append(np.array(known, dtype=np.int64), -1)[indices])


def numbers(table: pa.Table, column: str, what: str) -> Array:
    """float64, NaN for nulls. Raises InvalidInput for a column that holds no numbers."""
    try:
        values = table[column].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"{what}: column {column!r} must hold numbers: {error}.", (Problem("no number", field=column),)
        ) from error
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def features_of(table: pa.Table, reading: Reading) -> dict[str, Array]:
    """The inputs by name: numbers as they are, text and categories as objects, with None for nulls."""
    names = reading.features if reading.features is not None else table.column_names
    found = {}
    for name in names:
        if name in reading.named or name not in table.column_names:
            continue
        values = table[name]
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            found[name] = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            found[name] = np.array(values.to_pylist(), dtype=object)
    return found


def telling_columns(table: pa.Table, reading: Reading) -> tuple[str, ...]:
    """Columns that may be inputs: none that has a part already, and none with another whole number or text in every
    row, which is a key."""
    found = []
    for name in table.column_names:
        kind = table.schema.field(name).type
        if name in reading.named or pa.types.is_nested(kind) or pa.types.is_temporal(kind):
            continue
        if (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)) and (
            pc.count_distinct(table[name]).as_py() > 0.9 * table.num_rows
        ):
            continue
        found.append(name)
    return tuple(found)


def in_time(table: pa.Table, column: str, what: str) -> tuple[pa.Table, Array]:
    """The table sorted by a column of times, and these as datetime64[us]. Raises InvalidInput for other columns."""
    values = table[column]
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        try:
            values = pc.cast(values, pa.timestamp("us"))
        except pa.ArrowInvalid as error:
            raise InvalidInput(
                f"{what}: column {column!r} holds text that is no time (ISO 8601): {error}."
            ) from error
    if not (pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)):
        raise InvalidInput(f"{what}: column {column!r} must hold times, not {values.type}.")
    if values.null_count:
        raise InvalidInput(f"{what}: column {column!r} has no time in {values.null_count:,} rows.")
    times = values.cast(pa.timestamp("us")).to_numpy()
    order = np.argsort(times, kind="stable")
    return table.take(pa.array(order)), times[order]
