"""The job that runs schedules: it asks `planning` what is to be done, does it, and writes down what became of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from fairway.control.jobs import PeriodicJob, Turn
from fairway.control.planning import Outcome, begun, due_now, ended, may_begin
from fairway.control.process import Launch, WorkProcess
from fairway.core.errors import FairwayError, LeaseLost
from fairway.core.schedule import Schedule, ScheduleRun, ScheduleState
from fairway.stores.control import ControlStore

logger = logging.getLogger("fairway.schedules")

_PRUNE_TURNS = 600
_MOST_ACTIVE = 20_000
"""More than all schedules together may have."""
_STOP_POLL_SECONDS = 0.05
_GONE = Outcome(state="interrupted", reason="the control process that ran it went away")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _Working(NamedTuple):
    """`run` is as its process has it, `stored` as the store has."""

    schedule: Schedule
    stored: ScheduleRun
    run: ScheduleRun
    process: WorkProcess
    token: int


class Scheduler(PeriodicJob):
    """Its turns are short: the work is done by processes."""

    name = "schedules"
    leader_only = True

    def __init__(
        self,
        store: ControlStore,
        launch: Launch,
        *,
        interval_seconds: float = 1.0,
        processes: int = 2,
        keep_runs: int = 1000,
        stop_seconds: float = 10.0,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._store = store
        self._launch = launch
        self._processes = processes
        self._keep = keep_runs
        self._stop_seconds = stop_seconds
        self._now = now
        self._working: dict[int, _Working] = {}
        self._turns = 0

    def run(self, turn: Turn) -> None:
        token = turn.token
        if any(working.token != token for working in self._working.values()):
            self.lose()  # this process led, did not, and leads again
        self._follow(token)
        states = self._store.schedules()
        active = self._adopt(token, states)
        for state in states:
            self._settle(state, [run for run in active if run.schedule == state.name], token)
        active = list(self._store.runs(active=True, limit=_MOST_ACTIVE))
        if any(run.state == "waiting" for run in active):
            self._begin(active, states, turn)
        self._turns += 1
        if self._turns % _PRUNE_TURNS == 0:
            for state in states:
                self._store.prune_runs(state.name, keep=self._keep, token=token)

    def beat(self, held_until: float) -> None:
        """The lease was renewed. From any thread."""
        for working in list(self._working.values()):
            working.process.beat(held_until)

    def lose(self) -> None:
        for working in self._working.values():
            working.process.kill()
        self._working.clear()

    def close(self, turn: Turn) -> None:
        """What works is asked to end where it can go on, and then runs when a control process leads again."""
        for working in self._working.values():
            working.process.stop()
        deadline = time.monotonic() + self._stop_seconds
        try:
            while self._working and time.monotonic() < deadline:
                self._follow(turn.token)
                time.sleep(_STOP_POLL_SECONDS)
            for number, working in list(self._working.items()):
                working.process.kill()
                self._note_end(number, working, _GONE, turn.token)
        except LeaseLost:
            logger.warning("another control process leads and goes on with what was running")
        finally:
            self.lose()

    def _follow(self, token: int) -> None:
        """What the processes have said, and those that ended."""
        for number, working in list(self._working.items()):
            run = working.run
            for said in working.process.poll():
                run = msgspec.structs.replace(
                    run,
                    batch_run=said.batch_run or run.batch_run,
                    rows=said.rows or run.rows,
                    rejected=said.rejected or run.rejected,
                )
            working = self._working[number] = working._replace(run=run)
            outcome = working.process.outcome
            if outcome is not None:
                self._note_end(number, working, outcome, token)
            elif run != working.stored:
                if self._store.update_run(run, token=token):
                    self._working[number] = working._replace(stored=run)
                else:
                    self._drop(number)

    def _note_end(self, number: int, working: _Working, outcome: Outcome, token: int) -> None:
        run = ended(working.run, working.schedule, outcome, self._now())
        self._store.update_run(run, token=token)
        self._working.pop(number, None)
        _tell(run)

    def _adopt(self, token: int, states: tuple[ScheduleState, ...]) -> list[ScheduleRun]:
        """The active runs. Those that a leader before this one left are made to wait for their next try; a process
        whose run was removed with its schedule is killed."""
        known = {state.name: state.schedule for state in states}
        active = []
        for run in self._store.runs(active=True, limit=_MOST_ACTIVE):
            if run.state == "running" and run.id not in self._working and run.schedule in known:
                run = ended(run, known[run.schedule], _GONE, self._now())
                self._store.update_run(run, token=token)
                _tell(run)
            if run.is_active:
                active.append(run)
        there = {run.id for run in active}
        for number in [number for number in self._working if number not in there]:
            self._drop(number)
        return active

    def _settle(self, state: ScheduleState, active: list[ScheduleRun], token: int) -> None:
        try:
            settling = due_now(state, active, self._now())
        except FairwayError as error:  # written by a newer Fairway, or a time zone that this machine lacks
            logger.error("schedule %s cannot be run: %s", state.name, error)
            return
        if settling is not None:
            self._store.settle(state, settling.settled, settling.run, token=token)

    def _begin(self, active: list[ScheduleRun], states: tuple[ScheduleState, ...], turn: Turn) -> None:
        schedules = {state.name: state.schedule for state in states}
        for waiting in may_begin(active, states, self._now(), processes=self._processes):
            run, schedule, token = begun(waiting, self._now()), schedules[waiting.schedule], turn.token
            if not self._store.update_run(run, token=token):
                continue
            try:
                process = self._launch(schedule, run, turn.held_until)
            except OSError as error:
                outcome = Outcome(state="failed", reason=f"no process could be started: {error}")
                run = ended(run, schedule, outcome, self._now())
                self._store.update_run(run, token=token)
                _tell(run)
                continue
            self._working[run.id] = _Working(schedule, run, run, process, token)

    def _drop(self, number: int) -> None:
        self._working.pop(number).process.kill()


def _tell(run: ScheduleRun) -> None:
    """Failures are for operators; the rest only for who asks for more."""
    tries = f"try {run.attempt}"
    if run.state == "failed":
        logger.error("schedule %s, due %s, failed (%s): %s", run.schedule, run.due, tries, run.reason)
    elif run.state == "waiting":
        logger.warning(
            "schedule %s, due %s, goes on at %s (%s: %s)",
            run.schedule, run.due, run.next_attempt, tries, run.reason,
        )  # fmt: skip
    else:
        logger.info("schedule %s, due %s, %s (%s)", run.schedule, run.due, run.state, tries)
