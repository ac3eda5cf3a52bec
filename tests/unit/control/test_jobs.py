"""Jobs and the threads that do them."""

import logging
import threading
from dataclasses import dataclass, field

import pytest

from fairway.control.jobs import JobRunner, PeriodicJob, Turn
from fairway.control.leadership import Leadership
from fairway.core.errors import LeaseLost, StorageFull
from fairway.stores.control_memory import MemoryControlStore

WAIT = 20.0


@dataclass
class Job(PeriodicJob):
    """Counts what is done to it; `then` is raised by its turns, one after the other."""

    name: str = "job"
    interval_seconds: float = 0.005
    leader_only: bool = True
    then: list[Exception | None] = field(default_factory=list)
    turns: int = 0
    tokens: list[int] = field(default_factory=list)
    lost: threading.Event = field(default_factory=threading.Event)
    closed: list[bool] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)

    def run(self, turn: Turn) -> None:
        self.turns += 1
        if self.leader_only:
            self.tokens.append(turn.token)
        if self.turns > len(self.then) + 2:
            self.enough.set()
        error = self.then[self.turns - 1] if self.turns <= len(self.then) else None
        if error is not None:
            raise error

    def lose(self) -> None:
        self.lost.set()

    def close(self, turn: Turn) -> None:
        self.closed.append(turn.is_over)


def leader(seconds: float = 300.0) -> Leadership:
    leadership = Leadership(MemoryControlStore(), "a", lease_seconds=seconds)
    leadership.step()
    return leadership


def test_a_job_is_done_again_and_again_until_the_end() -> None:
    job = Job()
    runner = JobRunner(leader(), (job,))
    runner.start()
    assert job.enough.wait(WAIT)
    runner.stop(WAIT)
    assert runner.ended.is_set()
    assert set(job.tokens) == {1}
    assert job.closed == [True]
    [state] = runner.states
    assert (state.name, state.turns, state.error) == ("job", job.turns, "")
    assert state.last_ended


def test_only_the_leader_does_what_only_a_leader_may() -> None:
    leadership = Leadership(MemoryControlStore(), "b", lease_seconds=300.0)
    leaders, everybodys = Job(), Job(name="other", leader_only=False)
    runner = JobRunner(leadership, (leaders, everybodys))
    runner.start()
    assert everybodys.enough.wait(WAIT)
    assert leaders.turns == 0
    leadership.step()
    assert leaders.enough.wait(WAIT)
    leadership.give_up()
    assert leaders.lost.wait(WAIT)
    runner.stop(WAIT)


def test_what_a_turn_raises_is_told_once_and_the_next_turn_comes(caplog: pytest.LogCaptureFixture) -> None:
    full = StorageFull("No room.")
    job = Job(then=[full, full, ValueError("a mistake"), LeaseLost("lost")])
    with caplog.at_level(logging.WARNING):
        runner = JobRunner(leader(), (job,))
        runner.start()
        assert job.enough.wait(WAIT)
        runner.stop(WAIT)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["job: No room.", "job failed", "job works again"]
    assert job.lost.is_set()
    assert runner.states[0].error == ""


def test_a_long_job_can_ask_whether_its_turn_is_over() -> None:
    begun, over = threading.Event(), threading.Event()

    class Long(Job):
        def run(self, turn: Turn) -> None:
            begun.set()
            while not turn.is_over:
                over.wait(0.001)
            over.set()

    runner = JobRunner(leader(), (Long(),))
    runner.start()
    assert begun.wait(WAIT)
    runner.stop(WAIT)
    assert over.is_set()
