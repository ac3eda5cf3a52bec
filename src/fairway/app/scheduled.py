"""The process that works on one run of a schedule: `python -m fairway.app.scheduled`, started by the control process.

It goes on where an earlier try of the same run was, so that nothing is scored twice. See `control/process.py` for how the
two talk.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import FrameType
from typing import Any, NoReturn

import msgspec

from fairway.app.batch import resume, run_batch
from fairway.app.precompute import precompute
from fairway.app.settings import read_settings
from fairway.batch.report import Report
from fairway.batch.run import Progress, Run
from fairway.control.cron import zone_of
from fairway.control.leadership import machine_clock
from fairway.control.placeholders import fill
from fairway.control.planning import Outcome
from fairway.control.process import REPORT_VARIABLE, Order, Said
from fairway.core.errors import AlreadyExists, FairwayError, RunNotFound, SettingsError
from fairway.core.priority import give_way
from fairway.core.schedule import BatchWork, PrecomputeWork
from fairway.serving.logs import set_up_logging

_PROGRESS_SECONDS = 1.0
_WATCH_SECONDS = 0.1
_HOPELESS = (AlreadyExists, SettingsError)
"""Trying again in a minute does not help these. Most others may: a file that comes late, a database that is away."""


class Stopped(Exception):
    """SIGTERM came while there was nothing that could stop by itself."""


class Worker:
    """One order. `say` tells the control process."""

    def __init__(self, order: Order, say: Callable[[Said], None]) -> None:
        self._order = order
        self._say = say
        self._run: Run | None = None
        self._told = 0.0

    def work(self) -> Outcome:
        try:
            work = self._order.schedule.work
            return self._batch(work) if isinstance(work, BatchWork) else self._precompute(work)
        except Stopped:
            return Outcome(state="interrupted", reason="the control process stopped")
        except FairwayError as error:
            return Outcome(state="failed", reason=str(error), retry=not isinstance(error, _HOPELESS))

    def stop(self) -> None:
        """By SIGTERM, in the main thread."""
        if self._run is None:
            raise Stopped
        self._run.stop.set()

    def _batch(self, work: BatchWork) -> Outcome:
        home, run = self._order.home, self._order.run
        if run.batch_run:
            try:
                return _outcome(resume(run.batch_run, home=home, tell=self._tell, started=self._started))
            except RunNotFound:
                pass  # begun on another machine, or its folder was removed: its name is found again, or it is begun
        options = msgspec.structs.asdict(work)
        model = options.pop("model")
        options |= {"input": self._filled(work.input), "output": self._filled(work.output)}
        return _outcome(
            run_batch(
                model,
                **options,
                fresh=run.attempt == 1,
                home=home,
                tell=self._tell,
                started=self._started,
            )
        )

    def _precompute(self, work: PrecomputeWork) -> Outcome:
        done = precompute(
            work.model,
            self._filled(work.files),
            key=work.key,
            store=work.store,
            ttl_seconds=work.ttl_seconds,
            resume=self._order.run.attempt > 1,
            allow_empty=work.allow_empty,
            home=self._order.home,
        )
        return Outcome(state="succeeded", rows=done.rows, rejected=done.rejected)

    def _filled(self, text: str) -> str:
        due = datetime.fromisoformat(self._order.run.due)
        return fill(text, due, zone_of(self._order.schedule.time_zone))

    def _started(self, run: Run) -> None:
        self._run = run
        self._say(Said(event="begun", batch_run=run.name))

    def _tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told > _PROGRESS_SECONDS:
            self._told = now
            self._say(Said(event="progress", rows=progress.rows, rejected=progress.rejects))


def _outcome(report: Report) -> Outcome:
    values: dict[str, Any] = {"batch_run": report.run, "rows": report.rows, "rejected": report.rejected}
    if report.state == "finished" and not report.failed_files:
        return Outcome(state="succeeded", **values)
    if report.state == "finished":
        path, why = report.failed_files[0]
        others = f" and {len(report.failed_files) - 1} more" if len(report.failed_files) > 1 else ""
        return Outcome(state="failed", reason=f"{path}{others}: {why}", **values)
    if report.state == "cancelled":
        return Outcome(state="cancelled", reason="cancelled", **values)
    if report.reason == "interrupted":
        return Outcome(state="interrupted", reason="the control process stopped", **values)
    return Outcome(state="failed", reason=report.reason, retry=False, **values)


def watch(held_until: float) -> None:
    """Ends this process, and all it started, when its control process leads no more or is gone."""
    left = b""
    os.set_blocking(0, False)
    while True:
        try:
            heard = os.read(0, 65536)
        except BlockingIOError:
            heard = b"\n"
        if not heard:
            break
        *lines, left = (left + heard).split(b"\n")
        held_until = max([held_until, *(float(line) for line in lines if line)])
        if machine_clock() >= held_until:
            break
        time.sleep(_WATCH_SECONDS)
    _end()


def _end() -> NoReturn:
    """At once: another control process may be about to go on with the run."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def read_order() -> Order:
    """The first line of the standard input, which may come in pieces."""
    content = b""
    while not content.endswith(b"\n"):
        more = os.read(0, 1)
        if not more:
            sys.exit(1)
        content += more
    return msgspec.json.decode(content, type=Order)


def main() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))  # the control process's limit is not this one's
    give_way(0)
    order = read_order()
    report = int(os.environ.pop(REPORT_VARIABLE))
    guard = threading.Lock()

    def say(said: Said) -> None:
        with guard:
            os.write(report, msgspec.json.encode(said) + b"\n")

    threading.Thread(target=watch, args=(order.held_until,), daemon=True).start()
    worker = Worker(order, say)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_up_logging(read_settings(order.home).telemetry, "schedule")
    outcome = worker.work()
    say(Said(event="end", outcome=outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
