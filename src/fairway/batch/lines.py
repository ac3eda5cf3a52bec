"""JSON Lines: one object a line. Values mean what they mean in a request's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from fairway.batch.score import Parsed, Reject
from fairway.core.contract import Contract

_UNFIT = (pa.ArrowException, TypeError, OverflowError)
_decode_one = msgspec.json.Decoder().decode
_decode_lines = msgspec.json.Decoder(list[dict[str, Any]]).decode


def parse(data: bytes, contract: Contract, kept: Mapping[str, pa.DataType]) -> Parsed:
    """A chunk of whole lines; empty ones are passed over. A line that is no object, that lacks a field of the
    contract, or whose kept value is of another type than in the first rows, is a reject."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    records: list[dict[str, Any]]
    places: list[int] | None = None
    rejects: list[Reject] = []
    try:
        records = _decode_lines(b"[" + b",".join(lines) + b"]")
        if len(records) != len(lines):
            raise msgspec.DecodeError("a line of several values")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        records, places = [], []
        for row, line in enumerate(lines):
            value = _line(line)
            if isinstance(value, str):
                rejects.append(Reject(row, value))
            else:
                records.append(value)
                places.append(row)
    names = [field.name for field in contract]
    columns: dict[str, list[Any]]
    try:
        columns = {name: [record[name] for record in records] for name in names}
    except KeyError:
        if not _is_missing_everywhere(records, names):
            places = list(range(len(records))) if places is None else places
            lacking = [row for row, record in enumerate(records) if any(name not in record for name in names)]
            for row in lacking:
                absent = [name for name in names if name not in records[row]]
                rejects += [Reject(places[row], "missing", name) for name in absent]
            records, places = _without(records, lacking), _without(places, lacking)
        columns = {name: [r[name] for r in records] for name in names if all(name in r for r in records)}
    arrays, odd = typed(_columns(records, kept), kept)
    if odd:
        places = list(range(len(records))) if places is None else places
        rejects += [Reject(places[row], reason, name) for row, (name, reason) in sorted(odd.items())]
        records, places = _without(records, sorted(odd)), _without(places, sorted(odd))
        columns = {name: _without(values, sorted(odd)) for name, values in columns.items()}
        arrays, _ = typed(_columns(records, kept), kept)
    table = pa.table(arrays) if kept else pa.table({"": pa.nulls(len(records))}).select([])
    numbered = None if places is None else np.array(places, dtype=np.int64)
    return Parsed(columns, table, len(lines), numbered, tuple(rejects))


def _line(line: bytes) -> dict[str, Any] | str:
    try:
        value = _decode_one(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return f"is not JSON: {error}"
    return value if isinstance(value, dict) else "is not a JSON object"


def _is_missing_everywhere(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    """A field that no row has: not the rows are wrong but the file."""
    return any(all(name not in record for record in records) for name in names)


def _without(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    gone = set(rows)
    return [value for row, value in enumerate(values) if row not in gone]


def _columns(records: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    return {name: [record.get(name) for record in records] for name in names}


def typed(
    columns: Mapping[str, Sequence[Any]], kinds: Mapping[str, pa.DataType]
) -> tuple[dict[str, pa.Array], dict[int, tuple[str, str]]]:
    """Python values as Arrow arrays of the given types; and rows that are not of them, with field and reason."""
    arrays = {}
    odd: dict[int, tuple[str, str]] = {}
    for name, kind in kinds.items():
        try:
            arrays[name] = pa.array(columns[name], type=kind)
        except _UNFIT:
            for row, value in enumerate(columns[name]):
                try:
                    pa.array([value], type=kind)
                except _UNFIT:
                    odd.setdefault(row, (name, f"is not {kind}, as in the first rows"))
    return arrays, odd


def types_of(columns: Mapping[str, Sequence[Any]]) -> dict[str, pa.DataType]:
    """Arrow types of Python values; text for columns that are all null, or of several types."""
    types: dict[str, pa.DataType] = {}
    for name, values in columns.items():
        try:
            kind = pa.array(values).type
        except _UNFIT:
            kind = pa.string()
        types[name] = pa.string() if pa.types.is_null(kind) else kind
    return types


def kept_types(data: bytes, wanted: Sequence[str] | None) -> dict[str, pa.DataType]:
    """Types of the kept columns by the first rows of the first file; all columns when `wanted` is None. One that is
    null there, or of several types, is kept as text."""
    records = [value for line in data.split(b"\n") if line.strip() and isinstance(value := _line(line), dict)]
    names = list(dict.fromkeys(name for record in records for name in record)) if wanted is None else wanted
    return types_of(_columns(records, names))
