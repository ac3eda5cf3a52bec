"""Answers computed ahead: files are read and scored as in any batch, and each row's answer is stored under its key.

A run writes one generation, which nobody sees before it is whole. Every chunk is written together with a `Mark` that
says how far the run has come, so a run that is killed goes on at the chunk it was in, and what it has written twice is
the same.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from fairway.batch.engine import in_order, scorers
from fairway.batch.score import Parsed, Reject, plan_calls
from fairway.batch.source import Piece, Position, Reading, SourceFile, kept_schema, parse, pieces
from fairway.batch.sql import Place, SqlSource
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import Conflict, InvalidInput, MalformedInput, ModelFailed, StorageFull
from fairway.core.settings import HybridSettings
from fairway.inference.entries import encode_rows, features_of, key_bytes, layout_of
from fairway.inference.freshness import contract_signature
from fairway.inference.live import LiveVersion
from fairway.stores.answers import AnswerStore, AnswerWriter, Generation, new_id
from fairway.stores.disk import disk_errors

_CHUNK_ROWS = 8192
_CHUNK_BYTES = 4 * 1024 * 1024
_CHUNK_SECONDS = 2.0
_WRITE_ROWS, _WRITE_SECONDS = 16_384, 5.0
"""What is gathered before it is written: a run that is killed does at most that again. LMDB holds a page in memory for
each key it writes until they are all written."""

Tell = Callable[[str, float], None]
"""(what is being done, fraction done 0..1)."""


class Mark(msgspec.Struct, frozen=True):
    """How far a run has come: the file and the position in it, then counts over all files. `stored_bytes` are those of
    keys and entries written, `rejects_bytes` the length of the file of rejects."""

    file: int = 0
    position: Position = Position()
    rows: int = 0
    answered: int = 0
    rejected: int = 0
    stored_bytes: int = 0
    rejects_bytes: int = 0


class Precomputation(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has done. `duplicates` are rows whose key came again later: the last one is kept. `bytes` is what was
    written, `seconds` how long this run took, without those it went on from."""

    model: str
    version: int
    digest: str
    generation: str
    store: str
    rows: int
    keys: int
    duplicates: int
    rejected: int
    rejects: str
    bytes: int
    ttl_seconds: float
    resumed: bool
    seconds: float


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


class _Rows(msgspec.Struct, frozen=True):
    """Rows of a chunk that have an answer: `places` `[n]` in the chunk, keys, hashes of features, outputs; and those
    that have none."""

    places: Array
    keys: list[bytes]
    features: list[bytes]
    outputs: Outputs
    rejects: list[Reject]


class _Chunk(msgspec.Struct, frozen=True):
    """Scored rows, the file they are from, where in it they begin and end, and how much is done then, 0..1."""

    rows: _Rows
    file: int
    start: Position
    end: Position
    done: float

    @property
    def total(self) -> int:
        return self.end.row - self.start.row


def precompute(
    live: LiveVersion,
    store: AnswerStore,
    source: Source,
    *,
    limits: HybridSettings,
    ttl_seconds: float,
    rejects: Path,
    resume: bool = False,
    allow_empty: bool = False,
    tell: Tell = lambda what, fraction: None,
    clock: Callable[[], float] = time.time,
) -> Precomputation:
    """Scores every row, stores the answers, and has them read when the last one is there.

    With `resume` it goes on with what an earlier run has left, if there is anything. Bad rows go to the file `rejects`,
    one JSON object a line. Raises Conflict when what was left is of other files or another version, InvalidInput when
    no row has an answer (unless `allow_empty`), MalformedInput for files that cannot be read, StorageFull,
    AnswersUnavailable, ModelFailed. Whatever it raises, readers see what they saw before, and `resume` goes on.
    """
    began = time.perf_counter()
    writer = _left(live, store, source) if resume else None
    mark = Mark() if writer is None or not writer.mark else msgspec.msgpack.decode(writer.mark, type=Mark)
    resumed = writer is not None
    gathered = _Gathered()
    try:
        with (
            _rejects_file(rejects, mark.rejects_bytes) as file,
            closing(_chunks(live, source, mark)) as chunks,
        ):
            for chunk in chunks:
                rows = chunk.rows
                entries: list[bytes] = []
                if writer is None and rows.keys:
                    writer = store.begin(_generation(live, source, rows.outputs, ttl_seconds, clock()))
                if writer is not None:
                    rows, entries = _encoded(rows, writer.generation.layout, clock(), limits.entry_bytes)
                lines = _reject_lines(rows.rejects, source.files[chunk.file].path, chunk.start.row)
                with disk_errors("write rejected rows", rejects):
                    file.write(lines)
                    file.flush()
                mark = _moved(mark, chunk, rows.keys, entries, len(lines), limits.store_bytes)
                gathered.add(rows.keys, entries)
                if writer is not None and gathered.is_enough():
                    gathered.write(writer, mark)
                tell(f"{mark.rows} rows, {mark.rejected} rejected", chunk.done)
        if writer is None and allow_empty:
            writer = store.begin(_generation(live, source, {}, ttl_seconds, clock()))
        if writer is not None:
            gathered.write(writer, mark)
        keys = 0 if writer is None else writer.keys()
        if writer is None or not (keys or allow_empty):
            raise _nothing(mark, rejects)
        tell("publishing", 1.0)
        generation = writer.generation
        writer.publish()
    except BaseException:
        if writer is not None:
            writer.close()
        raise
    return Precomputation(
        model=live.model,
        version=live.version,
        digest=live.digest,
        generation=generation.id,
        store=store.where,
        rows=mark.rows,
        keys=keys,
        duplicates=mark.answered - keys,
        rejected=mark.rejected,
        rejects=str(rejects) if mark.rejected else "",
        bytes=mark.stored_bytes,
        ttl_seconds=generation.ttl_seconds,
        resumed=resumed,
        seconds=time.perf_counter() - began,
    )


