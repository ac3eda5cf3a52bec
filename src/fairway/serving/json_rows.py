"""JSON bodies of rows: rectangular numbers straight into arrays, everything else as Python values.

A body of a thousand rows is nearly all numbers, and a Python object for each of them costs more than everything else
that happens to the request. What the fast readers do not take (nulls among large numbers, text, NaN) is read in the
plain way, with the same meaning.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import simdjson

from fairway.core.columns import Array
from fairway.core.contract import Contract
from fairway.core.errors import MalformedInput

EXACT = 2**53 - 1
"""Whole numbers up to here are the same in float64."""
_LARGE_BODY = 2048
_OPEN = ord("[")
_MOST_KEYS = 8
_RECORDS = re.compile(rb"\[\s*\{")
_BEGINNING = 256
"""Bytes in which a list of objects is looked for, which only the plain reader takes."""
_PLAIN = frozenset({int, float})
T = TypeVar("T")
_parsers = threading.local()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_matrix = msgspec.json.Decoder(list[list[float | None]])
_vector = msgspec.json.Decoder(list[float | None])


def read_body(body: bytes, keys: Collection[str], *, exact: int = EXACT) -> Any:
    """The JSON value of a body, NaN and Infinity tokens included.

    Of an object, the values under `keys`, and the `data` of a `dataframe_split`, are float64 arrays where they are
    rectangular numbers (null is NaN) of which none is beyond `exact`. Raises MalformedInput.
    """
    if len(body) >= _LARGE_BODY:
        if _RECORDS.search(body, 0, _BEGINNING) is not None:
            return read_json(body)
        fast = _read_numbers(body, keys, exact)
        if fast is not None:
            return fast
    try:
        members = _object.decode(body)
    except msgspec.ValidationError:
        return read_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return read_json(body)
    return {name: _member(name, raw, keys, exact) for name, raw in members.items()}


def read_json(body: bytes | msgspec.Raw) -> Any:
    """Any JSON value, NaN and Infinity tokens included. Raises MalformedInput."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error)
    except RecursionError:
        raise MalformedInput("JSON Parse error: it is nested too deeply.") from None
    content = bytes(body)
    mark = not_utf_8(content)
    if mark is not None:
        raise mark
    if b"NaN" in content or b"Infinity" in content:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            why = str(error)
    raise MalformedInput(f"JSON Parse error: {why}.")


def not_utf_8(body: bytes) -> MalformedInput | None:
    """What is wrong with a body that begins as no JSON does, but as editors and Windows write text."""
    if body.startswith(b"\xef\xbb\xbf"):
        return MalformedInput("The body begins with a byte order mark.", hint="Send UTF-8 without one.")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in body[:2]:
        return MalformedInput("The body looks like UTF-16 or UTF-32.", hint="Send UTF-8.")
    return None


def _member(name: str, raw: msgspec.Raw, keys: Collection[str], exact: int) -> Any:
    if name not in keys:
        return read_json(raw)
    if name == "dataframe_split":
        return read_body(bytes(raw), ("data",), exact=exact)
    for decoder in (_matrix, _vector):
        try:
            values = decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        array = _rectangle(values, exact)
        if array is not None:
            return array
    return read_json(raw)


def _rectangle(values: list[Any], exact: int) -> Array | None:
    if not values:
        return None
    if isinstance(values[0], list):
        if not values[0] or len({len(row) for row in values}) > 1:
            return None
        if len(values) == 1:  # comparing a few Python numbers is quicker than three calls of numpy
            row = values[0]
            try:
                if max(row) > exact or min(row) < -exact:
                    return None
                return np.array(values)
            except TypeError:
                pass  # nulls
    array = np.array(values, dtype=np.float64)
    return array if _is_exact(array, exact) else None


def records_matrix(rows: Sequence[Any], contract: Contract, *, exact: int = EXACT) -> Array | None:
    """Rows as objects of plain numbers, for a model whose inputs are one matrix: `[n, fields]` in contract order. None
    where anything else is among them, for the plain way to take or to refuse."""
    take = _taker(contract)
    if take is None:
        return None
    try:
        if contract.extra_fields == "reject" and any(len(row) > len(contract.inputs) for row in rows):
            return None
        return _numbers([take(row) for row in rows], exact)
    except (KeyError, TypeError, IndexError):
        return None


