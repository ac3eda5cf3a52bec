"""Rows as the log and bundles keep them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.logged import logged_window
from fairway.monitoring.performance.values import Classified, Regressed
from fairway.packaging.reference import make_reference
from fairway.packaging.tables import read_table
from tests.unit.packaging.test_importance import CONTRACT as REGRESSION
from tests.unit.packaging.test_importance import Linear, sample

CLASSIFIER = Contract(
    inputs=(Field(name="age", dtype=DType.float64),),
    outputs=(
        Output(name="label", dtype=DType.string),
        Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),
    ),
    task=Task.classification,
)
ROWS = pa.table(
    {
        "input.age": [30.0, 40.0, 50.0],
        "output.label": ["no", "yes", None],
        "output.probabilities": pa.array([[0.8, 0.2], [0.3, 0.7], None], pa.list_(pa.float32(), 2)),
        "label": ["yes", None, "no"],
    }
)


def test_a_classifier() -> None:
    window = logged_window(ROWS, CLASSIFIER)
    assert isinstance(window, Classified)
    assert window.classes == ("no", "yes")
    assert window.predicted.tolist() == [0, 1, -1]
    assert window.actual.tolist() == [1, -1, 0]
    assert window.features["age"].tolist() == [30.0, 40.0, 50.0]
    assert window.usable().tolist() == [True, True, False]
    assert window.labelled().rows == 1
    blind = logged_window(ROWS.drop_columns(["label", "output.label"]), CLASSIFIER)
    assert isinstance(blind, Classified)
    assert blind.predicted.tolist() == [0, 1, -1]
    assert set(blind.actual.tolist()) == {-1}


def test_a_bundles_own_reference() -> None:
    columns = sample(100)
    content = make_reference(REGRESSION, columns, Linear().predict(columns), np.arange(100.0))
    table = pa.parquet.read_table(pa.BufferReader(content))
    window = logged_window(read_table(table)[0], REGRESSION)
    assert isinstance(window, Regressed)
    assert window.actual.tolist() == list(range(100))
    assert set(window.features) == {"a", "b", "c"}


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"has no column 'output.probabilities'"):
        logged_window(ROWS.drop_columns(["output.probabilities"]), CLASSIFIER)
    with pytest.raises(InvalidInput, match="holds 'maybe', which is none of the classes no, yes"):
        logged_window(ROWS.set_column(3, "label", pa.array(["maybe"] * 3)), CLASSIFIER)
    wide = ROWS.set_column(2, "output.probabilities", pa.array([[0.1, 0.2, 0.7]] * 3))
    with pytest.raises(InvalidInput, match="must hold 2 numbers a row"):
        logged_window(wide, CLASSIFIER)
    other = Contract(inputs=CLASSIFIER.inputs, outputs=CLASSIFIER.outputs, task=Task.anomaly)
    with pytest.raises(InvalidInput, match="of the task anomaly"):
        logged_window(ROWS, other)
