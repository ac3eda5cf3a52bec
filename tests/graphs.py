"""Pipelines for tests: nodes whose models are plain functions of the rows, each row by itself."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.pipeline import FunctionNode, ModelNode, Node, Pipeline, Source
from fairway.runtimes.pipeline import FunctionRunner, PipelineEngine, make_runner

X, Y = Source("x"), Source("y")
NUMBERS = Contract(
    inputs=(Field(name="x", dtype=DType.float64), Field(name="y", dtype=DType.float64)), outputs=()
)
FLOAT = Output(name="out", dtype=DType.float64)


class Computes:
    """An engine that is a function of its columns, and counts the rows it saw."""

    def __init__(self, function: Callable[[Columns], Outputs]) -> None:
        self._function = function
        self.seen: list[int] = []
        self.unloaded = False

    def predict(self, columns: Columns) -> Outputs:
        self.seen.append(columns.rows)
        return self._function(columns)

    def unload(self) -> None:
        self.unloaded = True


def model(
    name: str, *inputs: Source, outputs: tuple[Output, ...] = (FLOAT,), dtype: DType = DType.float64
) -> ModelNode:
    fields = tuple(Field(name=f"f{i}", dtype=dtype) for i in range(len(inputs)))
    return ModelNode(
        name=name,
        model=f"{name}-model",
        version=3,
        digest="sha256:0",
        spec=EngineSpec(kind="onnx", file="engine/model.onnx"),
        contract=Contract(inputs=fields, outputs=outputs),
        inputs=inputs,
    )


def function(name: str, *inputs: Source, outputs: tuple[Output, ...] = (FLOAT,)) -> FunctionNode:
    return FunctionNode(
        name=name,
        file="f.py",
        function="f",
        arguments=tuple(f"a{i}" for i in range(len(inputs))),
        inputs=inputs,
        outputs=outputs,
    )


def total(columns: Columns) -> Outputs:
    """The sum of a row's values."""
    return {"out": np.sum([columns[name].astype(np.float64) for name in columns], axis=0)}


def summed(rows: dict) -> dict:  # type: ignore[type-arg]
    return {"out": sum(rows.values())}


def engine(
    nodes: tuple[Node, ...],
    outputs: Mapping[str, Source],
    engines: Mapping[str, Computes] | None = None,
    *,
    contract: Contract = NUMBERS,
    functions: Mapping[str, Callable[..., object]] | None = None,
) -> PipelineEngine:
    """`engines` by model node, `functions` by function node; sums where none is given."""
    engines, functions = engines or {}, functions or {}
    runners = {
        node.name: FunctionRunner(node, functions.get(node.name, summed))
        if isinstance(node, FunctionNode)
        else make_runner(
            node, Path("nowhere"), contract, lambda node: engines.get(node.name, Computes(total))
        )
        for node in nodes
    }
    return PipelineEngine(Pipeline(nodes=nodes, outputs=dict(outputs)), runners)


def table(*rows: tuple[float, float]) -> Columns:
    return Columns(("x", "y"), len(rows), packed=np.array(rows, dtype=np.float64).reshape(len(rows), 2))
