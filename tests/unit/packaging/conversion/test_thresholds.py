from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from fairway.packaging.conversion.forest import Tree, forest_nodes, join
from fairway.packaging.conversion.thresholds import round_down, round_tree_thresholds, round_up

doubles = st.floats(allow_nan=False, allow_infinity=False, width=64)
singles = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(doubles, singles)
def test_rounded_thresholds_decide_as_the_exact_ones_for_every_float32(
    threshold: float, value: float
) -> None:
    x = np.float32(value)
    exact = np.array([threshold])
    assert (x <= round_down(exact)[0]) == (float(x) <= threshold)
    assert (x > round_down(exact)[0]) == (float(x) > threshold)
    assert (x < round_up(exact)[0]) == (float(x) < threshold)
    assert (x >= round_up(exact)[0]) == (float(x) >= threshold)


@given(doubles)
def test_values_right_beside_a_threshold_keep_their_side(threshold: float) -> None:
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        around = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    for x in around:
        assert (x <= round_down(np.array([threshold]))[0]) == (float(x) <= threshold)
        assert (x < round_up(np.array([threshold]))[0]) == (float(x) < threshold)


def _model(threshold: float) -> onnx.ModelProto:
    tree = Tree(
        feature=np.array([0, 0, 0]),
        threshold=np.array([threshold, 0, 0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        missing_left=np.zeros(3, bool),
        leaf=np.array([0.0, -1.0, 1.0]),
    )
    forest = join([tree], features=1, targets=1, compares="float64")
    nodes = forest_nodes(forest, "x", "y", "float64", source_type=onnx.TensorProto.DOUBLE)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, [None, 1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_a_graph_is_rewritten_to_compare_in_float32() -> None:
    threshold = 0.1  # float32(0.1) is above it, so plain rounding would send that value left
    rewritten, changed = round_tree_thresholds(_model(threshold))
    assert changed == 1
    session = ort.InferenceSession(rewritten.SerializeToString())
    rows = np.array([[np.float32(0.1)], [np.nextafter(np.float32(0.1), np.float32(0))], [0.1]], np.float64)
    (answers,) = session.run(None, {"x": rows})
    # 0.1 itself becomes float32(0.1) first, as scikit-learn's trees see it
    assert answers[:, 0].tolist() == [1.0, -1.0, 1.0]


def test_a_graph_with_nothing_to_round_says_so() -> None:
    model = _model(0.1)
    del model.graph.node[:]
    assert round_tree_thresholds(model)[1] == 0