class _Gathered:
    """Entries of some chunks, written together: a store does less for many keys at once than for each alone."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}
        self._rows = 0
        self._since = time.monotonic()

    def add(self, keys: list[bytes], entries: list[bytes]) -> None:
        self._entries.update(zip(keys, entries, strict=True))
        self._rows += len(keys)

    def is_enough(self) -> bool:
        return self._rows >= _WRITE_ROWS or time.monotonic() - self._since >= _WRITE_SECONDS

    def write(self, writer: AnswerWriter, mark: Mark) -> None:
        writer.write(self._entries.items(), msgspec.msgpack.encode(mark))
        self._entries, self._rows, self._since = {}, 0, time.monotonic()


def _moved(
    mark: Mark, chunk: _Chunk, keys: list[bytes], entries: list[bytes], rejects_bytes: int, most_bytes: int
) -> Mark:
    """The mark behind a chunk. Raises StorageFull when there are more bytes than may be."""
    moved = Mark(
        file=chunk.file,
        position=chunk.end,
        rows=mark.rows + chunk.total,
        answered=mark.answered + len(entries),
        rejected=mark.rejected + chunk.total - len(entries),
        stored_bytes=mark.stored_bytes + sum(map(len, entries)) + sum(map(len, keys)),
        rejects_bytes=mark.rejects_bytes + rejects_bytes,
    )
    if most_bytes and moved.stored_bytes > most_bytes:
        raise StorageFull(
            f"The answers take more than {most_bytes} bytes (hybrid.store_bytes).",
            hint="Raise it and go on with --resume, or precompute fewer rows.",
        )
    return moved


def _left(live: LiveVersion, store: AnswerStore, source: Source) -> AnswerWriter | None:
    """What an earlier run has left of the same work."""
    writer = store.resume()
    if writer is None:
        return None
    left = writer.generation
    what = "" if left.source == source.identity else "other files, or these files have changed since"
    what = what if left.digest == live.digest else f"version {left.version} of {live.model}"
    if what:
        writer.close()
        raise Conflict(
            f"The run that was left unfinished is of {what}.", hint="Begin anew, without --resume."
        )
    return writer


def _generation(
    live: LiveVersion, source: Source, outputs: Outputs, ttl_seconds: float, now: float
) -> Generation:
    return Generation(
        id=new_id(),
        model=live.model,
        version=live.version,
        digest=live.digest,
        signature=contract_signature(live.contract),
        layout=layout_of(outputs),
        began=now,
        ttl_seconds=ttl_seconds,
        key=source.key,
        source=source.identity,
    )


def _nothing(mark: Mark, rejects: Path) -> InvalidInput:
    why = f"all {mark.rows} were rejected; see {rejects}" if mark.rows else "the files have no rows"
    return InvalidInput(
        f"No row has an answer: {why}. Nothing is published.",
        hint="--allow-empty replaces the answers there are by none.",
    )


def _chunks(live: LiveVersion, source: Source, mark: Mark) -> Generator[_Chunk]:
    """Scored chunks from `mark` on, in order. While the caller stores one, others are scored and read: at most a few."""
    calls = plan_calls(live)
    # Where a row's answer depends on the rows that come with it, each is asked alone, as most requests are.
    call_rows = calls.rows if live.floor.rows is not None else 1
    chunk_rows = max(1, min(_CHUNK_ROWS, int(_CHUNK_SECONDS / max(calls.seconds_a_row, 1e-9))))
    read = _files if source.place is None else _table
    schema, rows_there, works = read(live.contract, source, mark, chunk_rows)
    position, number = mark.position, mark.file

    def score(work: _Work) -> tuple[_Rows, int]:
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
            yield _Chunk(rows, number, position, end, done)
            position = end


class _Work(msgspec.Struct, frozen=True):
    """A piece of the file `file`, and how much of all files is read with it, 0..1."""

    file: int
    piece: Piece
    done: float = 0.0


def _files(
    contract: Contract, source: Source, mark: Mark, chunk_rows: int
) -> tuple[pa.Schema, int, Generator[_Work]]:
    """The type of the key; rows there are, 0 where that is not known; and the pieces of all files."""
    reading = Reading(chunk_rows=chunk_rows, chunk_bytes=_CHUNK_BYTES, kept=(source.key,))
    with _naming(source.files[0]):
        schema = kept_schema(source.fs, source.files[0], reading, contract)
    all_bytes = max(1, sum(file.bytes for file in source.files))

    def read() -> Generator[_Work]:
        before = sum(file.bytes for file in source.files[: mark.file])
        position = mark.position
        for number, file in enumerate(source.files[mark.file :], mark.file):
            with _naming(file):
                for piece in pieces(source.fs, file, position, reading, contract):
                    yield _Work(number, piece, min(1.0, (before + piece.offset) / all_bytes))
            before += file.bytes
            position = Position()

    return schema, 0, read()


def _table(
    contract: Contract, source: Source, mark: Mark, chunk_rows: int
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
            for piece in table.pieces(mark.position, chunk_rows):
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


def _score(live: LiveVersion, parsed: Parsed, call_rows: int) -> _Rows:
    """The rows that have a key and that the model takes, and why the others are rejected."""
    rejects = list(parsed.rejects)
    places = np.arange(len(parsed.kept)) if parsed.places is None else parsed.places
    nothing = _Rows(places[:0], [], [], {}, rejects)
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
    return _Rows(places[good], [keys[int(row)] for row in good], features_of(columns), outputs, rejects)


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


def _encoded(rows: _Rows, layout: bytes, now: float, most_bytes: int) -> tuple[_Rows, list[bytes]]:
    """The rows whose answers can be stored, and their entries; the others become rejects."""
    if not rows.keys:
        return rows, []
    try:
        entries: list[bytes | str] = [*encode_rows(rows.outputs, rows.features, now, layout)]
    except InvalidInput:
        entries = [_one(rows, row, now, layout) for row in range(len(rows.keys))]
    wrong = {row: entry for row, entry in enumerate(entries) if isinstance(entry, str)}
    for row, entry in enumerate(entries):
        if len(entry) > most_bytes and row not in wrong:
            wrong[row] = f"its answer has {len(entry)} bytes; {most_bytes} is the most (hybrid.entry_bytes)"
    rejects = rows.rejects + [Reject(int(rows.places[row]), reason) for row, reason in wrong.items()]
    left = msgspec.structs.replace(
        rows, keys=[key for row, key in enumerate(rows.keys) if row not in wrong], rejects=rejects
    )
    return left, [e for row, e in enumerate(entries) if row not in wrong and isinstance(e, bytes)]


def _one(rows: _Rows, row: int, now: float, layout: bytes) -> bytes | str:
    """The entry of one row, or why there can be none."""
    outputs = {name: values[row : row + 1] for name, values in rows.outputs.items()}
    try:
        return encode_rows(outputs, rows.features[row : row + 1], now, layout)[0]
    except InvalidInput as error:
        return str(error)


def _reject_lines(rejects: list[Reject], path: str, first_row: int) -> bytes:
    """Rejects of a chunk that begins at `first_row` of its file, by row, as JSON Lines."""
    ordered = sorted(rejects, key=lambda reject: reject.row)
    told = [Reject(first_row + reject.row, reject.reason, reject.field, path) for reject in ordered]
    return b"".join(msgspec.json.encode(reject) + b"\n" for reject in told)


@contextmanager
def _rejects_file(path: Path, size: int) -> Iterator[BinaryIO]:
    """Open for adding after the first `size` bytes: what a killed run wrote behind its last mark is written again."""
    with disk_errors("write rejected rows", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("r+b" if path.exists() else "w+b")
        file.truncate(size)
        file.seek(size)
    with file:
        yield file
