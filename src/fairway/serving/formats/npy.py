"""NumPy's .npy files (NEP 1), read without numpy's loader: it makes room for what the header claims before it looks
at how much came, and it knows pickles."""

from __future__ import annotations

import ast
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fairway.core.columns import Array, Outputs
from fairway.core.contract import Contract, DType, Output
from fairway.core.errors import (
    FairwayError,
    MalformedInput,
    NotAcceptable,
    PayloadTooLarge,
    UnsupportedContent,
)
from fairway.core.request import Inputs
from fairway.inference.loaded import read_inputs

_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 10_000  # numpy's own limit for headers it does not trust
_KINDS = "biufUSM"
_ITEM_BYTES = 1 << 16


def read(body: bytes, contract: Contract) -> Inputs:
    """A matrix whose columns are the fields in order, an array of one tensor field, or a structured array whose
    fields are the contract's."""
    array = _array(body)
    if array.dtype.names is None:
        return read_inputs(_plain(array, "the array"), contract)
    if array.ndim != 1:
        raise MalformedInput(
            f"A structured array must have one axis, the rows; this one has shape {list(array.shape)}."
        )
    return {name: _plain(array[name], name) for name in array.dtype.names}


def write(chosen: Sequence[Output], outputs: Outputs) -> bytes:
    """One output as its array, several as a structured array with a field each."""
    columns = {output.name: _column(output, outputs[output.name]) for output in chosen}
    if len(columns) == 1:
        (array,) = columns.values()
    else:
        layout: Any = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
        rows = len(next(iter(columns.values())))
        array = np.empty(rows, dtype=layout)
        for name, values in columns.items():
            array[name] = values
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _column(output: Output, values: Array) -> Array:
    if output.dtype is not DType.string:
        return values
    if any(value is None for value in values.flat):
        raise NotAcceptable(f"The output {output.name!r} has nulls, which npy has no form for; ask for JSON.")
    texts = values.astype(np.str_)
    return texts if texts.dtype.itemsize else texts.astype("U1")


def _array(body: bytes) -> Array:
    version = body[6:8]
    wide = version in (b"\x02\x00", b"\x03\x00")
    if not body.startswith(_MAGIC) or not (wide or version == b"\x01\x00"):
        raise MalformedInput("The body is not an .npy file of version 1, 2 or 3.")
    begins = 12 if wide else 10
    size = int.from_bytes(body[8:begins], "little")
    if size > _HEADER_BYTES or begins + size > len(body):
        raise MalformedInput(f"The .npy header claims {size} bytes, of at most {_HEADER_BYTES} that came.")
    dtype, shape, fortran = _header(
        body[begins : begins + size], "utf-8" if version == b"\x03\x00" else "latin-1"
    )
    count = math.prod(shape)
    data = len(body) - begins - size
    if count * dtype.itemsize != data:
        claimed = count * dtype.itemsize if count < 2**63 else "far more"
        raise MalformedInput(
            f"The .npy header claims {claimed} bytes of data (shape {str(list(shape))[:60]}), but {data} came."
        )
    try:
        array = np.frombuffer(body, dtype=dtype, count=count, offset=begins + size)
        return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)
    except ValueError:
        raise MalformedInput(f"{str(list(shape))[:60]} is not a shape an array can have.") from None


def _header(text: bytes, encoding: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    try:
        header = ast.literal_eval(text.decode(encoding).strip())
        shape, fortran = header["shape"], header["fortran_order"]
        if set(header) != {"descr", "fortran_order", "shape"} or type(fortran) is not bool:
            raise ValueError
        if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError
        dtype = np.lib.format.descr_to_dtype(header["descr"])
        _check_dtype(dtype)
    except FairwayError:
        raise
    except Exception:  # noqa: BLE001 - a literal, and numpy's reading of it, fail in many ways
        raise MalformedInput("The .npy header cannot be read.") from None
    if not shape:
        raise MalformedInput("The array is a single value; its first axis must be the rows.")
    return dtype, shape, fortran


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise UnsupportedContent("Arrays of Python objects are pickles, which are never read here.")
    if dtype.itemsize > _ITEM_BYTES:
        raise PayloadTooLarge(f"A row of {dtype.itemsize} bytes; the most is {_ITEM_BYTES}.")
    names = dtype.names
    for part in (dtype,) if names is None else [dtype[name] for name in names]:
        base = part.base
        usable = base.kind in _KINDS and base.itemsize and (base.kind in "US" or base.itemsize <= 8)
        if base.names is not None or not usable:
            raise UnsupportedContent(
                f"Arrays of {str(base)[:40]} are not read here.",
                hint="Known are booleans, integers, floats up to 64 bits, text and datetime64.",
            )


def _plain(array: Array, what: str) -> Array:
    """The array in this machine's byte order; text as objects, since contracts know no fixed width."""
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise MalformedInput(f"{what} holds booleans that are neither 0 nor 1.")
    if array.dtype.kind in "US":
        try:
            texts = array.astype(object)
            if array.dtype.kind == "U":
                "".join(texts.flat).encode()  # a half of a surrogate pair is text that nobody can write down
        except (
            SystemError,
            ValueError,
        ):  # numpy passes on CPython's own complaint about impossible characters
            raise MalformedInput(f"{what} holds characters that do not exist.") from None
        return texts
    return array.astype(array.dtype.newbyteorder("="), copy=False)
