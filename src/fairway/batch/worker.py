"""One stretch of a run, scored on whatever machine: the local engine's own run, of one stretch, in a scratch ledger.

So a cluster adds no second way to read, score, reject or write: a worker begins a run like the local engine's with one
file, whose place is the stretch, and hands back the parts that its ledger lists. The driver enters them in the real
one. A worker that dies has left nothing that is read: its part is not in the ledger, and is done again.

A part is whole or not there at all, also where its file turns out to be damaged in the middle: a second attempt, which
may be luckier, must not find a shorter part under its name. (The local engine, of whom there is one, keeps the rows
before the damage.) Whole parts before it are kept.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pyarrow as pa

from fairway.batch.bundles import Loaded, at_home, load_once
from fairway.batch.ledger import Ledger, Part
from fairway.batch.local import Model, Scorer
from fairway.batch.plan import Plan
from fairway.batch.run import Run, Work
from fairway.batch.score import Scored
from fairway.batch.shared import Target, open_target
from fairway.batch.sink import PartWriter, Sink, Written
from fairway.batch.source import Piece, Position, SourceFile, file_system, pieces
from fairway.batch.sql import SqlSource, is_sql, read_place
from fairway.batch.stretches import Stretch
from fairway.core import errors
from fairway.core.contract import Contract
from fairway.core.errors import (
    EnvironmentMismatch,
    FairwayError,
    InvalidInput,
    MalformedInput,
    ModelFailed,
    NotFound,
)
from fairway.core.release import VERSION
from fairway.core.settings import Settings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_NO_END = 2**62


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is told once. The plan holds the URLs with their passwords: it travels inside the cluster."""

    plan: Plan
    model: Model
    settings: Settings
    target: Target
    flat: bool
    fairway: str = ""


class Task(msgspec.Struct, frozen=True):
    stretch: Stretch
    file: SourceFile


