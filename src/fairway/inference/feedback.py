"""Feedback from bytes to labels: JSON, JSON Lines or CSV, a block of rows at a time, every wrong row told.

{"request_id": "r-1", "label": 1}
{"request_id": "r-2", "row": 3, "label": 0.5, "time": "2026-01-31T12:00:00Z"}
{"request_id": "r-3", "labels": [0, 1, 1]}
{"key": "customer-17", "label": "churned", "model": "churn"}
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import msgspec

from fairway.core.errors import MalformedInput, UnsupportedContent
from fairway.core.label import Label

BLOCK_ROWS = 10_000
COLUMNS = ("request_id", "key", "row", "label", "time", "model")
_NOT_FINITE = "the label is not a finite number."
_NUMBER_BEGINS = frozenset(bytes([byte]) for byte in b"-0123456789")
_LABEL_BYTES = 64 * 1024
_ID_CHARACTERS = 512
_AHEAD = 86_400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOW = 'Give "request_id" (or "key") and "label" (or "labels"), and if you like "row", "time" and "model".'
_MOST_ROW = 2**31 - 1


class Given(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is sent."""

    label: msgspec.Raw = msgspec.Raw()
    labels: list[msgspec.Raw] | None = None
    request_id: str = ""
    key: str = ""
    row: int | None = None
    time: str | float | None = None
    model: str = ""


class Wrong(msgspec.Struct, frozen=True):
    """A row that was not taken, from 0, and why."""

    row: int
    reason: str


class Block(msgspec.Struct, frozen=True):
    """So many rows that were read, the labels in them and what was wrong."""

    rows: int
    labels: list[Label]
    wrong: list[Wrong]


Resolve = Callable[[str, str], str]
"""The model of a label, from the name and the key that it gives ("" for none). Raises ValueError for a label that may
not be."""

_row = msgspec.json.Decoder(Given)


def read_labels(kind: str, body: bytes, resolve: Resolve, now: float) -> Iterator[Block]:
    """Blocks of at most `BLOCK_ROWS` rows. `kind` is `json` (one or a list), `jsonlines` or `csv`; `now` is seconds since
    1970, the time of labels that name none. Raises MalformedInput when the whole cannot be read, UnsupportedContent."""
    if kind == "json":
        return blocks(_json(body), resolve, now)
    return read_stream(kind, io.BytesIO(body), resolve, now)


def read_stream(kind: str, stream: BinaryIO, resolve: Resolve, now: float) -> Iterator[Block]:
    """As `read_labels`, of JSON Lines or CSV that need not fit in memory."""
    if kind == "jsonlines":
        return blocks((_decoded(line) for line in stream if line.strip()), resolve, now)
    if kind == "csv":
        rows = csv_cells(stream)
        return blocks((row if isinstance(row, str) else from_cells(row) for row in rows), resolve, now)
    raise UnsupportedContent(
        f"labels cannot be read from {kind or 'this'}.",
        hint="Send application/json, application/x-ndjson or text/csv.",
    )


def blocks(given: Iterable[Given | str], resolve: Resolve, now: float) -> Iterator[Block]:
    """As `read_labels`, of rows or of what was wrong with them."""
    labels: list[Label] = []
    wrong: list[Wrong] = []
    rows = begun = 0
    for row in given:
        try:
            if isinstance(row, str):
                raise ValueError(row)
            labels += _labels(row, resolve, now)
        except ValueError as error:
            wrong.append(Wrong(rows, str(error)))
        rows += 1
        if rows - begun >= BLOCK_ROWS:
            yield Block(rows - begun, labels, wrong)
            labels, wrong, begun = [], [], rows
    if rows > begun or rows == 0:
        yield Block(rows - begun, labels, wrong)


def _place(value: str | float) -> int:
    try:
        return int(value) if isinstance(value, str) or value.is_integer() else int(str(value))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"row is {str(value)[:40]!r}, which is no whole number.") from error


def from_cells(cells: dict[str, Any]) -> Given | str:
    """A row of a table: texts as CSV has them, or values. Empty cells are not given."""
    told = {name: value for name, value in cells.items() if value is not None and value != ""}
    try:
        if "label" in told:
            told["label"] = msgspec.Raw(_label_json(told["label"]))
        if isinstance(told.get("row"), str | float):
            told["row"] = _place(told["row"])
        if isinstance(told.get("time"), datetime):
            told["time"] = told["time"].isoformat()
        if isinstance(told.get("time"), str):
            try:
                told["time"] = float(told["time"])
            except ValueError:
                pass
        for name in ("request_id", "key"):
            if name in told:
                told[name] = str(told[name])
        return Given(**told)
    except (ValueError, TypeError) as error:
        return str(error)


