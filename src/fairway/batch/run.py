"""A run from its first row to its report: read, score, write, commit, in the order of `ledger.py`."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import suppress
from typing import Protocol

import msgspec

from fairway.batch.engine import in_order, result_of
from fairway.batch.ledger import Ledger, Part, State, starts
from fairway.batch.plan import Plan, output_schema, read_limit
from fairway.batch.recording import Recording
from fairway.batch.report import Report, checksum, counts, failed, reason_kind
from fairway.batch.score import LogRows, Reject, Scored
from fairway.batch.seen import Watch
from fairway.batch.sink import PartWriter, Sink, Written
from fairway.batch.source import Piece, Position, SourceFile
from fairway.core.columns import Array
from fairway.core.contract import Contract
from fairway.core.errors import FairwayError, InvalidInput, NotFound
from fairway.stores.disk import disk_errors

_AHEAD = 3
"""Chunks a scorer between reading and writing."""
_LOGGED_BYTES = 16 * 1024 * 1024
"""A part ends when it has so much for the prediction log, which is in memory until then."""
_LOOK_SECONDS = 0.5
"""How often it is looked whether the run was cancelled."""
_encode_lines = msgspec.json.Encoder().encode_lines


class Work(msgspec.Struct, frozen=True):
    """A piece of the file `number`; None for its end, with what went wrong if something did."""

    number: int
    file: SourceFile
    piece: Piece | None = None
    error: FairwayError | None = None


class Source(Protocol):
    """`pieces` reads a file from a position on. InvalidInput and NotFound are the file's own: the others go on."""

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]: ...


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`fraction` 0 to 1 of the input's bytes, None when that is not known. `seconds` and `rows_now` are of this go,
    `rows` and `rejects` of the whole run."""

    event: str
    rows: int
    rejects: int
    rows_now: int
    seconds: float
    fraction: float | None = None
    file: str = ""
    reason: str = ""


Tell = Callable[[Progress], None]
Step = Callable[[str], None]


def _no_step(name: str) -> None:
    return None


class _Open(msgspec.Struct):
    """The part being written."""

    file: int
    part: int
    first: int
    writer: PartWriter
    scored: int = 0
    rejects: list[Reject] = []
    logged: list[LogRows] = []
    logged_bytes: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    broken: Counter[str] = msgspec.field(default_factory=Counter)
    seen: Array | None = None


class Run:
    """One go at a run. `step` is called before every step that a crash could come between, with its name."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        contract: Contract,
        source: Source,
        sink: Sink,
        *,
        flat: bool,
        watch: Watch | None = None,
        recording: Recording | None = None,
        tell: Tell = lambda progress: None,
        step: Step = _no_step,
    ) -> None:
        """`flat` says that the sink has no form for lists; `watch` is what the scorers count with, `recording` the log that their
        rows for it go to."""
        self.name = plan.run
        self._plan, self._ledger, self._watch = plan, ledger, watch
        self._source, self._sink = source, sink
        self._recording = recording
        self._tell, self._step = tell, step
        self._schema = output_schema(plan.kept, contract, flat=flat)
        self._limit = read_limit(plan.options.max_errors)
        self._files = {record.number: record.file for record in ledger.files()}
        self._failed: set[int] = set()
        self._ended = {record.number for record in ledger.files() if record.state == "done"}
        self._at: dict[int, tuple[int, Position]] = {}
        self._open: _Open | None = None
        self._rows = self._rejects = self._rows_now = 0
        self._began = time.perf_counter()
        self.stop = threading.Event()
        """Set by whoever wants the run to stop after the chunk it is at."""

    def go(self, pool: Executor, score: Callable[[Work], Scored | None]) -> Report:
        """Until the end, or until something stops it; the report is in the ledger either way. `score` runs in `pool`.
        Raises what concerns the whole run (StorageFull, Unavailable, ModelFailed): what was committed is kept."""
        parts = self._ledger.parts()
        self._at = starts(parts)
        self._rows = sum(part.end.row - part.first for part in parts)
        self._rejects = sum(part.rejects for part in parts)
        self._report_progress("begin")
        try:
            state, reason = self._loop(pool, score)
            self._step("finish")
            report = self._end(state, reason)
        except BaseException as error:
            self._abort()
            if isinstance(error, FairwayError | KeyboardInterrupt):
                state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
                reason = str(error) or "interrupted"
                with suppress(FairwayError):  # the first error is the one to tell
                    self._ledger.end(state, reason, b"null", time.perf_counter() - self._began)
            raise
        self._report_progress("end", reason=reason)
        return report

    def _loop(self, pool: Executor, score: Callable[[Work], Scored | None]) -> tuple[State, str]:
        looked = time.perf_counter()
        waiting = in_order(pool, self._work(), score, ahead=_AHEAD * self._plan.workers)
        try:
            for work, scoring in waiting:
                if work.number in self._failed:
                    continue
                if work.piece is None:
                    self._end_file(work.number, work.error)
                    continue
                try:
                    scored = result_of(scoring)
                except (InvalidInput, NotFound) as error:
                    self._failed.add(work.number)
                    self._end_file(work.number, error)
                    continue
                assert scored is not None, "only the end of a file is not scored"
                self._take(work, scored)
                if self._limit.is_passed(self._rejects, self._rows, ended=False):
                    return "stopped", self._too_many()
                if self.stop.is_set():
                    return "stopped", "interrupted"
                if time.perf_counter() - looked > _LOOK_SECONDS:
                    looked = time.perf_counter()
                    if self._ledger.is_cancelled:
                        return "cancelled", "cancelled"
        finally:
            waiting.close()
        if self._limit.is_passed(self._rejects, self._rows, ended=True):
            return "stopped", self._too_many()
        return "finished", ""

    def _too_many(self) -> str:
        return f"{self._rejects} of {self._rows} rows rejected: more than --max-errors {self._plan.options.max_errors}"

    def _work(self) -> Generator[Work]:
        """Runs in the reading thread."""
        for record in self._ledger.files():
            if record.state == "done":
                continue
            start = self._at.get(record.number, (0, Position()))[1]
            try:
                for piece in self._source.pieces(record.file, start):
                    if record.number in self._failed:
                        break
                    yield Work(record.number, record.file, piece)
            except (InvalidInput, NotFound) as error:
                yield Work(record.number, record.file, None, error)
                continue
            yield Work(record.number, record.file)

    def _take(self, work: Work, scored: Scored) -> None:
        """Writes a scored chunk, and commits the part when it is full."""
        assert work.piece is not None, "the end of a file is not scored"
        number = work.number
        now = self._begin_part(number)
        part, position = self._at[number]
        if len(scored.table):
            self._step("write")
            table = scored.table.rename_columns(self._schema.names)
            now.writer.write(table if table.schema.equals(self._schema) else table.cast(self._schema))
            now.scored += len(scored.table)
        for reject in scored.rejects:
            now.rejects.append(
                msgspec.structs.replace(reject, row=reject.row + position.row, file=work.file.path)
            )
            now.rejected[reason_kind(reject.field, reject.reason)] += 1
        for field, rule, rows in scored.broken:
            now.broken[f"{field}: {rule}"] += rows
        if scored.seen is not None and self._watch is not None:
            now.seen = scored.seen if now.seen is None else self._watch.add(now.seen, scored.seen)
        now.logged += scored.logged
        now.logged_bytes += sum(rows.columns.bytes for rows in scored.logged)
        end = Position(work.piece.offset, position.row + scored.total, work.piece.key)
        self._at[number] = (part, end)
        self._rows += scored.total
        self._rows_now += scored.total
        self._rejects += len({reject.row for reject in scored.rejects})
        plan = self._plan
        is_full = end.row - now.first >= plan.part_rows or 0 < plan.part_bytes <= now.writer.bytes
        is_full = is_full or now.logged_bytes >= _LOGGED_BYTES
        if is_full or len(now.rejects) >= plan.part_rejects:
            self._commit()
        self._report_progress("progress", file=work.file)

    def _begin_part(self, number: int) -> _Open:
        """The part that is open; else the next of the file."""
        if self._open is None:
            part, position = self._at.setdefault(number, (0, Position()))
            self._step("begin part")
            writer = self._sink.begin(
                self._files[number].folder, f"part-{number:05d}-{part:05d}", self._schema
            )
            self._open = _Open(number, part, position.row, writer)
        return self._open

    def _commit(self, *, ends_file: bool = False) -> None:
        """Steps 2 to 4 of the ledger."""
        now = self._open
        if now is None:
            return
        _, end = self._at[now.file]
        self._step("rejects")
        rejects_name = self._write_rejects(now)
        self._step("commit rows")
        written = now.writer.commit()
        self._open = None
        self._step("commit ledger")
        self._ledger.commit(
            Part(
                file=now.file,
                part=now.part,
                first=now.first,
                end=end,
                scored=now.scored,
                rejects=len({reject.row for reject in now.rejects}),
                name=written.name,
                bytes=written.bytes,
                sha256=written.sha256,
                rejects_name=rejects_name,
                rejected=dict(now.rejected),
                broken=dict(now.broken),
                seen=[] if now.seen is None else now.seen.tolist(),
                logged=sum(rows.columns.rows for rows in now.logged),
            ),
            ends_file=ends_file,
        )
        if self._recording is not None:
            self._step("record")
            self._recording.record(f"{self.name}.{now.file}.{now.part}", now.logged)
        self._at[now.file] = (now.part + 1, end)
        self._step("committed")

    def _write_rejects(self, now: _Open) -> str:
        folder = self._ledger.folder / "rejects"
        name = f"part-{now.file:05d}-{now.part:05d}.jsonl"
        if not now.rejects:
            return ""
        with disk_errors("write the rejects", folder):
            folder.mkdir(exist_ok=True)
            scratch = folder / f"{name}.tmp"
            with scratch.open("wb") as handle:
                handle.write(_encode_lines(now.rejects))
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(scratch, folder / name)
        return name

    def _end_file(self, number: int, error: FairwayError | None) -> None:
        """What was read before an error is kept: the part is committed as it is. A file without rows gives one too."""
        if error is None and number not in self._at:
            self._begin_part(number)
        is_open = self._open is not None
        self._commit(ends_file=error is None)
        self._step("end file")
        self._ended.add(number)
        if error is None:
            if not is_open:
                self._ledger.end_file(number, "done")
        else:
            row = self._at.get(number, (0, Position()))[1].row
            where = f" (the {row} rows before it are scored)" if row else ""
            self._ledger.end_file(number, "failed", f"{error}{where}")
            self._report_progress("file failed", file=self._files[number], reason=str(error))

    def _end(self, state: State, reason: str) -> Report:
        self._commit()
        parts, files = self._ledger.parts(), self._ledger.files()
        seconds = time.perf_counter() - self._began
        rows = sum(part.end.row - part.first for part in parts)
        plan, watch = self._plan, self._watch
        seen = None if watch is None else watch.total(part.seen for part in parts)
        report = Report(
            run=plan.run,
            model=plan.model,
            version=plan.version,
            digest=plan.digest,
            state=state,
            reason=reason,
            input=shown(plan.options.input),
            output=shown(plan.options.output),
            rejects="",
            rows=rows,
            scored=sum(part.scored for part in parts),
            rejected=sum(part.rejects for part in parts),
            files=len(files),
            failed_files=failed(files),
            parts=len(parts),
            bytes=sum(part.bytes for part in parts),
            checksum=checksum(parts),
            seconds=self._ledger.seconds + seconds,
            rows_per_second=self._rows_now / seconds,
            engine=self._engine,
            rejects_by_reason=counts(parts, "rejected"),
            broken_rules=counts(parts, "broken"),
            columns=() if watch is None or seen is None else watch.summarise(seen),
            profile=None if watch is None or seen is None else watch.profile(seen),
            logged=sum(part.logged for part in parts),
            notes=(*plan.notes, *self._unlogged()),
        )
        folder = self._ledger.folder / "rejects"
        where = self._sink.finish(
            [Written(part.name, part.bytes, part.sha256) for part in parts],
            [folder / part.rejects_name for part in parts if part.rejects_name],
            msgspec.json.format(msgspec.json.encode(report), indent=2),
            whole=state == "finished",
        )
        report = msgspec.structs.replace(report, rejects=where)
        self._step("end")
        self._ledger.end(state, reason, msgspec.json.encode(report), seconds)
        return report

    def _unlogged(self) -> tuple[str, ...]:
        lost = 0 if self._recording is None else self._recording.lost
        return (
            (f"{lost:,} predictions could not be recorded in the log; it is full, or away",) if lost else ()
        )

    @property
    def _engine(self) -> str:
        """What scored, for the report."""
        return f"local, {self._plan.workers} {'processes' if self._plan.processes else 'threads'}"

    def _abort(self) -> None:
        if self._open is not None:
            try:
                self._open.writer.abort()
            finally:
                self._open = None

    def _report_progress(self, event: str, file: SourceFile | None = None, reason: str = "") -> None:
        total = sum(each.bytes for each in self._files.values())
        fraction = None
        if total and event != "begin":
            done = sum(self._share(number) * each.bytes for number, each in self._files.items())
            fraction = min(1.0, done / total)
        self._tell(
            Progress(
                event=event,
                rows=self._rows,
                rejects=self._rejects,
                rows_now=self._rows_now,
                seconds=time.perf_counter() - self._began,
                fraction=fraction,
                file="" if file is None else file.path,
                reason=reason,
            )
        )

    def _share(self, number: int) -> float:
        """How much of a file is read, as far as its offset tells."""
        if number in self._ended:
            return 1.0
        file = self._files[number]
        offset = self._at.get(number, (0, Position()))[1].offset
        return min(1.0, offset / file.bytes) if file.bytes and not file.packed else 0.0


def shown(url: str) -> str:
    """A URL without its password."""
    scheme, slashes, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}@{host}" if slashes and at and ":" in user else url
