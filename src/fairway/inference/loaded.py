"""A model used in this process: the same checks, contract and recording as the server."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any

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
    """A model by name, as its route says. Safe to call from several threads; close it to flush its log."""

    def __init__(self, name: str, version: str | None, plane: Plane) -> None:
        self.name = name
        self._version = version
        self._plane = plane

    @property
    def contract(self) -> Contract:
        live = self._plane.table[self.name]
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
        request = Request(
            model=self.name,
            version=self._version,
            inputs=read_inputs(data, self.contract),
            request_id=request_id or new_request_id(),
            key=key,
        )
        try:
            return self._plane.infer(request)
        except FairwayError as error:
            self._plane.failed(self.name, self._version, request.protocol, error.code)
            raise

    def close(self) -> None:
        """Writes what is still to be recorded, and ends the processes of models that have their own."""
        self._plane.close()
        for model in self._plane.table:
            for version in model.versions.values():
                if getattr(version.engine, "may_block", False):
                    version.engine.unload()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_inputs(data: Any, contract: Contract) -> Inputs:
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
        return _frame(data, contract)
    raise MalformedInput(
        f"cannot read rows from a {type(data).__name__}.",
        hint="Give a DataFrame, an Arrow table, a dict of columns, a list of dicts or a numpy matrix.",
    )


def _frame(frame: Any, contract: Contract) -> Inputs:
    """A pandas DataFrame. Series by Series costs 20 us a column and more, so a numeric frame is taken out as one
    matrix, and a few rows as Python values."""
    names = [str(name) for name in frame.columns.tolist()]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise MalformedInput(f"column names repeat: {', '.join(twice)}.")
    if contract.is_matrix:
        wanted = [field.name for field in contract]
        whole = set(wanted) <= set(names) and (contract.extra_fields == "ignore" or len(wanted) == len(names))
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


def _values(array: Any, rows: int) -> list[Any]:
    """A column's few values. pandas' own arrays give one value twice as fast as a list of one."""
    if isinstance(array, np.ndarray):
        return [_plain(value) for value in array.tolist()]
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