class Refused(msgspec.Struct, frozen=True):
    """A FairwayError that concerns the whole run, on its way to the driver: the name of its class and its texts."""

    kind: str
    message: str
    hint: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a stretch: its parts, each with its rejects as packed JSON Lines (b"" for none). `error` is the
    file's own, `refused` the run's."""

    stretch: Stretch
    parts: tuple[Part, ...] = ()
    rejects: tuple[bytes, ...] = ()
    error: str = ""
    refused: Refused | None = None


# Made once, by one thread: threads that make a type's first decoder at the same time crash msgspec 0.22.
decode_job = msgspec.json.Decoder(Job).decode
decode_task = msgspec.json.Decoder(Task).decode
decode_outcome = msgspec.json.Decoder(Outcome).decode


class _Spoiled(Exception):
    """The stretch cannot be scored whole."""

    def __init__(self, error: FairwayError) -> None:
        super().__init__(str(error))
        self.error = error


class Worker:
    """Scores stretches of one run."""

    def __init__(self, job: Job, loaded: Loaded) -> None:
        if job.fairway != VERSION:
            raise EnvironmentMismatch(
                f"the workers have Fairway {VERSION}, the run was begun with {job.fairway}.",
                hint="Install the same version on all machines.",
            )
        self._job, self._loaded = job, loaded

    def do(self, task: Task) -> Outcome:
        """Scores, writes and commits the stretch's rows. What is wrong is in the outcome; nothing of Fairway's own is
        raised."""
        try:
            with tempfile.TemporaryDirectory(prefix="fairway-stretch-") as scratch:
                return self._do(task, Path(scratch))
        except FairwayError as error:
            return Outcome(stretch=task.stretch, refused=refused(error))

    def _do(self, task: Task, scratch: Path) -> Outcome:
        job, stretch = self._job, task.stretch
        plan = job.plan
        if stretch.stop is not None:  # one part, whatever is in it: the numbers behind it are others'
            plan = msgspec.structs.replace(plan, part_rows=_NO_END, part_bytes=0, part_rejects=_NO_END)
        ledger = Ledger.create(scratch / "run", msgspec.json.encode(plan), [task.file], durable=False)
        sink = open_target(job.target, plan.attempt, job.settings.batch.storage, scratch / "parts")
        source = _Source(job, stretch, self._loaded.live.contract)
        rows = _Rows(
            Scorer(self._loaded.live, plan.kept, self._loaded.call_rows, self._loaded.watch), stretch
        )
        check = None if stretch.stop is None or is_sql(plan.options.input) else rows.check
        try:
            if stretch.part:
                ledger.commit(_before(stretch))
            run = Run(
                plan, ledger, self._loaded.live.contract, source, _Sink(sink, stretch, check),
                flat=job.flat, watch=self._loaded.watch,
            )  # fmt: skip
            error = ""
            with ThreadPoolExecutor(1) as pool:
                try:
                    run.go(pool, rows)
                except _Spoiled as spoiled:
                    error = str(spoiled)
            parts = [part for part in ledger.parts() if part.part >= stretch.part]
            folder = scratch / "run" / "rejects"
            rejects = [_packed(folder / part.rejects_name) if part.rejects_name else b"" for part in parts]
        finally:
            ledger.close()
            source.close()
            sink.close()
        own = tuple(msgspec.structs.replace(p, file=stretch.file, rejects_name="") for p in parts)
        return Outcome(
            stretch=stretch,
            parts=own,
            rejects=tuple(rejects),
            error=error + _where(stretch, parts) if error else "",
        )


def _where(stretch: Stretch, parts: Sequence[Part]) -> str:
    """Which rows a damaged stretch has not given."""
    first = parts[-1].end.row if parts else stretch.start.row
    if stretch.stop is not None:
        return f" (none of the rows {first} to {stretch.stop.row - 1} is scored)"
    return f" (none of the rows from {first} on is scored)" if first else ""


def _before(stretch: Stretch) -> Part:
    """Stands in the scratch ledger for the part before, so that the run goes on where the stretch begins."""
    start = stretch.start
    return Part(
        file=0, part=stretch.part - 1, first=start.row, end=start, scored=0, rejects=0, name="", bytes=0, sha256=""
    )  # fmt: skip


def _packed(path: Path) -> bytes:
    return zstd.compress(path.read_bytes())


def unpacked(rejects: bytes) -> bytes:
    """JSON Lines of `Outcome.rejects`."""
    return zstd.decompress(rejects)


class _Source:
    """The stretch of the file."""

    def __init__(self, job: Job, stretch: Stretch, contract: Contract) -> None:
        self._job, self._stretch, self._contract = job, stretch, contract
        self._sql = SqlSource(read_place(job.plan.options.input)) if is_sql(job.plan.options.input) else None

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        start = self._stretch.start  # the scratch ledger says the same of any stretch but the first
        try:
            yield from self._pieces(file, start)
        except (InvalidInput, NotFound) as error:
            raise _Spoiled(error) from error

    def _pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        plan, stop = self._job.plan, self._stretch.stop
        if self._sql is not None:
            yield from self._sql.pieces(start, plan.reading.chunk_rows, None if stop is None else stop.key)
            return
        fs, _ = file_system(plan.options.input, self._job.settings.batch.storage)
        by_bytes = file.format in ("csv", "jsonl")
        row = start.row
        for piece in pieces(fs, file, start, plan.reading, self._contract):
            yield piece
            if stop is not None:
                row += 0 if by_bytes else piece.raw.num_rows
                if (piece.offset >= stop.offset) if by_bytes else (row >= stop.row):
                    return

    def close(self) -> None:
        if self._sql is not None:
            self._sql.close()


class _Rows:
    """Scores the pieces, and counts their rows."""

    def __init__(self, scorer: Callable[[Work], Scored], stretch: Stretch) -> None:
        self._scorer, self._stretch, self._rows = scorer, stretch, 0

    def __call__(self, work: Work) -> Scored | None:
        if work.piece is None:
            return None
        try:
            scored = self._scorer(work)
        except (InvalidInput, NotFound) as error:
            raise _Spoiled(error) from error
        self._rows += scored.total
        return scored

    def check(self) -> None:
        """Raises _Spoiled when there are not the rows that were there when the stretches were planned: rows behind
        them would have other numbers, or be in two parts."""
        if self._rows != self._stretch.rows:
            text = f"{self._rows} rows are where {self._stretch.rows} were: the file has changed since the run began."
            raise _Spoiled(MalformedInput(text))


class _Sink:
    """The run's sink, with the numbers that the stretch has in the real run; what ends the run is the driver's."""

    def __init__(self, sink: Sink, stretch: Stretch, check: Callable[[], None] | None) -> None:
        self._sink, self._stretch, self._check = sink, stretch, check

    def check(self, *, overwrite: bool) -> None:
        return None

    def begin(self, folder: str, name: str, schema: pa.Schema) -> PartWriter:
        number = name.rpartition("-")[2]
        writer = self._sink.begin(folder, f"part-{self._stretch.file:05d}-{number}", schema)
        return _Part(writer, self._check)

    def finish(self, parts: object, rejects: object, manifest: bytes, *, whole: bool) -> str:
        return ""

    def close(self) -> None:
        return None


class _Part:
    """Commits once more where a database refuses: another attempt at the part may have put its mark there meanwhile."""

    def __init__(self, writer: PartWriter, check: Callable[[], None] | None) -> None:
        self._writer, self._check = writer, check

    def write(self, table: pa.Table) -> None:
        self._writer.write(table)

    @property
    def bytes(self) -> int:
        return self._writer.bytes

    def commit(self) -> Written:
        if self._check is not None:
            self._check()
        try:
            return self._writer.commit()
        except InvalidInput:
            return self._writer.commit()

    def abort(self) -> None:
        self._writer.abort()


def do_tasks(job: bytes, tasks: Sequence[bytes], directory: Callable[[], Path]) -> Generator[bytes]:
    """What a cluster calls on its machines: encoded tasks of an encoded job to encoded outcomes, one by one."""
    decoded = decode_job(job)
    worker: Worker | None = None
    for content in tasks:
        task = decode_task(content)
        try:
            settings = decoded.settings if decoded.settings.home else at_home(decoded.settings)
            worker = worker or Worker(decoded, load_once(decoded.model, settings, directory))
            outcome = worker.do(task)
        except FairwayError as error:
            outcome = Outcome(stretch=task.stretch, refused=refused(error))
        yield msgspec.json.encode(outcome)


def refused(error: FairwayError) -> Refused:
    message = str(error).removesuffix(f" {error.hint}") if error.hint else str(error)
    return Refused(type(error).__name__, message, error.hint)


def raised(found: Refused, where: str) -> FairwayError:
    """The error again, on the driver."""
    kind = getattr(errors, found.kind, ModelFailed)
    if not (isinstance(kind, type) and issubclass(kind, FairwayError)):
        kind = ModelFailed
    try:
        return kind(f"{found.message} ({where})", hint=found.hint)
    except TypeError:  # a class with more to say than a text
        return ModelFailed(f"{found.message} ({where})", hint=found.hint)
