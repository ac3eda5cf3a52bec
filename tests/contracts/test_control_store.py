"""What every store of leases, schedules and runs does: SQLite, PostgreSQL, memory."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from fairway.core.errors import AlreadyExists, LeaseLost, Overloaded, RunNotFound, ScheduleNotFound
from fairway.core.schedule import BatchWork, PrecomputeWork, Schedule, ScheduleRun, ScheduleState
from fairway.core.settings import RegistrySettings
from fairway.stores import control, control_memory, control_sql
from fairway.stores.control import MOST_WAITING, ControlStore
from fairway.stores.opening import open_control
from fairway.stores.schema import schedule_runs, schedules
from tests.services import Postgres, until_one_waits

OpenStore = Callable[[], ControlStore]
T = [f"2026-01-{day:02}T02:00:00.000000Z" for day in range(1, 29)]
NIGHTLY = Schedule(
    name="nightly",
    cron="0 2 * * *",
    time_zone="Europe/Berlin",
    work=BatchWork(model="churn", input="in/*.parquet", output="out/{date}.parquet", keep=("id", "ü")),
    retries=2,
    changed_by="änn",
)
replace = msgspec.structs.replace


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the same store as often as it is called."""
    url = request.getfixturevalue("postgres").new_database() if request.param == "postgresql" else ""
    if request.param == "memory":
        store = open_control(tmp_path, RegistrySettings(database_url="memory://"))
        return lambda: store
    return lambda: open_control(tmp_path, RegistrySettings(database_url=url, lock_timeout_seconds=30))


@pytest.fixture
def store(open_again: OpenStore) -> Iterator[ControlStore]:
    store = open_again()
    yield store
    store.close()


def taken(store: ControlStore, holder: str = "a") -> int:
    return store.take_lease(holder, seconds=5.0, seen=store.lease()).token


def due(at: str, **values: object) -> ScheduleRun:
    run = ScheduleRun(
        schedule="nightly", model="churn", due=at, kind="due", state="waiting", created=at, next_attempt=at
    )
    return replace(run, **values)


# The lease.


def test_a_lease_is_taken_by_who_saw_it_last_and_by_nobody_else(
    store: ControlStore, open_again: OpenStore
) -> None:
    assert store.lease() is None
    first = store.take_lease("a", seconds=5.0, seen=None)
    assert (first.holder, first.token, first.beat, first.seconds) == ("a", 1, 0, 5.0)
    with pytest.raises(LeaseLost):
        store.take_lease("b", seconds=5.0, seen=None)
    store.renew_lease(1)
    with pytest.raises(LeaseLost):
        store.take_lease("b", seconds=5.0, seen=first)  # it was renewed since
    seen = store.lease()
    assert seen is not None
    assert (seen.token, seen.beat) == (1, 1)
    other = open_again()
    assert other.take_lease("b", seconds=2.0, seen=seen).token == 2
    other.close()
    with pytest.raises(LeaseLost):
        store.renew_lease(1)


def test_leases_of_other_names_are_others(store: ControlStore) -> None:
    store.take_lease("a", seconds=5.0, seen=None)
    assert store.lease("other") is None
    assert store.take_lease("b", seconds=5.0, seen=None, name="other").token == 1


def test_a_lease_given_back_is_held_by_nobody_and_its_token_is_not_used_again(store: ControlStore) -> None:
    token = taken(store)
    store.release_lease(token + 1)  # somebody else's: nothing happens
    store.renew_lease(token)
    store.release_lease(token)
    lease = store.lease()
    assert lease is not None
    assert lease.holder == ""
    with pytest.raises(LeaseLost):
        store.renew_lease(token)
    with pytest.raises(LeaseLost):
        store.update_run(due(T[0], id=1), token=token)
    assert taken(store, "b") == token + 1


def test_of_many_that_take_a_lease_at_once_one_has_it(open_again: OpenStore) -> None:
    for seen_first in (True, False):
        taking: list[int] = []
        lost: list[LeaseLost] = []
        stores = [open_again() for _ in range(5)]
        seen = None if seen_first else stores[0].lease()

        def take(mine: ControlStore, seen: control.Lease | None = seen) -> None:
            try:
                taking.append(mine.take_lease("x", seconds=5.0, seen=seen).token)  # noqa: B023
            except LeaseLost as error:
                lost.append(error)  # noqa: B023

        threads = [threading.Thread(target=take, args=(mine,)) for mine in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(taking), len(lost)) == (1, 4)
        for mine in stores:
            mine.close()


