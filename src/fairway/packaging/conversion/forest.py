"""Tree ensembles of every library in one form, and that form as an ONNX node.

Own translation, because the stock converters round thresholds to the nearest float32, do not know newer tree
formats (HistGradientBoosting, vector base scores of XGBoost), and spend seconds on forests that take tenths here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fairway.core.columns import Array
from fairway.packaging.conversion.thresholds import round_down, round_up

Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Forest:
    """Nodes of all trees, one after the other.

    `left` and `right` are positions in these arrays, -1 at leaves; `roots` are the first node of each tree.
    A row goes left where `x <= threshold` (`strict=False`) or `x < threshold` (`strict=True`); where it is NaN,
    as `missing_left` says. For nodes in `members` it goes left when x is one of the listed category numbers.
    `compares` is the precision the library compares in: "float32" means that it rounds x to float32 first.
    `leaf` holds what a leaf adds: `[nodes, targets]`, or `[nodes]` with `target` naming where it goes.
    The answer is the sum over trees, divided by `divisor`, plus `base`.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    roots: Array
    leaf: Array
    features: int
    targets: int
    target: Array | None = None
    strict: bool = False
    compares: Precision = "float32"
    members: Mapping[int, Sequence[float]] = field(default_factory=dict)
    divisor: float = 1.0
    base: Array | None = None

    @property
    def is_split(self) -> Array:
        return self.left >= 0

    def thresholds(self) -> list[Array]:
        """Distinct thresholds of each feature, ascending; category splits left out."""
        split = self.is_split.copy()
        split[list(self.members)] = False
        feature, threshold = self.feature[split], self.threshold[split]
        return [np.unique(threshold[feature == i]) for i in range(self.features)]


@dataclass(frozen=True)
class Tree:
    """One tree's arrays, as in `Forest`, with children counted from its own first node."""

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    leaf: Array
    target: int = 0
    members: Mapping[int, Sequence[float]] = field(default_factory=dict)


def join(trees: Sequence[Tree], *, features: int, targets: int, **rest: Any) -> Forest:
    """One `Forest` of many trees."""
    sizes = np.array([len(tree.left) for tree in trees])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def children(name: str) -> Array:
        parts = [getattr(tree, name).astype(np.int64) for tree in trees]
        return np.concatenate(
            [np.where(p >= 0, p + start, -1) for p, start in zip(parts, starts, strict=True)]
        )

    vector = trees[0].leaf.ndim == 2
    return Forest(
        feature=np.concatenate([tree.feature for tree in trees]).astype(np.int64),
        threshold=np.concatenate([tree.threshold for tree in trees]).astype(np.float64),
        left=children("left"),
        right=children("right"),
        missing_left=np.concatenate([tree.missing_left for tree in trees]).astype(bool),
        roots=starts,
        leaf=np.concatenate([tree.leaf for tree in trees]).astype(np.float64),
        target=None if vector else np.repeat([tree.target for tree in trees], sizes),
        members={
            int(start) + node: values
            for tree, start in zip(trees, starts, strict=True)
            for node, values in tree.members.items()
        },
        features=features,
        targets=targets,
        **rest,
    )


def forest_nodes(
    forest: Forest,
    source: str,
    result: str,
    precision: Precision,
    *,
    source_type: int,
    exact_sum: bool = False,
) -> list[onnx.NodeProto]:
    """ONNX nodes that turn tensor `source` `[n, features]` into `result` `[n, targets]`.

    precision "float64" keeps the thresholds and adds up in float64; "float32" rounds the thresholds so that
    no float32 value changes sides. The input is first rounded to float32 where the library itself does it.
    The result is float32; with `exact_sum` it is float64, summed in the order of the trees as the libraries do:
    that needs version 5 of the ai.onnx.ml operators, and a copy of each tree per target its leaves feed.
    """
    nodes = []
    wanted = onnx.TensorProto.DOUBLE if precision == "float64" else onnx.TensorProto.FLOAT
    current = source_type
    steps = [wanted]
    if forest.compares == "float32" and precision == "float64" and source_type != onnx.TensorProto.FLOAT:
        steps = [onnx.TensorProto.FLOAT, wanted]
    for step, to in enumerate(steps):
        if to != current:
            cast = f"{result}_cast{step}"
            nodes.append(helper.make_node("Cast", [source], [cast], name=f"Cast_{cast}", to=to))
            source, current = cast, to
    if exact_sum:
        return [*nodes, *_exact_nodes(forest, source, result)]
    node = onnx.NodeProto(
        op_type="TreeEnsembleRegressor",
        domain="ai.onnx.ml",
        name=f"Trees_{result}",
        input=[source],
        output=[result],
    )
    node.attribute.extend(_attributes(_expand_members(forest), precision))
    return [*nodes, node]


