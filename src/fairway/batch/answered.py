"""Rows of files or of a table, scored to be stored by key: in order, chunk by chunk, from any chunk on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from fairway.batch.engine import in_order, scorers
from fairway.batch.score import Parsed, Reject, plan_calls
from fairway.batch.source import Piece, Position, Reading, SourceFile, kept_schema, parse, pieces
from fairway.batch.sql import Place, SqlSource
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput, MalformedInput, ModelFailed
from fairway.inference.entries import features_of, key_bytes
from fairway.inference.live import LiveVersion

_CHUNK_ROWS = 8192
_CHUNK_BYTES = 4 * 1024 * 1024
_CHUNK_SECONDS = 2.0


class Source(msgspec.Struct, frozen=True):
    """Files to read, on an fsspec filesystem, or a table or query; `key` is the column that answers are stored under."""

    fs: Any
    files: tuple[SourceFile, ...]
    key: str
    place: Place | None = None
    """In a database, read in the order of its own key; then there is one file, which stands for it."""

    @property
    def identity(self) -> str:
        """Changes when the files or the key do."""
        told: list[Any] = [(file.path, file.bytes, file.stamp) for file in self.files]
        if self.place is not None:
            told.append([self.place.shown, self.place.table, self.place.query, self.place.keys])
        return hashlib.sha256(msgspec.json.encode([self.key, told])).hexdigest()


class Rows(msgspec.Struct, frozen=True):
    """Rows of a chunk that have an answer: `places` `[n]` in the chunk, keys, hashes of features, outputs; and those
    that have none."""

    places: Array
    keys: list[bytes]
    features: list[bytes]
    outputs: Outputs
    rejects: list[Reject]


class Chunk(msgspec.Struct, frozen=True):
    """Scored rows, the file they are from, where in it they begin and end, and how much is done then, 0..1."""

    rows: Rows
    file: int
    start: Position
    end: Position
    done: float

    @property
    def total(self) -> int:
        return self.end.row - self.start.row


def answered_chunks(live: LiveVersion, source: Source, from_file: int, start: Position) -> Generator[Chunk]:
    """Scored chunks from a place in a file on, in order. While the caller stores one, others are scored and read: at most a few."""
    calls = plan_calls(live)
    # Where a row's answer depends on the rows that come with it, each is asked alone, as most requests are.
    call_rows = calls.rows if live.floor.rows is not None else 1
    chunk_rows = max(1, min(_CHUNK_ROWS, int(_CHUNK_SECONDS / max(calls.seconds_a_row, 1e-9))))
    read = _files if source.place is None else _table
    schema, rows_there, works = read(live.contract, source, from_file, start, chunk_rows)
    position, number = start, from_file

    def score(work: _Work) -> tuple[Rows, int]:
        with _naming(source.files[work.file]):
            parsed = parse(work.piece, source.files[work.file], live.contract, schema)
            return _score(live, parsed, call_rows), parsed.total

    workers = len(os.sched_getaffinity(0))
    with (
        scorers(workers, processes=False) as pool,
        closing(in_order(pool, works, score, ahead=2 * workers)) as found,
    ):
        for work, scoring in found:
            rows, total = scoring.result()
            if work.file != number:
                position, number = Position(), work.file
            end = Position(work.piece.offset, position.row + total, work.piece.key)
            done = min(1.0, end.row / rows_there) if rows_there else work.done
            yield Chunk(rows, number, position, end, done)
            position = end


class _Work(msgspec.Struct, frozen=True):
    """A piece of the file `file`, and how much of all files is read with it, 0..1."""

    file: int
    piece: Piece
    done: float = 0.0


def _files(
    contract: Contract, source: Source, from_file: int, start: Position, chunk_rows: int
) -> tuple[pa.Schema, int, Generator[_Work]]:
    """The type of the key; rows there are, 0 where that is not known; and the pieces of all files."""
    reading = Reading(chunk_rows=chunk_rows, chunk_bytes=_CHUNK_BYTES, kept=(source.key,))
    with _naming(source.files[0]):
        schema = kept_schema(source.fs, source.files[0], reading, contract)
    all_bytes = max(1, sum(file.bytes for file in source.files))

    def read() -> Generator[_Work]:
        before = sum(file.bytes for file in source.files[:from_file])
        position = start
        for number, file in enumerate(source.files[from_file:], from_file):
            with _naming(file):
                for piece in pieces(source.fs, file, position, reading, contract):
                    yield _Work(number, piece, min(1.0, (before + piece.offset) / all_bytes))
            before += file.bytes
            position = Position()

    return schema, 0, read()


def _table(
    contract: Contract, source: Source, from_file: int, start: Position, chunk_rows: int
) -> tuple[pa.Schema, int, Generator[_Work]]:
    """The same of a table or query."""
    assert source.place is not None, "files are read by _files"
    table = SqlSource(source.place)
    try:
        schema = table.kept_schema(contract, (source.key,), chunk_rows)
        rows = table.count()
    except BaseException:
        table.close()
        raise

    def read() -> Generator[_Work]:
        try:
            for piece in table.pieces(start, chunk_rows):
                yield _Work(0, piece)
        finally:
            table.close()

    return schema, rows, read()


@contextmanager
def _naming(file: SourceFile) -> Iterator[None]:
    """What is wrong with a file is told with its name."""
    try:
        yield
    except InvalidInput as error:
        if file.path in str(error):
            raise
        raise MalformedInput(
            f"{file.path}: {error}", hint="Nothing is published. Mend the file, or leave it out."
        ) from error


def _score(live: LiveVersion, parsed: Parsed, call_rows: int) -> Rows:
    """The rows that have a key and that the model takes, and why the others are rejected."""
    rejects = list(parsed.rejects)
    places = np.arange(len(parsed.kept)) if parsed.places is None else parsed.places
    nothing = Rows(places[:0], [], [], {}, rejects)
    if not len(parsed.kept):
        return nothing
    keys: dict[int, bytes] = {}
    for row, value in enumerate(parsed.kept.column(0).to_pylist()):
        try:
            keys[row] = key_bytes(value)
        except InvalidInput as error:
            rejects.append(Reject(int(places[row]), str(error), parsed.kept.column_names[0]))
    split = live.split(parsed.inputs)
    rejects += [Reject(int(places[p.row or 0]), p.reason, p.field) for p in split.problems]
    if split.columns is None:
        return nothing
    good, columns = split.rows, split.columns
    if len(keys) < len(parsed.kept):
        keyed = np.array([int(row) in keys for row in good], dtype=bool)
        good, columns = good[keyed], columns.take(keyed)
    outputs, failed = _run(live, columns, call_rows) if len(good) else ({}, {})
    if failed:
        rejects += [Reject(int(places[good[row]]), reason) for row, reason in failed.items()]
        ran = np.array([row not in failed for row in range(len(good))], dtype=bool)
        good, columns = good[ran], columns.take(ran)
    if not len(good):
        return nothing
    return Rows(places[good], [keys[int(row)] for row in good], features_of(columns), outputs, rejects)


def _run(live: LiveVersion, columns: Columns, call_rows: int) -> tuple[Outputs, dict[int, str]]:
    """Outputs of the rows that the model takes, and why it failed on the others, by their place. Raises ModelFailed
    when it fails on every row of a call of several."""
    parts: list[Outputs] = []
    failed: dict[int, str] = {}
    for begin in range(0, columns.rows, call_rows):
        part = columns.take(slice(begin, begin + call_rows))
        try:
            parts.append(live.run(part))
        except ModelFailed as error:
            own = {}
            for row in range(part.rows):
                try:
                    parts.append(live.run(part.take(slice(row, row + 1))))
                except ModelFailed as reason:
                    own[begin + row] = str(reason)
            if len(own) == part.rows > 1:
                raise error
            failed |= own
    if not parts:
        return {}, failed
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, failed
