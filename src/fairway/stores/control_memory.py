"""Leases, schedules and runs in this process's memory: for tests and for embedding without a disk."""

from __future__ import annotations

import threading

import msgspec

from fairway.core.errors import AlreadyExists, LeaseLost, Overloaded, RunNotFound, ScheduleNotFound
from fairway.core.schedule import Schedule, ScheduleRun, ScheduleState
from fairway.stores.control import CONTROL, MOST_SCHEDULES, MOST_WAITING, Lease

_replace = msgspec.structs.replace


class MemoryControlStore:
    """Safe from any thread."""

    where = "memory"

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._leases: dict[str, Lease] = {}
        self._schedules: dict[str, ScheduleState] = {}
        self._runs: dict[int, ScheduleRun] = {}

    def close(self) -> None:
        return

    def lease(self, name: str = CONTROL) -> Lease | None:
        return self._leases.get(name)

    def take_lease(self, holder: str, *, seconds: float, seen: Lease | None, name: str = CONTROL) -> Lease:
        with self._guard:
            if self._leases.get(name) != seen:
                raise _lost(name)
            token = 1 if seen is None else seen.token + 1
            self._leases[name] = Lease(name=name, holder=holder, token=token, beat=0, seconds=seconds)
            return self._leases[name]

    def renew_lease(self, token: int, name: str = CONTROL) -> None:
        with self._guard:
            self._check_lease(token, name)
            self._leases[name] = _replace(self._leases[name], beat=self._leases[name].beat + 1)

    def release_lease(self, token: int, name: str = CONTROL) -> None:
        with self._guard:
            lease = self._leases.get(name)
            if lease is not None and lease.token == token:
                self._leases[name] = _replace(lease, holder="")

    def schedules(self) -> tuple[ScheduleState, ...]:
        with self._guard:
            return tuple(self._schedules[name] for name in sorted(self._schedules))

    def schedule(self, name: str) -> ScheduleState:
        with self._guard:
            return self._known(name)

    def add_schedule(self, schedule: Schedule, *, settled: str) -> None:
        with self._guard:
            if schedule.name in self._schedules:
                raise AlreadyExists(
                    f"There is a schedule {schedule.name!r} already.", hint="Choose another name."
                )
            if len(self._schedules) >= MOST_SCHEDULES:
                raise Overloaded(f"There are {MOST_SCHEDULES} schedules already.", hint="Remove some first.")
            self._schedules[schedule.name] = ScheduleState(schedule=schedule, settled=settled)

    def change_schedule(self, schedule: Schedule, *, settled: str) -> None:
        with self._guard:
            known = self._known(schedule.name)
            self._schedules[schedule.name] = _replace(known, schedule=schedule, settled=settled)

    def pause_schedule(self, name: str) -> None:
        with self._guard:
            self._schedules[name] = _replace(self._known(name), paused=True)

    def resume_schedule(self, name: str, *, settled: str) -> None:
        with self._guard:
            self._schedules[name] = _replace(self._known(name), paused=False, settled=settled)

    def remove_schedule(self, name: str) -> None:
        with self._guard:
            self._known(name)
            del self._schedules[name]
            self._runs = {number: run for number, run in self._runs.items() if run.schedule != name}

    def settle(
        self, before: ScheduleState, settled: str, run: ScheduleRun | None, *, token: int
    ) -> ScheduleRun | None:
        with self._guard:
            self._check_lease(token)
            known = self._schedules.get(before.name)
            if known is None or _replace(known, forgotten="") != _replace(before, forgotten=""):
                return None
            self._schedules[before.name] = _replace(known, settled=settled)
            if run is None or any(
                (other.schedule, other.due) == (run.schedule, run.due) and other.kind != "manual"
                for other in self._runs.values()
            ):
                return None
            return self._insert(_replace(run, token=token))

    def add_run(self, run: ScheduleRun) -> ScheduleRun:
        with self._guard:
            self._known(run.schedule)
            waiting = [
                other
                for other in self._runs.values()
                if (other.schedule, other.state, other.kind) == (run.schedule, "waiting", "manual")
            ]
            if len(waiting) >= MOST_WAITING:
                raise Overloaded(
                    f"{MOST_WAITING} runs of {run.schedule} wait already.", hint="Wait for them to begin."
                )
            return self._insert(run)

    def update_run(self, run: ScheduleRun, *, token: int) -> bool:
        with self._guard:
            self._check_lease(token)
            if run.id not in self._runs:
                return False
            self._runs[run.id] = _replace(run, token=token)
            return True

    def run(self, number: int) -> ScheduleRun:
        with self._guard:
            if number not in self._runs:
                raise RunNotFound(f"There is no run {number} of a schedule.")
            return self._runs[number]

    def runs(
        self, schedule: str | None = None, *, active: bool = False, limit: int = 100
    ) -> tuple[ScheduleRun, ...]:
        with self._guard:
            found = [
                run
                for _, run in sorted(self._runs.items(), reverse=True)
                if schedule in (None, run.schedule) and (run.is_active or not active)
            ]
        return tuple(found[:limit])

    def prune_runs(self, schedule: str, *, keep: int, token: int) -> int:
        with self._guard:
            self._check_lease(token)
            state = self._schedules.get(schedule)
            if state is None:
                return 0
            mine = [run for _, run in sorted(self._runs.items(), reverse=True) if run.schedule == schedule]
            gone = [run for run in mine[keep:] if not run.is_active and run.due <= state.settled]
            last = max((run.due for run in gone if run.kind != "manual"), default="")
            self._schedules[schedule] = _replace(state, forgotten=max(last, state.forgotten))
            for run in gone:
                del self._runs[run.id]
            return len(gone)

    def _known(self, name: str) -> ScheduleState:
        if name not in self._schedules:
            raise ScheduleNotFound(
                f"There is no schedule {name!r}.", hint="`fairway schedules list` names them."
            )
        return self._schedules[name]

    def _insert(self, run: ScheduleRun) -> ScheduleRun:
        numbered = _replace(run, id=max(self._runs, default=0) + 1)
        self._runs[numbered.id] = numbered
        return numbered

    def _check_lease(self, token: int, name: str = CONTROL) -> None:
        lease = self._leases.get(name)
        if lease is None or lease.token != token or not lease.holder:
            raise _lost(name)


def _lost(name: str) -> LeaseLost:
    return LeaseLost(f"Another process holds the lease {name!r} now.")
