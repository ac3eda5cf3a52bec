"""A run's input cut into stretches, which machines can score apart from each other.

A stretch is what one task reads, scores and writes by itself. One with a `stop` is exactly one part of the ledger, cut
where the local engine would cut it, so that every engine writes the same files. One without goes on to the end of its
file, as many parts as that takes, as the local engine does: packed files, other encodings and small files, where
nothing can be said about the middle without reading all before it.

Where stretches end is decided once and written down (`save`): a resumed run and a shard on another machine must cut as
the first one did.

    Parquet             from the footers, without reading rows
    SQL                 from one query over the key
    CSV, JSON Lines     large, plain, UTF-8: read through once for where records end, which takes far less than scoring
    Arrow               read through once, for the lengths of its batches
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fairway.batch import delimited
from fairway.batch.ledger import FileRecord, Part
from fairway.batch.source import Piece, Position, Reading, SourceFile, pieces, reading_errors
from fairway.core.contract import Contract
from fairway.core.errors import CorruptRegistry, InvalidInput, NotFound
from fairway.stores.disk import disk_errors, sync_directory

FILE = "stretches.jsonl"
_SPLIT_CHUNKS = 8
"""A text file of more chunks than this is worth reading through to be cut."""
_READERS = 8
_TASKS_A_SLOT = 4
"""So many tasks for each slot, so that one that is late does not keep all others waiting."""
_encode_lines = msgspec.json.Encoder().encode_lines


class Stretch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows of the file `file` from `start` on, which is where part `part` begins, up to `stop`."""

    file: int
    part: int = 0
    start: Position = Position()
    stop: Position | None = None

    @property
    def rows(self) -> int | None:
        return None if self.stop is None else self.stop.row - self.start.row


class Keys(Protocol):
    """A table or query that can say where each so-many-th row of its key order is."""

    def count(self) -> int: ...

    def every(self, rows: int) -> list[Any]: ...


