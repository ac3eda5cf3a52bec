"""What may be asked of schedules, from the command line and over HTTP alike: checked, written, told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from fairway.control.definitions import asked_for, check_changeable, check_schedule
from fairway.control.views import ScheduleView, view
from fairway.core.clock import utc_now, utc_text
from fairway.core.errors import InvalidInput
from fairway.core.schedule import Schedule, ScheduleRun
from fairway.core.version import parse_reference
from fairway.stores.control import ControlStore

MOST_HISTORY = 1000


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ScheduleDesk:
    """One use case a method. `who` is for the record."""

    def __init__(
        self,
        store: ControlStore,
        check_model: Callable[[str], None] = lambda model: None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        """`check_model` raises ModelNotFound and the like for a reference to a model."""
        self._store = store
        self._check_model = check_model
        self._now = now

    def list(self) -> tuple[ScheduleView, ...]:
        now = self._now()
        return tuple(
            view(state, self._store.runs(state.name, limit=1), now) for state in self._store.schedules()
        )

    def show(self, name: str) -> ScheduleView:
        """ScheduleNotFound."""
        return view(self._store.schedule(name), self._store.runs(name, limit=1), self._now())

    def add(self, schedule: Schedule, *, who: str) -> ScheduleView:
        """InvalidInput, ModelNotFound, AlreadyExists, Overloaded."""
        if schedule.source != "registry":
            raise InvalidInput(f"A schedule of source {schedule.source!r} is made in that file.")
        check_schedule(schedule)
        self._check_model(schedule.work.model)
        schedule = msgspec.structs.replace(schedule, changed=utc_now(), changed_by=who)
        self._store.add_schedule(schedule, settled=utc_text(self._now()))
        return self.show(schedule.name)

    def pause(self, name: str) -> ScheduleView:
        """A run that has begun goes on; nothing more begins. ScheduleNotFound."""
        self._store.pause_schedule(name)
        return self.show(name)

    def resume(self, name: str) -> ScheduleView:
        """What was due while it was paused is not caught up. ScheduleNotFound."""
        if self._store.schedule(name).paused:
            self._store.resume_schedule(name, settled=utc_text(self._now()))
        return self.show(name)

    def remove(self, name: str) -> None:
        """With its history; a run that has begun is ended. ScheduleNotFound; Conflict for one of fairway.toml."""
        check_changeable(self._store.schedule(name).schedule)
        self._store.remove_schedule(name)

    def run(self, name: str, *, who: str) -> ScheduleRun:
        """A run beside those that are due, as soon as the leader can begin it. ScheduleNotFound, Overloaded."""
        return self._store.add_run(asked_for(self._store.schedule(name).schedule, who))

    def history(self, name: str | None = None, limit: int = 50) -> tuple[ScheduleRun, ...]:
        """The newest first, of one schedule or of all. ScheduleNotFound."""
        if name is not None:
            self._store.schedule(name)
        return self._store.runs(name, limit=min(limit, MOST_HISTORY))

    def model_of(self, name: str) -> str:
        """The model that a schedule scores with, without alias or version. ScheduleNotFound."""
        return parse_reference(self._store.schedule(name).schedule.work.model).model
