"""CSV in chunks that end where records end, and a chunk as rows.

A chunk is read by pyarrow, column by column, as long as that gives what the server's reader (`inference/rows.py`)
gives; a chunk in which anything is odd is read again with Python's csv module, record by record, so that one bad
record is one reject. Source of the format: RFC 4180.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from fairway.batch.columns import to_inputs
from fairway.batch.score import Parsed, Reject
from fairway.core.conform import Values
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import MalformedInput
from fairway.inference.rows import NULL_TEXTS, from_cells

MOST_RECORD_BYTES = 64 * 1024 * 1024
_DELIMITERS = ",;\t|"
_BLOCK_BYTES = 1024 * 1024
"""pyarrow parses and converts so much at a time: what fits a core's cache takes half the time."""
_NULLS = sorted(NULL_TEXTS)


_Odd = tuple[tuple[bytes, re.Pattern[bytes]], ...]


@cache
def _odd(delimiter: str) -> _Odd:
    """What pyarrow reads and CSV here does not, hexadecimal whole numbers, nan(...) and text behind a quoted cell: bytes
    that are found quickly, and what they must be part of."""
    return (
        (b"0x", re.compile(rb"0x")),
        (b"0X", re.compile(rb"0X")),
        (b"(", re.compile(rb"[nN][aA][nN]\(")),
        (b'"', _marks(delimiter).odd),
    )


class _Marks(msgspec.Struct, frozen=True):
    """A quoted cell; the quote that opens one; a quoted cell with something behind it, which pyarrow lets pass."""

    quoted: re.Pattern[bytes]
    opened: re.Pattern[bytes]
    odd: re.Pattern[bytes]


@cache
def _marks(delimiter: str) -> _Marks:
    """`delimiter` may be any of several."""
    edge = re.escape(delimiter.encode())
    cell = rb'(?:^|(?<=[%b\n\r]))"[^"]*(?:""[^"]*)*"' % edge
    return _Marks(
        re.compile(cell),
        re.compile(rb'(?:^|[%b\n\r])"' % edge),
        re.compile(cell + rb'(?![%b\n\r"]|$)' % edge),
    )


class Header(msgspec.Struct, frozen=True):
    """The first record: column names, and how records are written."""

    names: tuple[str, ...]
    delimiter: str


class Cut(msgspec.Struct, frozen=True):
    """Whole records, and the offset in the (decompressed) file behind them."""

    data: bytes
    end: int


def read_header(file: BinaryIO, contract: Contract, delimiter: str = "") -> tuple[Header, int]:
    """The header and the offset behind it. The delimiter is the one by which most of the contract's fields are found
    unless one is given. Raises MalformedInput for an empty file and for names that repeat."""
    text = b""
    while True:
        block = file.read(65536)
        text += block
        begin = len(codecs.BOM_UTF8) if text.startswith(codecs.BOM_UTF8) else 0
        end = record_end(text[begin:], delimiter or _DELIMITERS, last=False)
        if end >= 0 or not block:
            break
        if len(text) > MOST_RECORD_BYTES:
            raise MalformedInput("the header never ends: a quote in it is not closed.")
    line = text[begin : begin + end] if end >= 0 else text[begin:]
    if not line.strip():
        raise MalformedInput("the file is empty: not even a header.")
    try:
        decoded = line.decode()
    except UnicodeDecodeError as error:
        raise MalformedInput(
            f"the header is not UTF-8: byte {error.start} is {line[error.start]:#04x}.",
            hint="Say how the file is written: --encoding latin-1",
        ) from None
    wanted = {field.name for field in contract}
    found = {mark: _names(decoded, mark) for mark in (delimiter or _DELIMITERS)}
    best = max(found, key=lambda mark: len(wanted.intersection(found[mark])))
    twice = sorted({name for name in found[best] if found[best].count(name) > 1})
    if twice:
        raise MalformedInput(f"column names repeat: {', '.join(twice)}.")
    return Header(tuple(found[best]), best), begin + len(line)


def _names(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter), [])
    except csv.Error as error:
        raise MalformedInput(f"the header cannot be read as CSV: {error}.") from None


def cut_records(
    file: BinaryIO, start: int, chunk_bytes: int, end_of: Callable[[bytes], int] | None = None
) -> Iterator[Cut]:
    """Chunks of whole records of about `chunk_bytes` from the file's position on, which is offset `start`. Where a
    chunk ends depends only on where it begins, so a run that is resumed cuts as the first one did."""
    end_of = end_of or record_end
    held = b""
    offset, size, ended = start, chunk_bytes, False
    while True:
        while len(held) < size and not ended:
            block = file.read(size - len(held))
            ended = not block
            held += block
        if ended and len(held) <= size:
            if held:
                yield Cut(held, offset + len(held))
            return
        end = end_of(held[:size])
        if end < 0:
            size += chunk_bytes
            if size > MOST_RECORD_BYTES + chunk_bytes:
                raise MalformedInput(f"a record from byte {offset} on never ends: is a quote not closed?")
            continue
        offset += end
        yield Cut(held[:end], offset)
        held, size = held[end:], chunk_bytes


def line_end(data: bytes) -> int:
    """As `record_end`, where a line break always ends a record."""
    return data.rfind(b"\n") + 1 or -1


