"""Processes that work, as real ones: small programs that speak as `fairway.app.scheduled` does."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairway.app import scheduled
from fairway.control.leadership import machine_clock
from fairway.control.planning import Outcome
from fairway.control.process import Order, Said, Subprocess
from fairway.core.schedule import BatchWork, Schedule, ScheduleRun
from tests.e2e.servers import alive, until

SCHEDULE = Schedule(name="s", cron="@daily", work=BatchWork(model="m", input="i", output="o"))
RUN = ScheduleRun(schedule="s", model="m", due="2026-01-01T00:00:00.000000Z", kind="due", state="running", created="", next_attempt="", id=3)  # fmt: skip
HEAD = """
import os, sys, time, subprocess, signal
from fairway.app.scheduled import read_order, watch
import threading
report = int(os.environ["FAIRWAY_REPORT_FD"])
say = lambda text: os.write(report, text + b"\\n")
order = read_order()
"""

Start = Callable[..., Subprocess]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Subprocess] = []

    def begin(program: str, held: float = 60.0) -> Subprocess:
        order = Order(home="", schedule=SCHEDULE, run=RUN, held_until=machine_clock() + held)
        started.append(Subprocess([sys.executable, "-c", HEAD + program], order))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def ended(process: Subprocess) -> tuple[list[Said], Outcome]:
    said: list[Said] = []

    def over() -> bool:
        said.extend(process.poll())
        return process.outcome is not None

    until(over, 60)
    assert process.outcome is not None
    return said, process.outcome


def test_it_gets_its_order_and_what_it_says_is_heard(start: Start) -> None:
    process = start(
        'say(b\'{"event":"begun","batch_run":"\' + str(order.run.id).encode() + b\'"}\')\n'
        'print("to the log")\n'
        'say(b\'{"event":"end","outcome":{"state":"succeeded","rows":5}}\')'
    )
    said, outcome = ended(process)
    assert [(each.event, each.batch_run) for each in said] == [("begun", "3"), ("end", "")]
    assert outcome == Outcome(state="succeeded", rows=5)
    assert process.poll() == []
    process.kill()  # nothing is left to kill


@pytest.mark.parametrize(
    ("program", "says"),
    [("sys.exit(3)", "exit code 3"), ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL")],
)
def test_one_that_ends_without_a_word_has_failed(start: Start, program: str, says: str) -> None:
    _, outcome = ended(start(program))
    assert (outcome.state, outcome.retry) == ("failed", True)
    assert says in outcome.reason


def test_one_that_is_asked_to_stop_was_interrupted(start: Start) -> None:
    process = start("time.sleep(60)")
    process.stop()
    assert ended(process)[1].state == "interrupted"


def test_what_it_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    child = tmp_path / "child"
    process = start(
        f"p = subprocess.Popen(['sleep', '60']); open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    until(lambda: child.exists() and child.read_text() != "", 60)
    process.kill()
    until(lambda: not alive(int(child.read_text())))


def test_it_ends_itself_when_its_control_process_leads_no_more(start: Start) -> None:
    process = start("watch(order.held_until)", held=0.5)
    assert "SIGKILL" in ended(process)[1].reason


def test_it_goes_on_while_it_is_told_that_its_control_process_leads(start: Start) -> None:
    process = start(
        "threading.Thread(target=watch, args=(order.held_until,), daemon=True).start()\n"
        'say(b\'{"event":"begun"}\'); time.sleep(2); say(b\'{"event":"end","outcome":{"state":"succeeded"}}\')',
        held=-5.0,  # over before it has even read its order: what comes after counts
    )
    process.beat(machine_clock() + 60)
    assert ended(process)[1].state == "succeeded"


def test_it_ends_itself_when_its_control_process_is_gone(start: Start) -> None:
    process = start("watch(order.held_until)")
    assert process._process.stdin is not None
    process._process.stdin.close()
    until(lambda: process._process.poll() is not None, 60)
    assert process._process.returncode == -signal.SIGKILL


def test_a_beat_to_one_that_has_ended_or_does_not_listen_costs_nothing(start: Start) -> None:
    deaf = start("time.sleep(60)")
    for _ in range(20_000):  # more than any pipe holds
        deaf.beat(1.0)
    gone = start("pass")
    ended(gone)
    gone.beat(1.0)


def test_the_module_that_is_started_is_there() -> None:
    assert callable(scheduled.main)


def test_a_process_that_cannot_be_started_leaves_no_file_open() -> None:
    order = Order(home="", schedule=SCHEDULE, run=RUN, held_until=machine_clock() + 60)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            Subprocess(["/no/such/program"], order)
    assert len(os.listdir("/proc/self/fd")) == len(before)
