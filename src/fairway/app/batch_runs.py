"""Batch runs that the home remembers: a folder each, with the ledger of what is done."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from fairway.app.home import Home, open_home
from fairway.batch.ledger import Ledger, State
from fairway.batch.plan import Plan
from fairway.batch.report import Report
from fairway.batch.run import shown
from fairway.core.errors import Conflict, FairwayError, RunNotFound

logger = logging.getLogger("fairway.batch")


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the list. `state` is "killed" for one that says running while no process works on it."""

    run: str
    model: str
    version: int
    state: str
    reason: str
    rows: int
    rejected: int
    created: str
    input: str
    output: str


def list_runs(home: str | os.PathLike[str] | None = None) -> list[RunLine]:
    """Every run of the home, the last begun first."""
    with open_home(home) as place:
        return sorted(_lines(place), key=lambda line: line.created, reverse=True)


def show_run(run: str, home: str | os.PathLike[str] | None = None) -> tuple[RunLine, Report | None]:
    """A run, and its report once it has ended. Raises RunNotFound."""
    with open_home(home) as place:
        ledger = Ledger(run_folder(place, run))
        try:
            return _line(ledger), report_in(ledger)
        finally:
            ledger.close()


def cancel_run(run: str, home: str | os.PathLike[str] | None = None) -> bool:
    """Asks the process that works on a run to stop after the chunk it is at; what is done is kept. False when nothing
    works on it. Raises RunNotFound."""
    with open_home(home) as place:
        ledger = Ledger(run_folder(place, run))
        try:
            with ledger.lock():
                if ledger.state[0] != "finished":
                    ledger.end("cancelled", "cancelled", ledger.report or b"null", 0.0)
                return False
        except Conflict:
            ledger.cancel()
            return True
        finally:
            ledger.close()


def run_folder(place: Home, run: str) -> Path:
    if "/" in run or run.startswith("."):
        raise RunNotFound(f"there is no run {run}.")
    return place.path / "batch" / run


def free_folder(folder: Path) -> Path:
    """A free name for the same run done anew; the one before stays in the list."""
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}-{number}")


def forget_old(place: Home) -> None:
    """Room for one more run: the oldest that have ended go. What they wrote stays."""
    batch = place.path / "batch"
    most = place.settings.batch.keep_runs
    if not batch.is_dir() or sum(1 for _ in batch.iterdir()) < most:
        return
    ended = [line for line in _lines(place) if line.state in ("finished", "cancelled", "stopped")]
    oldest = sorted(ended, key=lambda line: line.created)
    for line in oldest[: max(0, len(ended) - most + 1)]:
        _forget(run_folder(place, line.run))


def _forget(folder: Path) -> None:
    """Removes a run that has ended, unless a process has gone on with it since."""
    try:
        with closing(Ledger(folder)) as ledger, ledger.lock():
            if ledger.state[0] != "running":
                shutil.rmtree(folder, ignore_errors=True)
    except (Conflict, RunNotFound):
        return


def tidy(ledger: Ledger, report: Report) -> None:
    """Drops what was kept for parts that might still come. Files that failed may be tried again, and need it."""
    if not report.failed_files:
        shutil.rmtree(ledger.folder / "parts", ignore_errors=True)


def finished_report(ledger: Ledger) -> Report | None:
    """None while the run has not finished."""
    return report_in(ledger) if ledger.state[0] == "finished" else None


def report_in(ledger: Ledger) -> Report | None:
    content = ledger.report
    return msgspec.json.decode(content, type=Report | None) if content else None


def _lines(place: Home) -> Iterator[RunLine]:
    """Runs in no order. One whose ledger is damaged is said, and does not hide the others."""
    for path in (place.path / "batch").glob("*/ledger.db"):
        try:
            ledger = Ledger(path.parent)
            try:
                yield _line(ledger)
            finally:
                ledger.close()
        except (FairwayError, sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            logger.warning("the run in %s cannot be read: %s", path.parent, error)


def _line(ledger: Ledger) -> RunLine:
    plan = ledger.plan(Plan)
    (state, reason), (rows, rejects) = ledger.state, ledger.totals
    return RunLine(
        run=plan.run,
        model=plan.model,
        version=plan.version,
        state=_shown_state(ledger, state),
        reason=reason,
        rows=rows,
        rejected=rejects,
        created=plan.created,
        input=shown(plan.options.input),
        output=shown(plan.options.output),
    )


def _shown_state(ledger: Ledger, state: State) -> str:
    return "killed" if state == "running" and not ledger.is_locked else state