# Schedules.


def test_schedules_are_kept_whole(store: ControlStore, open_again: OpenStore) -> None:
    assert store.schedules() == ()
    answers = Schedule(name="a", cron="@daily", work=PrecomputeWork(model="m", files="f.csv", key="id"))
    store.add_schedule(NIGHTLY, settled=T[0])
    store.add_schedule(answers, settled=T[1])
    other = open_again()
    assert other.schedules() == (
        ScheduleState(schedule=answers, settled=T[1]),
        ScheduleState(schedule=NIGHTLY, settled=T[0]),
    )
    assert other.schedule("nightly").schedule == NIGHTLY
    other.close()
    with pytest.raises(AlreadyExists, match="nightly"):
        store.add_schedule(NIGHTLY, settled=T[1])


def test_a_schedule_is_paused_resumed_changed_and_removed(store: ControlStore) -> None:
    store.add_schedule(NIGHTLY, settled=T[0])
    store.pause_schedule("nightly")
    assert store.schedule("nightly").paused
    assert store.schedule("nightly").settled == T[0]
    store.resume_schedule("nightly", settled=T[3])
    assert store.schedule("nightly") == ScheduleState(schedule=NIGHTLY, settled=T[3])
    hourly = replace(NIGHTLY, cron="0 * * * *")
    store.change_schedule(hourly, settled=T[4])
    assert store.schedule("nightly") == ScheduleState(schedule=hourly, settled=T[4])
    store.add_run(due(T[5], kind="manual"))
    store.remove_schedule("nightly")
    assert (store.schedules(), store.runs()) == ((), ())


def test_what_is_not_there_is_said(store: ControlStore) -> None:
    for attempt in (
        lambda: store.schedule("nightly"),
        lambda: store.pause_schedule("nightly"),
        lambda: store.resume_schedule("nightly", settled=T[0]),
        lambda: store.change_schedule(NIGHTLY, settled=T[0]),
        lambda: store.remove_schedule("nightly"),
        lambda: store.add_run(due(T[0], kind="manual")),
    ):
        with pytest.raises(ScheduleNotFound, match="nightly"):
            attempt()
    with pytest.raises(RunNotFound):
        store.run(1)


