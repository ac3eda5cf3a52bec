"""Schedules and runs as people and programs are shown them: with when they are due next, and without passwords."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from fairway.control.cron import next_due
from fairway.core.clock import utc_text
from fairway.core.errors import FairwayError
from fairway.core.schedule import BatchWork, PrecomputeWork, Schedule, ScheduleRun, ScheduleState, Work

_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/\s]*@")


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is shown. `next` is "" where nothing is due any more or it is paused; `last` is its newest run."""

    schedule: Schedule
    paused: bool
    next: str
    last: ScheduleRun | None = None


def view(state: ScheduleState, runs: Sequence[ScheduleRun], now: datetime) -> ScheduleView:
    """`runs` are the newest first."""
    due = None
    if not state.paused:
        try:
            due = next_due(state.schedule.cron, state.schedule.time_zone, now)
        except FairwayError:  # written elsewhere, with a time zone that this machine lacks
            due = None
    return ScheduleView(
        schedule=msgspec.structs.replace(state.schedule, work=without_passwords(state.schedule.work)),
        paused=state.paused,
        next="" if due is None else utc_text(due),
        last=next((run for run in runs if run.schedule == state.name), None),
    )


def without_passwords(work: Work) -> Work:
    """What is shown; never what is run."""
    replace = msgspec.structs.replace
    if isinstance(work, BatchWork):
        return replace(work, input=_hidden(work.input), output=_hidden(work.output))
    assert isinstance(work, PrecomputeWork), "there are two kinds of work"
    return replace(work, files=_hidden(work.files), store=None if work.store is None else _hidden(work.store))


def _hidden(url: str) -> str:
    return _PASSWORD.sub(r"\1:***@", url)
