"""Schedules of a home, for the command line and for programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fairway.app.home import Home, current_user, open_home
from fairway.control.definitions import absolute
from fairway.control.desk import ScheduleDesk
from fairway.control.views import ScheduleView
from fairway.core.errors import Unavailable
from fairway.core.schedule import Schedule, ScheduleRun
from fairway.core.version import parse_reference
from fairway.stores.control import ControlStore
from fairway.stores.opening import open_control

_POLL_SECONDS = 0.25


@contextmanager
def open_desk(
    home: str | os.PathLike[str] | None = None,
) -> Iterator[tuple[ScheduleDesk, ControlStore]]:
    """The schedules of a home and the store that they are in."""
    with open_home(home) as place:
        store = open_control(place.path, place.settings.registry)
        try:
            yield ScheduleDesk(store, model_check(place)), store
        finally:
            store.close()


def model_check(place: Home) -> Callable[[str], None]:
    """Raises ModelNotFound, VersionNotFound or AliasNotFound for what a schedule cannot score with."""

    def check(reference: str) -> None:
        parsed = parse_reference(reference)
        if parsed.alias is None and parsed.version is None:
            place.registry.versions(parsed.model)
        else:
            place.registry.resolve(parsed)

    return check


def add_schedule(schedule: Schedule, home: str | os.PathLike[str] | None = None) -> ScheduleView:
    """Relative paths are meant from the current folder. As `ScheduleDesk.add`."""
    placed = msgspec.structs.replace(schedule, work=absolute(schedule.work, Path.cwd()))
    with open_desk(home) as (desk, _):
        return desk.add(placed, who=current_user())


def run_schedule(
    name: str, *, wait_seconds: float | None = None, home: str | os.PathLike[str] | None = None
) -> tuple[ScheduleRun, bool]:
    """Asks for a run now; with `wait_seconds`, gives it when it has ended. Also whether a control process leads.

    Raises as `ScheduleDesk.run`; Unavailable when the run has not ended in time.
    """
    with open_desk(home) as (desk, store):
        run = desk.run(name, who=current_user())
        lease = store.lease()
        leads = lease is not None and lease.holder != ""
        if wait_seconds is None:
            return run, leads
        deadline = time.monotonic() + wait_seconds
        while (run := store.run(run.id)).is_active:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"The run of {name} has not ended within {wait_seconds:g} s: it is {run.state}"
                    + (f" ({run.reason})." if run.reason else "."),
                    hint="See `fairway schedules history`. A control process must run: `fairway control`.",
                )
            time.sleep(_POLL_SECONDS)
        return run, leads
