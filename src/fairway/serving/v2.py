"""Open Inference Protocol V2 over HTTP: request bodies, JSON with or without raw tensors behind it, and metadata.

Answers are written by `v2_answer.py`. Sources: kserve/open-inference-protocol,
specification/protocol/inference_rest.md; Triton, docs/protocol/extension_binary_data.md.
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

from fairway.core.columns import Array
from fairway.core.conform import Values
from fairway.core.contract import Contract, Field, Output
from fairway.core.errors import MalformedInput, Problem
from fairway.core.request import Inputs
from fairway.serving.json_rows import not_utf_8
from fairway.serving.v2_raw import DATATYPES, NUMPY, count_of, in_shape, read_raw, reshaped

_OPEN = ord("[")
_FEW_LISTS = 16
_LARGE_BODY = 2048  # from here on pysimdjson's flat buffer beats a list of Python numbers
_parsers = threading.local()
_floats = msgspec.json.Decoder(list[float])
_integers = msgspec.json.Decoder(list[int])
_texts = msgspec.json.Decoder(list[str])


class TensorParameters(msgspec.Struct, gc=False):
    binary_data_size: int | None = None
    shared_memory_region: str | None = None


class OutputParameters(msgspec.Struct, gc=False):
    binary_data: bool | None = None
    classification: float = 0
    """A whole number; JSON may write it as 2.0."""
    shared_memory_region: str | None = None


class Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: TensorParameters | None = None


class Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: OutputParameters | None = None


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
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] | None = None


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


def decode_body(body: bytes, header: int | None = None, *, may_be_empty: bool = False) -> DecodedBody:
    """The first `header` bytes are JSON and raw tensors follow, in the order of those that say so; without it, all is
    JSON. Raises MalformedInput saying where the JSON stops making sense, or every tensor that cannot be read."""
    if header is None and len(body) >= _LARGE_BODY:
        fast = _decode_large(body)
        if fast is not None:
            return fast
    try:
        read = _body.decode(body if header is None else body[:header])
    except msgspec.DecodeError as error:
        raise _malformed(body[:header], error) from None
    except UnicodeDecodeError:
        raise MalformedInput("The body is not valid UTF-8.") from None
    except RecursionError:
        raise MalformedInput("The body is nested too deeply.") from None
    given = None if may_be_empty and not read.inputs else read.inputs
    inputs = None if given is None else _read_tensors(given, body, header)
    if inputs is None and header is not None and header != len(body):
        raise MalformedInput("Raw tensors follow the JSON, which has no inputs that they could be.")
    rows = (
        read if inputs is None or read.dataframe_split or read.dataframe_records or read.instances else None
    )
    return DecodedBody(inputs, read.id, rows, read.outputs, read.parameters)


def _read_tensors(inputs: list[Tensor], body: bytes, header: int | None) -> Inputs:
    """Each tensor as an array, or as a list where it holds text or nulls."""
    values: dict[str, Values] = {}
    problems: list[Problem] = []
    at = len(body) if header is None else header
    for tensor in inputs:
        name, options = tensor.name, tensor.parameters
        size = None if options is None else options.binary_data_size
        if name in values:
            problems.append(Problem("stands in inputs more than once", name))
            continue
        try:
            if options is not None and options.shared_memory_region is not None:
                raise MalformedInput("is in shared memory, which this server does not do: send its data")
            if size is None:
                values[name] = _values(tensor)
                continue
            if header is None:
                raise MalformedInput(
                    "has a binary_data_size, but the request has no header Inference-Header-Content-Length"
                )
            if tensor.data:
                raise MalformedInput("has both data and a binary_data_size")
            if not 0 <= size <= len(body) - at:
                raise MalformedInput(
                    f"binary_data_size is {size}, but {len(body) - at} bytes are left in the body"
                )
            begin, at = at, at + size
            values[name] = read_raw(tensor.datatype, tensor.shape, body, begin, at)
        except MalformedInput as error:
            problems.append(Problem(str(error), name))
    if problems:
        raise MalformedInput("Some inputs cannot be read.", tuple(problems))
    if not inputs:
        raise MalformedInput("inputs is empty.")
    if at != len(body):
        raise MalformedInput(f"{len(body) - at} bytes are left over after the last tensor.")
    return values


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


def described_shape(field: Field | Output) -> list[int]:
    """The shape that metadata tells, rows first. One value a row is `[n, 1]` for inputs, as Triton has it, because
    clients that batch by themselves (perf_analyzer) need something left beside the rows; `[n]` is read as well."""
    return [-1, *(field.shape or ((1,) if isinstance(field, Field) else ()))]


def _described(field: Field | Output) -> TensorMetadata:
    return TensorMetadata(field.name, DATATYPES[field.dtype], described_shape(field))


def _malformed(body: bytes, error: msgspec.DecodeError) -> MalformedInput:
    if not body.strip():
        return MalformedInput(
            "The body is empty.", hint='Send rows, such as {"dataframe_records": [{...}]}, or tensors.'
        )
    mark = not_utf_8(body)
    if mark is not None:
        return mark
    hint = "JSON has no NaN or Infinity: send null for a missing number." if _has_nan_token(body) else None
    return MalformedInput(f"The body is not a valid request: {error}.", hint=hint)


def _has_nan_token(body: bytes) -> bool:
    return b"NaN" in body or b"Infinity" in body


def _values(tensor: Tensor) -> Values:
    shape = tensor.shape
    count = count_of(shape)
    data = _flat(tensor)
    if len(data) != count:
        needed = count if count < 2**63 else "far more"  # Python does not write out thousands of digits
        raise MalformedInput(f"shape {str(shape)[:60]} needs {needed} values, data has {len(data)}")
    if isinstance(data, np.ndarray):
        return data if len(shape) == 1 else reshaped(data, shape)
    return in_shape(data, shape)


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
    if datatype == "BF16":
        raise MalformedInput("BF16 has no form in JSON: send it as binary data, or as FP32")
    if datatype not in NUMPY and datatype != "BYTES":
        known = ", ".join(sorted({*NUMPY, "BYTES"}))
        raise MalformedInput(f"datatype {datatype[:40]!r} is not one of {known}")
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
    dtype = NUMPY.get(datatype, np.dtype(np.int64))
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        wrong = next(value for value in values if not limits.min <= value <= limits.max)
        raise MalformedInput(f"{wrong} does not fit {datatype} ({limits.min} to {limits.max})") from None


def _typed(values: Array, datatype: str) -> Array:
    """Numbers as the datatype they were declared to be: an FP32 of 0.1 is float32's 0.1."""
    wanted = NUMPY.get(datatype)
    if wanted is None:
        raise MalformedInput(
            f"datatype {datatype[:40]!r} is not one of {', '.join(sorted({*NUMPY, 'BYTES'}))}"
        )
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
                limits = np.iinfo(NUMPY[datatype])
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
    if datatype not in NUMPY or datatype in ("BOOL", "UINT64"):
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
