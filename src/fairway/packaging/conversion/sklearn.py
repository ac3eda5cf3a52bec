"""Estimators and pipelines with scikit-learn's interface to ONNX.

Pipelines, column transformers and unions are walked here; steps in `convert_steps.TRANSLATED` and tree models
are translated here; every other step goes through skl2onnx on its own, with one matrix as its input.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.svm import LinearSVC

from fairway.core.contract import Task
from fairway.packaging.conversion.boosters import register as register_boosters
from fairway.packaging.conversion.graph import (
    ML_OPSET,
    OPSET,
    Block,
    Graph,
    NothingToChange,
    Tensor,
    Unsupported,
    runs,
)
from fairway.packaging.conversion.read_trees import read_trees
from fairway.packaging.conversion.steps import TRANSLATED
from fairway.packaging.conversion.tree_model import tree_outputs
from fairway.runtimes.estimator import task_of

_WORDS_IN_PYTHON = r"(?u)\b\w\w+\b"
_WORDS_IN_RE2 = r"[\p{L}\p{N}_]{2,}"


def convert_estimator(graph: Graph, estimator: Any, block: Block) -> onnx.ModelProto:
    """The whole estimator as a model whose outputs have the contract's names.

    Raises `Unsupported` when some part has no translation, or whatever the stock converter raises.
    """
    block, last = split_model(graph, estimator, block)
    trees = read_trees(last)
    if trees is not None:
        if trees.before is not None:
            block = apply_step(graph, trees.before, block)
        return graph.finish(tree_outputs(graph, trees, block))
    if graph.copy_trees:
        raise NothingToChange("no votes of trees to add up")
    return graph.finish(_stock_model(graph, last, graph.matrix(block)))


def split_model(graph: Graph, estimator: Any, block: Block) -> tuple[Block, Any]:
    """Applies all steps of preparation; returns what the model at the end sees, and that model."""
    steps, last = preparation(estimator)
    for step in steps:
        block = apply_step(graph, step, block)
    return block, last


def preparation(estimator: Any) -> tuple[list[Any], Any]:
    """The fitted steps before the model, and the model; search wrappers are looked into."""
    if type(estimator) in (GridSearchCV, RandomizedSearchCV):
        return preparation(estimator.best_estimator_)
    if type(estimator) is Pipeline:
        before = [step for _, step in estimator.steps[:-1] if step is not None and step != "passthrough"]
        inner, last = preparation(estimator.steps[-1][1])
        return [*before, *inner], last
    return [], estimator


def apply_step(graph: Graph, step: Any, block: Block) -> Block:
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return block
    if type(step) is Pipeline:
        for _, inner in step.steps:
            block = apply_step(graph, inner, block)
        return block
    if type(step) is ColumnTransformer:
        return _column_transformer(graph, step, block)
    if type(step) is FeatureUnion:
        weights = step.transformer_weights or {}
        if weights:
            raise Unsupported("FeatureUnion with weights")
        parts = [apply_step(graph, inner, block) for _, inner in step.transformer_list if inner != "drop"]
        return Block(tuple(column for part in parts for column in part.columns))
    translate = TRANSLATED.get(type(step))
    if translate is not None:
        return translate(graph, step, block)
    return Block.of(_stock_step(graph, step, graph.matrix(block)))


def _column_transformer(graph: Graph, step: Any, block: Block) -> Block:
    columns: list[tuple[Tensor, int]] = []
    for _, transformer, selected in step.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        part = block.pick(_positions(block, selected))
        if part.columns:
            columns.extend(apply_step(graph, transformer, part).columns)
    return Block(tuple(columns))


def _positions(block: Block, selected: Any) -> list[int]:
    """A column selection of any of scikit-learn's kinds as positions."""
    count = len(block.columns)
    if isinstance(selected, slice):
        if isinstance(selected.start, str) or isinstance(selected.stop, str):
            raise Unsupported("a slice of column names")
        return list(range(count))[selected]
    if isinstance(selected, (str, int, np.integer)):
        selected = [selected]
    chosen = list(selected)
    if chosen and isinstance(chosen[0], (bool, np.bool_)):
        return [i for i, wanted in enumerate(chosen) if wanted]
    if any(isinstance(name, str) for name in chosen):
        if block.names is None:
            raise Unsupported("columns picked by name after a step that renames them")
        return [block.names.index(name) for name in chosen]
    return [int(i) % count for i in chosen]


