"""scikit-learn's own tree models in the common form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from fairway.core.columns import Array
from fairway.core.contract import Task
from fairway.packaging.conversion.forest import Tree, join
from fairway.packaging.conversion.graph import Unsupported
from fairway.packaging.conversion.tree_model import TreeModel


def read_sklearn_trees(estimator: Any) -> TreeModel | None:
    """The tree model inside `estimator`, or None when it is not one of scikit-learn's. Subclasses are not
    taken for their parents: they may predict differently."""
    reader = _READERS.get(type(estimator))
    return None if reader is None else reader(estimator)


def _tree(fitted: Any, leaf: Array, target: int = 0, features: Array | None = None) -> Tree:
    tree = fitted.tree_
    feature = tree.feature if features is None else np.asarray(features)[np.maximum(tree.feature, 0)]
    return Tree(
        feature=feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=np.asarray(tree.missing_go_to_left, bool),
        leaf=leaf,
        target=target,
    )


def _forest_classifier(model: Any) -> TreeModel:
    if model.n_outputs_ > 1:
        raise Unsupported(f"{type(model).__name__} of several targets")
    members = getattr(model, "estimators_", None) or [model]
    trees = [_tree(member, member.tree_.value[:, 0, :]) for member in members]
    forest = join(
        trees, features=model.n_features_in_, targets=len(model.classes_), divisor=float(len(trees))
    )
    return TreeModel(forest, Task.classification, "share", classes=np.asarray(model.classes_))


def _forest_regressor(model: Any) -> TreeModel:
    members = getattr(model, "estimators_", None) or [model]
    targets = model.n_outputs_
    values = [member.tree_.value[:, :, 0] for member in members]
    trees = [
        _tree(member, value[:, 0] if targets == 1 else value)
        for member, value in zip(members, values, strict=True)
    ]
    forest = join(trees, features=model.n_features_in_, targets=targets, divisor=float(len(trees)))
    return TreeModel(forest, Task.regression, "identity")


def _gradient_boosting(model: Any) -> TreeModel:
    base = None
    if model.init_ != "zero":
        if not isinstance(model.init_, (DummyClassifier, DummyRegressor)):
            raise Unsupported(f"gradient boosting that starts from a {type(model.init_).__name__}")
        base = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0]  # a constant
    stages, targets = model.estimators_.shape
    trees = [
        _tree(model.estimators_[i, k], model.estimators_[i, k].tree_.value[:, 0, 0] * model.learning_rate, k)
        for i in range(stages)
        for k in range(targets)
    ]
    forest = join(trees, features=model.n_features_in_, targets=targets, base=base)
    if isinstance(model, GradientBoostingRegressor):
        return TreeModel(forest, Task.regression, "identity")
    if targets > 1:
        return TreeModel(forest, Task.classification, "softmax", classes=np.asarray(model.classes_))
    slope = 2.0 if model.loss == "exponential" else 1.0
    classes = np.asarray(model.classes_)
    return TreeModel(forest, Task.classification, "sigmoid", classes=classes, first_at_tie=False, slope=slope)


def _hist_gradient_boosting(model: Any) -> TreeModel:
    targets = model.n_trees_per_iteration_
    trees = [_hist_tree(tree, k) for stage in model._predictors for k, tree in enumerate(stage)]
    base = np.asarray(model._baseline_prediction, float).reshape(-1)
    forest = join(trees, features=model.n_features_in_, targets=targets, base=base, compares="float64")
    before = model._preprocessor
    if isinstance(model, HistGradientBoostingRegressor):
        link = "exp" if model.loss in ("poisson", "gamma") else "identity"
        return TreeModel(forest, Task.regression, link, before=before)  # type: ignore[arg-type]
    classes = np.asarray(model.classes_)
    return TreeModel(
        forest,
        Task.classification,
        "softmax" if targets > 1 else "sigmoid",
        classes=classes,
        before=before,
    )


def _hist_tree(predictor: Any, target: int) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    members = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
        words = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        bits = np.unpackbits(np.ascontiguousarray(words, "<u4").view(np.uint8), bitorder="little")
        members[int(node)] = [float(code) for code in np.flatnonzero(bits)]
    return Tree(
        feature=nodes["feature_idx"],
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        leaf=nodes["value"],
        target=target,
        members=members,
    )


def _isolation_forest(model: Any) -> TreeModel:
    trees = []
    for i, (member, features) in enumerate(zip(model.estimators_, model.estimators_features_, strict=True)):
        depth = model._decision_path_lengths[i] + model._average_path_length_per_tree[i] - 1.0
        trees.append(_tree(member, np.asarray(depth, float), features=features))
    forest = join(trees, features=model.n_features_in_, targets=1)
    normaliser = len(trees) * _average_path_length(model._max_samples)
    if normaliser == 0:
        raise Unsupported("an isolation forest fitted on a single row")
    slope, offset = 1.0 / normaliser, float(model.offset_)
    return TreeModel(forest, Task.anomaly, "isolation", slope=slope, offset=offset)


def _average_path_length(rows: int) -> float:
    """Mean path of an unsuccessful search in a binary search tree of `rows` (Liu, Ting, Zhou 2008, eq. 1)."""
    if rows <= 1:
        return 0.0
    if rows == 2:
        return 1.0
    return 2.0 * (float(np.log(rows - 1.0)) + float(np.euler_gamma)) - 2.0 * (rows - 1.0) / rows


_READERS: dict[type, Callable[[Any], TreeModel]] = {
    DecisionTreeClassifier: _forest_classifier,
    ExtraTreeClassifier: _forest_classifier,
    RandomForestClassifier: _forest_classifier,
    ExtraTreesClassifier: _forest_classifier,
    DecisionTreeRegressor: _forest_regressor,
    ExtraTreeRegressor: _forest_regressor,
    RandomForestRegressor: _forest_regressor,
    ExtraTreesRegressor: _forest_regressor,
    GradientBoostingClassifier: _gradient_boosting,
    GradientBoostingRegressor: _gradient_boosting,
    HistGradientBoostingClassifier: _hist_gradient_boosting,
    HistGradientBoostingRegressor: _hist_gradient_boosting,
    IsolationForest: _isolation_forest,
}
