"""Predictions in memory, on their way to the log.

Their values are copied behind one another soon after they come. To keep their arrays until the log is written costs several
times as much: every request then gets memory that has left the caches, and so has what is freed later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from fairway.core.columns import Array
from fairway.inference.predictions import Predictions

Asked = tuple[str, str | None, str | None, str]
"""Of one request: its id, its routing key, the version that it asked for by name (None: the route chose), and the
name of its API key."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """What stands beside the values of requests that were answered together, as `Predictions` has it. `row_keys` is empty
    where no precomputed answers are looked for."""

    counts: Sequence[int]
    seconds: Sequence[float]
    time: float
    protocol: str
    sources: Sequence[str] | None
    row_keys: Sequence[Sequence[bytes] | None]


class Gathered:
    """Predictions of one version and one shape: the same fields and outputs, each of one type and size. Not safe to share
    between threads."""

    def __init__(self, like: Predictions) -> None:
        columns = like.columns
        self.about = like.about
        self.names = columns.names
        self.rows = 0
        self.asked: list[Asked] = []
        self.calls: list[Call] = []
        self._is_matrix = columns.packed is not None
        self._outputs = (*like.outputs,)
        self._room = columns.rows
        self._values = [np.empty((self._room, *part.shape[1:]), _kept_as(part)) for part in _parts(like)]

    def add(self, predictions: Sequence[Predictions], casting: Literal["no", "unsafe"] = "no") -> None:
        """Copies values and keeps what stands beside them. TypeError or ValueError where something is not of this shape;
        nothing is added then."""
        end = self.rows + sum([one.columns.rows for one in predictions])
        if end > self._room:
            self._grow(end)
        here = slice(self.rows, end)
        for values, parts in zip(self._values, zip(*map(_parts, predictions), strict=True), strict=True):
            np.concatenate(parts, out=values[here], casting=casting)
        self.asked += [
            (request.request_id, request.key, request.version, request.caller)
            for one in predictions
            for request in one.requests
        ]
        self.calls += [
            Call(
                one.counts,
                one.seconds,
                one.time,
                one.requests[0].protocol,
                one.sources,
                () if one.sources is None else [request.keys for request in one.requests],
            )
            for one in predictions
        ]
        self.rows = end

    @property
    def matrix(self) -> Array | None:
        """The inputs as one matrix, where that is what they are. Valid until something is added, as are the others."""
        return self._values[0][: self.rows] if self._is_matrix else None

    @property
    def inputs(self) -> dict[str, Array]:
        if self._is_matrix:
            return {name: self._values[0][: self.rows, i] for i, name in enumerate(self.names)}
        return {name: values[: self.rows] for name, values in zip(self.names, self._values, strict=False)}

    @property
    def outputs(self) -> dict[str, Array]:
        values = self._values[len(self._values) - len(self._outputs) :]
        return {name: part[: self.rows] for name, part in zip(self._outputs, values, strict=True)}

    @property
    def room_bytes(self) -> int:
        return sum([values.nbytes for values in self._values])

    def clear(self) -> None:
        """Makes room for others of the same version and shape."""
        for values in self._values:
            if values.dtype.hasobject:
                values[: self.rows] = None  # or they would live on
        self.rows = 0
        self.asked.clear()
        self.calls.clear()

    def _grow(self, rows: int) -> None:
        self._room = max(rows, 2 * self._room)
        for i, values in enumerate(self._values):
            larger = np.empty((self._room, *values.shape[1:]), values.dtype)
            larger[: self.rows] = values[: self.rows]
            self._values[i] = larger


def likely_shape(predictions: Predictions) -> tuple[object, ...]:
    """Predictions for which this is the same are nearly always of one shape, as a model answers. It holds while `about` and
    the names of the fields are in memory."""
    return (
        id(predictions.about),  # one of each loaded version
        id(predictions.columns.names),
        predictions.sources is None,
        *predictions.outputs,
    )


def shape_of(predictions: Predictions) -> tuple[object, ...]:
    """Predictions for which this is the same can be gathered together, if `likely_shape` is the same too."""
    return tuple((part.dtype.type, part.shape[1:]) for part in _parts(predictions))


def _parts(predictions: Predictions) -> list[Array]:
    columns = predictions.columns
    inputs = columns.arrays if columns.packed is None else (columns.packed,)
    return [*inputs, *predictions.outputs.values()]


def _kept_as(values: Array) -> np.dtype[Any]:
    """A type for all arrays of a kind: of texts whatever their length, of moments whatever their unit."""
    kinds = {"U": np.dtype(object), "M": np.dtype("datetime64[us]")}
    return kinds.get(values.dtype.kind, values.dtype.newbyteorder("="))
