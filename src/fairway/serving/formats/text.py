"""JSON, CSV and JSON Lines: rows of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array, Outputs
from fairway.core.contract import Contract, DType, Output
from fairway.core.errors import MalformedInput
from fairway.core.request import Inputs
from fairway.inference.rows import from_csv, from_instances

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


def read_json(body: bytes, contract: Contract) -> Inputs:
    """A list of rows (objects by name, lists in field order), or an object of columns."""
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise MalformedInput("The body is not valid UTF-8.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedInput(f"The body is not JSON: {error}.") from None
    if isinstance(value, list):
        return from_instances(value, contract)
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        return value
    raise MalformedInput("The body must be a list of rows, or an object of columns, each a list.")


def read_csv(body: bytes, contract: Contract) -> Inputs:
    return from_csv(body, contract)


def read_lines(body: bytes, contract: Contract) -> Inputs:
    """One JSON value a line; empty lines are passed over."""
    try:
        body.decode("utf-8-sig")
        rows = msgspec.json.decode(b"[" + b",".join(_lines(body)) + b"]", type=list[Any])
        if len(rows) == sum(1 for _ in _lines(body)):
            return from_instances(rows, contract)
    except UnicodeDecodeError:
        raise MalformedInput("The body is not valid UTF-8.") from None
    except (msgspec.DecodeError, RecursionError):
        pass  # read again line by line, to say which
    for number, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedInput(f"Line {number} is not a JSON value: {error}.") from None
    raise MalformedInput("The body is not one JSON value a line.")


def _lines(body: bytes) -> Sequence[bytes]:
    return [line for line in body.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]


def plain_values(output: Output, values: Array) -> list[Any]:
    """One JSON value a row: numbers, text, nested lists; timestamps as ISO 8601 text in UTC."""
    listed: list[Any] = (iso_texts(values) if output.dtype is DType.timestamp else values).tolist()
    return listed


def iso_texts(values: Array) -> Array:
    """Timestamps as ISO 8601 text of their shape; NaT as None."""
    moments = values.astype("datetime64[us]")
    texts = np.char.add(np.datetime_as_string(moments), "Z").astype(object)
    texts[np.isnat(moments)] = None
    return texts


def write_json(chosen: Sequence[Output], outputs: Outputs) -> bytes:
    """A list of objects, one a row; NaN and infinity as null."""
    return _encode(_rows(chosen, outputs))


def write_lines(chosen: Sequence[Output], outputs: Outputs) -> bytes:
    return _encode_lines(_rows(chosen, outputs))


def _rows(chosen: Sequence[Output], outputs: Outputs) -> list[dict[str, Any]]:
    names = [output.name for output in chosen]
    columns = [plain_values(output, outputs[output.name]) for output in chosen]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def write_csv(chosen: Sequence[Output], outputs: Outputs) -> bytes:
    """A header and a row a row; the parts of an output with several values a row are `name_0`, `name_1`, ...
    Nulls and NaN are empty cells, booleans `true` and `false`."""
    header: list[str] = []
    columns: list[list[Any]] = []
    for output in chosen:
        values = outputs[output.name]
        flat = values.reshape(len(values), -1)
        texts = iso_texts(flat) if output.dtype is DType.timestamp else flat
        single = values.ndim == 1
        for i in range(flat.shape[1]):
            header.append(output.name if single else f"{output.name}_{i}")
            columns.append([_cell(value) for value in texts[:, i].tolist()])
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return table.getvalue().encode()


def _cell(value: Any) -> Any:
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
