"""Leases, schedules and runs in SQLite or PostgreSQL, the same statements for both."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from fairway.core.errors import AlreadyExists, LeaseLost, Overloaded, RunNotFound, ScheduleNotFound
from fairway.core.schedule import ACTIVE, Schedule, ScheduleRun, ScheduleState
from fairway.stores.control import CONTROL, MOST_SCHEDULES, MOST_WAITING, Lease
from fairway.stores.schema import leases, schedule_runs, schedules
from fairway.stores.sql import SqlDatabase

_runs = schedule_runs.c


class SqlControlStore:
    """Safe from any thread."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @property
    def where(self) -> str:
        return self._database.where

    def close(self) -> None:
        self._database.close()

    # The lease.

    def lease(self, name: str = CONTROL) -> Lease | None:
        with self._database.transaction(writing=False) as connection:
            return _lease(connection, name)

    def take_lease(self, holder: str, *, seconds: float, seen: Lease | None, name: str = CONTROL) -> Lease:
        with self._database.transaction(writing=True) as connection:
            if seen is None:
                fresh = Lease(name=name, holder=holder, token=1, beat=0, seconds=seconds)
                if _lease(connection, name, lock=True) is not None:
                    raise _lost(name)
                try:
                    connection.execute(sa.insert(leases).values(msgspec.structs.asdict(fresh)))
                except sa.exc.IntegrityError as error:  # two processes took the first one at once
                    raise _lost(name) from error
                return fresh
            taken = Lease(name=name, holder=holder, token=seen.token + 1, beat=0, seconds=seconds)
            same = (
                leases.c.name == name,
                leases.c.token == seen.token,
                leases.c.beat == seen.beat,
                leases.c.holder == seen.holder,
            )
            changed = connection.execute(
                sa.update(leases).where(*same).values(msgspec.structs.asdict(taken))
            ).rowcount
            if not changed:
                raise _lost(name)
            return taken

    def renew_lease(self, token: int, name: str = CONTROL) -> None:
        mine = (leases.c.name == name, leases.c.token == token, leases.c.holder != "")
        with self._database.transaction(writing=True) as connection:
            beat = sa.update(leases).where(*mine).values(beat=leases.c.beat + 1)
            if not connection.execute(beat).rowcount:
                raise _lost(name)

    def release_lease(self, token: int, name: str = CONTROL) -> None:
        with self._database.transaction(writing=True) as connection:
            mine = (leases.c.name == name, leases.c.token == token)
            connection.execute(sa.update(leases).where(*mine).values(holder=""))

    # Schedules.

    def schedules(self) -> tuple[ScheduleState, ...]:
        with self._database.transaction(writing=False) as connection:
            found = connection.execute(sa.select(schedules).order_by(schedules.c.name))
            return tuple(_state(row) for row in found)

    def schedule(self, name: str) -> ScheduleState:
        with self._database.transaction(writing=False) as connection:
            row = connection.execute(sa.select(schedules).where(schedules.c.name == name)).first()
        if row is None:
            raise _no_schedule(name)
        return _state(row)

    def add_schedule(self, schedule: Schedule, *, settled: str) -> None:
        row = {
            "name": schedule.name,
            "schedule": msgspec.json.encode(schedule).decode(),
            "paused": False,
            "settled": settled,
            "forgotten": "",
        }
        with self._database.transaction(writing=True) as connection:
            known = connection.execute(sa.select(schedules.c.name)).scalars().all()
            if schedule.name in known:
                raise AlreadyExists(
                    f"There is a schedule {schedule.name!r} already.",
                    hint=f"Choose another name, or remove it first: fairway schedules remove {schedule.name}",
                )
            if len(known) >= MOST_SCHEDULES:
                raise Overloaded(f"There are {MOST_SCHEDULES} schedules already.", hint="Remove some first.")
            try:
                connection.execute(sa.insert(schedules).values(row))
            except sa.exc.IntegrityError as error:
                raise AlreadyExists(f"There is a schedule {schedule.name!r} already.") from error

    def change_schedule(self, schedule: Schedule, *, settled: str) -> None:
        text = msgspec.json.encode(schedule).decode()
        self._change(schedule.name, {"schedule": text, "settled": settled})

    def pause_schedule(self, name: str) -> None:
        self._change(name, {"paused": True})

    def resume_schedule(self, name: str, *, settled: str) -> None:
        self._change(name, {"paused": False, "settled": settled})

    def remove_schedule(self, name: str) -> None:
        with self._database.transaction(writing=True) as connection:
            if not connection.execute(sa.delete(schedules).where(schedules.c.name == name)).rowcount:
                raise _no_schedule(name)
            connection.execute(sa.delete(schedule_runs).where(_runs.schedule == name))

    def _change(self, name: str, values: dict[str, Any]) -> None:
        with self._database.transaction(writing=True) as connection:
            change = sa.update(schedules).where(schedules.c.name == name).values(values)
            if not connection.execute(change).rowcount:
                raise _no_schedule(name)

    # Their runs.

    def settle(
        self, before: ScheduleState, settled: str, run: ScheduleRun | None, *, token: int
    ) -> ScheduleRun | None:
        same = (
            schedules.c.name == before.name,
            schedules.c.schedule == msgspec.json.encode(before.schedule).decode(),
            schedules.c.paused.is_(before.paused),
            schedules.c.settled == before.settled,
        )
        with self._database.transaction(writing=True) as connection:
            _check_lease(connection, token)
            change = sa.update(schedules).where(*same).values(settled=settled)
            if not connection.execute(change).rowcount or run is None:
                return None
            there = sa.select(_runs.id).where(
                _runs.schedule == run.schedule, _runs.due == run.due, _runs.kind != "manual"
            )
            _lock_runs(connection)
            if connection.execute(there).first() is not None:
                return None
            return _insert(connection, msgspec.structs.replace(run, token=token))

    def add_run(self, run: ScheduleRun) -> ScheduleRun:
        waiting = sa.select(sa.func.count()).where(
            _runs.schedule == run.schedule, _runs.state == "waiting", _runs.kind == "manual"
        )
        with self._database.transaction(writing=True) as connection:
            known = sa.select(schedules.c.name).where(schedules.c.name == run.schedule)
            known = known.with_for_update(read=True)  # or it may be removed before its run is there
            if connection.execute(known).first() is None:
                raise _no_schedule(run.schedule)
            _lock_runs(connection)
            if connection.execute(waiting).scalar_one() >= MOST_WAITING:
                raise Overloaded(
                    f"{MOST_WAITING} runs of {run.schedule} wait already.", hint="Wait for them to begin."
                )
            return _insert(connection, run)

    def update_run(self, run: ScheduleRun, *, token: int) -> bool:
        stored = msgspec.structs.replace(run, token=token)
        with self._database.transaction(writing=True) as connection:
            _check_lease(connection, token)
            change = sa.update(schedule_runs).where(_runs.id == run.id).values(_row(stored))
            return bool(connection.execute(change).rowcount)

    def run(self, number: int) -> ScheduleRun:
        with self._database.transaction(writing=False) as connection:
            text = connection.execute(sa.select(_runs.run).where(_runs.id == number)).scalar()
        if text is None:
            raise RunNotFound(f"There is no run {number} of a schedule.")
        return msgspec.json.decode(text, type=ScheduleRun)

    def runs(
        self, schedule: str | None = None, *, active: bool = False, limit: int = 100
    ) -> tuple[ScheduleRun, ...]:
        query = sa.select(_runs.run).order_by(_runs.id.desc()).limit(limit)
        if schedule is not None:
            query = query.where(_runs.schedule == schedule)
        if active:
            query = query.where(_runs.state.in_(ACTIVE))
        with self._database.transaction(writing=False) as connection:
            found = connection.execute(query).scalars().all()
        return tuple(msgspec.json.decode(text, type=ScheduleRun) for text in found)

    def prune_runs(self, schedule: str, *, keep: int, token: int) -> int:
        with self._database.transaction(writing=True) as connection:
            _check_lease(connection, token)
            row = connection.execute(sa.select(schedules).where(schedules.c.name == schedule)).first()
            if row is None:
                return 0
            newest = sa.select(_runs.id).where(_runs.schedule == schedule).order_by(_runs.id.desc())
            oldest_kept = connection.execute(newest.offset(keep - 1).limit(1)).scalar()
            if oldest_kept is None:
                return 0
            gone = (
                _runs.schedule == schedule,
                _runs.id < oldest_kept,
                _runs.state.not_in(ACTIVE),
                _runs.due <= row.settled,
            )
            last = connection.execute(
                sa.select(sa.func.max(_runs.due)).where(*gone, _runs.kind != "manual")
            ).scalar()
            if last is not None and last > row.forgotten:
                connection.execute(
                    sa.update(schedules).where(schedules.c.name == schedule).values(forgotten=last)
                )
            return connection.execute(sa.delete(schedule_runs).where(*gone)).rowcount


