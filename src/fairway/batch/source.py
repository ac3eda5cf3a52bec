"""Where rows come from: files of any kind below a path, a glob or a URL, read in chunks from any position on.

A chunk's end depends only on where it begins and on the plan, so a run that is resumed cuts as the first one did.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import get_protocol

from fairway.batch import delimited, lines
from fairway.batch.columns import to_inputs
from fairway.batch.score import Parsed, Reject
from fairway.core.contract import Contract
from fairway.core.errors import (
    FairwayError,
    InvalidInput,
    MalformedInput,
    MissingExtra,
    NotFound,
    Problem,
    Unavailable,
    UnsupportedContent,
)
from fairway.inference.rows import from_cells

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMATS = {
    "csv": "csv", "tsv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet", "pq": "parquet",
    "arrow": "arrow", "feather": "arrow", "ipc": "arrow",
}  # fmt: skip
"""How a name ends -> format."""
_BUFFER_BYTES = 256 * 1024
_OPEN_STARS = re.compile(r"\*\*(?=[^/])")
_PACKED = {"gz": "gz", "zst": "zst", "zstd": "zst", "bz2": "bz2", "xz": "xz"}
_UNPACK: dict[str, Callable[[BinaryIO], Any]] = {
    "gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    "zst": lambda file: zstd.ZstdFile(file, "rb"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where reading goes on in a source: an offset in the unpacked text, the rows before it, the last key of SQL."""

    offset: int = 0
    row: int = 0
    key: Any = None


class SourceFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file. `stamp` changes when its content does. `partition` are the `name=value` folders above it."""

    path: str
    format: str
    packed: str = ""
    bytes: int = 0
    stamp: str = ""
    partition: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> str:
        return "".join(f"{name}={quote(value, safe=' ')}/" for name, value in self.partition)


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How files are read. `kept` are the columns that go to the output (None: all there are)."""

    chunk_rows: int
    chunk_bytes: int
    kept: tuple[str, ...] | None = ()
    encoding: str = "utf-8"
    delimiter: str = ""


class Piece(msgspec.Struct, frozen=True):
    """Rows as they came out of a file, not parsed yet; `offset` and `key` of the position behind them."""

    raw: Any
    offset: int = 0
    key: Any = None
    header: delimited.Header | None = None


def file_system(url: str, options: Mapping[str, Mapping[str, Any]]) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path on it. `options` are the filesystem's own, by protocol."""
    protocol = get_protocol(url)
    try:
        given = {"use_listings_cache": False, **options.get(protocol, {})} if protocol != "file" else {}
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url, **given))
    except ImportError as error:
        hint = "Install it with: pip install 'fairway[s3]'" if protocol.startswith("s3") else None
        raise MissingExtra(
            f"{protocol}:// needs the package {error.name or protocol!r}.", hint=hint
        ) from error
    except ValueError as error:
        raise InvalidInput(f"{url!r} is not a path or URL that can be read here: {error}.") from error


def find_files(fs: Any, path: str, *, format: str = "") -> list[SourceFile]:
    """The files that `path` (a file, a folder or a glob) names, sorted. Names that begin with . or _ are passed over.
    Raises NotFound for none, UnsupportedContent when none is of a format that is read here."""
    with store_errors(fs, path):
        return _find_files(fs, path, format)


def _find_files(fs: Any, path: str, format: str) -> list[SourceFile]:
    several = True
    path = _OPEN_STARS.sub("**/*", path)  # fsspec takes ** only as a whole part of a path
    if any(mark in path for mark in "*?["):
        root = path[: min(path.find(mark) for mark in "*?[" if mark in path)].rpartition("/")[0]
        names = [name for name in fs.glob(path) if not fs.isdir(name)]
    elif fs.isdir(path):
        root, names = path.rstrip("/"), list(fs.find(path))
    else:
        several, root, names = False, path.rpartition("/")[0], [path] if fs.exists(path) else []
    below = {name: name[len(root) :].lstrip("/") for name in names}
    if several:
        names = [n for n in names if not any(part[:1] in ("_", ".") for part in below[n].split("/"))]
    if not names:
        raise NotFound(f"there is no file at {path}.")
    files = [_source_file(fs, name, below[name], format) for name in sorted(names)]
    readable = [file for file in files if file is not None]
    if not readable:
        raise UnsupportedContent(
            f"{names[0]} is of no format that is read here: {', '.join(sorted(set(FORMATS)))}, and these packed "
            "(.gz, .zst, .bz2, .xz).",
            hint="Name the format: --input-format csv",
        )
    return readable


