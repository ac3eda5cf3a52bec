"""Answers computed ahead: files are read and scored as in any batch, and each row's answer is stored under its key.

A run writes one generation, which nobody sees before it is whole. Every chunk is written together with a `Mark` that
says how far the run has come, so a run that is killed goes on at the chunk it was in, and what it has written twice is
the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from fairway.batch.answered import Chunk, Rows, Source, answered_chunks
from fairway.batch.score import Reject
from fairway.batch.source import Position
from fairway.core.columns import Outputs
from fairway.core.errors import Conflict, InvalidInput, StorageFull
from fairway.core.settings import HybridSettings
from fairway.inference.entries import encode_rows, layout_of
from fairway.inference.freshness import contract_signature
from fairway.inference.live import LiveVersion
from fairway.stores.answers import AnswerStore, AnswerWriter, Generation, new_id
from fairway.stores.disk import disk_errors

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
    left = _left(live, store, source) if resume else None
    storing = _Storing(live, store, source, limits, ttl_seconds, clock, left)
    try:
        mark = storing.mark
        with (
            _rejects_file(rejects, mark.rejects_bytes) as file,
            closing(answered_chunks(live, source, mark.file, mark.position)) as chunks,
        ):
            for chunk in chunks:
                rows, entries = storing.encoded(chunk.rows)
                lines = _reject_lines(rows.rejects, source.files[chunk.file].path, chunk.start.row)
                with disk_errors("write rejected rows", rejects):
                    file.write(lines)
                    file.flush()  # before the mark that counts them
                storing.add(chunk, rows.keys, entries, len(lines))
                tell(f"{storing.mark.rows} rows, {storing.mark.rejected} rejected", chunk.done)
        keys = storing.end(allow_empty=allow_empty)
        if not (keys or allow_empty):
            raise _nothing(storing.mark, rejects)
        tell("publishing", 1.0)
        generation = storing.publish()
    except BaseException:
        storing.close()
        raise
    mark = storing.mark
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
        resumed=left is not None,
        seconds=time.perf_counter() - began,
    )


class _Storing:
    """The generation that a run fills: begun with the first answer, unless an earlier run has `left` one. Entries of some
    chunks are written together, and with them the mark: a store does less for many keys at once than for each alone."""

    def __init__(
        self,
        live: LiveVersion,
        store: AnswerStore,
        source: Source,
        limits: HybridSettings,
        ttl_seconds: float,
        clock: Callable[[], float],
        left: AnswerWriter | None,
    ) -> None:
        self._live, self._store, self._source = live, store, source
        self._limits, self._ttl_seconds, self._clock = limits, ttl_seconds, clock
        self._writer = left
        self.mark = Mark() if left is None or not left.mark else msgspec.msgpack.decode(left.mark, type=Mark)
        self._entries: dict[bytes, bytes] = {}
        self._rows = 0
        self._since = time.monotonic()

    def encoded(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """The rows whose answers can be stored, and their entries; the others become rejects."""
        if not rows.keys:
            return rows, []
        writer = self._writer or self._begin(rows.outputs)
        return _encoded(rows, writer.generation.layout, self._clock(), self._limits.entry_bytes)

    def add(self, chunk: Chunk, keys: list[bytes], entries: list[bytes], rejects_bytes: int) -> None:
        """Takes a chunk whose rejects are in their file. Raises StorageFull."""
        self.mark = _moved(self.mark, chunk, keys, entries, rejects_bytes, self._limits.store_bytes)
        self._entries.update(zip(keys, entries, strict=True))
        self._rows += len(keys)
        is_enough = self._rows >= _WRITE_ROWS or time.monotonic() - self._since >= _WRITE_SECONDS
        if self._writer is not None and is_enough:
            self._write(self._writer)

    def end(self, *, allow_empty: bool) -> int:
        """Writes what is left to write. How many keys there are."""
        writer = self._begin({}) if self._writer is None and allow_empty else self._writer
        if writer is None:
            return 0
        self._write(writer)
        return writer.keys()

    def publish(self) -> Generation:
        assert self._writer is not None, "there are answers, or there may be none"
        generation = self._writer.generation
        self._writer.publish()
        return generation

    def close(self) -> None:
        """What was written is left for another run to go on with."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self, outputs: Outputs) -> AnswerWriter:
        made = _generation(self._live, self._source, outputs, self._ttl_seconds, self._clock())
        self._writer = self._store.begin(made)
        return self._writer

    def _write(self, writer: AnswerWriter) -> None:
        writer.write(self._entries.items(), msgspec.msgpack.encode(self.mark))
        self._entries, self._rows, self._since = {}, 0, time.monotonic()


def _moved(
    mark: Mark, chunk: Chunk, keys: list[bytes], entries: list[bytes], rejects_bytes: int, most_bytes: int
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


def _encoded(rows: Rows, layout: bytes, now: float, most_bytes: int) -> tuple[Rows, list[bytes]]:
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


def _one(rows: Rows, row: int, now: float, layout: bytes) -> bytes | str:
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
