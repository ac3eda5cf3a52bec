"""Open Inference Protocol V2, REST and JSON: bodies in, bodies out.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import math
import struct
import threading
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import simdjson

from fairway.core.columns import Array, Outputs
from fairway.core.conform import Values
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import MalformedInput, Problem
from fairway.core.request import Inputs

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
_NUMPY = {datatype: np.dtype(dtype.value) for dtype, datatype in DATATYPES.items() if dtype.is_numeric}
_OPEN = ord("[")
_FEW_LISTS = 16
_LARGE_BODY = 2048  # from here on pysimdjson's flat buffer beats a list of Python numbers
_parsers = threading.local()
_floats = msgspec.json.Decoder(list[float])
_integers = msgspec.json.Decoder(list[int])
_texts = msgspec.json.Decoder(list[str])


class Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class InferBody(msgspec.Struct, gc=False):
    """V2's body; the row forms are accepted in place of `inputs`, and are empty when they are not there (msgspec
    does not read a Raw that may also be None)."""

    inputs: list[Tensor] | None = None
    id: str | None = None
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] | None = None
    dataframe_split: msgspec.Raw = msgspec.Raw()
    dataframe_records: msgspec.Raw = msgspec.Raw()
    instances: msgspec.Raw = msgspec.Raw()


class DecodedBody(msgspec.Struct, gc=False):
    """A body whose tensors have been read; `rows` is what was sent when that was not V2 alone."""

    inputs: Inputs | None
    id: str | None
    rows: InferBody | None = None
    wanted: tuple[str, ...] | None = None
    key: str | None = None


class OutputTensor(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferAnswer(msgspec.Struct, omit_defaults=True, gc=False):
    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class TensorMetadata(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


_body = msgspec.json.Decoder(InferBody)
_encode = msgspec.json.Encoder().encode


def decode_body(body: bytes) -> DecodedBody:
    """Raises MalformedInput saying where the JSON stops making sense, or every tensor that cannot be read."""
    if len(body) >= _LARGE_BODY:
        fast = _decode_large(body)
        if fast is not None:
            return fast
    try:
        read = _body.decode(body)
    except msgspec.DecodeError as error:
        hint = " JSON has no NaN or Infinity: send null for a missing number." if _has_nan_token(body) else ""
        raise MalformedInput(f"The body is not a valid request: {error}.{hint}") from None
    except UnicodeDecodeError:
        raise MalformedInput("The body is not valid UTF-8.") from None
    except RecursionError:
        raise MalformedInput("The body is nested too deeply.") from None
    wanted = None if read.outputs is None else tuple(output.name for output in read.outputs)
    key = None if read.parameters is None else read.parameters.get("key")
    inputs = None if read.inputs is None else _read_tensors(read.inputs)
    rows = (
        read if inputs is None or read.dataframe_split or read.dataframe_records or read.instances else None
    )
    return DecodedBody(inputs, read.id, rows, wanted, None if key is None else str(key))


def _read_tensors(inputs: list[Tensor]) -> Inputs:
    """Each tensor as an array, or as a list where it holds text or nulls."""
    values: dict[str, Values] = {}
    problems: list[Problem] = []
    for tensor in inputs:
        if tensor.name in values:
            problems.append(Problem("stands in inputs more than once", tensor.name))
            continue
        try:
            values[tensor.name] = _values(tensor)
        except MalformedInput as error:
            problems.append(Problem(str(error), tensor.name))
    if problems:
        raise MalformedInput("Some inputs cannot be read.", tuple(problems))
    if not inputs:
        raise MalformedInput("inputs is empty.")
    return values


def encode_answer(
    outputs: Outputs,
    contract: Contract,
    model: str,
    version: str,
    wanted: tuple[str, ...] | None,
    request_id: str | None,
) -> bytes:
    """The V2 JSON body; NaN and infinity become null, which JSON can carry."""
    chosen = [output for output in contract.outputs if wanted is None or output.name in wanted]
    return _encode(
        InferAnswer(model, version, [_output(output, outputs[output.name]) for output in chosen], request_id)
    )


def check_wanted(wanted: tuple[str, ...] | None, contract: Contract) -> None:
    if wanted is None:
        return
    known = [output.name for output in contract.outputs]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise MalformedInput(
            f"This model's outputs are {', '.join(known)}.",
            tuple(Problem("is not an output", name) for name in unknown),
        )


def metadata(name: str, versions: list[str], platform: str, contract: Contract) -> bytes:
    return _encode(
        ModelMetadata(
            name,
            versions,
            platform,
            [_described(field) for field in contract.inputs],
            [_described(output) for output in contract.outputs],
        )
    )


def _described(field: Field | Output) -> TensorMetadata:
    return TensorMetadata(field.name, DATATYPES[field.dtype], [-1, *field.shape])


def _output(output: Output, values: Array) -> OutputTensor:
    flat = values if values.ndim == 1 else values.reshape(-1)
    if output.dtype is DType.timestamp:
        data: list[Any] = [f"{moment}Z" for moment in flat.astype("datetime64[us]").astype(str)]
    else:
        data = flat.tolist()
    return OutputTensor(output.name, DATATYPES[output.dtype], list(values.shape), data)


def _has_nan_token(body: bytes) -> bool:
    return b"NaN" in body or b"Infinity" in body


def _values(tensor: Tensor) -> Values:
    shape = tensor.shape
    if len(shape) == 2 and shape[0] >= 0 <= shape[1]:
        count = shape[0] * shape[1]
    elif not shape or any(size < 0 for size in shape):
        raise MalformedInput(f"shape {shape} is not a list of sizes from 0, rows first")
    else:
        count = math.prod(shape)
    data = _flat(tensor)
    if len(data) != count:
        needed = count if count < 2**63 else "far more"  # Python does not write out thousands of digits
        raise MalformedInput(f"shape {str(shape)[:60]} needs {needed} values, data has {len(data)}")
    if isinstance(data, np.ndarray):
        return data if len(shape) == 1 else _reshaped(data, shape)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return data
    array = np.empty(count, dtype=object)
    array[:] = data
    return _reshaped(array, shape)


def _reshaped(data: Array, shape: list[int]) -> Array:
    try:
        return data.reshape(shape)
    except ValueError:
        raise MalformedInput(f"shape {str(shape)[:60]} is not one an array can have") from None


def _flat(tensor: Tensor) -> Array | list[Any]:
    """All elements in row-major order: an array of the tensor's datatype, or a list for text and nulls."""
    datatype, raw = tensor.datatype, tensor.data
    try:
        if datatype == "FP32":
            return _float32(_floats.decode(raw))
        if datatype.startswith("FP"):
            return _typed(np.array(_floats.decode(raw)), datatype)
        if datatype.startswith(("INT", "UINT")):
            return _integer_array(_integers.decode(raw), datatype)
        if datatype == "BYTES":
            return _texts.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass  # nested, or holds something else: the careful way
    if datatype not in _NUMPY and datatype != "BYTES":
        known = ", ".join(sorted({*_NUMPY, "BYTES"}))
        raise MalformedInput(f"datatype {datatype!r} is not one of {known}")
    if not raw:
        raise MalformedInput("has no data")
    try:
        data = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        raise MalformedInput("data is not valid UTF-8") from None
    except (msgspec.DecodeError, RecursionError):
        raise MalformedInput("data is nested too deeply, or holds a number no float64 can hold") from None
    if not isinstance(data, list):
        raise MalformedInput("data must be a list")
    flat = data if not any(isinstance(value, list) for value in data) else _unnested(data, tensor.shape)
    return _typed_list(flat, datatype)