def _lease(connection: sa.Connection, name: str, *, lock: bool = False) -> Lease | None:
    query = sa.select(leases).where(leases.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else Lease(**row)


def _check_lease(connection: sa.Connection, token: int) -> None:
    """Shared by the leader's own transactions; nobody takes the lease before they have ended."""
    query = sa.select(leases.c.token).where(leases.c.name == CONTROL, leases.c.holder != "")
    if connection.execute(query.with_for_update(read=True)).scalar() != token:
        raise _lost(CONTROL)


def _lock_runs(connection: sa.Connection) -> None:
    """Numbers are given one after the other. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {schedule_runs.name} IN SHARE ROW EXCLUSIVE MODE")


def _insert(connection: sa.Connection, run: ScheduleRun) -> ScheduleRun:
    last = connection.execute(sa.select(sa.func.max(_runs.id))).scalar()
    numbered = msgspec.structs.replace(run, id=int(last or 0) + 1)
    connection.execute(sa.insert(schedule_runs).values(id=numbered.id, **_row(numbered)))
    return numbered


def _row(run: ScheduleRun) -> dict[str, Any]:
    return {
        "schedule": run.schedule,
        "due": run.due,
        "kind": run.kind,
        "state": run.state,
        "run": msgspec.json.encode(run).decode(),
    }


def _state(row: Any) -> ScheduleState:
    return ScheduleState(
        schedule=msgspec.json.decode(row.schedule, type=Schedule),
        paused=row.paused,
        settled=row.settled,
        forgotten=row.forgotten,
    )


def _lost(name: str) -> LeaseLost:
    return LeaseLost(f"Another process holds the lease {name!r} now.")


def _no_schedule(name: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"There is no schedule {name!r}.", hint="`fairway schedules list` names them.")
