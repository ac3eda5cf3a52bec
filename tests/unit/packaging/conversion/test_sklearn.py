from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairway.packaging.conversion.graph import Block, Graph, MixedTrees, NothingToChange
from fairway.packaging.conversion.sklearn import convert_estimator, preparation

IRIS = load_iris(return_X_y=True)


def run(graph: Graph, model: Any, rows: Any) -> dict[str, Any]:
    tensor = graph.input("rows", graph.number, rows.shape[1])
    converted = convert_estimator(graph, model, Block.of(tensor))
    session = ort.InferenceSession(converted.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"rows": rows.astype(graph.numpy_number)}), strict=True))


def test_exact_sums_give_the_forests_own_probabilities_to_the_last_bits() -> None:
    model = RandomForestClassifier(7, max_depth=3, random_state=0).fit(*IRIS)
    outputs = run(Graph("float64", exact_trees=True, copy_trees=True), model, IRIS[0])
    assert np.abs(outputs["probabilities"] - model.predict_proba(IRIS[0])).max() <= 2**-52
    assert np.array_equal(outputs["label"], model.predict(IRIS[0]))


def test_exact_trees_copy_nothing_unless_told() -> None:
    model = RandomForestClassifier(3, random_state=0).fit(*IRIS)
    with pytest.raises(MixedTrees):
        run(Graph("float64", exact_trees=True), model, IRIS[0])


def test_exact_sums_are_for_votes_alone() -> None:
    rows, target = load_diabetes(return_X_y=True)
    for model in (
        RandomForestRegressor(3, random_state=0).fit(rows, target),
        LogisticRegression(max_iter=500).fit(*IRIS),
    ):
        with pytest.raises(NothingToChange):
            run(Graph("float64", exact_trees=True, copy_trees=True), model, rows[:, : model.n_features_in_])


def test_searches_are_looked_into() -> None:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2
    )
    steps, last = preparation(search.fit(*IRIS))
    assert [type(step) for step in steps] == [StandardScaler]
    assert type(last) is LogisticRegression
    outputs = run(Graph("float32"), search, IRIS[0])
    assert np.array_equal(outputs["label"], search.predict(IRIS[0]))
