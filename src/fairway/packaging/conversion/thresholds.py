"""Split thresholds that decide the same in float32 as they did in float64.

A tree compares `x <= t` (scikit-learn, LightGBM) or `x < t` (XGBoost, CatBoost). When `t` is rounded to the
nearest float32, a float32 `x` between the two lands on the other side. Rounded the right way it cannot:

    x <= t  for every float32 x  equals  x <= (largest float32 that is <= t)
    x <  t  for every float32 x  equals  x <  (smallest float32 that is >= t)

and the complements `>` and `>=` follow their partners.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from fairway.core.columns import Array

_DOWN = (b"BRANCH_LEQ", b"BRANCH_GT")
_UP = (b"BRANCH_LT", b"BRANCH_GTE")
_TREE_OPS = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_THRESHOLDS = ("nodes_values", "nodes_values_as_tensor")


def round_down(thresholds: Array) -> Array:
    """The largest float32 not above each threshold: keeps `x <= t` and `x > t`."""
    with np.errstate(over="ignore"):  # beyond float32: infinity, mended below
        nearest = np.asarray(thresholds, np.float64).astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > thresholds, below, nearest)


def round_up(thresholds: Array) -> Array:
    """The smallest float32 not below each threshold: keeps `x < t` and `x >= t`."""
    return -round_down(-np.asarray(thresholds, np.float64))


def round_tree_thresholds(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A copy whose tree ensembles compare in float32 with safely rounded thresholds; and how many it changed.

    Each ensemble with float64 thresholds gets its input cast to float32 first. That is what scikit-learn's own
    trees do; it is wrong for models that compare in float64, so the result must be proved like any other.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in changed.graph.node:
        if node.op_type in _TREE_OPS and _round_node(node):
            cast = f"{node.output[0]}_as_float32"
            nodes.append(
                onnx.helper.make_node(
                    "Cast", [node.input[0]], [cast], name=f"Cast_{cast}", to=onnx.TensorProto.FLOAT
                )
            )
            node.input[0] = cast
            count += 1
        nodes.append(node)
    rewritten = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del changed.graph.node[:]
    changed.graph.node.extend(rewritten)
    return changed, count


def _round_node(node: onnx.NodeProto) -> bool:
    """Rewrites one ensemble in place. False when it holds no float64 thresholds to round."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    doubles = attributes.get("nodes_values_as_tensor")
    if doubles is None:
        return False
    thresholds = numpy_helper.to_array(doubles.t).astype(np.float64)
    modes = np.array(attributes["nodes_modes"].strings)
    rounded = np.where(np.isin(modes, _UP), round_up(thresholds), thresholds.astype(np.float32))
    rounded = np.where(np.isin(modes, _DOWN), round_down(thresholds), rounded)
    kept: list[Any] = [
        a for a in node.attribute if a.name not in _THRESHOLDS and not a.name.endswith("_as_tensor")
    ]
    weights = [
        _as_floats(a) for a in node.attribute if a.name.endswith("_as_tensor") and a.name not in _THRESHOLDS
    ]
    del node.attribute[:]
    node.attribute.extend([*kept, *weights, _floats("nodes_values", rounded)])
    return True


def _as_floats(attribute: onnx.AttributeProto) -> onnx.AttributeProto:
    return _floats(attribute.name.removesuffix("_as_tensor"), numpy_helper.to_array(attribute.t))


def _floats(name: str, values: Array) -> onnx.AttributeProto:
    attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.FLOATS)
    attribute.floats.extend(values.astype(np.float32).tolist())
    return attribute
