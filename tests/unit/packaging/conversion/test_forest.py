from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fairway.packaging.conversion.forest import Forest, Tree, forest_nodes, join

FEATURES = 3


def _random_tree(rng: np.random.Generator, *, targets: int, target: int, members: bool) -> Tree:
    """A tree of random shape; feature 2 is a category 0..5 where `members`."""
    feature, threshold, left, right, missing, leaf = [], [], [], [], [], []
    sets: dict[int, list[float]] = {}

    def grow(depth: int) -> int:
        node = len(feature)
        for values, value in zip(
            (feature, threshold, left, right, missing), (0, 0.0, -1, -1, False), strict=True
        ):
            values.append(value)  # type: ignore[attr-defined]
        leaf.append(rng.normal(size=targets))
        if depth < 4 and rng.random() < 0.8:
            feature[node] = int(rng.integers(FEATURES))
            missing[node] = bool(rng.random() < 0.5)
            if members and feature[node] == 2:
                sets[node] = sorted(float(v) for v in rng.choice(6, rng.integers(0, 4), replace=False))
            else:
                threshold[node] = float(rng.normal())
            left[node] = grow(depth + 1)
            right[node] = grow(depth + 1)
        return node

    grow(0)
    values = np.array(leaf)
    return Tree(
        feature=np.array(feature),
        threshold=np.array(threshold),
        left=np.array(left),
        right=np.array(right),
        missing_left=np.array(missing),
        leaf=values if targets > 1 else values[:, 0],
        target=target,
        members=sets,
    )


def _walk(forest: Forest, row: Any) -> Any:
    """The plain reading of the docstring, one row at a time."""
    total = np.zeros(forest.targets)
    for root in forest.roots:
        node = int(root)
        while forest.left[node] >= 0:
            value = row[forest.feature[node]]
            if np.isnan(value):
                goes_left = bool(forest.missing_left[node])
            elif node in forest.members:
                goes_left = value in forest.members[node]
            else:
                limit = forest.threshold[node]
                goes_left = value < limit if forest.strict else value <= limit
            node = int(forest.left[node] if goes_left else forest.right[node])
        if forest.target is None:
            total += forest.leaf[node]
        else:
            total[forest.target[node]] += forest.leaf[node]
    total = total / forest.divisor
    return total if forest.base is None else total + forest.base


def _run(forest: Forest, rows: Any, **how: Any) -> Any:
    nodes = forest_nodes(forest, "x", "y", "float64", source_type=onnx.TensorProto.DOUBLE, **how)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, [None, FEATURES])],
        [helper.make_empty_tensor_value_info("y")],
    )
    version = 5 if how.get("exact_sum") else 3
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", version)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": rows})[0]


@pytest.mark.parametrize("exact_sum", [True, False])
@pytest.mark.parametrize("vector", [True, False])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), strict=st.booleans(), members=st.booleans())
def test_the_graph_walks_as_the_forest_says(
    exact_sum: bool, vector: bool, seed: int, strict: bool, members: bool
) -> None:
    rng = np.random.default_rng(seed)
    trees = [
        _random_tree(rng, targets=2 if vector else 1, target=0 if vector else i % 2, members=members)
        for i in range(5)
    ]
    forest = join(
        trees,
        features=FEATURES,
        targets=2,
        strict=strict,
        compares="float64",
        divisor=float(rng.integers(1, 4)),
        base=np.array([0.5, -0.25]) if seed % 2 else None,
    )
    rows = rng.normal(size=(40, FEATURES))
    rows[:, 2] = rng.integers(0, 7, 40)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    split = np.flatnonzero(forest.is_split)
    for i in range(min(len(split), 20)):  # rows right at thresholds
        rows[i, forest.feature[split[i]]] = forest.threshold[split[i]]
    expected = np.array([_walk(forest, row) for row in rows])
    assert np.allclose(_run(forest, rows, exact_sum=exact_sum), expected, atol=1e-12 if exact_sum else 1e-5)


def test_float32_libraries_see_float32_values() -> None:
    tree = Tree(
        np.array([0, 0, 0]),
        np.array([0.1, 0, 0]),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        np.zeros(3, bool),
        np.array([0.0, -1.0, 1.0]),
    )
    rows = np.array([[0.1, 0.0, 0.0]])
    for compares, answer in (("float64", -1.0), ("float32", 1.0)):
        forest = join([tree], features=FEATURES, targets=1, compares=compares)
        assert _run(forest, rows, exact_sum=True).item() == answer


def test_thresholds_leave_out_category_splits() -> None:
    rng = np.random.default_rng(5)
    forest = join(
        [_random_tree(rng, targets=1, target=0, members=True) for _ in range(5)], features=FEATURES, targets=1
    )
    assert forest.members
    assert len(forest.thresholds()[2]) == 0
    assert all(np.array_equal(values, np.unique(values)) for values in forest.thresholds())
