"""Tables a column at a time, so that a check needs no more memory than its widest column and a sample of rows.

Parquet and Arrow files are read by column where they lie. CSV and JSON Lines that are too large to hold are turned, in
blocks, into an Arrow file in a temporary folder first.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from fairway.core.errors import MalformedInput
from fairway.packaging.tables import NULL_TEXTS, check_unique, read_file, read_table

HELD_BYTES = 64 * 1024**2
"""CSV and JSON files up to this size are read whole, which tells the types of their columns from every row."""
_BLOCK_BYTES = 8 * 1024**2


class Table(Protocol):
    """Rows of named columns. `column` may read from disk each time it is asked."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def rows(self) -> int: ...
    def type_of(self, name: str) -> pa.DataType: ...
    def column(self, name: str) -> pa.ChunkedArray: ...
    def take(self, name: str, rows: Sequence[int] | np.ndarray[Any, Any]) -> pa.ChunkedArray: ...


class HeldTable:
    """A table in memory, or mapped into it."""

    def __init__(self, table: pa.Table, folder: Any = None) -> None:
        self._table = table
        if folder is not None:  # the file that `table` is mapped from goes when nobody looks at it any more
            self._end = weakref.finalize(self, folder.cleanup)
        self.names = tuple(table.column_names)
        self.rows = int(table.num_rows)

    def type_of(self, name: str) -> pa.DataType:
        return self._table.schema.field(name).type

    def column(self, name: str) -> pa.ChunkedArray:
        return self._table.column(name)

    def take(self, name: str, rows: Sequence[int] | np.ndarray[Any, Any]) -> pa.ChunkedArray:
        return self._table.column(name).take(pa.array(rows))


class ParquetTable:
    """A Parquet file, one column in memory at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = pq.ParquetFile(path, pre_buffer=False)
        stored = (self._file.schema_arrow.pandas_metadata or {}).get("index_columns", [])
        index = {name for name in stored if isinstance(name, str)}  # pandas' row labels are no feature
        self.names = tuple(name for name in self._file.schema_arrow.names if name not in index)
        check_unique(self.names, str(path))
        self.rows = int(self._file.metadata.num_rows)

    def type_of(self, name: str) -> pa.DataType:
        return self._file.schema_arrow.field(name).type

    def column(self, name: str) -> pa.ChunkedArray:
        try:
            return self._file.read(columns=[name], use_threads=False).column(name)
        except (pa.ArrowException, OSError) as error:
            text = (str(error).splitlines() or [""])[0]
            raise MalformedInput(f"{self._path}: column {name!r} cannot be read: {text}.") from error

    def take(self, name: str, rows: Sequence[int] | np.ndarray[Any, Any]) -> pa.ChunkedArray:
        return self.column(name).take(pa.array(rows))


def open_table(data: object) -> Table:
    """`data` as a `Table`: a path (Parquet, Arrow, Feather, CSV, JSON Lines), a pandas or polars DataFrame, an Arrow
    table, a mapping of arrays, an array. Raises what `packaging.tables.read_table` raises."""
    if not isinstance(data, str | os.PathLike):
        table = read_table(data)[0]
        check_unique(table.column_names, "the data")
        return HeldTable(table)
    path = Path(data)
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            start = file.read(64)
        if start.startswith(b"PAR1"):
            return _parquet(path)
        text = not start.startswith((b"ARROW1", b"FEA1", b"\xff\xff\xff\xff"))
        listed = start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        if text and path.stat().st_size > HELD_BYTES and not listed:
            return _converted(path)
    table = read_file(path)
    check_unique(table.column_names, str(path))
    return HeldTable(table)


def _parquet(path: Path) -> ParquetTable:
    try:
        return ParquetTable(path)
    except (pa.ArrowException, OSError) as error:
        text = (str(error).splitlines() or [""])[0]
        raise MalformedInput(f"{path} cannot be read as parquet: {text}.") from error


def _converted(path: Path) -> HeldTable:
    """A large text file as a mapped Arrow file."""
    folder = tempfile.TemporaryDirectory(prefix="fairway-drift-")
    target = Path(folder.name) / "table.arrow"
    lines = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    try:
        with (
            _batches(path, lines) as reader,
            pa.OSFile(str(target), "wb") as sink,
            pa.ipc.new_file(sink, reader.schema) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch)
        mapped = pa.ipc.open_file(pa.memory_map(str(target))).read_all()
        check_unique(mapped.column_names, str(path))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        folder.cleanup()
        text = (str(error).splitlines() or [""])[0]
        raise MalformedInput(
            f"{path} cannot be read: {text}.",
            hint="The types of columns are told from the first rows; write Parquet where later rows differ.",
        ) from error
    return HeldTable(mapped, folder)


def _batches(path: Path, lines: bool) -> Any:
    if lines:
        return pyarrow.json.open_json(path, read_options=pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES))
    with path.open("rb") as file:
        header = file.read(1 << 16).decode("utf-8", errors="replace").splitlines()[0]
    delimiter = max(",\t;|", key=header.count) if "," not in header else ","
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(null_values=NULL_TEXTS, strings_can_be_null=True),
    )
