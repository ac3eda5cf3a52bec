"""What is due, what may begin, and what becomes of a run whose process ended: pure decisions over values and a time.

- Of the times that are due since the last that was dealt with, the latest is run and stands for all of them: what was
  missed is caught up once.
- A schedule that must not overlap is not due while a run of it is active; what is due meanwhile is caught up when that
  has ended.
- A clock that goes back makes times due again; those in the history are not run again, nor those that it may have
  forgotten. One that goes forward makes the schedule miss what it jumped over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from fairway.control.cron import due_between
from fairway.core.clock import utc_text
from fairway.core.schedule import MOST_INTERRUPTIONS, RunState, Schedule, ScheduleRun, ScheduleState

LATE_SECONDS = 60.0
"""A run that begins later than this after it was due is said to be caught up."""
MOST_OVERLAPPING = 8
"""Most active runs of a schedule that may overlap; what is due beyond them is caught up later."""


class Settling(msgspec.Struct, frozen=True):
    """Due times up to `settled` are dealt with, by `run` where there is one."""

    settled: str
    run: ScheduleRun | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a process that worked on a run ended. "interrupted": it was stopped, and can go on where it was."""

    state: Literal["succeeded", "failed", "cancelled", "interrupted"]
    reason: str = ""
    retry: bool = True
    """Whether trying a failed run again could help."""
    batch_run: str = ""
    rows: int = 0
    rejected: int = 0


def due_now(state: ScheduleState, active: Sequence[ScheduleRun], now: datetime) -> Settling | None:
    """`active` are the runs of this schedule that are. None when there is nothing to settle."""
    if state.paused:
        return None
    schedule, settled = state.schedule, datetime.fromisoformat(state.settled)
    if settled > now:  # the clock went back
        return Settling(utc_text(now))
    if len(active) >= (MOST_OVERLAPPING if schedule.allow_overlap else 1):
        return None
    due, count = due_between(schedule.cron, schedule.time_zone, settled, now)
    if due is None:
        return None
    at = utc_text(due)
    if at <= state.forgotten:
        return Settling(at)
    late = (now - due).total_seconds() > LATE_SECONDS
    run = ScheduleRun(
        schedule=schedule.name,
        model=schedule.work.model,
        due=at,
        kind="caught up" if late or count > 1 else "due",
        state="waiting",
        created=utc_text(now),
        next_attempt=utc_text(now),
        missed=count - 1,
    )
    return Settling(at, run)


def may_begin(
    active: Sequence[ScheduleRun], states: Sequence[ScheduleState], now: datetime, *, processes: int
) -> list[ScheduleRun]:
    """Which waiting runs begin now, those that wait longest first, so that no more than `processes` run."""
    known = {state.name: state for state in states}
    running = [run.schedule for run in active if run.state == "running"]
    beginning: list[ScheduleRun] = []
    for run in sorted(active, key=lambda run: (run.next_attempt, run.id)):
        if len(running) >= processes:
            break
        state = known.get(run.schedule)
        if run.state != "waiting" or state is None or (state.paused and run.kind != "manual"):
            continue
        if run.schedule in running and not state.schedule.allow_overlap:
            continue
        if _is_time(run, state.schedule, now):
            beginning.append(run)
            running.append(run.schedule)
    return beginning


def begun(run: ScheduleRun, now: datetime) -> ScheduleRun:
    return msgspec.structs.replace(
        run, state="running", attempt=run.attempt + 1, started=utc_text(now), ended="", reason=""
    )


def ended(run: ScheduleRun, schedule: Schedule, outcome: Outcome, now: datetime) -> ScheduleRun:
    """The run as its process leaves it: over, or waiting for its next try."""
    interruptions = run.interruptions + (outcome.state == "interrupted")
    state: RunState
    wait = 0.0
    if outcome.state == "interrupted" and interruptions <= MOST_INTERRUPTIONS:
        state = "waiting"
    elif outcome.state in ("succeeded", "cancelled"):
        state = outcome.state
    elif outcome.retry and outcome.state == "failed" and run.attempt - run.interruptions <= schedule.retries:
        state = "waiting"
        wait = schedule.pause_seconds(run.attempt - run.interruptions)
    else:
        state = "failed"
    return msgspec.structs.replace(
        run,
        state=state,
        interruptions=interruptions,
        next_attempt=utc_text(now + timedelta(seconds=wait)),
        ended=utc_text(now),
        reason=outcome.reason,
        batch_run=outcome.batch_run or run.batch_run,
        rows=outcome.rows or run.rows,
        rejected=outcome.rejected or run.rejected,
    )


def _is_time(run: ScheduleRun, schedule: Schedule, now: datetime) -> bool:
    """A pause longer than any that was ever set means that the clock went back."""
    left = (datetime.fromisoformat(run.next_attempt) - now).total_seconds()
    return left <= 0 or left > schedule.pause_seconds(max(1, run.attempt)) + LATE_SECONDS
