"""ONNX Runtime, the default engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from fairway.core.bundle import EngineSpec, Feed
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract, DType
from fairway.core.errors import CorruptBundle, ModelFailed

_LARGE_WEIGHTS = 64 * 1024 * 1024
"""From this size on, weights are used straight from the mapped file: loading is instant and processes share
them, for slower matrix products (prepacking off). Below it, prepacking earns its memory."""

Build = Callable[[Columns], Array]


def load(directory: Path, spec: EngineSpec, contract: Contract, threads: int) -> OnnxEngine:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = directory / spec.file
    weights = sum(file.stat().st_size for file in path.parent.iterdir() if file != path)
    if weights >= _LARGE_WEIGHTS:
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CorruptBundle(f"ONNX Runtime cannot load {path}: {error}") from error
    return OnnxEngine(session, spec, contract)


class OnnxEngine:
    """A session and, worked out once, how to build each of its feeds."""

    def __init__(self, session: ort.InferenceSession, spec: EngineSpec, contract: Contract) -> None:
        self._session = session
        # The public `run` spends a fifth of a small call on checks that the contract has made already.
        bare = getattr(session, "_sess", None)
        self._run: Callable[..., Any] = session.run if bare is None else bare.run
        self._feeds = [(feed.name, _builder(feed, contract)) for feed in spec.feeds]
        self._single = self._feeds[0] if len(self._feeds) == 1 else None
        names = [output.name for output in contract.outputs]
        self._graph_outputs = [spec.outputs.get(name, name) for name in names]
        self._finish = [(output.name, _finisher(output.dtype)) for output in contract.outputs]

    def predict(self, columns: Columns) -> Outputs:
        if self._single is not None:
            name, build = self._single
            feeds = {name: build(columns)}
        else:
            feeds = {name: build(columns) for name, build in self._feeds}
        try:
            results = self._run(self._graph_outputs, feeds, None)
        except Exception as error:
            raise ModelFailed(f"the model failed on these {columns.rows} rows: {error}") from error
        return {name: finish(result) for (name, finish), result in zip(self._finish, results, strict=True)}

    def unload(self) -> None:
        del self._session, self._run


def _builder(feed: Feed, contract: Contract) -> Build:
    """How to make one graph input out of columns."""
    every = tuple(field.name for field in contract)
    position = {name: i for i, name in enumerate(every)}
    missing = [name for name in feed.fields if name not in position]
    if missing:
        raise CorruptBundle(
            f"feed {feed.name!r} needs fields the contract does not have: {', '.join(missing)}"
        )
    index = [position[name] for name in feed.fields]
    if feed.dtype == "object":
        return _strings(index, feed, contract)
    dtype = np.dtype(feed.dtype)
    shaped = bool(contract.inputs[index[0]].shape)
    if contract.is_matrix and feed.fields == every and feed.column:
        return lambda columns: _packed(columns).astype(dtype, copy=False)
    if len(index) == 1:
        only = index[0]
        if shaped or not feed.column:
            return lambda columns: _number(columns.arrays[only], dtype)
        return lambda columns: _number(columns.arrays[only], dtype).reshape(-1, 1)

    def stack(columns: Columns) -> Array:
        matrix = np.empty((columns.rows, len(index)), dtype=dtype)
        for place, i in enumerate(index):
            values = columns.arrays[i]
            matrix[:, place] = values.view(np.int64) if values.dtype.kind == "M" else values
        return matrix

    return stack


def _packed(columns: Columns) -> Array:
    if columns.packed is None:
        raise ModelFailed("the model takes one matrix and was given separate columns")
    return columns.packed


def _number(values: Array, dtype: np.dtype[Any]) -> Array:
    if values.dtype.kind == "M":
        values = values.astype(np.int64)
    return np.ascontiguousarray(values.astype(dtype, copy=False))


def _strings(index: list[int], feed: Feed, contract: Contract) -> Build:
    nullable = [(place, i) for place, i in enumerate(index) if contract.inputs[i].nullable]
    null = feed.null

    def build(columns: Columns) -> Array:
        texts = np.empty((columns.rows, len(index)), dtype=object)
        for place, i in enumerate(index):
            texts[:, place] = columns.arrays[i]
        for place, i in nullable:
            values = columns.arrays[i].tolist()
            if None in values:
                texts[:, place] = [null if value is None else value for value in values]
        return texts if feed.column else texts[:, 0]

    return build


def _finisher(dtype: DType) -> Callable[[Any], Array]:
    """Graph output to contract output: the right dtype, and `[n, 1]` label columns as the graph left them."""
    if dtype is DType.string:
        return lambda result: np.asarray(result, dtype=object)
    wanted = np.dtype(dtype.value)
    return lambda result: result if result.dtype == wanted else result.astype(wanted)
