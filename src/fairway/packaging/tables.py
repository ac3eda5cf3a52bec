"""Files and frames of any kind into one Arrow table: the single form `sample.py` reads.

CSV and JSON Lines are read as pandas would read them, with three differences: whole numbers with gaps stay
whole numbers, ISO 8601 timestamps become timestamps when every value of the column is one, and text that is
not UTF-8 is an error instead of a guess.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from fairway.core.errors import MalformedInput, NotFound, PayloadTooLarge, UnsupportedContent

FILE_BYTES = 8 * 1024**3
"""Largest sample file read; a sample of some ten thousand rows is all packaging needs."""

# What pandas.read_csv reads as missing, so that a contract agrees with the frame the model was trained on.
NULL_TEXTS = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]
_TRUE, _FALSE = ["True", "TRUE", "true"], ["False", "FALSE", "false"]
_BLOCK_BYTES = 1 << 30
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"FEA1": "feather"}
_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".arrows", ".ipc", ".feather"), "arrow"),
}


def read_table(data: Any) -> tuple[pa.Table, bool]:
    """`data` as an Arrow table, and whether its columns have names of their own (False for a bare array).

    Takes a path (CSV, Parquet, Arrow IPC file or stream, Feather, JSON Lines), a pandas or polars DataFrame,
    an Arrow table or record batch, a mapping of arrays, or a numpy array. Raises UnsupportedContent for
    anything else and MalformedInput for what cannot be read.
    """
    if isinstance(data, str | Path):
        return read_file(Path(data)), True
    if isinstance(data, pa.Table):
        return data, True
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data]), True
    if isinstance(data, np.ndarray):
        if data.dtype.names:
            return _from_mapping({name: data[name] for name in data.dtype.names}), True
        return _from_array(data), False
    if isinstance(data, Mapping):
        return _from_mapping(data), True
    if hasattr(data, "iter_columns") and hasattr(data, "to_arrow"):  # polars
        return data.to_arrow(), True
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas
        return _from_pandas(data)
    raise UnsupportedContent(
        f"sample data of type {type(data).__name__} cannot be read.",
        hint="Give a path to CSV, Parquet, Arrow or JSON Lines, a DataFrame, an Arrow table, an array, or a dict of arrays.",
    )


def read_file(path: Path) -> pa.Table:
    """Reads a sample file; what it is is told by its first bytes, then by its suffix."""
    if not path.exists():
        raise NotFound(f"there is no file {path}.")
    if path.is_dir():
        raise UnsupportedContent(f"{path} is a directory.", hint="Give one file of sample data.")
    size = path.stat().st_size
    if size == 0:
        raise MalformedInput(f"{path} is empty.")
    if size > FILE_BYTES:
        raise PayloadTooLarge(
            f"{path} has {size:,} bytes; sample files may have {FILE_BYTES:,}.",
            hint="Give a sample of it: ten thousand rows are plenty.",
        )
    kind = _kind_of(path)
    readers = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet, "arrow": _read_arrow}
    try:
        return readers[kind](path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MalformedInput(f"{path} cannot be read as {kind}: {_first_line(error)}") from error


def _kind_of(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return "arrow" if kind == "feather" else kind
    kind = _SUFFIXES.get(path.suffix.lower(), "")
    if not kind:
        raise UnsupportedContent(
            f"{path} is of no kind that can be read: it ends in {path.suffix or 'nothing'!r}.",
            hint=f"Known endings: {', '.join(_SUFFIXES)}.",
        )
    return kind


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read_parquet(path: Path) -> pa.Table:
    table = pa.parquet.read_table(path, memory_map=True)
    return _without_pandas_index(table)


def _without_pandas_index(table: pa.Table) -> pa.Table:
    """pandas stores a frame's index beside its columns; it was never a feature."""
    stored = (table.schema.pandas_metadata or {}).get("index_columns", [])
    return table.drop_columns(
        [name for name in stored if isinstance(name, str) and name in table.column_names]
    )


def _read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        start = source.read(6)
        source.seek(0)
        if start.startswith((b"ARROW1", b"FEA1")):
            return _without_pandas_index(pyarrow.feather.read_table(path))
        return _without_pandas_index(pa.ipc.open_stream(source).read_all())


def _read_csv(path: Path) -> pa.Table:
    with path.open("rb") as file:
        start = file.read(1 << 16)
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    header = start.decode(encoding, errors="replace").splitlines()[0]
    delimiter = max(",\t;|", key=header.count) if "," not in header else ","
    names = _csv_names(path, encoding, delimiter)

    def read(text_columns: list[str]) -> pa.Table:
        return pa.csv.read_csv(
            path,
            # One block as large as the file: a type is then inferred from every row, not from the first ones.
            read_options=pa.csv.ReadOptions(
                block_size=min(path.stat().st_size + 1, _BLOCK_BYTES),
                encoding=encoding,
            ),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                null_values=NULL_TEXTS,
                strings_can_be_null=True,
                true_values=_TRUE,
                false_values=_FALSE,
                column_types=dict.fromkeys(text_columns, pa.string()),
            ),
        )

    table = read([])
    clock = [field.name for field in table.schema if pa.types.is_time(field.type)]
    if clock:  # "12:30" is text here, as pandas has it
        table = read(clock)
    table = table.rename_columns(names)
    _refuse_binary(table, path)
    return table


