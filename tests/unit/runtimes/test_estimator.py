from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fairway.core.columns import Columns
from fairway.core.contract import Task
from fairway.core.errors import ModelFailed, UnknownFormat
from fairway.runtimes.estimator import EstimatorEngine, input_form, pandas_dtype, task_of, to_frame

_rng = np.random.default_rng(0)
ROWS = _rng.normal(size=(80, 3))
BINARY = (ROWS[:, 0] > 0).astype(int)
NAMED = np.array(["low", "mid", "high"])[np.digitize(ROWS[:, 0], [-0.5, 0.5])]
FIELDS = ("a", "b", "c")
COLUMNS = Columns(FIELDS, 80, packed=ROWS)


def engine(model: Any, form: Any = "matrix") -> EstimatorEngine:
    return EstimatorEngine(model, FIELDS, task_of(model), form, dict.fromkeys(FIELDS, "float64"))


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        RandomForestClassifier(5, random_state=0),
        KNeighborsClassifier(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
    ],
    ids=str,
)
def test_classifiers_give_labels_and_probabilities(model: Any) -> None:
    model.fit(ROWS, NAMED)
    outputs = engine(model).predict(COLUMNS)
    assert outputs["label"].dtype == object
    assert outputs["label"].tolist() == model.predict(ROWS).tolist()
    assert np.array_equal(outputs["probabilities"], model.predict_proba(ROWS))


def test_classifiers_without_probabilities_give_scores() -> None:
    outputs = engine(LinearSVC().fit(ROWS, BINARY)).predict(COLUMNS)
    assert outputs.keys() == {"label", "score"}
    assert np.array_equal(outputs["label"], (outputs["score"] > 0).astype(int))


def test_regressors_anomaly_detectors_and_clusterers() -> None:
    regressor = LinearRegression().fit(ROWS, ROWS[:, 0])
    assert np.allclose(engine(regressor).predict(COLUMNS)["prediction"], ROWS[:, 0])
    detector = IsolationForest(n_estimators=10, random_state=0).fit(ROWS)
    outputs = engine(detector).predict(COLUMNS)
    assert set(outputs["label"].tolist()) <= {1, -1}
    assert np.array_equal(outputs["label"] == -1, outputs["score"] < 0)
    clusters = KMeans(2, n_init=1, random_state=0).fit(ROWS)
    assert engine(clusters).predict(COLUMNS).keys() == {"label"}


def test_several_targets() -> None:
    model = RandomForestClassifier(5, random_state=0).fit(ROWS, np.stack([BINARY, BINARY], axis=1))
    outputs = engine(model).predict(COLUMNS)
    assert outputs.keys() == {"label", "probabilities_0", "probabilities_1"}
    assert outputs["label"].shape == (80, 2)


def test_tasks() -> None:
    assert task_of(make_pipeline(StandardScaler(), LinearRegression())) is Task.regression
    with pytest.raises(UnknownFormat, match="StandardScaler has no predict"):
        task_of(StandardScaler())

    class Strange:
        def predict(self, rows: Any) -> Any:
            return rows

    with pytest.raises(UnknownFormat, match=r"file\.py:function"):
        task_of(Strange())


def test_models_that_rank() -> None:
    assert task_of(xgboost.XGBRanker()) is Task.regression
    with pytest.raises(UnknownFormat, match=r"booster_\.save_model"):
        task_of(lightgbm.LGBMRanker())


def test_a_model_that_fails_says_why() -> None:
    model = engine(LogisticRegression().fit(ROWS, BINARY))
    with pytest.raises(ModelFailed, match="LogisticRegression raised ValueError"):
        model.predict(Columns(FIELDS, 1, packed=np.full((1, 3), np.nan)))


def test_columns_go_in_under_the_names_the_model_knows() -> None:
    frame = pd.DataFrame(ROWS, columns=["c", "a", "b"])
    model = LogisticRegression().fit(frame, BINARY)
    columns = Columns(FIELDS, 80, arrays=[ROWS[:, 1], ROWS[:, 2], ROWS[:, 0]])
    outputs = engine(model, "frame").predict(columns)
    assert outputs["label"].tolist() == model.predict(frame).tolist()


def test_a_frame_comes_back_as_it_was() -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "text": ["x", None, "y"],
            "codes": pd.Categorical([1, 2, 1]),
            "names": pd.Categorical(["u", None, "v"]),
            "moment": pd.to_datetime(["2020-01-01"] * 3),
            "there": pd.to_datetime(["2020-01-01"] * 3).tz_localize("Europe/Berlin"),
            "number": [1.0, 2.0, 3.0],
            "single": np.array([1, 2, 3], np.float32),
            "nan": pd.Series(["a", np.nan, "b"], dtype=object),
            "none": pd.Series(["a", None, "b"], dtype=object),
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "flag": [True, False, True],
        }
    )
    text = np.array(["a", None, "b"], dtype=object)
    canonical = {
        "whole": np.array([1, np.nan, 3]),
        "text": np.array(["x", None, "y"], dtype=object),
        "codes": np.array([1, 2, 1]),
        "names": np.array(["u", None, "v"], dtype=object),
        "moment": np.array(["2020-01-01"] * 3, dtype="M8[us]"),
        "there": np.array(["2019-12-31T23:00"] * 3, dtype="M8[us]"),
        "number": np.array([1.0, 2.0, 3.0]),
        "single": np.array([1, 2, 3], np.float32),
        "nan": text,
        "none": text,
        "maybe": np.array([1, np.nan, 0]),
        "flag": np.array([True, False, True]),
    }
    columns = Columns(tuple(canonical), 3, arrays=list(canonical.values()))
    dtypes = {name: pandas_dtype(frame[name]) for name in frame}
    pd.testing.assert_frame_equal(to_frame(columns, list(canonical), dtypes), frame)


def test_an_unseen_category_becomes_missing() -> None:
    columns = Columns(("c",), 2, arrays=[np.array(["u", "new"], dtype=object)])
    frame = to_frame(columns, ["c"], {"c": 'category:["u", "v"]'})
    assert frame["c"].isna().tolist() == [False, True]
    assert frame["c"].cat.categories.tolist() == ["u", "v"]


def test_input_forms() -> None:
    assert input_form({}) == "frame"
    assert input_form({"input": "column"}) == "column"
    with pytest.raises(UnknownFormat, match="cube"):
        input_form({"input": "cube"})