def _float32(numbers: list[float]) -> Array:
    """As numpy would, at half its price: no error state has to be set and restored for the odd overflow."""
    try:
        return np.frombuffer(_float32_layout(len(numbers)).pack(*numbers), dtype=np.float32)
    except OverflowError:
        return _typed(np.array(numbers), "FP32")


@lru_cache(maxsize=256)
def _float32_layout(count: int) -> struct.Struct:
    return struct.Struct(f"{count}f")


def _unnested(data: list[Any], shape: list[int]) -> list[Any]:
    """Nested lists, flattened once their nesting is known to have the given shape."""
    level: list[Any] = data
    if len(level) != shape[0]:
        raise MalformedInput(f"shape {shape} needs {shape[0]} rows, data has {len(level)}")
    for size in shape[1:]:
        for row, values in enumerate(level):
            if not isinstance(values, list) or len(values) != size:
                raise MalformedInput(f"data does not have shape {shape}: it is ragged near element {row}")
        level = [value for values in level for value in values]
    return level


def _typed_list(flat: list[Any], datatype: str) -> Array | list[Any]:
    kinds = {type(value) for value in flat}
    if datatype.startswith("FP") and kinds <= {int, float}:
        try:
            return _typed(np.array(flat, dtype=np.float64), datatype)
        except OverflowError:
            return flat
    if datatype.startswith(("INT", "UINT")) and kinds == {int}:
        return _integer_array(flat, datatype)
    return flat


