"""TensorFlow's TensorProto and Example as arrays, and back.

Numbers come as raw bytes (`tensor_content`) or as lists (`float_val`, ...), where a short list means that its last value
fills the rest. They go out as lists, as TensorFlow Serving does: clients read `outputs["x"].float_val` directly.

Sources: tensorflow/core/framework/tensor.proto and types.proto, tensorflow/core/example/example.proto.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.conform import Values
from fairway.core.contract import Contract, DType, Output
from fairway.core.errors import MalformedInput
from fairway.serving.formats.text import iso_texts
from fairway.serving.v2_raw import in_shape, reshaped

_NUMBERS: dict[int, tuple[DType, str]] = {
    1: (DType.float32, "float_val"),
    2: (DType.float64, "double_val"),
    3: (DType.int32, "int_val"),
    4: (DType.uint8, "int_val"),
    5: (DType.int16, "int_val"),
    6: (DType.int8, "int_val"),
    9: (DType.int64, "int64_val"),
    10: (DType.bool, "bool_val"),
    17: (DType.uint16, "int_val"),
    19: (DType.float16, "half_val"),
    22: (DType.uint32, "uint32_val"),
    23: (DType.uint64, "uint64_val"),
}
"""DataType numbers: the type, and where its values stand."""
_STRING, _BFLOAT16 = 7, 14
NUMBER_OF = {dtype: number for number, (dtype, _) in _NUMBERS.items()} | {
    DType.string: _STRING,
    DType.timestamp: _STRING,  # ISO 8601 text
}
_MOST_FILLED = 64 * 1024 * 1024
"""Bytes that a short list may be filled up to: a shape is quickly written down."""


def read_tensor(proto: Any) -> Values:
    """An array of the tensor's shape; a list of `str` for one column of text. BF16 becomes float32.

    Raises MalformedInput, as a reason to stand behind the input's name.
    """
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or not shape or any(size < 0 for size in shape):
        raise MalformedInput(f"its shape {str(shape)[:60]} is not a list of sizes from 0, rows first")
    count = math.prod(shape)
    if proto.dtype == _STRING:
        return _texts(proto, shape, count)
    if proto.dtype == _BFLOAT16:
        bits = _numbers(proto, np.dtype("<u2"), "half_val", count)
        return reshaped((bits.astype(np.uint32) << 16).view(np.float32), shape)
    if proto.dtype not in _NUMBERS:
        raise MalformedInput(f"its dtype {proto.dtype} is not one that is read here")
    dtype, name = _NUMBERS[proto.dtype]
    if dtype is DType.float16:
        return reshaped(_numbers(proto, np.dtype("<u2"), name, count).view(np.float16), shape)
    return reshaped(_numbers(proto, np.dtype(dtype.value).newbyteorder("<"), name, count), shape)


def _numbers(proto: Any, dtype: np.dtype[Any], name: str, count: int) -> Array:
    raw, values = proto.tensor_content, getattr(proto, name)
    if raw:
        if len(raw) != count * dtype.itemsize:
            raise MalformedInput(f"its shape needs {_size(count * dtype.itemsize)} bytes, {len(raw)} came")
        read = np.frombuffer(raw, dtype)
        if dtype == np.bool_ and read.view(np.uint8).max() > 1:
            raise MalformedInput("a DT_BOOL byte must be 0 or 1")
        return read
    _check_count(len(values), count, dtype.itemsize)
    try:
        given = np.array(values, dtype=dtype)
    except OverflowError:
        raise MalformedInput(f"{name} has a number that does not fit {dtype.name}") from None
    if len(given) == count:
        return given
    filled = np.empty(count, dtype=dtype)
    filled[: len(given)] = given
    filled[len(given) :] = given[-1] if len(given) else 0
    return filled


def _texts(proto: Any, shape: list[int], count: int) -> Values:
    if proto.tensor_content:
        raise MalformedInput("text belongs into string_val, not into tensor_content")
    _check_count(len(proto.string_val), count, 64)
    try:
        texts = [value.decode() for value in proto.string_val]
    except UnicodeDecodeError:
        raise MalformedInput("a text is not UTF-8") from None
    texts += [texts[-1] if texts else ""] * (count - len(texts))
    return in_shape(texts, shape)


def _check_count(given: int, count: int, size: int) -> None:
    if given > count:
        raise MalformedInput(f"its shape needs {_size(count)} values, {given} came")
    if given < count and count * size > _MOST_FILLED:
        raise MalformedInput(f"its shape needs {_size(count)} values, and {given} came: send all of them")


def _size(count: int) -> str:
    return str(count) if count < 2**60 else "far more"


def fill_tensor(proto: Any, output: Output, values: Array) -> None:
    """Writes an output into a TensorProto."""
    number = proto.dtype = NUMBER_OF[output.dtype]
    for size in values.shape:
        proto.tensor_shape.dim.add(size=size)
    if number == _STRING:
        texts = iso_texts(values) if output.dtype is DType.timestamp else values
        proto.string_val.extend(
            b"" if text is None else str(text).encode() for text in texts.reshape(-1).tolist()
        )
        return
    flat = values.reshape(-1)
    if output.dtype is DType.float16:
        flat = np.ascontiguousarray(flat).view(np.uint16)
    getattr(proto, _NUMBERS[number][1]).extend(flat.tolist())


def read_example(example: Any, contract: Contract) -> dict[str, Any]:
    """An Example's features by name: one value, or a list nested as the field's shape. A feature without any value is
    None. Raises MalformedInput."""
    fields = {field.name: field for field in contract}
    row: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        field = fields.get(name)
        if kind is None:
            row[name] = None
            continue
        values: list[Any] = list(getattr(feature, kind).value)
        try:
            if kind == "bytes_list":
                values = [value.decode() for value in values]
        except UnicodeDecodeError:
            raise MalformedInput(f"The feature {name[:100]!r} is not text in UTF-8.") from None
        if field is not None and field.dtype is DType.bool and set(values) <= {0, 1}:
            values = [bool(value) for value in values]  # Example has no booleans
        if field is not None and len(field.shape) > 1 and len(values) == math.prod(field.shape):
            values = np.array(values, dtype=object).reshape(field.shape).tolist()
        row[name] = values
    return row