def columns_matrix(columns: Mapping[str, Any], contract: Contract, *, exact: int = EXACT) -> Array | None:
    """Columns of plain numbers by name, likewise."""
    take = _taker(contract)
    if take is None or (contract.extra_fields == "reject" and len(columns) > len(contract.inputs)):
        return None
    try:
        lists = take(columns)
        if len({len(values) for values in lists}) != 1:
            return None
        array = _numbers(lists, exact)
    except (KeyError, TypeError):
        return None
    return None if array is None else np.ascontiguousarray(array.T)


def _numbers(lists: Sequence[Sequence[Any]], exact: int) -> Array | None:
    if not lists or not set(map(type, chain.from_iterable(lists))) <= _PLAIN:
        return None
    try:
        array = np.array(lists, dtype=np.float64)
    except (OverflowError, ValueError):
        return None
    return array if array.ndim == 2 and _is_exact(array, exact) else None


class PerContract(Generic[T]):
    """What a function makes of a contract, made once. Contracts are told apart by identity: they live as long as their
    version, and looking into one costs more than the work that is spared."""

    _MOST = 256

    def __init__(self, make: Callable[[Contract], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Contract, T]] = {}

    def __call__(self, contract: Contract) -> T:
        known = self._made.get(id(contract))
        if known is not None and known[0] is contract:
            return known[1]
        if len(self._made) >= self._MOST:
            self._made = {}
        made = self._make(contract)
        self._made[id(contract)] = contract, made
        return made


def _is_matrix(contract: Contract) -> bool:
    return contract.is_matrix


is_matrix = PerContract(_is_matrix)
"""Whether all inputs of a contract are one packed matrix."""


def _make_taker(contract: Contract) -> Callable[[Any], tuple[Any, ...]] | None:
    names = [field.name for field in contract]
    return itemgetter(*names) if is_matrix(contract) and len(names) > 1 else None


_taker = PerContract(_make_taker)


def _is_exact(array: Array, exact: int) -> bool:
    """False where a number is so large that whether it was written as a whole number matters."""
    return bool(array.size) and not bool((np.abs(array) > exact).any())


def _read_numbers(body: bytes, keys: Collection[str], exact: int) -> dict[str, Any] | None:
    """A large object whose rows are all numbers. None where the plain way must look."""
    parser = getattr(_parsers, "parser", None)
    if parser is None:
        parser = _parsers.parser = simdjson.Parser()
    document: Any = None
    value: Any = None
    data: Any = None
    kept: Any = None
    try:
        document = parser.parse(body)
        if not isinstance(document, simdjson.Object) or len(document) > _MOST_KEYS:
            return None
        read: dict[str, Any] = {}
        lists = 0
        for name in document.keys():  # noqa: SIM118 - a proxy, whose own iteration makes objects of every value
            value = document[name]
            if name not in keys:
                if isinstance(value, (simdjson.Array, simdjson.Object)):
                    return None
                read[name] = value
                continue
            frame: dict[str, Any] | None = None
            data = value
            if name == "dataframe_split":
                if not isinstance(value, simdjson.Object) or "data" not in value:
                    return None
                frame = {}
                for key in value.keys():  # noqa: SIM118
                    kept = value[key]
                    if key != "data":
                        frame[key] = kept.as_list()
                if len(frame) + 1 != len(value):
                    return None
                lists += len(frame)
                data = value["data"]
            found = _shape(data)
            if found is None:
                return None
            shape, opened = found
            lists += opened
            array = np.frombuffer(data.as_buffer(of_type="d"), dtype=np.float64)
            if array.size != int(np.prod(shape)) or not _is_exact(array, exact):
                return None
            array = array.reshape(shape)
            read[name] = array if frame is None else {**frame, "data": array}
        if np.count_nonzero(np.frombuffer(body, np.uint8) == _OPEN) != lists:
            return None  # a list where a number should be: as_buffer would flatten it
        # Of a name that stands there twice simdjson gives the first value, and every other reader the last.
        return read if len(read) == len(document) else None
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, OverflowError):
        return None
    finally:
        del document, value, data, kept  # the parser is free for the next body only then


def _shape(data: Any) -> tuple[tuple[int, ...], int] | None:
    """The shape of nested lists, and how many lists they are; None when they are ragged, empty or no lists."""
    if not isinstance(data, simdjson.Array) or not len(data):
        return None
    first: Any = data[0]
    if not isinstance(first, simdjson.Array):
        return (len(data),), 1
    inner = _shape(first)
    if inner is None:
        return None
    shape, opened = inner
    if len(shape) == 1:
        size = shape[0]
        if not all(isinstance(row, simdjson.Array) and len(row) == size for row in data):
            return None
    elif not all(_shape(row) == inner for row in data):
        return None
    return (len(data), *shape), 1 + len(data) * opened
