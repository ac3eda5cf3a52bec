"""V2's datatypes, and tensors as raw bytes: what the binary tensor extension and gRPC's raw contents carry.

Little-endian, row-major, no padding; BOOL is a byte, BYTES a 4-byte length and the bytes. Source: Triton,
docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.conform import Values
from fairway.core.contract import DType, Output
from fairway.core.errors import MalformedInput
from fairway.serving.formats.text import iso_texts

DATATYPES: dict[DType, str] = {
    DType.bool: "BOOL",
    DType.int8: "INT8",
    DType.int16: "INT16",
    DType.int32: "INT32",
    DType.int64: "INT64",
    DType.uint8: "UINT8",
    DType.uint16: "UINT16",
    DType.uint32: "UINT32",
    DType.uint64: "UINT64",
    DType.float16: "FP16",
    DType.float32: "FP32",
    DType.float64: "FP64",
    DType.string: "BYTES",
    DType.timestamp: "BYTES",  # ISO 8601 text
}
NUMPY = {
    datatype: np.dtype(dtype.value).newbyteorder("<")
    for dtype, datatype in DATATYPES.items()
    if dtype.is_numeric
}
_BFLOAT16 = np.dtype("<u2")
_LENGTH = Struct("<I")
_KNOWN = ", ".join(sorted({*NUMPY, "BF16", "BYTES"}))


def count_of(shape: list[int]) -> int:
    """Elements of a tensor of that shape, rows first. Raises MalformedInput for what is no shape."""
    if len(shape) == 2 and shape[0] >= 0 <= shape[1]:
        return shape[0] * shape[1]
    if not shape or any(size < 0 for size in shape):
        raise MalformedInput(f"shape {str(shape)[:60]} is not a list of sizes from 0, rows first")
    return math.prod(shape)


def reshaped(data: Array, shape: list[int]) -> Array:
    try:
        return data.reshape(shape)
    except ValueError:
        raise MalformedInput(f"shape {str(shape)[:60]} is not one an array can have") from None


def read_raw(datatype: str, shape: list[int], body: bytes, begin: int, end: int) -> Values:
    """The tensor in `body[begin:end]`, which lies within the body: an array that looks at those bytes where it can,
    a list of `str` for one column of BYTES. BF16 becomes float32, which holds it exactly.

    Raises MalformedInput, as a reason to stand behind the tensor's name.
    """
    count = count_of(shape)
    if datatype == "BYTES":
        return _read_texts(shape, count, body, begin, end)
    dtype = _BFLOAT16 if datatype == "BF16" else NUMPY.get(datatype)
    if dtype is None:
        raise MalformedInput(f"datatype {datatype[:40]!r} is not one of {_KNOWN}")
    size = dtype.itemsize
    if count * size != end - begin:
        needed = (
            count * size if count < 2**60 else "far more"
        )  # Python does not write out thousands of digits
        raise MalformedInput(
            f"shape {str(shape)[:60]} of {datatype} needs {needed} bytes, {end - begin} came"
        )
    if count == 0:
        return reshaped(np.zeros(0, dtype=dtype), shape)
    if begin % size:  # arithmetic on numbers that straddle words is slower than moving them first
        values: Array = np.frombuffer(body[begin:end], dtype)
    else:
        values = np.frombuffer(body, dtype, count, begin)
    if datatype == "BOOL":
        if values.view(np.uint8).max() > 1:
            raise MalformedInput("a BOOL byte must be 0 or 1")
    elif datatype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values if len(shape) == 1 else reshaped(values, shape)


def write_raw(output: Output, values: Array) -> bytes:
    """An output's elements as raw bytes of its declared datatype."""
    if output.dtype.is_numeric:
        return values.astype(NUMPY[DATATYPES[output.dtype]], copy=False).tobytes()
    return write_texts(iso_texts(values) if output.dtype is DType.timestamp else values)


def write_texts(values: Array) -> bytes:
    """BYTES of an object array of text; a null has length 0."""
    parts: list[bytes] = []
    pack = _LENGTH.pack
    for value in values.reshape(-1).tolist():
        text = b"" if value is None else str(value).encode()
        parts.append(pack(len(text)))
        parts.append(text)
    return b"".join(parts)


def _read_texts(shape: list[int], count: int, body: bytes, begin: int, end: int) -> Values:
    if count * 4 > end - begin:  # before any loop: a shape is quickly written down
        needed = count if count < 2**60 else "far more"
        raise MalformedInput(
            f"shape {str(shape)[:60]} needs {needed} elements, which {end - begin} bytes cannot hold"
        )
    texts: list[Any] = []
    read, at = _LENGTH.unpack_from, begin
    for element in range(count):
        if at + 4 > end:
            raise MalformedInput(f"element {element} has no length: the data ends there")
        (length,) = read(body, at)
        at += 4
        if length > end - at:
            raise MalformedInput(f"element {element} claims {length} bytes, of which {end - at} came")
        try:
            texts.append(body[at : at + length].decode())
        except UnicodeDecodeError:
            raise MalformedInput(f"element {element} is not text in UTF-8") from None
        at += length
    if at != end:
        raise MalformedInput(f"{end - at} bytes are left over after {count} elements")
    return in_shape(texts, shape)


def in_shape(values: list[Any], shape: list[int]) -> Values:
    """Objects of a tensor: as a list when there is one a row."""
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return values
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return reshaped(array, shape)
