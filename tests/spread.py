"""Runs by stretches without a registry and without a cluster: the real driver and workers around an engine of one line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import fairway
from fairway.batch.bundles import Loaded
from fairway.batch.ledger import Ledger
from fairway.batch.local import Model
from fairway.batch.plan import Plan
from fairway.batch.report import Report
from fairway.batch.shared import share
from fairway.batch.sink import Sink, open_file_sink
from fairway.batch.source import find_files
from fairway.batch.spread import Spread
from fairway.batch.sql import SqlSink, read_place
from fairway.batch.stretches import Stretch, plan_files, save, saved
from fairway.batch.worker import Job, Outcome, Task, Worker, decode_job, decode_task
from fairway.core.settings import Settings
from tests.batches import LOCAL, plan_for
from tests.planes import TWO_NUMBERS, live_version


class Direct:
    """A cluster of one process. `before` is called before each task and may do harm; `name` is for the report."""

    name = "direct"

    def __init__(
        self, *, slots: int = 2, engine: object | None = None, before: Callable[[Task], None] = lambda t: None
    ) -> None:
        self.slots = slots
        self.loaded = Loaded(live_version(1, engine), None, 100)
        self.before = before
        self.done: list[Stretch] = []
        self.is_cancelled = False

    def do(self, job: bytes, tasks: Sequence[bytes]) -> list[bytes]:
        worker = Worker(decode_job(job), self.loaded)
        outcomes = []
        for content in tasks:
            task = decode_task(content)
            self.before(task)
            outcomes.append(worker.do(task))
            self.done.append(task.stretch)
        return [msgspec.json.encode(outcome) for outcome in outcomes]

    def cancel(self) -> None:
        self.is_cancelled = True


def spread(
    folder: Path,
    source: Path,
    output: Path,
    *,
    table: str = "",
    cluster: Direct | None = None,
    make: Callable[..., Spread] = Spread,
    note: Callable[[Outcome], None] = lambda outcome: None,
    mine: Callable[[Stretch], bool] = lambda stretch: True,
    on_start: Callable[[Spread], None] = lambda run: None,
    step: Callable[[str], None] = lambda name: None,
    **options: Any,
) -> Report:
    """Begins the run in `folder`, or goes on with it."""
    if (folder / "ledger.db").exists():
        ledger = Ledger(folder)
    else:
        files = find_files(LOCAL, str(source))
        plan = plan_for(files, output, **options)
        plan = msgspec.structs.replace(plan, options=msgspec.structs.replace(plan.options, input=str(source)))
        save(folder, plan_files(LOCAL, files, plan.reading, TWO_NUMBERS, plan.part_rows))
        ledger = Ledger.create(folder, msgspec.json.encode(plan), files)
    try:
        with ledger.lock():
            plan = ledger.plan(Plan)
            ledger.begin()
            paths = [record.file.path for record in ledger.files()]
            own: Sink
            if table:
                own = SqlSink(read_place(table), plan.attempt, folder)
            else:
                own = open_file_sink(LOCAL, str(output), format="", scratch=folder / "parts", inputs=paths)
            sink, target = share(own, table or str(output), folder / "parts")
            job = Job(
                plan=plan,
                model=Model("m", 1, "sha256:1", ""),
                settings=Settings(),
                target=target,
                flat=bool(table),
                fairway=fairway.__version__,
            )
            stretches = saved(folder)
            assert stretches is not None
            run = make(
                job,
                ledger,
                TWO_NUMBERS,
                sink,
                cluster or Direct(),
                stretches,
                note=note,
                mine=mine,
                step=step,
            )
            on_start(run)
            try:
                return run.spread()
            finally:
                own.close()
    finally:
        ledger.close()