def _source_file(fs: Any, name: str, below: str, format: str) -> SourceFile | None:
    kind, packed = format_of(name)
    if not (format or kind):
        return None
    info = fs.info(name)
    stamp = next(
        (str(info[key]) for key in ("ETag", "etag", "mtime", "LastModified", "created") if key in info), ""
    )
    parts = [part.partition("=") for part in below.split("/")[:-1]]
    partition = tuple((part, unquote(value)) for part, equals, value in parts if equals)
    return SourceFile(name, format or kind, packed, int(info.get("size") or 0), stamp, partition)


def format_of(name: str) -> tuple[str, str]:
    """(format, packing) by how a name ends; "" where it does not say."""
    stem, _, ending = name.lower().rpartition(".")
    packed = _PACKED.get(ending, "")
    if packed:
        ending = stem.rpartition(".")[2]
    return FORMATS.get(ending, ""), packed


@contextmanager
def reading_errors(file: SourceFile) -> Iterator[None]:
    """What a damaged or vanished file raises, as MalformedInput or NotFound that names it."""
    try:
        yield
    except FairwayError:
        raise
    except FileNotFoundError:
        raise NotFound(f"{file.path} is not there any more.") from None
    except EOFError:
        raise MalformedInput("the file is cut short: its packed data ends too early.") from None
    except (pa.ArrowException, OSError, ValueError, lzma.LZMAError, zstd.ZstdError) as error:
        text = (str(error).splitlines() or [""])[0][:200].rstrip(".")
        raise MalformedInput(f"the file cannot be read as {file.format}: {text}.") from error


def pieces(
    fs: Any, file: SourceFile, start: Position, reading: Reading, contract: Contract
) -> Generator[Piece]:
    """The file's chunks from `start` on. Raises MalformedInput or NotFound, after the chunks before what is wrong."""
    with reading_errors(file), _open(fs, file) as raw:
        opened: BinaryIO = _UNPACK[file.packed](raw) if file.packed else raw
        yield from _READERS[file.format](opened, file, start, reading, contract)


def _open(fs: Any, file: SourceFile) -> Any:
    """Local files of columns are opened by Arrow itself, which reads them without Python's lock."""
    if is_local(fs):
        try:
            if not file.packed and file.format in ("parquet", "arrow"):
                return pa.OSFile(file.path)
            return fs.open(file.path, "rb")
        except PermissionError as error:
            raise MalformedInput("the file may not be read.", hint="Let this user read it.") from error
    with store_errors(fs, file.path):
        return _Far(fs, file.path)


class _Far:
    """A file of a store: whatever its library raises while it is read means that the store is away, not that the file
    is damaged."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path
        self._file = fs.open(path, "rb")

    def read(self, size: int = -1) -> bytes:
        with store_errors(self._fs, self._path):
            return cast(bytes, self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        with store_errors(self._fs, self._path):
            return cast(int, self._file.seek(offset, whence))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Far:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@contextmanager
def store_errors(fs: Any, path: str) -> Iterator[None]:
    """What the library of a store raises, each its own, as Unavailable. A local disk's errors are left as they are."""
    try:
        yield
    except (FairwayError, FileNotFoundError):
        raise
    except Exception as error:
        if is_local(fs):
            raise
        text = (str(error).splitlines() or [""])[0][:200].rstrip(".") or type(error).__name__
        raise Unavailable(
            f"the store of {path} does not answer as it should: {text}.",
            hint="What was done is kept: run the same command again. Its keys and address may stand under "
            "[batch.storage] in fairway.toml.",
        ) from error


def is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _csv_pieces(
    opened: BinaryIO, file: SourceFile, start: Position, reading: Reading, contract: Contract
) -> Generator[Piece]:
    plain = reading.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    text = opened if plain else cast(BinaryIO, delimited.Transcoded(opened, reading.encoding))
    header, begin = delimited.read_header(text, contract, reading.delimiter)
    check_names(header.names, file, reading, contract)
    begin = max(begin, start.offset)
    if plain and not file.packed:
        opened.seek(begin)
    else:  # nothing to seek in: what was done is read over
        opened.seek(0)
        text = opened if plain else cast(BinaryIO, delimited.Transcoded(opened, reading.encoding))
        _read_over(text, begin)
    end_of = partial(delimited.record_end, delimiter=header.delimiter)
    for cut in delimited.cut_records(text, begin, reading.chunk_bytes, end_of):
        yield Piece(cut.data, cut.end, header=header)


def _line_pieces(
    opened: BinaryIO, file: SourceFile, start: Position, reading: Reading, contract: Contract
) -> Generator[Piece]:
    if file.packed:
        _read_over(opened, start.offset)
    else:
        opened.seek(start.offset)
    for cut in delimited.cut_records(opened, start.offset, reading.chunk_bytes, delimited.line_end):
        yield Piece(cut.data.removeprefix(codecs.BOM_UTF8), cut.end)


