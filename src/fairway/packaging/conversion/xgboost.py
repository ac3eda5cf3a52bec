"""XGBoost boosters in the common tree form.

Read from the booster's own JSON (format of XGBoost 3): float32 thresholds compared with `<`, category splits
whose listed categories go right, a base score per target in the space of the answers.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.contract import Task
from fairway.packaging.conversion.forest import Tree, join
from fairway.packaging.conversion.graph import Unsupported
from fairway.packaging.conversion.tree_model import Link, TreeModel

_IDENTITY = (
    "reg:squarederror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "reg:squaredlogerror",
    "rank:ndcg",
    "rank:map",
    "rank:pairwise",
)
_EXP = ("count:poisson", "reg:gamma", "reg:tweedie")


def read_xgboost(booster: Any, *, classes: Array | None = None, rounds: int | None = None) -> TreeModel:
    """`rounds` limits the boosting rounds (early stopping); `classes` are the labels, 0.. when not given."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    gradient = learner["gradient_booster"]
    weights = gradient.get("weight_drop")
    gradient = gradient.get("gbtree", gradient)
    if "model" not in gradient or "trees" not in gradient["model"]:
        raise Unsupported("an XGBoost booster that is not made of trees")
    model = gradient["model"]
    until = len(model["trees"]) if rounds is None else model["iteration_indptr"][rounds]
    if any(tree["tree_param"]["size_leaf_vector"] not in ("0", "1") for tree in model["trees"]):
        raise Unsupported("XGBoost trees with vector leaves")
    groups = model["tree_info"]
    trees = [
        _tree(model["trees"][i], groups[i], 1.0 if weights is None else weights[i]) for i in range(until)
    ]
    if not trees:
        raise Unsupported("an XGBoost booster without trees")
    objective = learner["objective"]["name"]
    task, link = _meaning(objective)
    scores = np.array(json.loads(learner["learner_model_param"]["base_score"]), float).reshape(-1)
    targets = max(
        int(learner["learner_model_param"]["num_class"]), int(learner["learner_model_param"]["num_target"]), 1
    )
    base = np.resize(_margin(scores, link), targets)
    features = int(learner["learner_model_param"]["num_feature"])
    forest = join(trees, features=features, targets=targets, strict=True, base=base)
    categories = {i: values for i, values in enumerate(_categories(model.get("cats"))) if values}
    if task is Task.classification and classes is None:
        classes = np.arange(max(targets, 2))
    return TreeModel(forest, task, link, classes=classes, categories=categories)


def _tree(tree: dict[str, Any], target: int, weight: float) -> Tree:
    left = np.array(tree["left_children"], np.int64)
    right = np.array(tree["right_children"], np.int64)
    missing_left = np.array(tree["default_left"], bool)
    conditions = np.array(tree["split_conditions"], np.float32)
    members = {}
    for node, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        members[node] = [float(value) for value in tree["categories"][start : start + size]]
        left[node], right[node] = right[node], left[node]  # the listed categories go right
        missing_left[node] = not missing_left[node]
    return Tree(
        feature=np.array(tree["split_indices"], np.int64),
        threshold=conditions.astype(float),
        left=left,
        right=right,
        missing_left=missing_left,
        leaf=np.float32(weight) * conditions,
        target=target,
        members=members,
    )


def _meaning(objective: str) -> tuple[Task, Link]:
    if objective == "binary:logistic":
        return Task.classification, "sigmoid"
    if objective == "multi:softprob":
        return Task.classification, "softmax"
    if objective == "reg:logistic":
        return Task.regression, "sigmoid"
    if objective in _IDENTITY:
        return Task.regression, "identity"
    if objective in _EXP:
        return Task.regression, "exp"
    raise Unsupported(f"the XGBoost objective {objective!r}")


def _margin(scores: Array, link: Link) -> Array:
    if link == "sigmoid":
        return np.log(scores / (1.0 - scores))
    return np.log(scores) if link == "exp" else scores


def _categories(cats: dict[str, Any] | None) -> list[list[Any]]:
    """Per feature, its categories in the order of their codes; empty for numbers."""
    values: list[list[Any]] = []
    for encoding in (cats or {}).get("enc", []):
        if "offsets" in encoding:
            text, ends = bytes(encoding["values"]), encoding["offsets"]
            values.append([text[a:b].decode() for a, b in itertools.pairwise(ends)])
        else:
            values.append(list(encoding["values"]))
    return values
