"""A graph of models and functions as one engine, run in this process.

Nodes that every row needs run first, on all rows at once, each once. What stands behind a router runs only for the
rows that take its branch; no node runs twice for a row. Nodes run one after the other: an engine call is short
beside handing it to a thread, and a server's other cores have workers of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec
import numpy as np

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.conform import canonical_dtype, matrix_dtype
from fairway.core.contract import Contract, Field, Output
from fairway.core.errors import CorruptBundle, FairwayError, ModelFailed
from fairway.core.pipeline import (
    EnsembleNode,
    FunctionNode,
    ModelNode,
    Node,
    Pipeline,
    RouterNode,
    Source,
    folder,
    unconditional,
)
from fairway.core.settings import IsolationSettings
from fairway.runtimes import base
from fairway.runtimes.pipeline_rows import as_array, branches, largest, mean, most_likely, numpy_dtype, vote
from fairway.runtimes.python import PythonEngine, read_function

Rows = Array | None
"""Positions of rows, ascending; None for all of them."""
Timings = Callable[[str, int, float], None]
"""(node, rows, seconds), after each time a node ran; what it waited for others is not in it."""


def load(
    directory: Path,
    spec: EngineSpec,
    contract: Contract,
    threads: int,
    *,
    isolation: IsolationSettings,
    name: str = "",
) -> PipelineEngine:
    """`isolation` and `name` as in `base.load`: for the nodes. Raises what the engines of the nodes raise, and
    CorruptBundle for a graph that cannot be read."""
    try:
        pipeline = msgspec.json.decode((directory / spec.file).read_bytes(), type=Pipeline)
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise CorruptBundle(f"{directory / spec.file} cannot be read: {error}.") from error

    def engine(node: ModelNode) -> base.Engine:
        return base.load(
            directory / folder(node.name),
            node.spec,
            node.contract,
            threads=threads,
            isolation=isolation,
            name=f"{name}.{node.name}",
        )

    runners: dict[str, Runner] = {}
    try:
        for node in pipeline.nodes:
            runners[node.name] = make_runner(node, directory / folder(node.name), contract, engine)
        return PipelineEngine(pipeline, runners)
    except BaseException as error:
        for runner in runners.values():  # some hold processes of their own
            runner.unload()
        if isinstance(error, OSError | ValueError | KeyError):
            raise CorruptBundle(f"{directory / spec.file} cannot be used: {error}.") from error
        raise


def _untimed(node: str, rows: int, seconds: float) -> None:
    return None


class PipelineEngine:
    """`timings` is told how long each node took; set it before the first call."""

    def __init__(self, pipeline: Pipeline, runners: Mapping[str, Runner]) -> None:
        self.timings: Timings = _untimed
        self.runners = dict(runners)
        self.may_block = any(getattr(runner, "may_block", False) for runner in runners.values())
        self._outputs = tuple(pipeline.outputs.items())
        self._order = unconditional(pipeline)
        for node in pipeline.nodes:
            if isinstance(node, RouterNode):
                _ = [self.runners[branch] for branch in node.branches]  # KeyError: a graph that is none

    def predict(self, columns: Columns) -> Outputs:
        """Raises ModelFailed naming the node that failed."""
        run = Run(self, columns)
        for name in self._order:
            run.need(name, None)
        return {name: run.take(source, None) for name, source in self._outputs}

    def outputs_of(self, node: str, columns: Columns) -> Outputs:
        """All that one node gives for these columns."""
        run = Run(self, columns)
        run.need(node, None)
        return run.given(node)

    def unload(self) -> None:
        for runner in self.runners.values():
            runner.unload()


class Run:
    """One call of a pipeline: the request's columns, and what its nodes have given for which rows."""

    def __init__(self, engine: PipelineEngine, columns: Columns) -> None:
        self.columns = columns
        self.rows = columns.rows
        self._runners = engine.runners
        self._timings = engine.timings
        self._values: dict[str, Outputs] = {}
        self._have: dict[str, Rows] = {}  # None: all rows; else a boolean for each

    def need(self, name: str, rows: Rows) -> None:
        """Has `name` answer these rows, unless it has."""
        have = None
        if name in self._have:
            have = self._have[name]
            if have is None:
                return
            wanted = np.arange(self.rows) if rows is None else rows
            rows = wanted[~have[wanted]]
            if len(rows) == 0:
                return
        if rows is not None and len(rows) == self.rows:
            rows = None
        runner = self._runners[name]
        outputs = runner.run(self, rows)
        if rows is None:
            self._values[name], self._have[name] = outputs, None
            return
        if have is None:
            have = np.zeros(self.rows, dtype=bool)
            self._values[name] = {
                output: np.empty((self.rows, *shape), dtype=dtype) for output, dtype, shape in runner.form
            }
        for output, values in self._values[name].items():
            values[rows] = outputs[output]
        have[rows] = True
        self._have[name] = None if have.all() else have

    def take(self, source: Source, rows: Rows) -> Array:
        """The values of a source for these rows, once there."""
        values = self._values[source.node][source.name] if source.node else self.columns[source.name]
        if source.element is not None:
            values = values[:, source.element]
        return values if rows is None else values[rows]

    def given(self, node: str) -> Outputs:
        return self._values[node]

    def took(self, node: str, rows: Rows, began: float) -> None:
        self._timings(node, self.rows if rows is None else len(rows), time.perf_counter() - began)