def _integer_array(values: list[int], datatype: str) -> Array | list[Any]:
    dtype = _NUMPY.get(datatype, np.dtype(np.int64))
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        wrong = next(value for value in values if not limits.min <= value <= limits.max)
        raise MalformedInput(f"{wrong} does not fit {datatype} ({limits.min} to {limits.max})") from None


def _typed(values: Array, datatype: str) -> Array:
    """Numbers as the datatype they were declared to be: an FP32 of 0.1 is float32's 0.1."""
    wanted = _NUMPY.get(datatype)
    if wanted is None:
        raise MalformedInput(f"datatype {datatype!r} is not one of {', '.join(sorted({*_NUMPY, 'BYTES'}))}")
    if values.dtype == wanted:
        return values
    with np.errstate(over="ignore"):  # too large becomes infinite, which validation names
        return values.astype(wanted)


def _decode_large(body: bytes) -> DecodedBody | None:
    """Large numeric tensors straight into buffers. None where msgspec must look (and word the error)."""
    parser = getattr(_parsers, "parser", None)
    if parser is None:
        parser = _parsers.parser = simdjson.Parser()
    document: Any = None
    tensor: Any = None
    data: Any = None
    try:
        document = parser.parse(body)
        keys = list(document)
        if keys != ["inputs"] and sorted(keys) != ["id", "inputs"]:
            return None
        read: dict[str, Values] = {}
        lists = 1
        for tensor in document["inputs"]:
            name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"].as_list()
            data = tensor["data"]
            plain = len(tensor) == 4 and type(name) is str and name not in read
            lists += 2 + (len(data) if len(data) and isinstance(data[0], simdjson.Array) else 0)
            if not plain or not _numeric_and_regular(data, datatype, shape):
                return None
            if datatype.startswith("FP"):
                values: Array = np.frombuffer(data.as_buffer(of_type="d"), dtype=np.float64)
            else:
                values = np.frombuffer(data.as_buffer(of_type="i"), dtype=np.int64)
                limits = np.iinfo(_NUMPY[datatype])
                if len(values) and not limits.min <= values.min() <= values.max() <= limits.max:
                    return None
            if len(values) != math.prod(shape):
                return None
            read[name] = _typed(values, datatype).reshape(shape)
        if not _opens(body, lists):
            return None  # a list where none should be: as_buffer would flatten it
        # Asking for a key that is not there throws inside simdjson, at 6 us.
        echoed = document["id"] if len(keys) == 2 else None
        return DecodedBody(read, echoed) if read and (echoed is None or isinstance(echoed, str)) else None
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError):
        return None
    finally:
        del document, tensor, data  # the parser is free for the next body only then


def _opens(body: bytes, lists: int) -> bool:
    """Whether exactly `lists` brackets open in the body."""
    if lists > _FEW_LISTS:
        return int(np.count_nonzero(np.frombuffer(body, np.uint8) == _OPEN)) == lists
    at = -1
    for _ in range(lists):  # bytes.find looks at 32 bytes at a time, bytes.count at one
        at = body.find(b"[", at + 1)
        if at < 0:
            return False
    return body.find(b"[", at + 1) < 0


def _numeric_and_regular(data: Any, datatype: str, shape: Any) -> bool:
    """True for a number datatype whose data is flat, or nested exactly two deep as `shape` says."""
    if datatype not in _NUMPY or datatype in ("BOOL", "UINT64"):
        return False
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
        return False
    if not len(data) or not isinstance(data[0], simdjson.Array):
        return True
    return (
        len(shape) == 2
        and len(data) == shape[0]
        and all(isinstance(row, simdjson.Array) and len(row) == shape[1] for row in data)
    )
