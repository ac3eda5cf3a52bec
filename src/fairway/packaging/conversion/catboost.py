"""CatBoost models in the common tree form, read from CatBoost's own ONNX export.

The export is exact in its thresholds (float32 borders, `x > border`); CatBoost itself refuses to export models
with categorical or text features, and those run natively.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fairway.core.columns import Array
from fairway.core.contract import Task
from fairway.packaging.conversion.forest import Forest
from fairway.packaging.conversion.graph import Unsupported
from fairway.packaging.conversion.tree_model import Link, TreeModel
from fairway.runtimes.estimator import task_of


def read_catboost(model: Any) -> TreeModel:
    """Raises `Unsupported` with CatBoost's own reason when it cannot export the model."""
    node = _exported(model)
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if set(values["nodes_modes"]) - {b"BRANCH_GT", b"LEAF"}:
        raise Unsupported("CatBoost trees with other splits than x > border")
    kind = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    post = values.get("post_transform", b"NONE")
    task = task_of(model)
    targets = len(model.classes_) if task is Task.classification else int(values.get("n_targets") or 1)
    if post == b"LOGISTIC":
        targets = 1
    links: dict[bytes, Link] = {b"LOGISTIC": "sigmoid", b"SOFTMAX": "softmax", b"NONE": "identity"}
    if post not in links or (task is Task.classification and post == b"NONE"):
        raise Unsupported(f"CatBoost's loss function {model.get_all_params().get('loss_function')!r}")
    forest = _forest(values, kind, targets, features=len(model.feature_names_))
    classes = np.asarray(model.classes_) if task is Task.classification else None
    return TreeModel(forest, task, links[post], classes=classes)


def _exported(model: Any) -> onnx.NodeProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            model.save_model(str(path), format="onnx")
        except Exception as error:
            raise Unsupported(f"CatBoost does not export this model: {error}") from error
        exported = onnx.load(path)
    node: onnx.NodeProto = exported.graph.node[0]
    return node


def _forest(values: dict[str, Any], kind: str, targets: int, *, features: int) -> Forest:
    tree = np.array(values["nodes_treeids"], np.int64)
    roots = np.flatnonzero(np.concatenate([[True], tree[1:] != tree[:-1]]))
    first = roots[np.cumsum(np.isin(np.arange(len(tree)), roots)) - 1]
    leaf_node = np.array([mode == b"LEAF" for mode in values["nodes_modes"]])
    start_of = dict(zip(tree[roots].tolist(), roots.tolist(), strict=True))
    weights = np.zeros((len(tree), targets))
    places = np.array([start_of[t] for t in values[f"{kind}_treeids"]]) + np.array(values[f"{kind}_nodeids"])
    columns = np.zeros(len(places), np.int64) if targets == 1 else np.array(values[f"{kind}_ids"], np.int64)
    weights[places, columns] = values[f"{kind}_weights"]
    base = values.get("base_values")

    def children(name: str) -> Array:
        return np.where(leaf_node, -1, np.array(values[name], np.int64) + first)

    return Forest(
        feature=np.array(values["nodes_featureids"], np.int64),
        threshold=np.array(values["nodes_values"], float),
        left=children("nodes_falsenodeids"),
        right=children("nodes_truenodeids"),
        missing_left=~leaf_node,  # NaN is never above a border
        roots=roots,
        leaf=weights[:, 0] if targets == 1 else weights,
        target=np.zeros(len(tree), np.int64) if targets == 1 else None,
        features=features,
        targets=targets,
        base=None if base is None else np.resize(np.array(base, float), targets),
    )
