"""Rows of the prediction log, or of a bundle's reference, as windows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fairway.core.columns import Array
from fairway.core.contract import Contract, Task
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import frames
from fairway.monitoring.performance.frames import Reading
from fairway.monitoring.performance.values import Classified, Regressed

LABEL = "label"
_INPUT, _OUTPUT = "input.", "output."
_PROBABILITIES = f"{_OUTPUT}probabilities"


def logged_window(table: pa.Table, contract: Contract, *, what: str = "the window") -> Classified | Regressed:
    """Columns `input.<field>`, `output.<output>` and, where labels are known, `label`, as a window of the contract's task.

    Raises InvalidInput for a task without labels to hold answers against, for a classifier that gives no probabilities or
    does not name its classes, for columns that are not there and for labels that are no class.
    """
    label = LABEL if LABEL in table.column_names else ""
    features = {
        name.removeprefix(_INPUT): values
        for name, values in frames.features_of(table, Reading(target=label)).items()
        if name.startswith(_INPUT)
    }
    if contract.task is Task.regression:
        frames.check_columns(table, [f"{_OUTPUT}prediction"], what)
        predicted = frames.numbers(table, f"{_OUTPUT}prediction", what)
        known = frames.numbers(table, label, what) if label else np.full(table.num_rows, np.nan)
        return Regressed(predicted, known, features)
    if contract.task is not Task.classification:
        raise InvalidInput(f"{what}: of the task {contract.task.value} no performance can be said.")
    classes = next((output.labels for output in contract.outputs if output.name == "probabilities"), ())
    if len(classes) < 2:
        raise InvalidInput(f"{what}: the model gives no probabilities of named classes.")
    classes = tuple(frames.label_text(name) for name in classes)
    frames.check_columns(table, [_PROBABILITIES], what)
    probabilities = _matrix(table[_PROBABILITIES], len(classes), what)
    said = f"{_OUTPUT}label"
    if said in table.column_names:
        predicted = frames.codes(table, said, classes, what)
    else:
        whole = np.isfinite(probabilities).all(axis=1)
        predicted = np.where(whole, np.nan_to_num(probabilities).argmax(axis=1), -1)
    actual = frames.codes(table, label, classes, what) if label else np.full(table.num_rows, -1)
    return Classified(classes, probabilities, predicted, actual, features)


def _matrix(column: pa.ChunkedArray, width: int, what: str) -> Array:
    """Lists of `width` numbers as `[n, width]`, NaN where there is none. Lists of another length are told."""
    found = np.full((len(column), width), np.nan)
    lists = column.combine_chunks()
    valid = np.flatnonzero(np.asarray(lists.is_valid()))
    values = lists.take(pa.array(valid)).flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    if len(values) != len(valid) * width:
        raise InvalidInput(f"{what}: {_PROBABILITIES} must hold {width} numbers a row.")
    found[valid] = values.reshape(len(valid), width)
    return found