def record_end(data: bytes, delimiter: str = ",", *, last: bool = True) -> int:
    """Behind the last (or first) line break that ends a record; -1 when there is none."""
    if b'"' not in data:
        return (data.rfind(b"\n") if last else data.find(b"\n")) + 1 or -1
    marks = _marks(delimiter)
    spans = [match.span() for match in marks.quoted.finditer(data)]
    opened = marks.opened.search(data, spans[-1][1] if spans else 0)
    limit = opened.end() if opened is not None else len(data)
    if last:
        while True:
            begin = spans[-1][1] if spans else 0
            place = data.rfind(b"\n", begin, limit)
            if place >= 0:
                return place + 1
            if not spans:
                return -1
            limit = spans.pop()[0]
    begin = 0
    for start, end in [*spans, (limit, limit)]:
        place = data.find(b"\n", begin, start)
        if place >= 0:
            return place + 1
        begin = end
    return -1


def is_odd(data: bytes, delimiter: str) -> bool:
    """Whether anything in it is read in another way by Arrow than by the server."""
    return any(mark in data and what.search(data) is not None for mark, what in _odd(delimiter))


def parse(data: bytes, header: Header, contract: Contract, kept: Sequence[str]) -> Parsed:
    """A chunk's records as rows; `kept` columns stay the text they are."""
    fields = [field for field in contract if field.name in header.names]
    if not is_odd(data, header.delimiter) and not any(field.shape for field in fields):
        try:
            return _quick(data, header, contract, fields, kept)
        except (pa.ArrowException, UnicodeDecodeError, MalformedInput):
            pass  # something in it is odd: record by record, it can be named
    return _record_by_record(data, header, contract, kept)


def _quick(
    data: bytes, header: Header, contract: Contract, fields: Sequence[Field], kept: Sequence[str]
) -> Parsed:
    wanted = [*dict.fromkeys([*(field.name for field in fields), *kept])]
    as_text = set(kept)
    types = {name: pa.string() for name in wanted}
    types |= {field.name: _csv_type(field) for field in fields if field.name not in as_text}
    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(
            column_names=list(header.names), use_threads=False, block_size=_BLOCK_BYTES
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=b'"' in data),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted,
            column_types=types,
            null_values=_NULLS,
            true_values=["true", "True", "TRUE", "1"],
            false_values=["false", "False", "FALSE", "0"],
            strings_can_be_null=False,
            quoted_strings_can_be_null=True,
        ),
    )
    typed = {}
    for field in fields:
        column = table.column(field.name)
        if pa.types.is_string(column.type):
            column = pc.if_else(pc.is_in(column, pa.array(_NULLS)), None, column)
            column = column.cast(_csv_type(field))
        typed[field.name] = column
    inputs: dict[str, Values] = dict(to_inputs(pa.table(typed), contract)) if typed else {}
    return Parsed(inputs, table.select(list(kept)), table.num_rows)


def _csv_type(field: Field) -> pa.DataType:
    if field.dtype.is_float:
        return pa.float64()
    if field.dtype is DType.bool:
        return pa.bool_()
    if field.dtype.is_integer:
        return pa.uint64() if field.dtype is DType.uint64 else pa.int64()
    return pa.string()


def _record_by_record(data: bytes, header: Header, contract: Contract, kept: Sequence[str]) -> Parsed:
    names = header.names
    lines = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    reader = csv.reader(lines, delimiter=header.delimiter, strict=True)
    cells: list[list[str]] = []
    places: list[int] = []
    rejects: list[Reject] = []
    total = 0
    while True:
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rejects.append(Reject(total, f"cannot be read as CSV: {error}"))
            total += 1
            continue
        if not record:
            continue
        if len(record) != len(names):
            rejects.append(Reject(total, f"has {len(record)} values, the header {len(names)}"))
        elif (broken := _not_unicode(record)) is not None:
            rejects.append(Reject(total, "is not UTF-8", names[broken]))
        else:
            cells.append(record)
            places.append(total)
        total += 1
    columns = {
        name: [record[i] for record in cells]
        for i, name in enumerate(names)
        if name in set(kept) or any(field.name == name for field in contract)
    }
    known = {field.name for field in contract}
    given = from_cells({name: values for name, values in columns.items() if name in known}, contract)
    table = pa.table({name: pa.array(columns[name], type=pa.string()) for name in kept})
    if not kept:
        table = _no_columns(len(cells))
    return Parsed(given, table, total, np.array(places, int), tuple(rejects))


def _not_unicode(record: Sequence[str]) -> int | None:
    for place, cell in enumerate(record):
        if not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell):
            return place
    return None


def _no_columns(rows: int) -> pa.Table:
    """A table of rows without columns."""
    return pa.table({"": pa.nulls(rows)}).select([])


class Transcoded(io.RawIOBase):
    """A file of another encoding, read as UTF-8. UnicodeDecodeError becomes MalformedInput."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        try:
            self._decoder = codecs.getincrementaldecoder(encoding)()
        except LookupError:
            raise MalformedInput(f"there is no encoding {encoding!r}.") from None
        self._encoding = encoding
        self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._ready) < size:
            block = self._file.read(1024 * 1024)
            try:
                self._ready += self._decoder.decode(block, final=not block).encode()
            except UnicodeDecodeError as error:
                raise MalformedInput(f"the file is not {self._encoding}: {error.reason}.") from None
            if not block:
                break
        size = len(self._ready) if size < 0 else size
        given, self._ready = self._ready[:size], self._ready[size:]
        return given