def _stock(
    graph: Graph, step: Any, tensor: Tensor, options: Mapping[str, Any]
) -> tuple[onnx.ModelProto, Tensor]:
    """The stock conversion, and the tensor to feed it. Where it mixes float types up in float64, which the
    runtime then refuses, this one step runs in float32."""
    converted = _to_onnx(step, tensor, options)
    if tensor.type == TensorProto.DOUBLE and not runs(converted):
        tensor = graph.cast(tensor, TensorProto.FLOAT)
        converted = _to_onnx(step, tensor, options)
    return converted, tensor


def _to_onnx(step: Any, tensor: Tensor, options: Mapping[str, Any]) -> onnx.ModelProto:
    from skl2onnx import to_onnx  # slow to import, needed by few models
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    types: dict[int, Any] = {
        TensorProto.STRING: StringTensorType,
        TensorProto.DOUBLE: DoubleTensorType,
        TensorProto.FLOAT: FloatTensorType,
    }
    register_boosters()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the proof decides, not the converter's remarks
        converted: onnx.ModelProto = to_onnx(
            step,
            name="step",
            initial_types=[("rows", types[tensor.type]([None, tensor.width]))],
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options={id(step): dict(options)} if options else None,
        )
    return converted


def _stock_step(graph: Graph, step: Any, tensor: Tensor) -> Tensor:
    if isinstance(step, CountVectorizer):
        step, options = _text_options(step)
    else:
        options = {}
    converted, tensor = _stock(graph, step, tensor, options)
    (result,) = graph.embed(converted, [tensor.name])[:1]
    declared = converted.graph.output[0].type.tensor_type
    width = declared.shape.dim[1].dim_value if len(declared.shape.dim) > 1 else 0
    if width == 0:
        width = len(step.get_feature_names_out())
    return graph.cast(Tensor(result, width, declared.elem_type), graph.number)


def _text_options(step: Any) -> tuple[Any, dict[str, Any]]:
    """A text vectorizer and options under which its graph is closest to it.

    Words as Python's default pattern finds them. The "C" locale is the only one every machine has; it knows
    the case of ASCII letters only, so text with other capitals may fail the proof. Stop words are not in the
    vocabulary, so that single words need no filter; the stock one drops whole texts.
    """
    options: dict[str, Any] = {"locale": "C"}
    if step.analyzer == "word" and step.token_pattern == _WORDS_IN_PYTHON:
        options["tokenexp"] = _WORDS_IN_RE2
    if step.stop_words is not None:
        if tuple(step.ngram_range) != (1, 1):
            raise Unsupported(f"{type(step).__name__} with stop words between n-grams")
        step = copy.copy(step).set_params(stop_words=None)
    return step, options


def _stock_model(graph: Graph, model: Any, tensor: Tensor) -> dict[str, str]:
    task = task_of(model)
    options: dict[str, Any] = {}
    scores_only = task is Task.classification and not hasattr(model, "predict_proba")
    if task is Task.classification:
        if scores_only and hasattr(model, "decision_function"):
            options["raw_scores"] = True
        if type(model) is not LinearSVC:  # the one classifier whose converter does not know the option
            options["zipmap"] = False
    if isinstance(model, VotingClassifier):
        model = copy.copy(model).set_params(flatten_transform=False)  # matters to transform() alone
    converted, tensor = _stock(graph, model, tensor, options)
    results = graph.embed(converted, [tensor.name])
    flat = graph.constant(np.array([-1], np.int64))
    if task is Task.regression:
        shape = converted.graph.output[0].type.tensor_type.shape.dim
        many = len(shape) > 1 and shape[1].dim_value > 1
        return {"prediction": results[0] if many else graph.node("Reshape", [results[0], flat])}
    if task is Task.anomaly:
        label, score = (graph.node("Reshape", [result, flat]) for result in results[:2])
        return {"label": graph.node("Cast", [label], to=TensorProto.INT64), "score": score}
    if task is Task.other:
        return {"label": results[0]}
    label = results[0]
    classes = np.asarray(model.classes_) if not isinstance(model.classes_, list) else None
    if classes is None:
        raise Unsupported("a classifier of several targets")
    if not scores_only:
        return {"label": label, "probabilities": results[1]}
    if len(classes) > 2:
        return {"label": label, "score": results[1]}
    last = graph.node("Gather", [results[1], graph.constant(np.array(-1, np.int64))], axis=1)
    return {"label": label, "score": graph.node("Reshape", [last, flat])}
