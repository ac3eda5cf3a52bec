"""A tree model of any library: its forest, what comes before it, and what turns its sum into answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from onnx import TensorProto

from fairway.core.columns import Array
from fairway.core.contract import Task
from fairway.packaging.conversion.forest import Forest, forest_nodes
from fairway.packaging.conversion.graph import Block, Graph, MixedTrees, NothingToChange, Tensor

Link = Literal["identity", "exp", "sigmoid", "softmax", "share", "isolation"]


@dataclass(frozen=True)
class TreeModel:
    """`link` turns the forest's sum into the answer:

    identity, exp: regression. sigmoid (times `slope` first), softmax: class margins. share: the sum already is
    the probabilities. isolation: path lengths of an isolation forest; `slope` is 1 / their normaliser.
    `first_at_tie`: at a binary margin of exactly 0 the answer is the first class. `offset`: isolation's.
    `before` is a fitted scikit-learn transformer inside the model; `categories` lists, for the columns that
    are categories, the values whose positions the forest splits on (anything else is missing).
    """

    forest: Forest
    task: Task
    link: Link
    classes: Array | None = None
    first_at_tie: bool = True
    slope: float = 1.0
    offset: float = 0.0
    before: Any = None
    categories: Mapping[int, Sequence[Any]] = field(default_factory=dict)


def tree_outputs(graph: Graph, model: TreeModel, block: Block) -> dict[str, str]:
    """Adds the model to the graph; returns contract output name -> tensor."""
    source = _encoded(graph, model, block)
    total = graph.name("trees")
    forest = model.forest
    exact = graph.exact_trees
    if exact and forest.target is None and not graph.copy_trees:
        raise MixedTrees("leaves that vote for several classes")
    if graph.copy_trees and forest.target is not None:
        raise NothingToChange("its sums are exact without")
    graph.add(
        forest_nodes(forest, source.name, total, graph.precision, source_type=source.type, exact_sum=exact)
    )
    number = TensorProto.DOUBLE if exact else TensorProto.FLOAT
    answer = _Answer(graph, model, np.float64 if number == TensorProto.DOUBLE else np.float32)
    if model.task is Task.regression:
        return {"prediction": answer.regression(total)}
    if model.task is Task.anomaly:
        return answer.isolation(total)
    return answer.classification(total)


def _encoded(graph: Graph, model: TreeModel, block: Block) -> Tensor:
    if not model.categories:
        return graph.matrix(block)
    columns = []
    for position, column in enumerate(block.columns):
        single = Block((column,))
        if position in model.categories:
            encoded = encode_categories(graph, graph.matrix(single), model.categories[position], math.nan)
            columns.append((encoded, 0))
        else:
            columns.append(column)
    return graph.matrix(Block(tuple(columns)))


def encode_categories(
    graph: Graph,
    column: Tensor,
    categories: Sequence[Any],
    unknown: float,
    codes: Sequence[float] | None = None,
) -> Tensor:
    """Categories as their positions (or `codes`), `unknown` for anything else. Text may have several columns."""
    numbers = np.arange(len(categories), dtype=float) if codes is None else np.asarray(codes, float)
    if column.is_text:
        found = graph.node(
            "LabelEncoder",
            [column.name],
            domain="ai.onnx.ml",
            keys_strings=[str(value) for value in categories],
            values_floats=numbers.tolist(),
            default_float=float(unknown),
        )
        return graph.cast(Tensor(found, column.width, TensorProto.FLOAT), graph.number)
    hits = category_hits(graph, column, categories)
    code = graph.node("MatMul", [hits, graph.constant(numbers.reshape(-1, 1))])
    known = graph.node("ReduceMax", [hits, graph.constant(np.array([1], np.int64))], keepdims=1)
    is_known = graph.node("Greater", [known, graph.constant(np.array(0.5))])
    return Tensor(graph.node("Where", [is_known, code, graph.constant(np.array(unknown))]), 1, graph.number)


def category_hits(graph: Graph, column: Tensor, categories: Sequence[Any]) -> str:
    """`[n, categories]`: 1 where the number column holds that category (NaN finds NaN), else 0."""
    values = np.asarray(categories, float).reshape(1, -1)
    equal = graph.node("Equal", [column.name, graph.constant(values)])
    if np.isnan(values).any():
        missing = graph.node("IsNaN", [column.name])
        both = graph.node("And", [missing, graph.constant(np.isnan(values))])
        equal = graph.node("Or", [equal, both])
    return graph.node("Cast", [equal], to=graph.number)


def label_nodes(graph: Graph, position: str, classes: Array) -> str:
    """Class positions `[n]` as the labels themselves."""
    if classes.dtype.kind in "OU":
        table = graph.constant(classes.astype(str).astype(object))
    elif classes.dtype.kind == "f":
        table = graph.constant(classes)
    else:
        table = graph.constant(classes.astype(np.int64))
    label = graph.node("Gather", [table, position], axis=0)
    return graph.node("Cast", [label], to=TensorProto.BOOL) if classes.dtype.kind == "b" else label


class _Answer:
    """The arithmetic after the forest, in the precision of its sum."""

    def __init__(self, graph: Graph, model: TreeModel, dtype: type[np.floating[Any]]) -> None:
        self._graph = graph
        self._model = model
        self._dtype = dtype

    def _constant(self, value: Any) -> str:
        return self._graph.typed_constant(np.asarray(value, self._dtype))

    def _flat(self, tensor: str) -> str:
        return self._graph.node("Reshape", [tensor, self._graph.constant(np.array([-1], np.int64))])

    def regression(self, total: str) -> str:
        value = self._graph.node("Exp", [total]) if self._model.link == "exp" else total
        if self._model.link == "sigmoid":
            value = self._graph.node("Sigmoid", [total])
        return self._flat(value) if self._model.forest.targets == 1 else value

    def isolation(self, total: str) -> dict[str, str]:
        graph, model = self._graph, self._model
        path = graph.node("Mul", [total, self._constant(-model.slope)])
        power = graph.node("Pow", [self._constant(2.0), path])
        score = self._flat(graph.node("Sub", [graph.node("Neg", [power]), self._constant(model.offset)]))
        outlier = graph.node("Less", [score, self._constant(0.0)])
        ends = [graph.constant(np.array(value, np.int64)) for value in (-1, 1)]
        return {"label": graph.node("Where", [outlier, *ends]), "score": score}

    def classification(self, total: str) -> dict[str, str]:
        graph, model = self._graph, self._model
        assert model.classes is not None
        if model.link == "sigmoid":
            margin = total
            if model.slope != 1.0:
                margin = graph.node("Mul", [total, self._constant(model.slope)])
            second = graph.node("Sigmoid", [margin])
            first = graph.node("Sub", [self._constant(1.0), second])
            probabilities = graph.node("Concat", [first, second], axis=1)
            compare = "Greater" if model.first_at_tie else "GreaterOrEqual"
            above = self._flat(graph.node(compare, [margin, self._constant(0.0)]))
            position = graph.node("Cast", [above], to=TensorProto.INT64)
        else:
            probabilities = graph.node("Softmax", [total], axis=1) if model.link == "softmax" else total
            position = graph.node("ArgMax", [total], axis=1, keepdims=0)
        return {"label": label_nodes(graph, position, model.classes), "probabilities": probabilities}
