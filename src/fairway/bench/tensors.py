"""V2 inputs as bytes: JSON, JSON with binary tensors, gRPC; from rows of a table, from an example, or made up.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md, and Triton's extension for binary data.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairway.bench.v2_grpc import infer_request
from fairway.core.errors import MalformedInput

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
_TEXTS = ("a", "b", "c")


class Spec(msgspec.Struct, frozen=True):
    """An input as metadata describes it; sizes of -1 are open, the first of all is the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class Tensor(msgspec.Struct, frozen=True):
    """An input with values: flat, row-major, numbers or texts; None where one is missing."""

    spec: Spec
    values: list[Any]

    @property
    def rows(self) -> int:
        return self.spec.shape[0]


def made_up(specs: list[Spec], rows: int, seed: int = 0) -> list[Tensor]:
    """Values of the right types and shapes, the same for the same seed. What they mean is not known here: a model
    with a contract may well refuse them. Raises MalformedInput for a datatype nobody here knows."""
    generator = np.random.default_rng(seed)
    return [_made_up(spec, rows, generator) for spec in specs]


def _made_up(spec: Spec, rows: int, generator: np.random.Generator) -> Tensor:
    sizes = spec.shape or [-1]
    shape = [rows if sizes[0] < 0 else sizes[0], *(1 if size < 0 else size for size in sizes[1:])]
    count = math.prod(shape)
    values: list[Any]
    if spec.datatype == "BYTES":
        values = generator.choice(_TEXTS, count).tolist()
    elif spec.datatype == "BOOL":
        values = (generator.random(count) < 0.5).tolist()
    elif spec.datatype.startswith("FP") and spec.datatype in DTYPES:
        values = generator.normal(size=count).round(4).tolist()
    elif spec.datatype in DTYPES:
        values = generator.integers(0, 10, count).tolist()
    else:
        raise MalformedInput(
            f"input {spec.name!r} has the datatype {spec.datatype}, for which no values can be made up.",
            hint="Give a request of your own with --body.",
        )
    return Tensor(Spec(spec.name, spec.datatype, shape), values)


def of_columns(specs: list[Spec], columns: dict[str, list[Any]]) -> list[Tensor]:
    """Rows of a table as the inputs of a model. Columns go to the inputs of their names; a model with one input that
    is a matrix, and no column of its name, takes all columns packed in their order.

    Raises MalformedInput naming the inputs that no column has.
    """
    rows = len(next(iter(columns.values())))
    missing = [spec.name for spec in specs if spec.name not in columns]
    if len(specs) == 1 and missing and len(specs[0].shape) == 2 and specs[0].shape[1] in (-1, len(columns)):
        packed = [value for row in zip(*columns.values(), strict=True) for value in row]
        return [Tensor(Spec(specs[0].name, specs[0].datatype, [rows, len(columns)]), packed)]
    if missing:
        raise MalformedInput(
            f"the data has no column for {', '.join(missing[:10])}; it has {', '.join(list(columns)[:10])}."
        )
    return [_of_column(spec, columns[spec.name]) for spec in specs]


def _of_column(spec: Spec, values: list[Any]) -> Tensor:
    rows = len(values)
    while any(isinstance(value, list) for value in values):  # a tensor's column, nested
        values = [inner for value in values for inner in value]
    if spec.datatype == "BYTES":
        values = [None if value is None else _text(value) for value in values]
    elif spec.datatype.startswith(("INT", "UINT")):  # a column with gaps is read as floats
        values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    inner = [1 if size < 0 else size for size in spec.shape[1:]]
    if len(spec.shape) == 2 and spec.shape[1] < 0 and rows:
        inner = [len(values) // rows]
    return Tensor(Spec(spec.name, spec.datatype, [rows, *inner]), values)


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def tiled(tensors: list[Tensor], rows: int) -> list[Tensor]:
    """The same rows again and again, or fewer of them, until there are `rows`."""
    return [_tiled(tensor, rows) for tensor in tensors]


def _tiled(tensor: Tensor, rows: int) -> Tensor:
    have = tensor.rows
    if have == rows or not have:
        return tensor
    width = len(tensor.values) // have
    values = (tensor.values * -(-rows // have))[: rows * width]
    return Tensor(Spec(tensor.spec.name, tensor.spec.datatype, [rows, *tensor.spec.shape[1:]]), values)


def json_body(tensors: list[Tensor]) -> bytes:
    inputs = [
        {"name": t.spec.name, "shape": t.spec.shape, "datatype": t.spec.datatype, "data": t.values}
        for t in tensors
    ]
    return msgspec.json.encode({"inputs": inputs})


def binary_bodies(requests: list[list[Tensor]]) -> tuple[list[bytes], int]:
    """Bodies, and the length of the JSON part of each, which goes into `Inference-Header-Content-Length`: shorter ones
    are filled up with spaces, so that one head fits all. Asks for binary outputs too. Raises MalformedInput for
    missing values."""
    parts = [_binary_parts(tensors) for tensors in requests]
    size = max(len(head) for head, _ in parts)
    return [head.ljust(size) + content for head, content in parts], size


def _binary_parts(tensors: list[Tensor]) -> tuple[bytes, bytes]:
    raws = [raw(tensor) for tensor in tensors]
    inputs = [
        {
            "name": t.spec.name,
            "shape": t.spec.shape,
            "datatype": t.spec.datatype,
            "parameters": {"binary_data_size": len(content)},
        }
        for t, content in zip(tensors, raws, strict=True)
    ]
    head = msgspec.json.encode({"inputs": inputs, "parameters": {"binary_data_output": True}})
    return head, b"".join(raws)


def grpc_body(model: str, version: str, tensors: list[Tensor]) -> bytes:
    """Raises MalformedInput for missing values."""
    described = [(t.spec.name, t.spec.datatype, t.spec.shape, raw(t)) for t in tensors]
    return infer_request(model, version, described)


def raw(tensor: Tensor) -> bytes:
    """Little-endian values; texts with their length before each, 4 bytes. A missing float is NaN; raises
    MalformedInput for any other missing value, which raw contents cannot carry."""
    spec = tensor.spec
    if any(value is None for value in tensor.values) and not spec.datatype.startswith("FP"):
        raise MalformedInput(
            f"{spec.name} has missing values, which binary {spec.datatype} cannot carry.",
            hint="Use JSON, or rows without gaps.",
        )
    if spec.datatype == "BYTES":
        texts = [str(value).encode() for value in tensor.values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    dtype = DTYPES.get(spec.datatype)
    if dtype is None:
        raise MalformedInput(f"{spec.name}: datatype {spec.datatype} is not known here.")
    try:
        values: NDArray[Any] = np.array([math.nan if v is None else v for v in tensor.values], dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedInput(f"{spec.name} holds values that are not {spec.datatype}: {error}.") from None
    return values.astype(dtype.newbyteorder("<")).tobytes()