Form = tuple[tuple[str, "np.dtype[np.generic]", tuple[int, ...]], ...]
"""(name, dtype, shape of one row) of each output."""


class Runner(Protocol):
    """A node that can be run. `form` is empty while a function's outputs are not known."""

    form: Form

    def run(self, run: Run, rows: Rows) -> Outputs: ...

    def unload(self) -> None: ...


def make_runner(
    node: Node, directory: Path, contract: Contract, engine: Callable[[ModelNode], base.Engine]
) -> Runner:
    """A node ready to run: its files in `directory`, its model's `engine`, in a pipeline with this contract."""
    if isinstance(node, ModelNode):
        _require_inside(node.spec.file, *([node.spec.prepare] if node.spec.prepare else ()))
        return ModelRunner(node, engine(node), contract)
    if isinstance(node, FunctionNode):
        _require_inside(node.file)
        return FunctionRunner(node, read_function(directory / node.file, node.function))
    return EnsembleRunner(node) if isinstance(node, EnsembleNode) else RouterRunner(node)


def _require_inside(*paths: str) -> None:
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"{path!r} lies outside its node")


class ModelRunner:
    """A model as a node: its fields gathered from the request and from other nodes, as its contract has them."""

    def __init__(self, node: ModelNode, engine: base.Engine, contract: Contract) -> None:
        self.form = _form(node.outputs)
        self._node = node
        self._engine = engine
        self.may_block = getattr(engine, "may_block", False)
        self._told = f"node {node.name!r} ({node.model}:{node.version})"
        self._names = tuple(field.name for field in node.contract)
        self._reads = tuple(dict.fromkeys(source.node for source in node.inputs if source.node))
        self._matrix = matrix_dtype(node.contract) if node.contract.is_matrix else None
        # User code may write into what it is given, and others read the same arrays.
        self._copies = node.spec.kind not in ("onnx", "pipeline") or node.spec.prepare is not None
        fields = [field.name for field in contract]
        self._fields = [
            (field, source, canonical_dtype(field))
            for field, source in zip(node.contract, node.inputs, strict=True)
        ]
        self._fed = [(i, *feed) for i, feed in enumerate(self._fields) if feed[1].node]
        self._from_matrix: Array | None = None
        if self._matrix is not None and contract.is_matrix:
            # Where other nodes' values go, any column holds the place.
            places = [0 if source.node else fields.index(source.name) for source in node.inputs]
            self._from_matrix = np.array(places, dtype=np.intp)
        self._is_whole = not self._fed and [source.name for source in node.inputs] == fields

    def run(self, run: Run, rows: Rows) -> Outputs:
        for name in self._reads:
            run.need(name, rows)
        began = time.perf_counter()
        outputs = _called(self._told, self._engine, self._gather(run, rows))
        conformed = _conformed(self._told, self.form, outputs, run.rows if rows is None else len(rows))
        run.took(self._node.name, rows, began)
        return conformed

    def _gather(self, run: Run, rows: Rows) -> Columns:
        packed = run.columns.packed
        count = run.rows if rows is None else len(rows)
        if packed is not None and self._from_matrix is not None and self._matrix is not None:
            if rows is not None:
                packed = packed[rows]
            if not self._is_whole:
                packed = packed.take(self._from_matrix, axis=1)
            packed = _cast(self._told, "its matrix", packed, self._matrix)
            if self._copies and self._is_whole and rows is None:
                packed = np.array(packed)
            for i, field, source, _ in self._fed:
                packed[:, i] = self._checked(field, source, run.take(source, rows), self._matrix)
            return Columns(self._names, count, packed=packed)
        arrays = [
            self._checked(field, source, run.take(source, rows), dtype)
            for field, source, dtype in self._fields
        ]
        if self._matrix is None:
            if self._copies:
                arrays = [np.array(values) for values in arrays]
            return Columns(self._names, count, arrays=arrays)
        packed = np.empty((count, len(arrays)), dtype=self._matrix)
        for i, values in enumerate(arrays):
            packed[:, i] = values
        return Columns(self._names, count, packed=packed)

    def _checked(self, field: Field, source: Source, values: Array, dtype: np.dtype[np.generic]) -> Array:
        if values.dtype != dtype:
            values = _cast(self._told, f"field {field.name!r}", values, dtype)
        if source.node and not field.nullable and _has_null(values):
            raise ModelFailed(f"{self._told}: field {field.name!r} got a null from {source} and takes none.")
        return values

    def unload(self) -> None:
        self._engine.unload()