def _exact_nodes(forest: Forest, source: str, result: str) -> list[onnx.NodeProto]:
    """Version 5 of the tree operator: float64 thresholds, leaves, sums and result."""
    forest = _one_target_per_tree(forest)
    assert forest.target is not None
    split = forest.is_split
    branch, leaf = np.flatnonzero(split), np.flatnonzero(~split)
    alone = forest.roots[~split[forest.roots]]  # a tree of one leaf needs a branch that changes nothing
    place = np.where(split, np.cumsum(split) - 1, np.cumsum(~split) - 1)

    def children(side: Array) -> tuple[Array, Array]:
        to = np.concatenate([side[branch], alone])
        return place[to], ~split[to]

    true, true_is_leaf = children(forest.left)
    false, false_is_leaf = children(forest.right)
    roots = place[forest.roots].copy()
    roots[~split[forest.roots]] = len(branch) + np.arange(len(alone))
    pad = np.zeros(len(alone), np.int64)
    modes = np.full(len(true), 1 if forest.strict else 0, np.uint8)
    modes[place[list(forest.members)]] = 6
    sets = [[*(forest.members[i] or (-1.0,)), np.nan] for i in sorted(forest.members)]
    membership = (
        [_tensor("membership_values", np.array([v for values in sets for v in values]))] if sets else []
    )
    node = onnx.NodeProto(op_type="TreeEnsemble", domain="ai.onnx.ml", name=f"Trees_{result}", input=[source])
    steps: list[tuple[str, Any]] = [("Div", forest.divisor)] if forest.divisor != 1.0 else []
    steps += [("Add", forest.base)] if forest.base is not None else []
    names = [f"{result}_{step}" for step, _ in steps] + [result]
    node.output.append(names[0])
    node.attribute.extend(
        [
            helper.make_attribute("n_targets", forest.targets),
            helper.make_attribute("aggregate_function", 1),
            helper.make_attribute("post_transform", 0),
            _ints("tree_roots", roots),
            _ints("nodes_featureids", np.concatenate([forest.feature[branch], pad])),
            _ints("nodes_truenodeids", true),
            _ints("nodes_trueleafs", true_is_leaf),
            _ints("nodes_falsenodeids", false),
            _ints("nodes_falseleafs", false_is_leaf),
            _ints("nodes_missing_value_tracks_true", np.concatenate([forest.missing_left[branch], pad])),
            _tensor("nodes_splits", np.concatenate([forest.threshold[branch], pad])),
            helper.make_attribute("nodes_modes", numpy_helper.from_array(modes, "nodes_modes")),
            _ints("leaf_targetids", forest.target[leaf]),
            _tensor("leaf_weights", forest.leaf[leaf]),
            *membership,
        ]
    )
    nodes = [node]
    for (step, by), before, after in zip(steps, names, names[1:], strict=False):
        value = numpy_helper.from_array(np.asarray(by, np.float64).reshape(1, -1), f"{after}_by")
        nodes.append(
            helper.make_node("Constant", [], [value.name], name=f"Constant_{value.name}", value=value)
        )
        nodes.append(helper.make_node(step, [before, value.name], [after], name=f"{step}_{after}"))
    return nodes


def _one_target_per_tree(forest: Forest) -> Forest:
    if forest.target is not None:
        return forest
    size, copies = len(forest.left), forest.targets
    shift = np.repeat(np.arange(copies), size) * size

    def repeated(children: Array) -> Array:
        tiled = np.tile(children, copies)
        return np.where(tiled >= 0, tiled + shift, -1)

    return replace(
        forest,
        feature=np.tile(forest.feature, copies),
        threshold=np.tile(forest.threshold, copies),
        left=repeated(forest.left),
        right=repeated(forest.right),
        missing_left=np.tile(forest.missing_left, copies),
        roots=(forest.roots[None, :] + np.arange(copies)[:, None] * size).reshape(-1),
        leaf=forest.leaf.T.reshape(-1),
        target=np.repeat(np.arange(copies), size),
        members={copy * size + i: v for copy in range(copies) for i, v in forest.members.items()},
    )


