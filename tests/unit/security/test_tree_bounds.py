from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fairway.core.errors import CorruptBundle
from fairway.packaging.skops_file import dump, load
from fairway.security.pickle_file import load_pickle
from fairway.security.tree_bounds import check_trees

X = np.random.default_rng(0).normal(size=(300, 5))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def _tree() -> Any:
    return DecisionTreeClassifier(random_state=0).fit(X, Y)


def _altered(model: Any, tree: Any, change: Callable[[Any], None]) -> Any:
    """Writes into the nodes of a tree, the way a crafted file would bring them."""
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    change(state["nodes"])
    tree.__setstate__(state)
    return model


@pytest.mark.parametrize(
    ("model", "trees"),
    [
        (DecisionTreeClassifier(max_leaf_nodes=9), 1),
        (DecisionTreeClassifier(ccp_alpha=0.01), 1),
        (RandomForestClassifier(5, max_leaf_nodes=20), 5),
        (ExtraTreesRegressor(4), 4),
        (GradientBoostingClassifier(n_estimators=3), 3),
        (HistGradientBoostingClassifier(max_iter=6, categorical_features=[4]), 6),
        (IsolationForest(n_estimators=3, max_features=2), 3),
        (BaggingClassifier(n_estimators=3, max_features=2), 3),
        (make_pipeline(StandardScaler(), RandomForestClassifier(2)), 2),
    ],
    ids=lambda value: str(value)[:40],
)
def test_real_trees_pass(model: Any, trees: int) -> None:
    rows = X.copy()
    rows[:, 4] = np.random.default_rng(1).integers(0, 8, len(rows))
    assert check_trees(model.fit(rows, Y)) == trees


CHANGES: dict[str, Callable[[Any], None]] = {
    "a child beyond the end": lambda nodes: nodes["left_child"].__setitem__(0, 10**6),
    "a child before the beginning": lambda nodes: nodes["right_child"].__setitem__(0, -5),
    "a loop": lambda nodes: nodes["left_child"].__setitem__(
        int(np.flatnonzero(nodes["left_child"] > 0)[-1]), 0
    ),
    "itself as a child": lambda nodes: nodes["left_child"].__setitem__(0, 0),
    "one child": lambda nodes: nodes["right_child"].__setitem__(0, -1),
    "a feature too many": lambda nodes: nodes["feature"].__setitem__(0, 5),
    "a feature below 0": lambda nodes: nodes["feature"].__setitem__(0, -7),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_damaged_nodes_are_found(change: str) -> None:
    model = _tree()
    _altered(model, model.tree_, CHANGES[change])
    for wrapped in (model, {"a": [model]}, np.array([model, None], dtype=object)):
        with pytest.raises(CorruptBundle, match="decision tree"):
            check_trees(wrapped)
    with pytest.raises(CorruptBundle):
        load_pickle(pickle.dumps(make_pipeline(model)))
    with pytest.raises(CorruptBundle):
        load(*dump(model))


def test_rows_narrower_than_the_trees() -> None:
    """The ensemble checks rows against its own number of features, then its trees read unchecked."""
    models = [
        _tree(),
        RandomForestClassifier(2).fit(X, Y),
        GradientBoostingClassifier(n_estimators=2).fit(X, Y),
        HistGradientBoostingClassifier(max_iter=2).fit(X, Y),
    ]
    for model in models:
        model.n_features_in_ = 1
        with pytest.raises(CorruptBundle, match="features the model does not have"):
            check_trees(model)


def test_damaged_histogram_trees() -> None:
    for field, value in (("left", 10**6), ("right", 0), ("feature_idx", 77), ("feature_idx", -3)):
        model = HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
        model._predictors[1][0].nodes[field][0] = value
        with pytest.raises(CorruptBundle):
            check_trees(model)


def test_forged_attributes() -> None:
    model = RandomForestClassifier(2).fit(X, Y)
    model._predictors = [HistGradientBoostingClassifier(max_iter=1).fit(X, Y)._predictors[0][0]]
    model._predictors[0].nodes = np.zeros(3)
    with pytest.raises(CorruptBundle):
        check_trees(model)
