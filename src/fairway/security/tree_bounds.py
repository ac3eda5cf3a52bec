"""Checks that decision trees point only at their own nodes and features.

scikit-learn follows the child and feature numbers of a stored tree without looking at them, so a crafted file
of nothing but allowed types could still make `predict` read outside the array, or go round for ever. Called
after a pickle or skops file is opened, before anything is predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairway.core.errors import CorruptBundle

_TREE = "sklearn.tree._tree"
_WHOLE_ROWS = ("sklearn.ensemble._forest", "sklearn.ensemble._gb")
"""Ensembles that hand whole rows to their trees, past the trees' own checks."""
_HISTOGRAM_TREE = "sklearn.ensemble._hist_gradient_boosting.predictor"


def check_trees(model: Any) -> int:
    """Returns how many trees were looked at; raises `CorruptBundle` at the first that points outside itself."""
    try:
        return _walk(model)
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise CorruptBundle(
            f"a model in the file is damaged ({error}).", hint="Save the model again."
        ) from error


def _walk(model: Any) -> int:
    seen: set[int] = set()
    pending = [model]
    trees = 0
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        kind = type(item)
        if kind.__module__ == _TREE and kind.__name__ == "Tree":
            _check_tree(item)
            trees += 1
        elif kind.__module__ == _HISTOGRAM_TREE and kind.__name__ == "TreePredictor":
            _check_histogram_tree(item)
            trees += 1
        elif isinstance(item, dict):
            pending.extend(part for part in item.values() if not isinstance(part, (str, int, float)))
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending.extend(part for part in item if not isinstance(part, (str, int, float)))
        elif isinstance(item, np.ndarray):
            if item.dtype == object:
                pending.extend(item.ravel().tolist())
        elif isinstance(getattr(item, "__dict__", None), dict) and not isinstance(item, type):
            _check_features(item)
            pending.extend(vars(item).values())
    return trees


def _check_features(estimator: Any) -> None:
    """Rows are checked against the outermost `n_features_in_` alone, so the trees below must not test more."""
    attributes = vars(estimator)
    features = attributes.get("n_features_in_")
    module = type(estimator).__module__
    inner = [estimator]
    if module in _WHOLE_ROWS:
        inner += np.ravel(np.asarray(attributes.get("estimators_", ()), dtype=object)).tolist()
    for one in inner:
        tree = getattr(one, "__dict__", {}).get("tree_")
        if tree is not None:
            _require(features == tree.n_features, "it tests features the model does not have")
    for predictor in np.ravel(np.asarray(attributes.get("_predictors", ()), dtype=object)).tolist():
        nodes = getattr(predictor, "nodes", None)
        if nodes is not None and len(nodes):
            fits = isinstance(features, int) and int(nodes["feature_idx"].max()) < features
            _require(fits, "it tests features the model does not have")


def _check_tree(tree: Any) -> None:
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = np.flatnonzero(left != -1)
    if tree.node_count == 0:
        return
    _require(np.array_equal(left == -1, right == -1), "a node has one child")
    _check_children(inner, left[inner], right[inner], tree.node_count)
    _require(
        bool(np.all((feature[inner] >= 0) & (feature[inner] < tree.n_features))), "a node tests no feature"
    )


def _check_histogram_tree(predictor: Any) -> None:
    nodes = predictor.nodes
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    _check_children(
        inner, nodes["left"][inner].astype(np.int64), nodes["right"][inner].astype(np.int64), len(nodes)
    )
    _require(bool(np.all(nodes["feature_idx"][inner] >= 0)), "a node tests no feature")
    categorical = nodes["is_categorical"][inner] != 0
    sets = nodes["bitset_idx"][inner][categorical]
    known = min(len(predictor.raw_left_cat_bitsets), len(predictor.binned_left_cat_bitsets))
    _require(bool(np.all(sets < known)), "a node tests categories that are not there")


def _check_children(inner: Any, left: Any, right: Any, count: int) -> None:
    """Builders number a child after its parent, so anything else is either outside or a loop."""
    for child in (left, right):
        _require(bool(np.all((child > inner) & (child < count))), "a node points outside its tree")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise CorruptBundle(
            f"a decision tree in the file is damaged: {what}.",
            hint="It was altered, or saved by another version of scikit-learn: train or save the model again.",
        )
