from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from onnx import TensorProto
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from fairway.packaging.conversion.graph import NULL, Block, Graph, Unsupported
from fairway.packaging.conversion.sklearn import apply_step

NAN = float("nan")
_rng = np.random.default_rng(0)
NUMBERS = _rng.normal(size=(60, 3)) * [1.0, 1000.0, 0.001]
GAPS = np.where(_rng.random(NUMBERS.shape) < 0.2, NAN, NUMBERS)
CODES = _rng.integers(0, 4, (60, 2)).astype(float)
TEXTS = np.array(_rng.choice(["a", "b", "c", None], (60, 2), p=[0.5, 0.3, 0.1, 0.1]), dtype=object)
FULL_TEXTS = np.array(_rng.choice(["a", "b", "c"], (60, 2), p=[0.7, 0.2, 0.1]), dtype=object)
NEW_TEXTS = np.array([["a", "z"], ["z", "b"]], dtype=object)


def converted(step: Any, rows: Any, *, precision: Any = "float64") -> Any:
    """What the translated step gives for rows of numbers or of text."""
    graph = Graph(precision)
    is_text = rows.dtype == object
    if is_text:
        rows = np.where(rows == None, NULL, rows)  # noqa: E711 - elementwise
    kind = TensorProto.STRING if is_text else graph.number
    tensor = graph.input("rows", kind, rows.shape[1])
    result = graph.matrix(apply_step(graph, step, Block.of(tensor)))
    model = graph.finish({"out": result.name})
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"rows": rows if is_text else rows.astype(graph.numpy_number)})[0]


def expected(step: Any, rows: Any) -> Any:
    answer = step.transform(rows)
    return answer.toarray() if hasattr(answer, "toarray") else answer


@pytest.mark.parametrize(
    "step",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        StandardScaler(with_std=False),
        RobustScaler(),
        MaxAbsScaler(),
        FunctionTransformer(),
        FunctionTransformer(np.abs),
        make_pipeline(StandardScaler(), RobustScaler()),
        FeatureUnion([("a", StandardScaler()), ("b", RobustScaler())]),
    ],
    ids=str,
)
def test_numbers_are_prepared_to_the_last_bit(step: Any) -> None:
    step = step.fit(NUMBERS)
    assert np.array_equal(converted(step, NUMBERS), step.transform(NUMBERS))


@pytest.mark.parametrize(
    ("step", "rows"),
    [
        (MinMaxScaler((-1, 2)), NUMBERS),
        (MinMaxScaler(clip=True), NUMBERS),
        (
            FunctionTransformer(np.log1p),
            np.array([[0.0, 1e-12, -0.5], [1e300, NAN, 3.0], [np.inf, -1e-20, 1e16]]),
        ),
        (SimpleImputer(), GAPS),
        (SimpleImputer(strategy="median", add_indicator=True), GAPS),
        (SimpleImputer(strategy="constant", fill_value=-1), GAPS),
        (SimpleImputer(missing_values=0, strategy="most_frequent"), CODES),
        (OneHotEncoder(), CODES),
        (OneHotEncoder(drop="first"), CODES),
        (OneHotEncoder(handle_unknown="ignore"), np.where(CODES == 3, NAN, CODES)),
        (OrdinalEncoder(), CODES),
        (OrdinalEncoder(encoded_missing_value=-1), np.where(CODES == 3, NAN, CODES)),
    ],
    ids=str,
)
def test_number_columns(step: Any, rows: Any) -> None:
    step = step.fit(rows)
    assert np.allclose(converted(step, rows), expected(step, rows), rtol=1e-14, atol=0, equal_nan=True)


def test_other_steps_go_through_the_stock_converter() -> None:
    step = PolynomialFeatures(2).fit(NUMBERS)
    assert np.allclose(converted(step, NUMBERS), step.transform(NUMBERS), rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "rows"),
    [
        (OneHotEncoder(), FULL_TEXTS),
        (OneHotEncoder(drop="if_binary"), FULL_TEXTS),
        (OneHotEncoder(handle_unknown="ignore"), TEXTS),
        (OneHotEncoder(min_frequency=0.25, handle_unknown="infrequent_if_exist"), FULL_TEXTS),
        (OneHotEncoder(min_frequency=0.25, handle_unknown="ignore"), FULL_TEXTS),
        (OrdinalEncoder(), FULL_TEXTS),
        (
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
            TEXTS,
        ),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=NAN), FULL_TEXTS),
    ],
    ids=str,
)
def test_text_columns(step: Any, rows: Any) -> None:
    step = step.fit(rows)
    assert np.array_equal(converted(step, rows), expected(step, rows), equal_nan=True)
    if step.handle_unknown != "error":
        unseen = np.array(NEW_TEXTS)
        assert np.array_equal(converted(step, unseen), _quietly(step, unseen), equal_nan=True)


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def _quietly(step: Any, rows: Any) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "unknown categories", which is the point
        return expected(step, rows)


@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
def test_missing_text_is_filled_in(strategy: str) -> None:
    step = SimpleImputer(
        missing_values=None, strategy=strategy, fill_value="gone" if strategy == "constant" else None
    )
    step.fit(TEXTS)
    assert converted(step, TEXTS).tolist() == step.transform(TEXTS).tolist()


def test_columns_may_be_picked_in_every_way() -> None:
    frame = pd.DataFrame(NUMBERS, columns=["a", "b", "c"])
    selections: list[Any] = [["c", "a"], [2, 0], slice(1, 3), [False, True, True], lambda f: ["b"], -1]
    for selected in selections:
        for remainder in ("drop", "passthrough"):
            wanted = [selected] if isinstance(selected, int) else selected
            step = ColumnTransformer([("s", StandardScaler(), wanted)], remainder=remainder).fit(frame)
            graph = Graph("float64")
            tensor = graph.input("rows", graph.number, 3)
            block = apply_step(graph, step, Block(Block.of(tensor).columns, ("a", "b", "c")))
            model = graph.finish({"out": graph.matrix(block).name})
            answer = ort.InferenceSession(model.SerializeToString()).run(None, {"rows": NUMBERS})[0]
            assert np.array_equal(answer, step.transform(frame))


@pytest.mark.parametrize(
    ("step", "rows", "words"),
    [
        (FunctionTransformer(np.cbrt), NUMBERS, "cbrt"),
        (OneHotEncoder(drop="first", min_frequency=0.25), FULL_TEXTS, "infrequent"),
        (OrdinalEncoder(min_frequency=0.25), FULL_TEXTS, "infrequent"),
        (SimpleImputer(missing_values=None, strategy="most_frequent", add_indicator=True), TEXTS, "on text"),
    ],
    ids=str,
)
def test_what_has_no_translation_says_so(step: Any, rows: Any, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        converted(step.fit(rows), rows)