def _read_over(opened: BinaryIO, size: int) -> None:
    while size > 0:
        block = opened.read(min(size, 1024 * 1024))
        if not block:
            raise MalformedInput("the file is shorter than when the run began.")
        size -= len(block)


def _parquet_pieces(
    opened: BinaryIO, file: SourceFile, start: Position, reading: Reading, contract: Contract
) -> Generator[Piece]:
    # Through small buffers a row group of any size takes the same memory; far away each read is a request.
    near = isinstance(opened, pa.NativeFile)
    parquet = pq.ParquetFile(opened, pre_buffer=not near, buffer_size=_BUFFER_BYTES if near else 0)
    wanted = _wanted(parquet.schema_arrow, file, reading, contract)
    first = 0
    for group in range(parquet.metadata.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if first + rows > start.row:
            place = first
            for batch in parquet.iter_batches(reading.chunk_rows, row_groups=[group], columns=wanted):
                place += batch.num_rows
                if place > start.row:
                    offset = (
                        file.bytes * place // max(1, parquet.metadata.num_rows)
                    )  # about, for the progress
                    yield Piece(pa.Table.from_batches([batch]), offset)
        first += rows


def _arrow_pieces(
    opened: BinaryIO, file: SourceFile, start: Position, reading: Reading, contract: Contract
) -> Generator[Piece]:
    magic = opened.read(6)
    opened.seek(0)
    reader = pa.ipc.open_file(opened) if magic == b"ARROW1" else pa.ipc.open_stream(opened)
    wanted = _wanted(reader.schema, file, reading, contract)
    batches = (
        (reader.get_batch(i) for i in range(reader.num_record_batches))
        if magic == b"ARROW1"
        else iter(reader)
    )
    place = 0
    for batch in batches:
        batch.validate(full=True)
        for begin in range(0, batch.num_rows, reading.chunk_rows):
            part = batch.slice(begin, reading.chunk_rows)
            place += part.num_rows
            if place > start.row:
                yield Piece(pa.Table.from_batches([part]).select(wanted))


_READERS: dict[str, Callable[[BinaryIO, SourceFile, Position, Reading, Contract], Generator[Piece]]] = {
    "csv": _csv_pieces,
    "jsonl": _line_pieces,
    "parquet": _parquet_pieces,
    "arrow": _arrow_pieces,
}


def _wanted(schema: pa.Schema, file: SourceFile, reading: Reading, contract: Contract) -> list[str]:
    check_names(schema.names, file, reading, contract)
    kept = schema.names if reading.kept is None else reading.kept
    named = {*(field.name for field in contract), *kept}
    return [name for name in schema.names if name in named]


def check_names(names: Sequence[str], file: SourceFile, reading: Reading, contract: Contract) -> None:
    """MalformedInput when columns are missing, repeat, or are more than the contract allows."""
    there = {*names, *(name for name, _ in file.partition)}
    kept = reading.kept or ()
    problems = [Problem("missing", field.name) for field in contract if field.name not in there]
    problems += [Problem("missing, and it is to be kept", name) for name in kept if name not in there]
    problems += [Problem("is there twice", name) for name in sorted({n for n in names if names.count(n) > 1})]
    if contract.extra_fields == "reject":
        known = {*(field.name for field in contract), *kept}
        problems += [Problem("is not a field of this model", name) for name in names if name not in known]
    if problems:
        named = "; ".join(f"{problem.field}: {problem.reason}" for problem in problems[:10])
        raise MalformedInput(f"the columns are not those of the model ({named}).", tuple(problems))


def kept_schema(fs: Any, file: SourceFile, reading: Reading, contract: Contract) -> pa.Schema:
    """Names and types of the columns that go from this file, the first of a run, to every output file: CSV's are
    text, JSON's those of the first rows. Partition folders are columns of text."""
    partition = [name for name, _ in file.partition]
    if file.format == "jsonl":
        data = next((piece.raw for piece in pieces(fs, file, Position(), reading, contract)), b"")
        wanted = None if reading.kept is None else [name for name in reading.kept if name not in partition]
        types = lines.kept_types(data, wanted)
    else:
        with reading_errors(file), _open(fs, file) as raw:
            opened = _UNPACK[file.packed](raw) if file.packed else raw
            schema = _schema(opened, file, reading, contract)
        types = {name: schema.field(name).type for name in schema.names}
    for name in partition:
        types.setdefault(name, pa.string())
    names = list(types) if reading.kept is None else list(reading.kept)
    absent = [name for name in names if name not in types]
    if absent:
        raise InvalidInput(f"{file.path} has no column {', '.join(absent)}.")
    return pa.schema([(name, types[name]) for name in names])


def _schema(opened: BinaryIO, file: SourceFile, reading: Reading, contract: Contract) -> pa.Schema:
    if file.format == "parquet":
        return pq.ParquetFile(opened).schema_arrow.remove_metadata()
    if file.format == "arrow":
        magic = opened.read(6)
        opened.seek(0)
        reader = pa.ipc.open_file(opened) if magic == b"ARROW1" else pa.ipc.open_stream(opened)
        return reader.schema.remove_metadata()
    plain = reading.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    text = opened if plain else cast(BinaryIO, delimited.Transcoded(opened, reading.encoding))
    header, _ = delimited.read_header(text, contract, reading.delimiter)
    return pa.schema([(name, pa.string()) for name in header.names])


def parse(piece: Piece, file: SourceFile, contract: Contract, kept: pa.Schema) -> Parsed:
    """A piece as rows. Runs where rows are scored, in a thread or a process of its own. Raises MalformedInput when
    kept columns are of other types than in the first file."""
    partition = dict(file.partition)
    inner = [name for name in kept.names if name not in partition]
    if file.format == "csv":
        assert piece.header is not None, "CSV comes with its header"
        parsed = delimited.parse(piece.raw, piece.header, contract, inner)
    elif file.format == "jsonl":
        parsed = lines.parse(piece.raw, contract, {name: kept.field(name).type for name in inner})
    elif file.format == "sql" and not isinstance(piece.raw, pa.Table):
        parsed = _sql_rows(piece.raw, contract, {name: kept.field(name).type for name in inner})
    else:
        parsed = table_rows(piece.raw, contract, pa.schema([kept.field(name) for name in inner]))
    return _with_partition(parsed, partition, contract, kept)


def table_rows(table: pa.Table, contract: Contract, kept: pa.Schema) -> Parsed:
    """An Arrow table as rows, its kept columns in the types of the first file."""
    wrong = []
    columns = []
    for field in kept:
        try:
            columns.append(table.column(field.name).cast(field.type))
        except (KeyError, pa.ArrowException):
            wrong.append(Problem(f"is not {field.type}, as in the first file", field.name))
    if wrong:
        named = ", ".join(str(problem.field) for problem in wrong)
        raise MalformedInput(
            f"columns to keep are of other types than in the first file: {named}.", tuple(wrong)
        )
    rows = pa.table(columns, schema=kept) if columns else table.select([])
    return Parsed(to_inputs(table, contract), rows, table.num_rows)


def _sql_rows(columns: dict[str, list[Any]], contract: Contract, kept: Mapping[str, pa.DataType]) -> Parsed:
    total = len(next(iter(columns.values())))
    inputs = {field.name: columns[field.name] for field in contract if field.name in columns}
    arrays, odd = lines.typed(columns, kept)
    if not odd:
        return Parsed(inputs, pa.table(arrays) if kept else no_columns(total), total)
    left = [row for row in range(total) if row not in odd]
    few = {name: [values[row] for row in left] for name, values in columns.items()}
    rest = (
        _sql_rows(few, contract, kept) if left else Parsed({}, pa.schema(list(kept.items())).empty_table(), 0)
    )
    rejects = tuple(Reject(row, reason, name) for row, (name, reason) in sorted(odd.items()))
    return Parsed(rest.inputs, rest.kept, total, np.array(left, dtype=np.int64), rejects)


def no_columns(rows: int) -> pa.Table:
    """A table of rows without columns."""
    return pa.table({"": pa.nulls(rows)}).select([])


def _with_partition(
    parsed: Parsed, partition: Mapping[str, str], contract: Contract, kept: pa.Schema
) -> Parsed:
    """The folders' values as columns: as text where kept, by the field's type where the model takes them."""
    rows = parsed.kept.num_rows
    inputs = parsed.inputs
    needed = {
        name: [text] * rows for name, text in partition.items() if any(f.name == name for f in contract)
    }
    if needed and "" not in inputs:
        inputs = {**from_cells(needed, contract), **inputs}
    if not any(name in partition for name in kept.names):
        return msgspec.structs.replace(parsed, inputs=inputs)
    columns = [
        parsed.kept.column(name) if name not in partition else pa.array([partition[name]] * rows, pa.string())
        for name in kept.names
    ]
    table = pa.table(columns, names=kept.names)
    return msgspec.structs.replace(parsed, inputs=inputs, kept=table)
