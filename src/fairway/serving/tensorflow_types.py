"""Which JSON values an input of a type and shape may have, in TensorFlow Serving's words for those it may not.

Source: tensorflow/serving, tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from fairway.core.conform import Values
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import MalformedInput, Problem
from fairway.serving.json_rows import PerContract

_TYPES = {DType.float16: "half", DType.float32: "float", DType.float64: "double", DType.timestamp: "string"}
_DIGITS = {DType.float16: 11, DType.float32: 24, DType.float64: 53}
_NUMBERS = frozenset({int, float})
_TEXT = frozenset({str, bytes})
_NULL = frozenset({type(None)})
_KINDS = {str: "String", dict: "Object", list: "Array", type(None): "Null"}
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def _exact_limit(contract: Contract) -> int:
    return int(2 ** min((_DIGITS[field.dtype] for field in contract if field.dtype.is_float), default=53) - 1)


exact_limit = PerContract(_exact_limit)
"""The largest whole number that every float input of a contract holds exactly."""


def read_values(field: Field, values: Values) -> tuple[Values, list[Problem]]:
    """One value a row, base64 decoded, and what is wrong with them. Lists of one value are taken for the value where
    the field has no shape: models of TensorFlow often want `[n, 1]` for what a contract calls `[n]`. Null passes: the
    contract decides."""
    if isinstance(values, np.ndarray):
        return values, _wrong_shape(field, values.shape) if field.shape else []
    if field.dtype in (DType.string, DType.timestamp):
        values = decoded(list(values))
    if field.shape:
        problems: list[Problem] = []
        for row, value in enumerate(values):
            problems += _tensor(field, value, row)
        return values, problems
    kinds = set(map(type, values))
    if kinds == {list} and all(len(value) == 1 for value in values):
        values = [value[0] for value in values]
        kinds = set(map(type, values))
    return values, _wrong(field, kinds, enumerate(values))


def _wrong(field: Field, kinds: set[type], values: Iterable[tuple[int, Any]]) -> list[Problem]:
    """Those of `values`, each with its row, that are of a type the field cannot have, or lose what they say in it.
    `kinds` are the types among them."""
    dtype = field.dtype
    allowed: frozenset[type] = _TEXT if dtype in (DType.string, DType.timestamp) else _NUMBERS
    if dtype is DType.bool:
        allowed = _NUMBERS | {bool}  # 0 and 1 pass, as they do among the numbers of a table
    if kinds - allowed - _NULL:
        told = _TYPES.get(dtype, dtype.value)
        return [
            Problem(
                f"JSON Value: {shown(value)} Type: {json_kind(value)} is not of expected type: {told}",
                field.name,
                row,
            )
            for row, value in values
            if type(value) not in allowed and value is not None
        ]
    if not dtype.is_float:
        return []
    whole, largest = 2 ** _DIGITS[dtype] - 1, float(np.finfo(dtype.value).max)
    return [
        Problem(
            f"Cannot convert JSON value: {shown(value)} to {_TYPES[dtype]} without loss of precision.",
            field.name,
            row,
        )
        for row, value in values
        if value is not None and (abs(value) > whole if type(value) is int else largest < abs(value) < np.inf)
    ]


def _tensor(field: Field, value: Any, row: int) -> list[Problem]:
    shape = _shape(value)
    try:
        leaves = list(_leaves(value, shape))
    except MalformedInput as error:
        return [Problem(str(error), field.name, row)]
    if shape != field.shape:
        return _wrong_shape(field, (1, *shape), row)
    return _wrong(field, set(map(type, leaves)), ((row, leaf) for leaf in leaves))


def _wrong_shape(field: Field, shape: tuple[int, ...], row: int = 0) -> list[Problem]:
    given, wanted = shape[1:], field.shape
    if given == wanted:
        return []
    sizes = int(np.prod(wanted)), int(np.prod(given))
    why = f"Expecting shape {_dims(wanted)} but got: {_dims(given)}"
    if sizes[0] != sizes[1]:
        why = f"Expecting tensor size: {sizes[0]} but got: {sizes[1]}"
    return [Problem(why, field.name, row)]


def _dims(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _shape(value: Any) -> tuple[int, ...]:
    """That of the first elements, which the others are then held against."""
    sizes = []
    while isinstance(value, list):
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(sizes)


def _leaves(value: Any, shape: tuple[int, ...], level: int = 0) -> Iterator[Any]:
    """The values in row-major order. Raises MalformedInput where a list is not of the given shape."""
    if level == len(shape):
        if isinstance(value, list):
            raise MalformedInput(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        return iter((value,))
    if not isinstance(value, list):
        raise MalformedInput(
            f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
            f"{len(shape)}"
        )
    if len(value) != shape[level]:
        raise MalformedInput(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    return chain.from_iterable(_leaves(item, shape, level + 1) for item in value)


def decoded(value: Any) -> Any:
    """Objects of one key `b64` as the bytes they stand for, at any depth of lists. Raises MalformedInput."""
    if isinstance(value, list):
        return [decoded(item) if isinstance(item, (list, dict)) else item for item in value]
    if not isinstance(value, dict):
        return value
    if not is_base64(value):
        raise MalformedInput(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text: str = value["b64"]
    try:
        padded = text + "=" * (-len(text) % 4)  # padding may be left out, and both alphabets are read
        return base64.b64decode(padded.translate(_STANDARD_ALPHABET), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedInput("Unable to base64 decode") from None


def is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def json_kind(value: Any) -> str:
    """A JSON value's type, as RapidJSON names it."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return _KINDS.get(type(value), "Number")


def shown(value: Any) -> str:
    """A JSON value for a message, cut short."""
    try:
        text = json.dumps(value.tolist() if isinstance(value, np.ndarray) else value, default=str)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes out
        return "..."
    return text if len(text) <= 120 else text[:117] + "..."
