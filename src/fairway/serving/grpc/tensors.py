"""Typed tensor contents of V2's gRPC. They give the arrays that raw bytes (`serving/v2_raw.py`) and JSON give for the
same numbers, to the last bit.

Source: kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.conform import Values
from fairway.core.errors import MalformedInput
from fairway.serving.v2_raw import NUMPY, count_of, in_shape, reshaped

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where each datatype's values stand; the half-precision floats have no place and must be raw."""


def read_contents(datatype: str, shape: list[int], contents: Any) -> Values:
    """The values of an InferTensorContents: an array, or a list of `str` for one column of BYTES.

    Raises MalformedInput, as a reason to stand behind the tensor's name.
    """
    if datatype in ("FP16", "BF16"):
        raise MalformedInput(f"{datatype} has no typed contents: send it in raw_input_contents")
    name = FIELDS.get(datatype)
    if name is None:
        known = ", ".join(sorted({*NUMPY, "BF16", "BYTES"}))
        raise MalformedInput(f"datatype {datatype[:40]!r} is not one of {known}")
    wrong = [field.name for field, _ in contents.ListFields() if field.name != name]
    if wrong:
        raise MalformedInput(f"values of {datatype} belong into {name}, not into {', '.join(wrong)}")
    values = getattr(contents, name)
    count = count_of(shape)
    if len(values) != count:
        needed = count if count < 2**60 else "far more"
        raise MalformedInput(f"shape {str(shape)[:60]} needs {needed} values, {name} has {len(values)}")
    if datatype == "BYTES":
        try:
            return in_shape([value.decode() for value in values], shape)
        except UnicodeDecodeError:
            raise MalformedInput("an element is not text in UTF-8") from None
    dtype = NUMPY[datatype]
    try:
        array = np.array(values, dtype=dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        bad = next(value for value in values if not limits.min <= value <= limits.max)
        raise MalformedInput(f"{bad} does not fit {datatype} ({limits.min} to {limits.max})") from None
    return array if len(shape) == 1 else reshaped(array, shape)


def add_contents(datatype: str, values: Array, contents: Any) -> None:
    """Fills an InferTensorContents. BYTES are given as an object array of text; a null is an empty one."""
    flat = values.reshape(-1).tolist()
    if datatype == "BYTES":
        flat = [b"" if text is None else str(text).encode() for text in flat]
    getattr(contents, FIELDS[datatype]).extend(flat)
