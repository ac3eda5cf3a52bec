"""Rows in the forms people send them, as named columns: records, split frames, instances and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import ContractViolation, MalformedInput, Problem
from fairway.core.request import Inputs

NULL_TEXTS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null"]
)  # fmt: skip
"""Cells that mean "no value": the same ones pandas.read_csv takes by default."""
_SEPARATORS = frozenset(";\t|")
_TRUE = frozenset(["true", "True", "TRUE", "1"])
_FALSE = frozenset(["false", "False", "FALSE", "0"])


class SplitFrame(msgspec.Struct):
    """pandas' `to_dict(orient="split")`."""

    columns: list[str]
    data: list[list[Any]]
    index: list[Any] | None = None


def from_records(records: Sequence[dict[str, Any]], contract: Contract) -> Inputs:
    """One dict a row. A key that only some rows have is missing in the others, not null."""
    if not records:
        raise MalformedInput("The request holds no rows.", (Problem("0 rows"),))
    names = list(dict.fromkeys(name for record in records for name in record))
    problems = [
        Problem("missing", name, row)
        for name in names
        for row, record in enumerate(records)
        if name not in record and any(field.name == name for field in contract)
    ]
    if problems:
        raise ContractViolation("Some rows lack fields that others have.", tuple(problems[:100]))
    return {name: [record.get(name) for record in records] for name in names}


def from_split(frame: SplitFrame) -> Inputs:
    """Column names once, then rows of values."""
    width = len(frame.columns)
    if len(set(frame.columns)) != width:
        raise MalformedInput("Column names in dataframe_split.columns repeat.")
    _same_width(frame.data, width)
    columns = zip(*frame.data, strict=True) if frame.data else ([] for _ in frame.columns)
    return {name: list(values) for name, values in zip(frame.columns, columns, strict=True)}


def from_instances(instances: Sequence[Any], contract: Contract) -> Inputs:
    """Dicts by name, lists by position, or bare values for a model with one field."""
    if all(isinstance(row, dict) for row in instances):
        return from_records(instances, contract)
    fields = contract.inputs
    if len(fields) == 1:
        only = fields[0]
        unwrap = not only.shape and all(isinstance(row, list) and len(row) == 1 for row in instances)
        return {only.name: [row[0] for row in instances] if unwrap else list(instances)}
    wrong = [row for row, values in enumerate(instances) if not isinstance(values, list)]
    if wrong:
        raise MalformedInput(
            "instances must be all objects by field name, or all lists in field order.",
            tuple(Problem("is neither a list nor an object like the others", row=row) for row in wrong[:100]),
        )
    _same_width(instances, len(fields))
    return {
        field.name: list(values) for field, values in zip(fields, zip(*instances, strict=True), strict=True)
    }


def from_csv(body: bytes, contract: Contract) -> Inputs:
    """CSV with a header row, UTF-8 (a byte order mark is fine), read as pandas.read_csv would for these types."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedInput(
            f"The CSV is not UTF-8: byte {error.start} is {body[error.start]:#04x}."
        ) from None
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise MalformedInput(f"The CSV cannot be read: {error}.") from None
    if not rows:
        raise MalformedInput("The CSV is empty; it needs a header row and at least one row of data.")
    header, data = rows[0], rows[1:]
    others = _SEPARATORS.intersection(header[0])
    if others and len(header) == 1 < len(contract.inputs):
        raise MalformedInput(
            f"The CSV has one column, whose name holds {min(others)!r}.", hint="Separate columns by commas."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise MalformedInput(f"CSV column names repeat: {', '.join(twice)}.")
    _same_width(data, len(header))
    columns = {name: [row[i] for row in data] for i, name in enumerate(header)}
    return from_cells(columns, contract)


def from_cells(columns: dict[str, list[str]], contract: Contract) -> Inputs:
    """Text cells as values of each field's type; what cannot be read stays text, for validation to name."""
    fields = {field.name: field for field in contract}
    return {
        name: [_cell(fields[name], cell) for cell in cells] if name in fields else cells
        for name, cells in columns.items()
    }


def _cell(field: Field, cell: str) -> Any:
    if cell in NULL_TEXTS:
        return None
    if field.dtype is DType.string:
        return cell
    stripped = cell.strip()
    if field.dtype is DType.timestamp:
        return stripped
    if field.dtype is DType.bool:
        return True if stripped in _TRUE else False if stripped in _FALSE else cell
    if (
        "_" in stripped or not stripped.isascii()
    ):  # int() and float() read 1_000 and other scripts' digits; CSV does not
        return cell
    if field.dtype.is_integer:
        try:
            return int(stripped)
        except ValueError:
            pass
    try:
        return float(stripped)
    except ValueError:
        return cell


def _same_width(rows: Sequence[Sequence[Any]], width: int) -> None:
    wrong = [row for row, values in enumerate(rows) if len(values) != width]
    if wrong:
        raise MalformedInput(
            f"{len(wrong)} rows do not have {width} values.",
            tuple(Problem(f"has {len(rows[row])} values, expected {width}", row=row) for row in wrong[:100]),
        )
