"""The port of what control processes share: who leads, the schedules, and the runs of schedules.

Every method is one transaction. What only the leader may do takes its `token`: it is compared with the lease in the same
transaction, so a leader that was paused and has lost its lease meanwhile writes nothing (LeaseLost), however late it wakes.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from fairway.core.schedule import Schedule, ScheduleRun, ScheduleState

CONTROL = "control"
"""The lease that the leader of the control processes holds."""
MOST_SCHEDULES = 1000
MOST_WAITING = 10
"""Most runs of one schedule that wait because somebody asked for them by hand."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """`token` counts the takings and never goes back; `beat` the renewals since. `holder` is "" once it was given back.
    Who wants it waits until `token` and `beat` have not changed for `seconds` on its own clock."""

    name: str
    holder: str
    token: int
    beat: int
    seconds: float


class ControlStore(Protocol):
    """Errors of all: as `RegistryDatabase`."""

    @property
    def where(self) -> str:
        """For messages: a path or URL without secrets."""

    def lease(self, name: str = CONTROL) -> Lease | None:
        """None when nobody ever took it."""

    def take_lease(self, holder: str, *, seconds: float, seen: Lease | None, name: str = CONTROL) -> Lease:
        """The lease with the next token, if it still is as `seen`; else LeaseLost."""

    def renew_lease(self, token: int, name: str = CONTROL) -> None:
        """LeaseLost when another has taken it."""

    def release_lease(self, token: int, name: str = CONTROL) -> None:
        """Lets others take it at once. Nothing when it was lost."""

    def schedules(self) -> tuple[ScheduleState, ...]:
        """By name."""

    def schedule(self, name: str) -> ScheduleState:
        """ScheduleNotFound."""

    def add_schedule(self, schedule: Schedule, *, settled: str) -> None:
        """AlreadyExists; Overloaded beyond `MOST_SCHEDULES`."""

    def change_schedule(self, schedule: Schedule, *, settled: str) -> None:
        """Another definition under the same name, whose due times count from `settled`. ScheduleNotFound."""

    def pause_schedule(self, name: str) -> None:
        """ScheduleNotFound."""

    def resume_schedule(self, name: str, *, settled: str) -> None:
        """What was due while it was paused is not caught up: due times count from `settled`. ScheduleNotFound."""

    def remove_schedule(self, name: str) -> None:
        """And its history. ScheduleNotFound."""

    def settle(
        self, before: ScheduleState, settled: str, run: ScheduleRun | None, *, token: int
    ) -> ScheduleRun | None:
        """Says that due times up to `settled` are dealt with, and adds the run that does so.

        Nothing is done when the schedule is no longer as `before`; no run is added when one is in the history for the
        same due time. Returns what was added. LeaseLost.
        """

    def add_run(self, run: ScheduleRun) -> ScheduleRun:
        """One asked for by hand. ScheduleNotFound; Overloaded beyond `MOST_WAITING`."""

    def update_run(self, run: ScheduleRun, *, token: int) -> bool:
        """False when it is no longer there, because its schedule was removed. LeaseLost."""

    def run(self, number: int) -> ScheduleRun:
        """RunNotFound."""

    def runs(
        self, schedule: str | None = None, *, active: bool = False, limit: int = 100
    ) -> tuple[ScheduleRun, ...]:
        """The newest first; of one schedule or of all."""

    def prune_runs(self, schedule: str, *, keep: int, token: int) -> int:
        """Forgets ended runs that are due up to `settled`, all but the newest `keep`; returns how many. LeaseLost."""

    def close(self) -> None: ...