def part_rows_for(rows: int, slots: int, most: int, least: int) -> int:
    """Rows of a part so that `slots` at once have several each, within what the plan allows."""
    return max(1, min(most, max(least, -(-rows // (slots * _TASKS_A_SLOT)))))


def estimate_rows(fs: Any, files: Sequence[SourceFile], reading: Reading) -> int:
    """About how many rows there are. Files that cannot be read count nothing: they are reported by who reads them."""

    def rows(file: SourceFile) -> int:
        if file.format == "parquet" and not file.packed:
            try:
                with fs.open(file.path, "rb") as raw:
                    return int(pq.ParquetFile(raw).metadata.num_rows)
            except (pa.ArrowException, OSError, ValueError):
                return 0
        return file.bytes * reading.chunk_rows // max(1, reading.chunk_bytes)

    with ThreadPoolExecutor(_READERS) as pool:
        return sum(pool.map(rows, files))


def plan_files(
    fs: Any, files: Sequence[SourceFile], reading: Reading, contract: Contract, part_rows: int
) -> list[Stretch]:
    """Stretches of all files, in their order. A file that cannot be cut is one stretch: who scores it says why."""

    def cut(numbered: tuple[int, SourceFile]) -> list[Stretch]:
        number, file = numbered
        try:
            return list(_joined(number, _chunks(fs, file, reading, contract), part_rows))
        except (InvalidInput, NotFound):
            return [Stretch(number)]

    with ThreadPoolExecutor(_READERS) as pool:
        return [stretch for found in pool.map(cut, enumerate(files)) for stretch in found]


def plan_keys(keys: Keys, chunk_rows: int, part_rows: int) -> list[Stretch]:
    """Stretches of a table. A part is whole chunks, as the local engine makes them."""
    step = chunk_rows * max(1, -(-part_rows // chunk_rows))
    stops = [Position(0, step * (i + 1), key) for i, key in enumerate(keys.every(step))]
    starts = [Position(), *stops]
    closed = [Stretch(0, i, starts[i], stop) for i, stop in enumerate(stops)]
    return [*closed, Stretch(0, len(stops), starts[-1])]


def _joined(number: int, ends: Iterable[Position], part_rows: int) -> Iterator[Stretch]:
    """Stretches from where chunks end, by the rule by which a run closes its parts; the last is open."""
    start, part = Position(), 0
    full: Position | None = None
    for end in ends:
        if full is not None:
            yield Stretch(number, part, start, full)
            start, part, full = full, part + 1, None
        if end.row - start.row >= part_rows:
            full = end
    yield Stretch(number, part, start)


def _chunks(fs: Any, file: SourceFile, reading: Reading, contract: Contract) -> Iterator[Position]:
    """Where the file's chunks end; nothing for one that is not cut."""
    if file.packed or not file.bytes:
        return
    if file.format == "parquet":
        yield from _parquet_chunks(fs, file, reading)
        return
    if file.format in ("csv", "jsonl"):
        plain = reading.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
        if file.bytes <= _SPLIT_CHUNKS * reading.chunk_bytes or (file.format == "csv" and not plain):
            return
    row = 0
    for piece in pieces(fs, file, Position(), reading, contract):
        row += rows_of(piece, file)
        yield Position(piece.offset, row)


def _parquet_chunks(fs: Any, file: SourceFile, reading: Reading) -> Iterator[Position]:
    with reading_errors(file), fs.open(file.path, "rb") as raw:
        metadata = pq.ParquetFile(raw).metadata
    row = 0
    for group in range(metadata.num_row_groups):
        end = row + metadata.row_group(group).num_rows
        while row < end:
            row = min(end, row + reading.chunk_rows)
            yield Position(file.bytes * row // max(1, metadata.num_rows), row)


def rows_of(piece: Piece, file: SourceFile) -> int:
    """How many rows a piece has, as `source.parse` will count them."""
    if file.format == "csv":
        assert piece.header is not None, "CSV comes with its header"
        return count_records(piece.raw, piece.header.delimiter)
    if file.format == "jsonl":
        return sum(1 for line in piece.raw.split(b"\n") if line.strip())
    return int(piece.raw.num_rows)


def count_records(data: bytes, delimiter: str) -> int:
    """Records of CSV without its header; empty lines are none."""
    if not data:
        return 0
    returns = data.count(b"\r")
    if b'"' not in data and returns == data.count(b"\r\n"):
        line = b"\r\n" if returns else b"\n"
        if not (data.startswith((b"\n", b"\r\n")) or line + b"\n" in data or line + line in data):
            return data.count(b"\n") + (not data.endswith(b"\n"))
    if delimited.is_odd(data, delimiter):
        return _count_slowly(data, delimiter)
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=True, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=["f0"], column_types={"f0": pa.binary()}
            ),
        )
        return int(table.num_rows)
    except pa.ArrowException:
        return _count_slowly(data, delimiter)


def _count_slowly(data: bytes, delimiter: str) -> int:
    lines = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    total = 0
    while True:
        try:
            total += bool(next(reader))
        except StopIteration:
            return total
        except csv.Error:
            total += 1


def remaining(
    stretches: Iterable[Stretch], files: Sequence[FileRecord], parts: Sequence[Part]
) -> list[Stretch]:
    """What is left to do: stretches whose part is not in the ledger; of an open one, what is behind its last part."""
    done = {record.number for record in files if record.state == "done"}
    by_file: Mapping[int, dict[int, Part]] = {
        number: {part.part: part for part in group} for number, group in groupby(parts, lambda p: p.file)
    }
    left = []
    for stretch in stretches:
        if stretch.file in done:
            continue
        there = by_file.get(stretch.file, {})
        if stretch.stop is not None:
            left += [stretch] if stretch.part not in there else []
            continue
        behind = [part for number, part in there.items() if number >= stretch.part]
        last = max(behind, key=lambda part: part.part, default=None)
        left.append(stretch if last is None else Stretch(stretch.file, last.part + 1, last.end))
    return left


def open_stretches(files: Sequence[FileRecord]) -> list[Stretch]:
    """Of a run that was begun without stretches: each file as one."""
    return [Stretch(record.number) for record in files]


def save(folder: Path, stretches: Sequence[Stretch]) -> None:
    """Writes them down in a run's folder, whole or not at all."""
    with disk_errors("write down the stretches", folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{FILE}.new"
        with fresh.open("wb") as handle:
            handle.write(_encode_lines(stretches))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(fresh, folder / FILE)
        sync_directory(folder)


def saved(folder: Path) -> list[Stretch] | None:
    """Those of `save`; None when there are none. Raises CorruptRegistry."""
    try:
        return msgspec.json.Decoder(Stretch).decode_lines((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise CorruptRegistry(f"{folder / FILE} cannot be read: {error}.") from error