class FunctionRunner:
    """The user's function as a node. It gets copies: it may write into them."""

    def __init__(self, node: FunctionNode, function: Callable[..., object]) -> None:
        self.form = _form(node.outputs)
        self._node = node
        self._engine = PythonEngine(function, node.arguments, {})
        self._told = f"node {node.name!r} ({node.file}:{node.function})"
        self._reads = tuple(dict.fromkeys(source.node for source in node.inputs if source.node))

    def run(self, run: Run, rows: Rows) -> Outputs:
        for name in self._reads:
            run.need(name, rows)
        began = time.perf_counter()
        count = run.rows if rows is None else len(rows)
        arrays = [np.array(run.take(source, rows)) for source in self._node.inputs]
        outputs = _called(self._told, self._engine, Columns(self._node.arguments, count, arrays=arrays))
        conformed = _conformed(self._told, self.form, outputs, count)
        run.took(self._node.name, rows, began)
        return conformed

    def unload(self) -> None:
        self._engine.unload()


class EnsembleRunner:
    """Several answers made one."""

    def __init__(self, node: EnsembleNode) -> None:
        self.form = _form(node.outputs)
        self._node = node
        self._reads = tuple(dict.fromkeys(source.node for source in node.inputs if source.node))
        self._labels = as_array(node.labels, node.outputs[0]) if node.labels else None

    def run(self, run: Run, rows: Rows) -> Outputs:
        for name in self._reads:
            run.need(name, rows)
        began = time.perf_counter()
        node = self._node
        arrays = [run.take(source, rows) for source in node.inputs]
        if node.rule == "vote":
            given: tuple[Array, ...] = vote(arrays, node.weights)
        elif node.rule == "mean":
            given = self._labelled(mean(arrays, node.weights))
        else:
            given = self._labelled(largest(arrays, node.weights, classes=bool(node.labels)))
        outputs = {
            name: values.astype(dtype, copy=False)
            for (name, dtype, _), values in zip(self.form, given, strict=True)
        }
        run.took(node.name, rows, began)
        return outputs

    def _labelled(self, combined: Array) -> tuple[Array, ...]:
        return (combined,) if self._labels is None else (most_likely(combined, self._labels), combined)

    def unload(self) -> None:
        return None


