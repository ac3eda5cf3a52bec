"""Predictions in memory, on their way to the log.

Their values are copied behind one another soon after they come. To keep their arrays until the log is written costs several
times as much: every request then gets memory that has left the caches, and so has what is freed later.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fairway.core.columns import Array
from fairway.inference.predictions import Predictions
from fairway.stores.arrow_columns import GrowingTexts


class Mostly:
    """Values of which nearly all are the same."""

    def __init__(self) -> None:
        self._parts: list[tuple[Any, int] | list[Any]] = []

    def add(self, values: list[Any]) -> None:
        """Takes `values` over, and there are some."""
        first, count = values[0], len(values)
        self._parts.append((first, count) if values.count(first) == count else values)

    def clear(self) -> None:
        self._parts.clear()

    def all(self) -> list[Any]:
        return [
            one for part in self._parts for one in ([part[0]] * part[1] if isinstance(part, tuple) else part)
        ]


class Gathered:
    """Predictions of one version and one shape: the same fields and outputs, each of one type and size.

    `keys`, `wanted` (the version that was asked for by name), `callers`, `counts` (rows) and `seconds` have a value a request;
    so have `sources` and `row_keys` where precomputed answers are looked for, elsewhere they are empty. `calls`
    (requests), `times` (seconds since 1970) and `protocols` have a value a call. Not safe to share between threads.
    """

    def __init__(self, like: Predictions) -> None:
        columns = like.columns
        self.about = like.about
        self.names = columns.names
        self.rows = 0
        self.request_ids = GrowingTexts()
        self.keys, self.wanted, self.callers, self.protocols = Mostly(), Mostly(), Mostly(), Mostly()
        self.counts = array("i")
        self.seconds = array("f")
        self.sources: list[str] = []
        self.row_keys: list[Sequence[bytes] | None] = []
        self.calls = array("i")
        self.times = array("d")
        self._is_matrix = columns.packed is not None
        self._outputs = (*like.outputs,)
        self._room = columns.rows
        self._values = [np.empty((self._room, *part.shape[1:]), _kept_as(part)) for part in _parts(like)]

    def add(self, predictions: Sequence[Predictions], casting: Literal["no", "unsafe"] = "no") -> None:
        """Copies them. TypeError or ValueError where something is not of this shape; nothing is added then."""
        end = self.rows + sum([one.columns.rows for one in predictions])
        if end > self._room:
            self._grow(end)
        here = slice(self.rows, end)
        for values, parts in zip(self._values, zip(*map(_parts, predictions), strict=True), strict=True):
            np.concatenate(parts, out=values[here], casting=casting)
        requests = [request for one in predictions for request in one.requests]
        self.request_ids.add([request.request_id for request in requests])
        self.keys.add([request.key for request in requests])
        self.wanted.add([request.version for request in requests])
        self.callers.add([request.caller for request in requests])
        self.protocols.add([one.requests[0].protocol for one in predictions])
        for one in predictions:
            self.counts.extend(one.counts)
            self.seconds.extend(one.seconds)
            self.calls.append(len(one.requests))
            self.times.append(one.time)
            if one.sources is not None:
                self.sources += one.sources
                self.row_keys += [request.keys for request in one.requests]
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
        told = (
            self.request_ids,
            self.keys,
            self.wanted,
            self.callers,
            self.protocols,
            self.sources,
            self.row_keys,
        )
        for each in told:
            each.clear()
        for numbers in (self.counts, self.seconds, self.calls, self.times):
            del numbers[:]

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