def _attributes(forest: Forest, precision: Precision) -> list[onnx.AttributeProto]:
    tree = np.zeros(len(forest.left), np.int64)
    tree[forest.roots[1:]] = 1
    tree = np.cumsum(tree)
    node = np.arange(len(tree)) - forest.roots[tree]
    split = forest.is_split
    first = forest.roots[tree]
    equal = np.zeros(len(tree), bool)
    equal[list(forest.members)] = True
    modes = np.where(split, np.where(equal, 2, 1), 0)
    names = [b"LEAF", b"BRANCH_LT" if forest.strict else b"BRANCH_LEQ", b"BRANCH_EQ"]
    leaves = np.flatnonzero(~split)
    leaf = forest.leaf[leaves] / forest.divisor
    if forest.target is None:
        leaves, leaf = np.repeat(leaves, forest.targets), leaf.reshape(-1)
        targets = np.tile(np.arange(forest.targets), len(leaves) // forest.targets)
    else:
        targets = forest.target[leaves]
    base = [] if forest.base is None else [_numbers("base_values", forest.base, precision)]
    return [
        helper.make_attribute("n_targets", forest.targets),
        helper.make_attribute("aggregate_function", "SUM"),
        helper.make_attribute("post_transform", "NONE"),
        _ints("nodes_treeids", tree),
        _ints("nodes_nodeids", node),
        _ints("nodes_featureids", np.where(split, forest.feature, 0)),
        _ints("nodes_truenodeids", np.where(split, forest.left - first, 0)),
        _ints("nodes_falsenodeids", np.where(split, forest.right - first, 0)),
        _ints("nodes_missing_value_tracks_true", forest.missing_left & split),
        _strings("nodes_modes", [names[mode] for mode in modes]),
        _numbers("nodes_values", _thresholds(forest, split, precision), precision),
        _ints("target_treeids", tree[leaves]),
        _ints("target_nodeids", node[leaves]),
        _ints("target_ids", targets),
        _numbers("target_weights", leaf, precision),
        *base,
    ]


def _thresholds(forest: Forest, split: Array, precision: Precision) -> Array:
    thresholds = np.where(split, forest.threshold, 0.0)
    if precision == "float64":
        return thresholds
    return round_up(thresholds) if forest.strict else round_down(thresholds)


def _expand_members(forest: Forest) -> Forest:
    """Category splits as chains of `x == category` nodes, which is all that the ONNX node knows.

    The engine recognises such chains and tests them as one bit set.
    """
    if not forest.members:
        return forest
    extra = np.array([max(len(forest.members.get(i, ())) - 1, 0) for i in range(len(forest.left))])
    place = np.arange(len(extra)) + np.concatenate([[0], np.cumsum(extra)[:-1]])
    source = np.repeat(np.arange(len(extra)), extra + 1)

    def moved(children: Array) -> Array:
        return np.where(children >= 0, place[children], -1)[source]

    left, right = moved(forest.left), moved(forest.right)
    threshold = forest.threshold[source].copy()
    missing_left = forest.missing_left[source].copy()
    members: dict[int, Sequence[float]] = {}
    for node, values in forest.members.items():
        start, count = int(place[node]), len(values)
        if count == 0:  # nothing goes left but, perhaps, missing values
            threshold[start] = -1.0
            members[start] = (-1.0,)
            continue
        threshold[start : start + count] = values
        right[start : start + count - 1] = np.arange(start + 1, start + count)
        members |= {start + i: (value,) for i, value in enumerate(values)}
    return replace(
        forest,
        feature=forest.feature[source],
        threshold=threshold,
        left=left,
        right=right,
        missing_left=missing_left,
        roots=place[forest.roots],
        leaf=forest.leaf[source],
        target=None if forest.target is None else forest.target[source],
        members=members,
    )


def _ints(name: str, values: Array) -> onnx.AttributeProto:
    attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.INTS)
    attribute.ints.extend(values.astype(np.int64).tolist())
    return attribute


def _strings(name: str, values: list[bytes]) -> onnx.AttributeProto:
    attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.STRINGS)
    attribute.strings.extend(values)
    return attribute


def _numbers(name: str, values: Array, precision: Precision) -> onnx.AttributeProto:
    if precision == "float64":
        return _tensor(f"{name}_as_tensor", values)
    attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.FLOATS)
    attribute.floats.extend(np.asarray(values, np.float32).tolist())
    return attribute


def _tensor(name: str, values: Array) -> onnx.AttributeProto:
    return helper.make_attribute(
        name, numpy_helper.from_array(np.ascontiguousarray(values, np.float64), name)
    )