class RouterRunner:
    """Sends each row to its branch and puts the answers back in the order of the rows."""

    def __init__(self, node: RouterNode) -> None:
        self.form = _form(node.outputs)
        self._node = node
        self._source = node.inputs[0]

    def run(self, run: Run, rows: Rows) -> Outputs:
        if self._source.node:
            run.need(self._source.node, rows)
        began = time.perf_counter()
        taken = branches(self._node.cases, run.take(self._source, rows))
        first = int(taken[0])
        own = time.perf_counter() - began
        if len(taken) == 1 or (taken == first).all():
            branch = self._node.branches[first]
            run.need(branch, rows)
            given = {
                name: run.take(Source(name, branch), rows).astype(dtype, copy=False)
                for name, dtype, _ in self.form
            }
            run.took(self._node.name, rows, time.perf_counter() - own)
            return given
        began = time.perf_counter()
        count = len(taken)
        outputs: Outputs = {name: np.empty((count, *shape), dtype=dtype) for name, dtype, shape in self.form}
        own += time.perf_counter() - began
        everything = np.arange(run.rows) if rows is None else rows
        for position, branch in enumerate(self._node.branches):
            mine = np.flatnonzero(taken == position)
            if len(mine) == 0:
                continue
            there = everything[mine]
            run.need(branch, there)
            began = time.perf_counter()
            for name, values in outputs.items():
                values[mine] = run.take(Source(name, branch), there)
            own += time.perf_counter() - began
        run.took(self._node.name, rows, time.perf_counter() - own)
        return outputs

    def unload(self) -> None:
        return None


def _form(outputs: tuple[Output, ...]) -> Form:
    return tuple((output.name, numpy_dtype(output), output.shape) for output in outputs)


def _called(told: str, engine: base.Engine, columns: Columns) -> Outputs:
    try:
        return engine.predict(columns)
    except ModelFailed as error:
        raise ModelFailed(f"{told}: {error}") from error
    except FairwayError as error:  # keeps its meaning: a queue that is full, a deadline
        error.args = (f"{told}: {error}",)
        raise
    except Exception as error:
        raise ModelFailed(f"{told} failed on {columns.rows} rows: {error}") from error


def _conformed(told: str, form: Form, outputs: Outputs, rows: int) -> Outputs:
    """The outputs as they were when the pipeline was packaged; all of them while that is not known."""
    if not form:
        return outputs
    conformed: Outputs = {}
    for name, dtype, shape in form:
        values = outputs.get(name)
        if values is None:
            raise ModelFailed(f"{told} gave no output {name!r}; it gave {', '.join(outputs) or 'none'}.")
        if values.shape != (rows, *shape):
            raise ModelFailed(
                f"{told} gave {name!r} of shape {list(values.shape)}, not {[rows, *shape]} as when packaged."
            )
        if values.dtype != dtype:
            if not np.can_cast(values.dtype, dtype, "same_kind"):
                raise ModelFailed(f"{told} gave {name!r} as {values.dtype}, not {dtype} as when packaged.")
            values = values.astype(dtype)
        conformed[name] = values
    return conformed


def _cast(told: str, what: str, values: Array, dtype: np.dtype[np.generic]) -> Array:
    """`values` as `dtype`. Raises ModelFailed for a number that a narrower float cannot hold."""
    if values.dtype == dtype:
        return values
    if values.dtype.kind == "f" and dtype.kind == "f" and dtype.itemsize < values.dtype.itemsize:
        with np.errstate(over="ignore"):
            narrow = values.astype(dtype)
        if (np.isinf(narrow) & np.isfinite(values)).any():
            raise ModelFailed(f"{told}: {what} got a number that {dtype} cannot hold.")
        return narrow
    return values.astype(dtype)


def _has_null(values: Array) -> bool:
    if values.dtype.kind == "f":
        return bool(np.isnan(values).any())
    if values.dtype.kind == "M":
        return bool(np.isnat(values).any())
    return values.dtype.kind == "O" and any(value is None for value in values.flat)