def _json(body: bytes) -> Iterator[Given | str]:
    start = body.lstrip()[:1]
    if start == b"{":
        yield _decoded(body)
        return
    try:
        rows = msgspec.json.decode(body, type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise MalformedInput(
            f"the body is not a label or a list of labels in JSON: {error}.", hint=_HOW
        ) from error
    for row in rows:
        yield _decoded(row)


def _decoded(row: bytes | msgspec.Raw) -> Given | str:
    try:
        return _row.decode(row)
    except msgspec.DecodeError as error:
        return f"{error}."
    except UnicodeDecodeError:
        return "it is not UTF-8."


def csv_cells(stream: BinaryIO) -> Iterator[dict[str, str] | str]:
    """The rows of CSV with a header by column, or what is wrong with one. Raises MalformedInput."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        check_columns(header)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                yield f"it has {len(cells)} cells; the header has {len(header)}."
            else:
                yield dict(zip(header, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise MalformedInput(f"line {reader.line_num + 1} of the CSV cannot be read: {error}.") from error
    finally:
        text.detach()


def told(given: Given) -> dict[str, Any]:
    """A row as it is sent."""
    values = {name: getattr(given, name) for name in Given.__struct_fields__}
    return {name: value for name, value in values.items() if value not in (None, "", msgspec.Raw())}


def check_columns(names: Iterable[str]) -> None:
    """Raises MalformedInput unless a table's columns can be labels."""
    found = list(names)
    unknown = [name for name in found if name not in COLUMNS]
    if unknown or "label" not in found or not {"request_id", "key"} & set(found):
        raise MalformedInput(
            f"these columns are no labels: {', '.join(found)[:200] or 'none'}.",
            hint=f"Columns are {', '.join(COLUMNS)}; needed are label, and request_id or key.",
        )


def _label_json(value: Any) -> bytes:
    """A cell as JSON: numbers, true and false as they are, anything else as text. ValueError for what a table writes where
    a number is none."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(_NOT_FINITE)
    if not isinstance(value, str):
        return msgspec.json.encode(value)
    if value.strip().lower().lstrip("+-") in ("nan", "inf"):
        raise ValueError(_NOT_FINITE)
    try:
        decoded = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return msgspec.json.encode(value)
    return value.strip().encode() if isinstance(decoded, int | float) else msgspec.json.encode(value)


def _labels(given: Given, resolve: Resolve, now: float) -> list[Label]:
    if bool(given.request_id) == bool(given.key):
        raise ValueError(f"it needs either request_id or key. {_HOW}")
    if len(given.request_id) > _ID_CHARACTERS or len(given.key) > _ID_CHARACTERS:
        raise ValueError(f"request_id and key have at most {_ID_CHARACTERS} characters.")
    several = given.labels
    if (several is None) == (not bytes(given.label)):
        raise ValueError(f"it needs either label or labels. {_HOW}")
    if given.row is not None and (given.key or several is not None or not 0 <= given.row <= _MOST_ROW):
        raise ValueError(
            "row is the place of one label in its request, from 0; labels and key go without it."
        )
    if several is not None and given.key:
        raise ValueError("labels are for the rows of a request; a key has one label.")
    time = _time(given.time, now)
    model = resolve(given.model, given.key)
    rows = [(given.row or 0, given.label)] if several is None else list(enumerate(several))
    return [Label(model, _value(raw), time, given.request_id, given.key, row) for row, raw in rows]


def _value(raw: msgspec.Raw) -> bytes:
    value = bytes(raw).strip()
    if value == b"null":
        raise ValueError("the label is null.")
    if len(value) > _LABEL_BYTES:
        raise ValueError(f"the label has {len(value)} bytes; at most {_LABEL_BYTES} can be.")
    if value[:1] in _NUMBER_BEGINS and not math.isfinite(float(value)):  # such as 1e999
        raise ValueError(_NOT_FINITE)
    return value


def _time(given: str | float | None, now: float) -> int:
    if given is None:
        return int(now * 1e6)
    if isinstance(given, str):
        try:
            moment = datetime.fromisoformat(given)
        except ValueError:
            raise ValueError(
                f"{given[:40]!r} is no time: write 2026-01-31T12:00:00Z or seconds since 1970."
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        micro = (moment - _EPOCH) // timedelta(microseconds=1)
    elif math.isfinite(given) and abs(given) < 1e11:
        micro = int(given * 1e6)
    else:
        raise ValueError(f"{given:g} is no time in seconds since 1970; are these milliseconds?")
    if micro > (now + _AHEAD) * 1e6:
        raise ValueError("its time is more than a day ahead of this machine's clock.")
    return micro