def test_there_is_a_most_of_schedules_and_of_runs_that_wait(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (control_sql, control_memory):
        monkeypatch.setattr(module, "MOST_SCHEDULES", 2)
    store.add_schedule(NIGHTLY, settled=T[0])
    store.add_schedule(replace(NIGHTLY, name="second"), settled=T[0])
    with pytest.raises(Overloaded):
        store.add_schedule(replace(NIGHTLY, name="third"), settled=T[0])
    for _ in range(MOST_WAITING):
        store.add_run(due(T[0], kind="manual"))
    with pytest.raises(Overloaded):
        store.add_run(due(T[0], kind="manual"))
    store.add_run(due(T[0], kind="manual", schedule="second"))


# Runs.


def test_a_due_time_is_settled_once_with_one_run(store: ControlStore, open_again: OpenStore) -> None:
    store.add_schedule(NIGHTLY, settled=T[0])
    token = taken(store)
    before = store.schedule("nightly")
    run = store.settle(before, T[1], due(T[1], missed=2), token=token)
    assert run == due(T[1], missed=2, id=1, token=token)
    assert store.settle(before, T[1], due(T[1]), token=token) is None  # another has done so
    after = store.schedule("nightly")
    assert after.settled == T[1]
    # The clock went back, and what was due then is due again: it is settled, but not run again.
    assert store.settle(after, T[0], None, token=token) is None
    again = store.schedule("nightly")
    assert again.settled == T[0]
    assert store.settle(again, T[1], due(T[1]), token=token) is None
    assert store.schedule("nightly").settled == T[1]
    other = open_again()
    assert other.runs("nightly") == (run,)
    other.close()


def test_a_schedule_that_was_changed_or_paused_meanwhile_is_not_settled(store: ControlStore) -> None:
    store.add_schedule(NIGHTLY, settled=T[0])
    token = taken(store)
    before = store.schedule("nightly")
    store.pause_schedule("nightly")
    assert store.settle(before, T[1], due(T[1]), token=token) is None
    store.resume_schedule("nightly", settled=T[0])
    store.change_schedule(replace(NIGHTLY, cron="1 2 * * *"), settled=T[0])
    assert store.settle(before, T[1], due(T[1]), token=token) is None
    store.remove_schedule("nightly")
    assert store.settle(before, T[1], due(T[1]), token=token) is None
    assert store.runs() == ()


def test_runs_are_changed_and_listed_the_newest_first(store: ControlStore) -> None:
    store.add_schedule(NIGHTLY, settled=T[0])
    store.add_schedule(replace(NIGHTLY, name="other"), settled=T[0])
    token = taken(store)
    first = store.add_run(due(T[1], kind="manual", who="ann"))
    second = store.add_run(due(T[1], kind="manual"))
    third = store.add_run(due(T[1], kind="manual", schedule="other"))
    assert [first.id, second.id, third.id] == [1, 2, 3]
    ended = replace(first, state="succeeded", batch_run="churn-1a", rows=7, token=token)
    assert store.update_run(ended, token=token)
    assert store.run(1) == ended
    assert store.runs() == (third, second, ended)
    assert store.runs("nightly", limit=1) == (second,)
    assert store.runs(active=True) == (third, second)
    assert not store.update_run(replace(ended, id=99), token=token)


def test_a_leader_that_lost_its_lease_writes_nothing(store: ControlStore, open_again: OpenStore) -> None:
    store.add_schedule(NIGHTLY, settled=T[0])
    old = taken(store, "paused")
    run = store.settle(store.schedule("nightly"), T[1], due(T[1]), token=old)
    assert run is not None
    other = open_again()
    new = taken(other, "next")
    state = store.schedule("nightly")
    for attempt in (
        lambda: store.settle(state, T[2], due(T[2]), token=old),
        lambda: store.update_run(replace(run, state="succeeded"), token=old),
        lambda: store.prune_runs("nightly", keep=1, token=old),
        lambda: store.renew_lease(old),
    ):
        with pytest.raises(LeaseLost):
            attempt()
    assert store.runs() == (run,)
    assert other.update_run(replace(run, state="failed"), token=new)
    assert store.run(run.id).token == new
    other.close()


def test_pruned_runs_are_remembered_as_one_time_before_which_nothing_is_run(store: ControlStore) -> None:
    store.add_schedule(NIGHTLY, settled=T[0])
    token = taken(store)
    for at in T[1:8]:
        run = store.settle(store.schedule("nightly"), at, due(at), token=token)
        assert run is not None
        store.update_run(replace(run, state="running" if at == T[2] else "succeeded"), token=token)
    assert store.prune_runs("nightly", keep=100, token=token) == 0
    assert store.schedule("nightly").forgotten == ""
    assert store.prune_runs("nightly", keep=3, token=token) == 3
    assert [run.due for run in store.runs("nightly")] == [T[7], T[6], T[5], T[2]]
    assert store.schedule("nightly").forgotten == T[4]
    # What is due later than now, by a clock that was wrong, is kept: it says that this has been run.
    store.change_schedule(NIGHTLY, settled=T[1])
    assert store.prune_runs("nightly", keep=1, token=token) == 0
    assert store.prune_runs("gone", keep=1, token=token) == 0


def test_runs_asked_for_at_once_have_numbers_of_their_own(store: ControlStore, open_again: OpenStore) -> None:
    for name in "abcd":
        store.add_schedule(replace(NIGHTLY, name=name), settled=T[0])
    numbers: list[int] = []

    def ask(name: str) -> None:
        mine = open_again()
        numbers.extend(mine.add_run(due(T[0], kind="manual", schedule=name)).id for _ in range(5))
        mine.close()

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 21))


def test_no_run_is_left_of_a_schedule_that_is_removed_in_that_moment(
    postgres: Postgres, tmp_path: Path
) -> None:
    """It would run when a schedule of the same name is made again. SQLite has one writer anyway."""
    store = open_control(
        tmp_path, RegistrySettings(database_url=postgres.new_database(), lock_timeout_seconds=60)
    )
    assert isinstance(store, control_sql.SqlControlStore)
    store.add_schedule(NIGHTLY, settled=T[0])
    engine = store._database._dialect.engine
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as removing:
            removing.execute(sa.delete(schedules))
            removing.execute(sa.delete(schedule_runs))
            asking = pool.submit(store.add_run, due(T[1], kind="manual"))
            until_one_waits(engine)
        with pytest.raises(ScheduleNotFound):
            asking.result()
    assert store.runs() == ()
    store.close()
