"""A model used in this process: the same checks, contract and recording as the server."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from weakref import WeakSet

import numpy as np

from fairway.core.columns import Array, Outputs
from fairway.core.conform import frame_arrays
from fairway.core.contract import Contract
from fairway.core.errors import FairwayError, MalformedInput
from fairway.core.request import Answer, Inputs, Request, new_request_id
from fairway.inference.plane import Plane
from fairway.inference.rows import from_instances
from fairway.inference.validate import FEW_ROWS


class LoadedModel:
    """A model by name, as its route says. Safe to call from several threads; close it to flush its log.

    A process that is forked from this one opens the model anew when it first needs it: threads, connections and the log
    stay with the parent."""

    def __init__(self, name: str, version: str | None, open_plane: Callable[[], Plane]) -> None:
        self.name = name
        self._version = version
        self._open_plane = open_plane
        self._lock = threading.Lock()
        self._plane: Plane | None = open_plane()
        self._frames = FrameReader()
        _LOADED.add(self)

    @property
    def contract(self) -> Contract:
        return self._contract(self._plane or self._opened())

    def _contract(self, plane: Plane) -> Contract:
        live = plane.table[self.name]
        return (live.primary if self._version is None else live.pick(self._version, "")).contract

    def predict(self, data: Any, *, key: str | None = None) -> Outputs:
        """Outputs by name, each `[n, ...]`: `label` and `probabilities` from a classifier, `prediction` from a
        regressor, `label` and `score` from an anomaly detector, an ONNX model's own names.

        `data` is a pandas or polars DataFrame, an Arrow table, a dict of columns, a list of row dicts, or a
        matrix. `key` decides the arm when traffic is split. Raises ContractViolation naming every bad field,
        MalformedInput or ModelFailed.
        """
        return self.answer(data, key=key).outputs

    def answer(self, data: Any, *, key: str | None = None, request_id: str | None = None) -> Answer:
        """As `predict`, with the version that answered and the request id that the log knows it by."""
        plane = self._plane or self._opened()
        request = Request(
            model=self.name,
            version=self._version,
            inputs=read_inputs(data, self._contract(plane), self._frames),
            request_id=request_id or new_request_id(),
            key=key,
        )
        try:
            return plane.infer(request)
        except FairwayError as error:
            plane.failed(self.name, self._version, request.protocol, error.code)
            raise

    def close(self) -> None:
        """Writes what is still to be recorded, and ends the processes of models that have their own."""
        plane = self._plane
        if plane is None:
            return
        plane.close()
        for model in plane.table:
            for version in model.versions.values():
                if getattr(version.engine, "may_block", False):
                    version.engine.unload()

    def _opened(self) -> Plane:
        with self._lock:
            if self._plane is None:
                self._plane = self._open_plane()
            return self._plane

    def leave(self) -> None:
        """In a forked process: what was opened is the parent's."""
        self._lock = threading.Lock()  # a thread that is not here may hold the other one
        if self._plane is not None:
            _OF_PARENT.append(self._plane)
            self._plane = None

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_LOADED: WeakSet[LoadedModel] = WeakSet()
_OF_PARENT: list[Plane] = []
"""Never let go: an engine that waits for its threads to end would wait for ever, for they are not here."""


def _leave_all() -> None:
    for model in _LOADED:
        model.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def read_inputs(data: Any, contract: Contract, frames: FrameReader | None = None) -> Inputs:
    """Whatever Python people hold rows in, as named columns; no frame library is imported."""
    if isinstance(data, Mapping):
        return {str(name): _column(values) for name, values in data.items()}
    if isinstance(data, np.ndarray):
        return _matrix(data, contract)
    if isinstance(data, list):
        return from_instances(data, contract)
    if hasattr(data, "to_pandas"):  # polars, Arrow
        data = data.to_pandas()
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):
        return (frames or FrameReader()).read(data, contract)
    raise MalformedInput(
        f"cannot read rows from a {type(data).__name__}.",
        hint="Give a DataFrame, an Arrow table, a dict of columns, a list of dicts or a numpy matrix.",
    )


class FrameReader:
    """Reads pandas DataFrames. Rows that are cut out of one frame share its column names: those of the last frame are
    remembered, which saves a tenth of the time of one row."""

    def __init__(self) -> None:
        self._last: tuple[Any, list[str]] = (None, [])

    def read(self, frame: Any, contract: Contract) -> Inputs:
        """Series by Series costs 20 us a column and more, so a numeric frame is taken out as one matrix, and a few rows
        as Python values. Raises MalformedInput when column names repeat."""
        names = self._names(frame.columns)
        if contract.is_matrix:
            wanted = [field.name for field in contract]
            whole = set(wanted) <= set(names) and (
                contract.extra_fields == "ignore" or len(wanted) == len(names)
            )
            values = frame.to_numpy()
            if whole and values.dtype.kind in "if":
                return {"": values if wanted == names else values[:, [names.index(name) for name in wanted]]}
        if len(frame) <= FEW_ROWS:
            # Private to pandas, and the only way past a Series a column; without it the public way is right and slower.
            arrays = getattr(frame, "_iter_column_arrays", None)
            if arrays is not None:
                rows = len(frame)
                return {name: _values(array, rows) for name, array in zip(names, arrays(), strict=True)}
        return frame_arrays(frame)

    def _names(self, index: Any) -> list[str]:
        """An Index never changes: the same one has the same names."""
        last, names = self._last
        if last is index:
            return names
        names = [str(name) for name in index.tolist()]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise MalformedInput(f"column names repeat: {', '.join(twice)}.")
        self._last = (index, names)
        return names


def _values(array: Any, rows: int) -> list[Any]:
    """A column's few values, by the way that is cheapest for each kind of pandas array."""
    if isinstance(array, np.ndarray):
        return [_plain(value) for value in array.tolist()]
    held = getattr(array, "_pa_array", None)  # texts, and whatever else Arrow holds
    if held is not None:
        return [_plain(value) for value in held.to_pylist()]
    if hasattr(array, "to_pydatetime"):
        return [_plain(value) for value in array.to_pydatetime().tolist()]
    return [_plain(array[row]) for row in range(rows)]


def _plain(value: Any) -> Any:
    """A value out of an object array as JSON would carry it, nulls as None."""
    kind = type(value)
    if kind is float:
        return None if math.isnan(value) else value
    if kind in _PLAIN:
        return value
    if kind.__name__ in (
        "NAType",
        "NaTType",
    ):  # pandas' own nulls, told by name because pandas is not imported
        return None
    if hasattr(value, "to_pydatetime"):  # a pandas Timestamp, a tenth as fast in arithmetic
        return value.to_pydatetime(warn=False)
    return value.item() if isinstance(value, np.generic) and value.dtype.kind in "biuf" else value


_PLAIN = frozenset([str, int, bool, type(None)])


def _column(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return values if values.ndim else values.reshape(1)
    if isinstance(values, list):
        return values
    if hasattr(values, "to_frame"):  # a Series
        return frame_arrays(values.to_frame(name="values"))["values"]
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        return [_plain(values)]  # one row, given as bare values
    return list(values)


def _matrix(data: Array, contract: Contract) -> Inputs:
    fields = contract.inputs
    if len(fields) == 1 and (fields[0].shape or data.ndim == 1):
        return {fields[0].name: data}
    if data.ndim != 2 or data.shape[1] != len(fields):
        raise MalformedInput(f"expected a matrix of shape [n, {len(fields)}], got {list(data.shape)}.")
    if contract.is_matrix and data.dtype.kind in "iuf":
        return {"": data}
    return {field.name: data[:, i] for i, field in enumerate(fields)}
