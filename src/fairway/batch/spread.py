"""A run whose stretches many machines score: the driver plans, hands out, and enters what is done in the ledger.

    stretches.py    what there is to do, decided once
    worker.py       a stretch on a machine, by the local engine's own code
    on_spark.py, on_ray.py, Here    clusters: a list of tasks in, their outcomes out
    this            waves of tasks, commits, limits, retries

A wave is a job of the cluster. Two are at work at once, so that no machine waits for the last task of a wave; a wave
grows while waves are short, so that many small files do not cost a job each. The driver holds outcomes only (counts
and rejects, never rows), of two waves.

An outcome is entered once, in any order: the ledger's key is file and part. A stretch that is done twice (by a machine
that was taken for lost, or by two drivers' clusters) has written the same rows under the same name, or found the mark
of its part in the table.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

import msgspec

from fairway.batch.ledger import Ledger, State
from fairway.batch.report import Report
from fairway.batch.run import Run, Work
from fairway.batch.score import Scored
from fairway.batch.source import Piece, Position, SourceFile
from fairway.batch.stretches import Stretch, remaining
from fairway.batch.worker import Job, Outcome, Task, decode_outcome, do_tasks, raised, unpacked
from fairway.core.errors import Unavailable
from fairway.stores.disk import write_whole

_AT_ONCE = 2
_SHORT_SECONDS = 10.0
_MOST_WAVE = 1024
_TRIES = 4
"""How often a stretch is tried whose storage or database was away."""
_RETRY_SECONDS = 1.0
_LOOK_SECONDS = 0.5


class Cluster(Protocol):
    """`slots` are the tasks it does at once; `name` is for people. `do` is called from two threads; it raises
    Unavailable when the cluster is lost. A task whose machine dies is done again, by the cluster."""

    @property
    def slots(self) -> int: ...

    @property
    def name(self) -> str: ...

    def do(self, job: bytes, tasks: Sequence[bytes]) -> list[bytes]: ...

    def cancel(self) -> None:
        """Ends the jobs at work, as far as that can be done."""


class Here:
    """No cluster: one stretch after the other, or `slots` at once, in this process."""

    def __init__(self, directory: Path, name: str, slots: int = 1) -> None:
        """`directory` is the unpacked bundle."""
        self._directory, self.name, self.slots = directory, name, slots
        self._ended = threading.Event()

    def do(self, job: bytes, tasks: Sequence[bytes]) -> list[bytes]:
        def one(task: bytes) -> list[bytes]:
            return [] if self._ended.is_set() else list(do_tasks(job, [task], lambda: self._directory))

        with ThreadPoolExecutor(self.slots) as pool:
            return [outcome for found in pool.map(one, tasks) for outcome in found]

    def cancel(self) -> None:
        self._ended.set()


class Spread(Run):
    """One go at a run on a cluster."""

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        contract: Any,
        sink: Any,
        cluster: Cluster,
        stretches: Sequence[Stretch],
        *,
        note: Callable[[Outcome], None] = lambda outcome: None,
        mine: Callable[[Stretch], bool] = lambda stretch: True,
        **options: Any,
    ) -> None:
        """`stretches` are those of the whole run; `mine` says which of them are this go's. `options` are Run's."""
        super().__init__(job.plan, ledger, contract, _Nothing(), sink, flat=job.flat, **options)
        self._job, self._cluster = job, cluster
        self._stretches, self._mine, self._note = stretches, mine, note
        self._spread_over = Counter(stretch.file for stretch in stretches)
        self._left: Counter[int] = Counter()
        self._errors: dict[int, str] = {}

    @property
    def is_whole(self) -> bool:
        """Whether this go is the one that ends the run."""
        return True

    @property
    def _engine(self) -> str:
        return self._cluster.name

    def spread(self) -> Report:
        """Until the end, or until something stops it. Raises what concerns the whole run; what is committed is kept."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="batch-wave") as pool:
            try:
                return self.go(pool, _not_scored_here)
            except BaseException:
                self._cluster.cancel()
                raise

    def _loop(self, pool: Executor, score: Callable[[Work], Scored | None]) -> tuple[State, str]:
        files = self._ledger.files()
        todo = remaining(self._stretches, files, self._ledger.parts())
        self._left = Counter(stretch.file for stretch in todo)
        for record in files:
            if record.state != "done" and not self._left[record.number]:
                self._end_spread_file(record.number)
        queue = deque(stretch for stretch in todo if self._mine(stretch))
        tries: Counter[Stretch] = Counter()
        job = msgspec.json.encode(self._job)
        waves: dict[Future[list[bytes]], float] = {}
        size = max(1, self._cluster.slots)
        state: tuple[State, str] | None = None
        looked = time.perf_counter()
        while waves or (queue and state is None):
            while queue and state is None and len(waves) < _AT_ONCE:
                few = max(1, min(size, -(-len(queue) // 2) if len(queue) > self._cluster.slots else size))
                wave = [queue.popleft() for _ in range(min(few, len(queue)))]
                tasks = [msgspec.json.encode(Task(s, self._files[s.file])) for s in wave]
                waves[pool.submit(self._cluster.do, job, tasks)] = time.perf_counter()
            done, _ = wait(waves, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                if time.perf_counter() - waves.pop(future) < _SHORT_SECONDS:
                    size = min(2 * size, _MOST_WAVE)
                outcomes = [decode_outcome(content) for content in future.result()]
                for outcome in sorted(outcomes, key=lambda o: (o.stretch.file, o.stretch.part)):
                    if outcome.refused is not None:
                        again = raised(outcome.refused, self._cluster.name)
                        tries[outcome.stretch] += 1
                        if not isinstance(again, Unavailable) or tries[outcome.stretch] >= _TRIES:
                            raise again
                        queue.append(outcome.stretch)
                        time.sleep(_RETRY_SECONDS)
                        continue
                    self._enter(outcome)
            if state is None:
                if self._limit.is_passed(self._rejects, self._rows, ended=False):
                    state = "stopped", self._too_many()
                elif self.stop.is_set():
                    state = "stopped", "interrupted"
                elif time.perf_counter() - looked > _LOOK_SECONDS:
                    looked = time.perf_counter()
                    state = ("cancelled", "cancelled") if self._ledger.is_cancelled else None
        if state is not None:
            return state
        if self._limit.is_passed(self._rejects, self._rows, ended=True):
            return "stopped", self._too_many()
        return "finished", ""

    def _enter(self, outcome: Outcome, *, noted: bool = False) -> None:
        number = outcome.stretch.file
        if not noted:
            self._note(outcome)
        folder = self._ledger.folder / "rejects"
        for part, rejects in zip(outcome.parts, outcome.rejects, strict=True):
            if rejects:
                name = f"part-{part.file:05d}-{part.part:05d}.jsonl"
                folder.mkdir(exist_ok=True)
                write_whole(folder / name, unpacked(rejects))
                part = msgspec.structs.replace(part, rejects_name=name)
            self._step("commit ledger")
            self._ledger.commit(part)
            self._rows += part.end.row - part.first
            self._rows_now += part.end.row - part.first
            self._rejects += part.rejects
        if outcome.error:
            self._errors.setdefault(number, outcome.error)
            self._report_progress("file failed", file=self._files[number], reason=outcome.error)
        self._left[number] -= 1
        if not self._left[number]:
            self._end_spread_file(number)
        self._report_progress("progress", file=self._files[number])

    def _end_spread_file(self, number: int) -> None:
        error = self._errors.get(number, "")
        self._step("end file")
        self._ended.add(number)
        self._ledger.end_file(number, "failed" if error else "done", error)

    def _share(self, number: int) -> float:
        if number in self._ended:
            return 1.0
        whole = self._spread_over[number]
        return 1.0 - self._left[number] / whole if whole else 0.0


class _Nothing:
    """The driver reads no rows."""

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        raise AssertionError("rows are read where they are scored")


def _not_scored_here(work: Work) -> Scored | None:
    raise AssertionError("rows are scored where they are read")
