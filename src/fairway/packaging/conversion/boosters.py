"""Lets skl2onnx meet tree models it cannot convert exactly, inside stacking, calibration, bagging and voting.

On their own or at the end of a pipeline these models never come here.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import onnx.compose
from onnx import TensorProto, helper
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from fairway.packaging.conversion.graph import ML_OPSET, OPSET, Block, Graph, Unsupported
from fairway.packaging.conversion.read_trees import read_trees
from fairway.packaging.conversion.tree_model import tree_outputs

_CLASSIFIER_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}  # not "raw_scores": calibration would then ask for margins where it means probabilities
_REGRESSOR_OPTIONS = {"raw_scores": [True, False]}  # stacking sets it, and it means nothing to a regressor


@functools.cache
def register() -> None:
    """Registers the boosters that are installed; once per process."""
    from skl2onnx import update_registered_converter  # slow to import, needed by few models
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    for classifier, regressor in _boosters():
        update_registered_converter(
            classifier,
            f"Fairway{classifier.__name__}",
            calculate_linear_classifier_output_shapes,
            _convert,
            options=_CLASSIFIER_OPTIONS,
        )
        update_registered_converter(
            regressor,
            f"Fairway{regressor.__name__}",
            calculate_linear_regressor_output_shapes,
            _convert,
            options=_REGRESSOR_OPTIONS,
        )


def _boosters() -> Iterator[tuple[type, type]]:
    yield HistGradientBoostingClassifier, HistGradientBoostingRegressor
    # each of these libraries is optional
    if importlib.util.find_spec("xgboost") is not None:
        import xgboost

        yield xgboost.XGBClassifier, xgboost.XGBRegressor
    if importlib.util.find_spec("lightgbm") is not None:
        import lightgbm

        yield lightgbm.LGBMClassifier, lightgbm.LGBMRegressor
    if importlib.util.find_spec("catboost") is not None:
        import catboost

        yield catboost.CatBoostClassifier, catboost.CatBoostRegressor


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """A converter in skl2onnx's form: reads `operator.inputs[0]`, writes `operator.outputs`."""
    from skl2onnx.common.data_types import guess_proto_type  # as above

    model = operator.raw_operator
    trees = read_trees(model)
    if trees is None or trees.before is not None:
        raise Unsupported(f"a {type(model).__name__} with categories inside another model")
    source = operator.inputs[0]
    graph = Graph("float64" if guess_proto_type(source.type) == TensorProto.DOUBLE else "float32")
    rows = graph.cast(graph.input("rows", guess_proto_type(source.type), trees.forest.features), graph.number)
    results = tree_outputs(graph, trees, Block.of(rows))
    names = dict(zip(results, operator.outputs, strict=True))
    prefix = f"{scope.get_unique_operator_name('trees')}_"
    inner = onnx.compose.add_prefix_graph(graph.finish(results).graph, prefix)
    for node in inner.node:
        node.input[:] = [source.full_name if name == f"{prefix}rows" else name for name in node.input]
    container.nodes.extend(inner.node)
    container.initializers.extend(inner.initializer)
    container.node_domain_version_pair_sets |= {("", OPSET), ("ai.onnx.ml", ML_OPSET)}
    for name, output in names.items():
        result = f"{prefix}{name}"
        cast = helper.make_node(
            "Cast", [result], [f"{result}_cast"], name=f"{result}_cast", to=_wanted(output)
        )
        shape = [-1] if name == "label" else [-1, max(_width(output), 1)]
        container.add_initializer(f"{result}_shape", TensorProto.INT64, [len(shape)], shape)
        container.nodes.append(cast)
        container.add_node(
            "Reshape", [f"{result}_cast", f"{result}_shape"], output.full_name, name=f"{result}_out"
        )


def _wanted(output: Any) -> int:
    from skl2onnx.common.data_types import guess_proto_type  # as above

    return int(guess_proto_type(output.type))


def _width(output: Any) -> int:
    shape = output.type.shape
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 1
