"""A column that no graph can take does not stop a conversion, unless some step reads it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairway.packaging.contract import infer_contract
from fairway.packaging.conversion.engine import ChosenEngine, ConversionOptions, choose_engine
from fairway.packaging.conversion.feeding import feed_block
from fairway.packaging.conversion.graph import Graph, Unsupported
from fairway.packaging.opening import open_model
from fairway.packaging.sample import read_sample

ROWS = 200
FRAME = pd.DataFrame(
    {
        "at": pd.date_range("2026-01-01", periods=ROWS, freq="h", tz="UTC"),
        "a": np.random.default_rng(1).normal(size=ROWS),
        "b": np.random.default_rng(2).normal(size=ROWS),
    }
)
TARGET = FRAME["a"] > FRAME["b"]


def chosen(columns: list[tuple]) -> ChosenEngine:
    model = make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(FRAME, TARGET)
    sample = read_sample(FRAME)
    contract = infer_contract(sample)
    return choose_engine(
        open_model(model), sample, contract, options=ConversionOptions(), progress=lambda *_: None
    )


@pytest.mark.parametrize("dropped", [[], [("time", "drop", ["at"])]], ids=["remainder", "drop"])
def test_a_timestamp_that_is_dropped_is_not_fed(dropped: list[tuple]) -> None:
    engine = chosen([("numbers", StandardScaler(), ["b", "a"]), *dropped])
    assert engine.spec.kind == "onnx", engine.proof.reason
    assert engine.proof.label_flips == 0
    assert all("at" not in feed.fields for feed in engine.spec.feeds)


def test_a_timestamp_that_is_read_is_named() -> None:
    graph = Graph("float32")
    contract = infer_contract(read_sample(FRAME))
    block, _ = feed_block(graph, contract, ("at", "a", "b"), "frame")
    assert graph.matrix(block.pick([1, 2])).width == 2
    with pytest.raises(Unsupported, match="'at': a timestamp column"):
        graph.matrix(block)
