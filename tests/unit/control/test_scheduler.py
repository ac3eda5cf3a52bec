"""The job that runs schedules, with a clock moved by hand and processes that only say what they are told to say."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.control.planning import Outcome
from fairway.control.process import Said
from fairway.control.scheduler import Scheduler
from fairway.core.clock import utc_text
from fairway.core.errors import LeaseLost, RegistryUnavailable
from fairway.core.schedule import BatchWork, Schedule, ScheduleRun
from fairway.stores.control import ControlStore
from fairway.stores.control_memory import MemoryControlStore

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOURLY = Schedule(
    name="hourly", cron="0 * * * *", work=BatchWork(model="churn", input="in", output="out"), retries=1
)


@dataclass
class Process:
    schedule: Schedule
    run: ScheduleRun
    held_until: float
    outcome: Outcome | None = None
    said: list[Said] = field(default_factory=list)
    killed: bool = False
    stopped: bool = False
    on_stop: Outcome | None = None

    def poll(self) -> list[Said]:
        said, self.said = self.said, []
        return said

    def beat(self, held_until: float) -> None:
        self.held_until = held_until

    def stop(self) -> None:
        self.stopped = True
        self.outcome = self.outcome or self.on_stop

    def kill(self) -> None:
        self.killed = True


@dataclass
class Turn:
    """A turn of a process that leads until it is told otherwise."""

    store: ControlStore
    held: int = 0
    held_until: float = 7.0
    is_over: bool = False

    def take(self) -> None:
        self.held = self.store.take_lease("a", seconds=5.0, seen=self.store.lease()).token

    @property
    def token(self) -> int:
        if not self.held:
            raise LeaseLost("lost")
        return self.held


class Stage:
    """A scheduler, its store and its processes."""

    def __init__(self, *schedules: Schedule, processes: int = 2, keep: int = 1000) -> None:
        self.now = START
        self.store = MemoryControlStore()
        self.started: list[Process] = []
        for schedule in schedules:
            self.store.add_schedule(schedule, settled=utc_text(START))
        self.turn = Turn(self.store)
        self.turn.take()
        self.keep, self.most = keep, processes
        self.scheduler = self.fresh()

    def fresh(self) -> Scheduler:
        return Scheduler(
            self.store, self.launch, processes=self.most, keep_runs=self.keep, stop_seconds=0.0, now=lambda: self.now
        )  # fmt: skip

    def launch(self, schedule: Schedule, run: ScheduleRun, held_until: float) -> Process:
        self.started.append(Process(schedule, run, held_until))
        return self.started[-1]

    def tick(self, **passes: float) -> None:
        self.now += timedelta(**passes)
        self.scheduler.run(self.turn)  # type: ignore[arg-type]

    def states(self) -> list[str]:
        return [run.state for run in self.store.runs()]


def test_a_run_begins_when_it_is_due_and_its_end_is_written_down() -> None:
    stage = Stage(HOURLY)
    stage.tick(minutes=59)
    assert stage.started == []
    stage.tick(minutes=1)
    [process] = stage.started
    assert (process.run.due, process.run.attempt, process.held_until) == (
        "2026-05-01T13:00:00.000000Z",
        1,
        7.0,
    )
    process.said = [Said(event="begun", batch_run="churn-1"), Said(event="progress", rows=10, rejected=1)]
    stage.tick(seconds=1)
    [run] = stage.store.runs()
    assert (run.state, run.batch_run, run.rows, run.rejected) == ("running", "churn-1", 10, 1)
    process.outcome = Outcome(state="succeeded", rows=20, rejected=2)
    stage.tick(seconds=1)
    [run] = stage.store.runs()
    assert (run.state, run.batch_run, run.rows, run.rejected) == ("succeeded", "churn-1", 20, 2)
    stage.tick(seconds=1)
    assert len(stage.started) == 1


def test_one_that_fails_is_tried_again_with_the_batch_run_it_had() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    stage.started[0].outcome = Outcome(state="failed", reason="away", batch_run="churn-1")
    stage.tick(seconds=1)
    assert stage.states() == ["waiting"]
    stage.tick(seconds=59)
    assert len(stage.started) == 1
    stage.tick(seconds=1)
    assert (stage.started[1].run.attempt, stage.started[1].run.batch_run) == (2, "churn-1")
    stage.started[1].outcome = Outcome(state="failed", reason="away")
    stage.tick(seconds=1)
    assert stage.states() == ["failed"]


def test_what_another_leader_left_running_is_gone_on_with() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    stage.scheduler, stage.turn = stage.fresh(), Turn(stage.store)  # the leader was killed: here is the next
    stage.turn.take()
    stage.tick(seconds=1)
    [run] = stage.store.runs()
    assert (run.state, run.attempt, run.interruptions) == ("running", 2, 1)
    assert len(stage.started) == 2


def test_a_leader_that_lost_its_lease_writes_nothing_and_kills_what_it_runs() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    before = stage.store.runs()
    Turn(stage.store).take()  # another takes it
    stage.started[0].outcome = Outcome(state="succeeded")
    with pytest.raises(LeaseLost):
        stage.tick(seconds=1)
    assert stage.store.runs() == before
    stage.scheduler.lose()
    assert stage.started[0].killed


def test_one_that_led_before_and_leads_again_begins_anew() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    stage.turn.take()
    stage.tick(seconds=1)
    assert stage.started[0].killed
    assert stage.started[1].run.interruptions == 1


def test_an_end_that_cannot_be_written_is_written_later() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    stage.started[0].outcome = Outcome(state="succeeded")
    update = stage.store.update_run
    stage.store.update_run = lambda run, token: (_ for _ in ()).throw(RegistryUnavailable("away"))  # type: ignore[method-assign,misc]
    with pytest.raises(RegistryUnavailable):
        stage.tick(seconds=1)
    stage.store.update_run = update  # type: ignore[method-assign]
    stage.tick(seconds=1)
    assert stage.states() == ["succeeded"]


def test_a_run_whose_schedule_is_removed_is_ended() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    stage.store.remove_schedule("hourly")
    stage.tick(seconds=1)
    assert stage.started[0].killed
    stage.store.add_schedule(HOURLY, settled=utc_text(stage.now))
    stage.tick(hours=1)
    assert len(stage.started) == 2


def test_when_it_stops_its_processes_end_where_they_can_go_on() -> None:
    stage = Stage(HOURLY, msgspec.structs.replace(HOURLY, name="other"))
    stage.scheduler = Scheduler(stage.store, stage.launch, stop_seconds=1.0, now=lambda: stage.now)
    stage.tick(hours=1)
    for process in stage.started:
        process.on_stop = Outcome(state="interrupted", reason="stopped")
    stage.scheduler.close(stage.turn)  # type: ignore[arg-type]
    assert all(process.stopped for process in stage.started)
    assert [(run.state, run.interruptions, run.reason) for run in stage.store.runs()] == [
        ("waiting", 1, "stopped")
    ] * 2


def test_one_that_does_not_stop_in_time_is_killed() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    stage.scheduler.close(stage.turn)  # type: ignore[arg-type]
    assert stage.started[0].killed
    assert stage.states() == ["waiting"]


def test_processes_are_told_until_when_this_one_leads() -> None:
    stage = Stage(HOURLY)
    stage.tick(hours=1)
    stage.scheduler.beat(99.0)
    assert stage.started[0].held_until == 99.0


def test_a_process_that_cannot_be_started_is_a_failure_like_any_other() -> None:
    stage = Stage(HOURLY)

    def none(schedule: Schedule, run: ScheduleRun, held_until: float) -> Process:
        raise OSError("no more processes")

    stage.scheduler = Scheduler(stage.store, none, now=lambda: stage.now)
    stage.tick(hours=1)
    [run] = stage.store.runs()
    assert (run.state, run.attempt) == ("waiting", 1)
    assert "no more processes" in run.reason


def test_a_schedule_that_cannot_be_read_does_not_keep_the_others_from_running() -> None:
    broken = msgspec.structs.replace(HOURLY, name="broken", time_zone="Mars/Olympus")
    stage = Stage(broken, HOURLY)
    stage.tick(hours=1)
    assert [process.schedule.name for process in stage.started] == ["hourly"]


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("passes"), st.integers(1, 7200)),
        st.tuples(st.just("clock jumps"), st.integers(-40, 40).map(lambda hours: hours * 1800)),
        st.tuples(st.sampled_from(["pause", "resume", "next leader", "forget"]), st.just(0)),
        st.tuples(st.sampled_from(["succeed", "fail"]), st.just(0)),
    ),
    max_size=50,
)


@settings(max_examples=150, deadline=None)
@given(ACTS, st.booleans())
def test_whatever_happens_a_due_time_is_run_at_most_once_and_missed_ones_are_caught_up_once(
    acts: list[tuple[str, int]], overlap: bool
) -> None:
    """Law, over passing time, clocks that jump, pauses, new leaders, failures and a history that is pruned: no due time
    has two runs; without leave to, no two runs are active at once; when all is quiet, nothing that was due is left."""
    schedule = msgspec.structs.replace(
        HOURLY, allow_overlap=overlap, work=BatchWork(model="m", input="i", output="{utc}")
    )
    stage = Stage(schedule, processes=50, keep=3)
    dues: dict[str, set[int]] = {}
    for act, amount in [
        *acts,
        ("resume", 0),
        ("succeed", 0),
        ("passes", 3700),
        ("succeed", 0),
        ("passes", 1),
    ]:
        if act in ("passes", "clock jumps"):
            stage.now += timedelta(seconds=amount)
        elif act == "pause":
            stage.store.pause_schedule("hourly")
        elif act == "resume":
            stage.store.resume_schedule("hourly", settled=utc_text(stage.now))
        elif act == "next leader":
            stage.scheduler, stage.started = stage.fresh(), []
            stage.turn.take()
        elif act == "forget":
            stage.store.prune_runs("hourly", keep=stage.keep, token=stage.turn.token)
        else:
            for process in stage.started:
                process.outcome = process.outcome or Outcome(
                    state="succeeded" if act == "succeed" else "failed"
                )
        stage.tick()
        runs = stage.store.runs(limit=1000)
        for run in runs:
            dues.setdefault(run.due, set()).add(run.id)
        assert max(Counter(run.due for run in runs).values(), default=0) <= 1
        if not overlap:
            assert sum(run.is_active for run in runs) <= 1
    assert all(len(ids) == 1 for ids in dues.values())
    state = stage.store.schedule("hourly")
    active = [run for run in stage.store.runs(limit=1000) if run.is_active]
    if not active:
        assert stage.now - datetime.fromisoformat(state.settled) <= timedelta(hours=1)
