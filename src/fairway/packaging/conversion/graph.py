"""Builds an ONNX graph node by node, with names that repeat exactly from one run to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from fairway.core.columns import Array
from fairway.packaging.conversion.forest import Precision

OPSET = 21
ML_OPSET = 3
ML_OPSET_EXACT_TREES = 5
_IR_VERSION = 10

NULL = "\u2400"
"""Stands for a null string inside a graph: ONNX strings have no null. The sign is "symbol for null"."""


class Unsupported(Exception):
    """This part of a model has no translation; the message says which and why. Never leaves the packager."""


class MixedTrees(Unsupported):
    """With `exact_trees` the graph would need two versions of the tree operators, or copies of every tree."""


class NothingToChange(Unsupported):
    """A strategy would give the same graph as one before it."""


@dataclass(frozen=True)
class Tensor:
    """A two-dimensional value in the graph: `[n, width]`, numbers or text."""

    name: str
    width: int
    type: int

    @property
    def is_text(self) -> bool:
        return self.type == TensorProto.STRING

    @staticmethod
    def unread(reason: str) -> Tensor:
        """Stands for a column that no graph can take: fine as long as every step drops it."""
        return Tensor(reason, 1, TensorProto.UNDEFINED)

    @property
    def is_unread(self) -> bool:
        return self.type == TensorProto.UNDEFINED


@dataclass(frozen=True)
class Block:
    """Columns picked from tensors, `(tensor, position)` each, and their names where they have any."""

    columns: tuple[tuple[Tensor, int], ...]
    names: tuple[str, ...] | None = None

    @staticmethod
    def of(tensor: Tensor) -> Block:
        return Block(tuple((tensor, i) for i in range(tensor.width)))

    def pick(self, positions: Sequence[int]) -> Block:
        names = None if self.names is None else tuple(self.names[i] for i in positions)
        return Block(tuple(self.columns[i] for i in positions), names)


class Graph:
    """`precision` is the type of all numbers; `exact_trees` allows the operators of `ML_OPSET_EXACT_TREES`, and
    `copy_trees` one copy of a tree per class where its leaves vote for several."""

    def __init__(self, precision: Precision, *, exact_trees: bool = False, copy_trees: bool = False) -> None:
        self.precision: Precision = precision
        self.number = TensorProto.DOUBLE if precision == "float64" else TensorProto.FLOAT
        self.exact_trees = exact_trees
        self.copy_trees = copy_trees
        self.narrow = False
        """Every number comes as float32, so that scikit-learn rounds to float32 after each step of arithmetic."""
        self.ml_opset = ML_OPSET_EXACT_TREES if exact_trees else ML_OPSET
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    @property
    def numpy_number(self) -> type[np.floating[Any]]:
        return np.float64 if self.precision == "float64" else np.float32

    def name(self, hint: str) -> str:
        self._count += 1
        return f"{hint}_{self._count}"

    def input(self, name: str, type: int, width: int) -> Tensor:
        self._inputs.append(helper.make_tensor_value_info(name, type, [None, width]))
        return Tensor(name, width, type)

    def constant(self, values: Any) -> str:
        """Numbers of float kind take the graph's precision; integers and text stay as they are."""
        array = np.asarray(values)
        return self.typed_constant(array.astype(self.numpy_number) if array.dtype.kind == "f" else array)

    def typed_constant(self, array: Array) -> str:
        """A constant of exactly the array's type."""
        if array.dtype.kind in "OU":
            array = array.astype(object)
        name = self.name("constant")
        self._constants.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
        return name

    def node(self, op: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        result = self.name(op)
        self.add(
            [helper.make_node(op, list(inputs), [result], name=f"node_{result}", domain=domain, **attributes)]
        )
        return result

    def add(self, nodes: Iterable[onnx.NodeProto], constants: Iterable[onnx.TensorProto] = ()) -> None:
        self._nodes.extend(nodes)
        self._constants.extend(constants)

    def matrix(self, block: Block) -> Tensor:
        """The block's columns side by side in one tensor."""
        if not block.columns:
            raise Unsupported("a step without columns")
        for tensor, _ in block.columns:
            if tensor.is_unread:
                raise Unsupported(tensor.name)
        runs: list[tuple[Tensor, list[int]]] = []
        for tensor, position in block.columns:
            if runs and runs[-1][0] == tensor:
                runs[-1][1].append(position)
            else:
                runs.append((tensor, [position]))
        if len({tensor.is_text for tensor, _ in runs}) > 1:
            raise Unsupported("a step that takes text and numbers together")
        parts = [self._gather(tensor, positions) for tensor, positions in runs]
        if len(parts) == 1:
            return Tensor(parts[0], len(block.columns), runs[0][0].type)
        return Tensor(self.node("Concat", parts, axis=1), len(block.columns), runs[0][0].type)

    def _gather(self, tensor: Tensor, positions: list[int]) -> str:
        if positions == list(range(tensor.width)):
            return tensor.name
        return self.node("Gather", [tensor.name, self.constant(np.array(positions, np.int64))], axis=1)

    def cast(self, tensor: Tensor, type: int) -> Tensor:
        if tensor.type == type:
            return tensor
        return Tensor(self.node("Cast", [tensor.name], to=type), tensor.width, type)

    def embed(self, model: onnx.ModelProto, sources: Sequence[str]) -> list[str]:
        """Takes in another model's graph, fed from `sources` in order; returns its outputs' tensors here."""
        if model.functions:
            raise Unsupported("a converted step with local functions")
        self._count += 1
        inner = onnx.compose.add_prefix_graph(model.graph, f"part{self._count}_")
        names = dict(zip([value.name for value in inner.input], sources, strict=True))
        for node in inner.node:
            if self.exact_trees and node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
                raise MixedTrees("older and newer tree operators in one graph")
            node.input[:] = [names.get(name, name) for name in node.input]
        self.add(inner.node, inner.initializer)
        return [value.name for value in inner.output]

    def finish(self, outputs: dict[str, str]) -> onnx.ModelProto:
        """The model; `outputs` maps the wanted output names to tensors of the graph."""
        for wanted, source in outputs.items():
            self.add([helper.make_node("Identity", [source], [wanted], name=f"output_{wanted}")])
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self._nodes, "fairway", self._inputs, infos, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", self.ml_opset)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="fairway")
        model.ir_version = _IR_VERSION
        return model


def open_session(model: bytes | str, *, threads: int = 1) -> ort.InferenceSession:
    """A session on a model's bytes, or on its file. A conversion that does not load raises, and logs nothing."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runs(model: onnx.ModelProto) -> bool:
    """Whether the runtime accepts the graph."""
    try:
        open_session(model.SerializeToString())
    except Exception:  # noqa: BLE001 - onnxruntime raises anything
        return False
    return True


_RUNTIME_TYPES = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(int64)": TensorProto.INT64,
    "tensor(int32)": TensorProto.INT32,
    "tensor(bool)": TensorProto.BOOL,
    "tensor(string)": TensorProto.STRING,
}


def declare_outputs(model: onnx.ModelProto, outputs: Sequence[tuple[str, str, Sequence[Any]]]) -> None:
    """Writes down the outputs' types and sizes, `(name, type, shape)` as ONNX Runtime worked them out.

    The first axis is the rows, whatever constant the runtime may have taken it for.
    """
    for value, (_, kind, shape) in zip(model.graph.output, outputs, strict=True):
        sizes = [None, *(size if isinstance(size, int) else None for size in shape[1:])] if shape else shape
        value.CopyFrom(helper.make_tensor_value_info(value.name, _RUNTIME_TYPES[kind], sizes))