def _csv_names(path: Path, encoding: str, delimiter: str) -> list[str]:
    readable = "utf-8-sig" if encoding == "utf-8" else encoding
    # Bytes that are no text are kept for now: they may stand below the header, and are named there.
    with path.open(encoding=readable, errors="surrogateescape", newline="") as file:
        try:
            header = next(csv.reader(file, delimiter=delimiter), [])
            "".join(header).encode("utf-8")
        except (UnicodeError, csv.Error) as error:
            raise MalformedInput(
                f"{path}: the header cannot be read as text: {error}.", hint="Save the file as UTF-8."
            ) from error
    if any("\x00" in name for name in header):
        raise MalformedInput(f"{path}: the header is not text: it holds zero bytes.")
    names = [name if name else f"Unnamed: {i}" for i, name in enumerate(header)]  # as pandas names them
    check_unique(names, str(path))
    return names


def check_unique(names: Iterable[str], where: str) -> None:
    """MalformedInput that names what is there twice."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise MalformedInput(f"{where}: column names must be unique; repeated: {', '.join(twice)}.")


def _refuse_binary(table: pa.Table, path: Path) -> None:
    for name in table.column_names:
        if not pa.types.is_binary(table.schema.field(name).type):
            continue
        for row, value in enumerate(table[name].to_pylist()):
            try:
                (value or b"").decode("utf-8")
            except UnicodeDecodeError:
                raise MalformedInput(
                    f"{path}: column {name!r}, row {row} is not UTF-8 text: {value[:40]!r}.",
                    hint="Save the whole file as UTF-8.",
                ) from None


def _read_json(path: Path) -> pa.Table:
    with path.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        try:
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise MalformedInput(f"{path} cannot be read as JSON: {error}") from error
        if not all(isinstance(row, dict) for row in rows):
            raise MalformedInput(f"{path} must hold objects, one per row.")
        names = dict.fromkeys(name for row in rows for name in row)
        return _from_mapping({name: [row.get(name) for row in rows] for name in names})
    return pa.json.read_json(
        path, read_options=pa.json.ReadOptions(block_size=min(path.stat().st_size + 1, _BLOCK_BYTES))
    )


def _from_array(data: np.ndarray[Any, Any]) -> pa.Table:
    if data.ndim == 1:
        data = data[:, None]
    if data.ndim == 2:
        return pa.table({f"x{i}": _column(f"x{i}", data[:, i]) for i in range(data.shape[1])})
    if data.ndim == 0:
        raise MalformedInput("a single value is no sample: give an array with one row per example.")
    return pa.table({"x": _tensor(data)})


def _from_mapping(data: Mapping[str, Any]) -> pa.Table:
    columns = {str(name): _column(str(name), values) for name, values in data.items()}
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise MalformedInput(f"columns have different numbers of rows: {told}.")
    return pa.table(columns)


def _from_pandas(frame: Any) -> tuple[pa.Table, bool]:
    if getattr(frame.columns, "nlevels", 1) > 1:
        raise UnsupportedContent(
            "the DataFrame has column names of several levels.",
            hint="Flatten them, such as 'a_b' for ('a', 'b').",
        )
    named = all(isinstance(name, str) for name in frame.columns)
    if not named and any(isinstance(name, str) for name in frame.columns):
        raise UnsupportedContent(
            "the DataFrame mixes text and other column names.", hint="Name every column by text."
        )
    # scikit-learn, too, treats a frame whose column names are not text as a bare array.
    names = [str(name) if named else f"x{i}" for i, name in enumerate(frame.columns)]
    check_unique(names, "the DataFrame")
    return pa.table({name: _column(name, frame.iloc[:, i]) for i, name in enumerate(names)}), named


def _column(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return _tensor(values)
    if getattr(getattr(values, "dtype", None), "kind", "") == "U" and isinstance(values, np.ndarray):
        values = values.astype(object)
    if hasattr(values, "sparse"):
        values = values.sparse.to_dense()
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError) as error:
        raise MalformedInput(
            f"column {name!r} holds values of several kinds, or of one that has no column type: {_first_line(error)}",
            hint="Make every value of the column text, or every value a number.",
        ) from error


def _tensor(values: np.ndarray[Any, Any]) -> pa.Array:
    if values.dtype.kind not in "biuf":
        raise UnsupportedContent(f"arrays of {values.ndim} dimensions must hold numbers, not {values.dtype}.")
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
