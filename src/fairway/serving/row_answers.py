"""Which outputs an answer in rows has, and how they are written as JSON.

TensorFlow Serving, KServe V1, MLflow, SageMaker and Vertex answer with "the prediction", where a contract names every
output. What they mean is what the packaged model's own `predict()` returns; the rest is there for the asking.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array, Outputs
from fairway.core.contract import Contract, DType, Output, Task
from fairway.core.errors import MalformedInput, Problem
from fairway.serving.entrance import Headers
from fairway.serving.json_rows import PerContract

OUTPUTS_HEADER = b"x-fairway-outputs"
_MAIN = {Task.classification: "label", Task.anomaly: "label", Task.regression: "prediction"}
_encode = msgspec.json.Encoder().encode


def _main_outputs(contract: Contract) -> tuple[str, ...]:
    names = tuple(output.name for output in contract.outputs)
    main = _MAIN.get(contract.task)
    return (main,) if main in names else names


main_outputs = PerContract(_main_outputs)
"""The label of a classifier or anomaly detector, the prediction of a regressor; all outputs of other models."""


def wanted_outputs(
    contract: Contract, headers: Headers, named: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """The outputs named by the request (`named`, or the header X-Fairway-Outputs: names, or * for all), in the
    contract's order, or `main_outputs`. Raises MalformedInput for a name that is no output."""
    if named is None:
        header = headers.get(OUTPUTS_HEADER)
        if header is None:
            return main_outputs(contract)
        named = tuple(name.strip() for name in header.decode("latin-1").split(","))
    names = tuple(output.name for output in contract.outputs)
    if named == ("*",):
        return names
    unknown = [name for name in named if name not in names]
    if unknown or not named:
        raise MalformedInput(
            f"This model's outputs are {', '.join(names)}.",
            tuple(Problem("is not an output", name) for name in unknown),
        )
    return tuple(name for name in names if name in named)


def by_row(contract: Contract, outputs: Outputs, names: tuple[str, ...]) -> list[Any]:
    """One value a row; objects by name where there are several outputs."""
    columns = by_name(contract, outputs, names)
    if len(names) == 1:
        return columns[names[0]]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def by_name(contract: Contract, outputs: Outputs, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """The values of each output, nested by row, as JSON knows them."""
    return {
        output.name: _values(output, outputs[output.name])
        for output in contract.outputs
        if output.name in names
    }


def to_json(value: object, outputs: Outputs, names: tuple[str, ...], *, tokens: bool) -> bytes:
    """`value`, made of these outputs, as JSON. What is not finite is written as the tokens NaN, Infinity and
    -Infinity, which JSON does not know but TensorFlow Serving's clients do, or else as null."""
    if tokens and not all(_is_finite(outputs[name]) for name in names):
        return json.dumps(value, separators=(",", ":")).encode()
    return _encode(value)


def _values(output: Output, values: Array) -> list[Any]:
    if output.dtype is DType.timestamp:
        return _moments(values)
    listed: list[Any] = values.tolist()
    return listed


def _moments(values: Array) -> list[Any]:
    text = values.astype("datetime64[us]").astype(str)
    known = np.char.add(text, "Z").astype(object)
    known[np.isnat(values)] = None
    listed: list[Any] = known.tolist()
    return listed


def _is_finite(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
