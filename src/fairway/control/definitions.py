"""What a schedule must be; and those of `fairway.toml` made those of the registry."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from fairway.control.cron import check_cron, zone_of
from fairway.control.placeholders import fill, has_placeholder
from fairway.core.clock import utc_now
from fairway.core.errors import Conflict, FairwayError, InvalidInput, Problem
from fairway.core.schedule import (
    LONGEST_PAUSE_SECONDS,
    BatchWork,
    PrecomputeWork,
    Schedule,
    ScheduleRun,
    check_schedule_name,
)
from fairway.core.settings import ScheduleSettings
from fairway.core.version import parse_reference
from fairway.stores.control import ControlStore

logger = logging.getLogger("fairway.schedules")

FILE: Literal["fairway.toml"] = "fairway.toml"
_MOST_RETRIES = 100
_MOST_TEXT = 4096
_FORMATS = ("", "parquet", "csv", "jsonl", "arrow")
_ERRORS = re.compile(r"\d{1,18}(\.\d{1,18})?%|\d{1,18}")


def check_schedule(schedule: Schedule) -> None:
    """InvalidInput, which names every problem."""
    problems: list[Problem] = []

    def tell(field: str, error: FairwayError) -> None:
        problems.append(Problem(str(error), field))

    for field, check in (
        ("name", lambda: check_schedule_name(schedule.name)),
        ("model", lambda: parse_reference(schedule.work.model)),
        ("cron", lambda: check_cron(schedule.cron, "UTC")),
        ("time_zone", lambda: zone_of(schedule.time_zone)),
        ("work", lambda: _check_work(schedule)),
    ):
        try:
            check()
        except FairwayError as error:
            tell(field, error)
    if not 0 <= schedule.retries <= _MOST_RETRIES:
        problems.append(Problem(f"give 0 to {_MOST_RETRIES}, not {schedule.retries}", "retries"))
    if not 0 < schedule.retry_seconds <= LONGEST_PAUSE_SECONDS:
        problems.append(Problem(f"give up to {LONGEST_PAUSE_SECONDS:.0f} seconds", "retry_seconds"))
    if problems:
        first = problems[0].reason if len(problems) == 1 else f"{len(problems)} things are wrong with it."
        raise InvalidInput(f"The schedule {schedule.name!r} cannot be: {first}", tuple(problems))


def _check_work(schedule: Schedule) -> None:
    work, now = schedule.work, datetime.now(UTC)
    texts = (work.input, work.output) if isinstance(work, BatchWork) else (work.files, work.key)
    for text in texts:
        if not text or len(text) > _MOST_TEXT:
            names = "input and output" if isinstance(work, BatchWork) else "files and key"
            raise InvalidInput(f"It needs {names}, of at most {_MOST_TEXT} characters.")
        fill(text, now, zone_of("UTC"))
    if isinstance(work, BatchWork):
        if work.format not in _FORMATS:
            raise InvalidInput(f"format {work.format!r} is none of {', '.join(_FORMATS[1:])}.")
        if work.max_errors and not _ERRORS.fullmatch(work.max_errors):
            raise InvalidInput(
                f"max_errors {work.max_errors!r} is neither a share such as 1% nor a number of rows."
            )
        if schedule.allow_overlap and not has_placeholder(work.output):
            raise InvalidInput(
                "Runs that overlap would write to one output.", hint="Name it by time: scored/{utc}/"
            )
    elif schedule.allow_overlap:
        raise InvalidInput("Answers of a model are computed by one process at a time: it cannot overlap.")


def schedule_of(table: ScheduleSettings) -> Schedule:
    """What a `[[schedules]]` of `fairway.toml` says. InvalidInput."""
    batch, answers = bool(table.input or table.output), bool(table.files or table.key)
    if batch == answers:
        raise InvalidInput(
            f"The schedule {table.name!r} of {FILE} needs either input and output, or files and key.",
            hint="The first is scored by batch, the second precomputes answers.",
        )
    kind = BatchWork if batch else PrecomputeWork
    given = {name: getattr(table, name) for name in kind.__struct_fields__}
    own = ("name", "cron", "time_zone", "allow_overlap", "retries", "retry_seconds")
    return Schedule(
        **{name: getattr(table, name) for name in own},
        work=kind(**given),
        source=FILE,
        changed_by=FILE,
    )


def absolute(work: BatchWork | PrecomputeWork, folder: Path) -> BatchWork | PrecomputeWork:
    """With paths that hold wherever the control process stands: relative ones are meant from `folder`."""
    if isinstance(work, BatchWork):
        return msgspec.structs.replace(
            work, input=_absolute(work.input, folder), output=_absolute(work.output, folder)
        )
    return msgspec.structs.replace(work, files=_absolute(work.files, folder))


def _absolute(text: str, folder: Path) -> str:
    if not text or "://" in text or text.startswith("/"):
        return text
    return f"{folder}/{text}"  # not by Path, which takes the slash at the end that says folder


def synchronise(store: ControlStore, tables: Sequence[ScheduleSettings], home: Path) -> list[str]:
    """Makes the store's schedules of source "fairway.toml" those of the file; returns what is wrong with the file.

    What is wrong leaves the schedule of that name as it was. One that was paused stays so.
    """
    known = {state.name: state.schedule for state in store.schedules()}
    wrong: list[str] = []
    wanted: set[str] = set()
    for table in tables:
        wanted.add(table.name)
        try:
            if sum(other.name == table.name for other in tables) > 1:
                raise InvalidInput(f"There is more than one schedule {table.name!r} in {FILE}.")
            schedule = schedule_of(table)
            schedule = msgspec.structs.replace(schedule, work=absolute(schedule.work, home))
            before = known.get(table.name)
            if before is not None and before.source != FILE:
                raise Conflict(
                    f"The schedule {table.name!r} of {FILE} is in the registry too.",
                    hint=f"Give one another name, or remove the other: fairway schedules remove {table.name}",
                )
            check_schedule(schedule)
            if before is None:
                store.add_schedule(msgspec.structs.replace(schedule, changed=utc_now()), settled=utc_now())
            elif msgspec.structs.replace(before, changed="") != schedule:
                store.change_schedule(msgspec.structs.replace(schedule, changed=utc_now()), settled=utc_now())
        except FairwayError as error:
            wrong.append(str(error))
    for name, schedule in known.items():
        if schedule.source == FILE and name not in wanted:
            store.remove_schedule(name)
    return wrong


def asked_for(schedule: Schedule, who: str) -> ScheduleRun:
    """A run by hand, now."""
    now = utc_now()
    return ScheduleRun(
        schedule=schedule.name,
        model=schedule.work.model,
        due=now,
        kind="manual",
        state="waiting",
        created=now,
        next_attempt=now,
        who=who,
    )


def check_changeable(schedule: Schedule) -> None:
    """Conflict for one of `fairway.toml`, which would come back."""
    if schedule.source == FILE:
        raise Conflict(
            f"The schedule {schedule.name!r} is defined in {FILE}.",
            hint="Change it there, or pause it.",
        )
