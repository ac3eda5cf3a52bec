"""The sample is fitted to the model: its columns, its order, its names, and nothing else."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import onnx
import onnx.helper
import pandas as pd
import pytest
import xgboost
from catboost import CatBoostRegressor
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairway.core.contract import DType
from fairway.core.errors import MalformedInput
from fairway.packaging.features import fit_sample, model_features
from fairway.packaging.sample import read_sample
from fairway.packaging.source import SourceModel

FRAME = pd.DataFrame({"a b": [1.0, 2.0, 3.0], "c": [4.0, 5.0, 7.0]})
TARGET = [1.0, 2.0, 4.0]


def columns(source: SourceModel, data: Any) -> list[str]:
    return [str(name) for name in fit_sample(source, read_sample(data))[0].frame.columns]


def linear(data: Any = FRAME) -> SourceModel:
    return SourceModel("sklearn", LinearRegression().fit(data, TARGET))


def test_order_and_extras() -> None:
    data = FRAME[["c", "a b"]].assign(z=1)
    sample, notes = fit_sample(linear(), read_sample(data))
    assert list(sample.frame.columns) == ["a b", "c"]
    assert notes == ("The model does not use z: left out of the contract.",)


def test_types_of_gaps_survive() -> None:
    sample, _ = fit_sample(linear(), read_sample({"c": [1, None], "a b": [1.0, 2.0]}))
    assert sample.dtypes == {"c": DType.int64}


def test_an_array_for_a_model_with_names() -> None:
    sample, notes = fit_sample(linear(), read_sample(np.ones((4, 2))))
    assert (list(sample.frame.columns), sample.as_frame) == (["a b", "c"], True)
    assert "in the model's order" in notes[0]


def test_names_for_a_model_fitted_on_an_array() -> None:
    sample, _ = fit_sample(linear(FRAME.to_numpy()), read_sample(FRAME))
    assert (list(sample.frame.columns), sample.as_frame) == (["a b", "c"], False)
    with pytest.raises(MalformedInput, match="--target COLUMN"):
        fit_sample(linear(FRAME.to_numpy()), read_sample(FRAME.assign(y=1)))


def test_names_that_look_made_up_count_when_the_sample_has_them() -> None:
    plain = FRAME.set_axis(["f0", "f1"], axis=1)
    assert columns(linear(plain), plain.assign(y=1)[["y", "f1", "f0"]]) == ["f0", "f1"]


def test_text_pipelines_count_no_features() -> None:
    texts = ["good day", "bad day", "good", "bad"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    sample, _ = fit_sample(SourceModel("sklearn", model), read_sample({"text": texts}))
    assert list(sample.frame.columns) == ["text"]


@pytest.mark.parametrize("named", [True, False])
def test_boosters(named: bool) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a_b", "c"])
    data = frame if named else frame.to_numpy()
    target = frame["c"].to_numpy()
    light = lightgbm.train({"verbose": -1}, lightgbm.Dataset(data, target), num_boost_round=2)
    extreme = xgboost.train({}, xgboost.DMatrix(data, target), num_boost_round=2)
    cat = CatBoostRegressor(iterations=2, verbose=False, allow_writing_files=False).fit(data, target)
    for kind, model in (("lightgbm", light), ("xgboost", extreme), ("catboost", cat)):
        source = SourceModel(kind, model)
        assert columns(source, frame) == ["a_b", "c"]
        assert model_features(source)[1] == 2
        if named:
            assert columns(source, frame.assign(z=1)[["z", "c", "a_b"]]) == ["a_b", "c"]
    if named:  # LightGBM stores blanks as underscores
        assert columns(SourceModel("lightgbm", light), frame.rename(columns={"a_b": "a b"})) == ["a_b", "c"]


def test_a_function_takes_everything() -> None:
    assert columns(SourceModel("python", lambda frame: frame), FRAME) == ["a b", "c"]


class TestGraphs:
    def graph(self, *inputs: tuple[str, int, list[Any]]) -> SourceModel:
        values = [onnx.helper.make_tensor_value_info(*given) for given in inputs]
        outputs = [
            onnx.helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in inputs
        ]
        nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
        model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", values, outputs))
        return SourceModel("onnx", model.SerializeToString())

    def test_names_and_types_are_the_graphs(self) -> None:
        source = self.graph(
            ("age", onnx.TensorProto.INT64, ["n", 1]),
            ("income", onnx.TensorProto.FLOAT, ["n", 1]),
            ("kind", onnx.TensorProto.STRING, ["n"]),
            ("image", onnx.TensorProto.FLOAT, ["n", 2, 2]),
        )
        data = {"kind": ["x"], "z": [1], "income": [3], "age": [4.0], "image": np.zeros((1, 2, 2), np.uint8)}
        sample, notes = fit_sample(source, read_sample(data))
        assert {name: str(dtype) for name, dtype in sample.frame.dtypes.items()} == {
            "age": "int64",
            "income": "float32",
            "kind": "str",
        } or sample.frame["kind"].tolist() == ["x"]
        assert sample.tensors["image"].dtype == np.float32
        assert notes == ("The graph does not use z: left out of the contract.",)
        with pytest.raises(MalformedInput, match="lacks inputs of the graph: age"):
            fit_sample(source, read_sample({name: data[name] for name in ("kind", "income", "image")}))

    def test_gaps_in_whole_numbers_stay_whole(self) -> None:
        source = self.graph(("age", onnx.TensorProto.INT64, ["n", 1]))
        sample, _ = fit_sample(source, read_sample({"age": [4.0, None]}))
        assert sample.dtypes == {"age": DType.int64}

    def test_one_tensor_needs_no_name(self) -> None:
        source = self.graph(("image", onnx.TensorProto.FLOAT, ["n", 2, 2]))
        assert list(fit_sample(source, read_sample(np.zeros((3, 2, 2))))[0].tensors) == ["image"]
        with pytest.raises(MalformedInput, match="'image' is float32"):
            fit_sample(source, read_sample(np.zeros((3, 2, 3))))
        column = self.graph(("only", onnx.TensorProto.FLOAT, ["n", 1]))
        assert columns(column, {"whatever": [1.0, 2.0]}) == ["only"]


class Doubled(TransformerMixin, BaseEstimator):
    """Somebody's own step, which counts its features and remembers no names."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X * 2


def test_a_first_step_that_forgets_names_was_given_a_frame_when_a_later_one_knows_them() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.0, 1.0, 0.0, 1.0]})
    named = make_pipeline(Doubled(), StandardScaler(), LogisticRegression()).fit(frame, [0, 1, 0, 1])
    bare = make_pipeline(Doubled(), StandardScaler(), LogisticRegression()).fit(
        frame.to_numpy(), [0, 1, 0, 1]
    )
    for model, as_frame in ((named, True), (bare, False)):
        fitted, notes = fit_sample(SourceModel("sklearn", model), read_sample(frame))
        assert (fitted.as_frame, notes) == (as_frame, ())
