"""Reading, scoring and writing at the same time: in order, bounded, and ended cleanly."""

import dataclasses
import threading
from collections.abc import Generator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from fairway.batch.engine import in_order, result_of, scorers, threads_scale
from fairway.batch.local import wants_processes
from fairway.batch.score import Calls
from fairway.core.bundle import GoldenRows
from fairway.core.errors import ModelFailed
from tests.planes import live_version


def numbers(count: int, read: list[int], error: Exception | None = None) -> Generator[int]:
    for i in range(1, count + 1):
        read.append(i)
        yield i
    if error is not None:
        raise error


def twice(number: int) -> Any:
    return 2 * number


def test_results_come_in_the_order_of_the_items() -> None:
    with ThreadPoolExecutor(3) as pool:
        found = [(i, call.result()) for i, call in in_order(pool, numbers(50, []), twice, ahead=4)]
    assert found == [(i, 2 * i) for i in range(1, 51)]


def test_reading_waits_for_who_takes_the_results() -> None:
    read: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        for i, _ in in_order(pool, numbers(50, read), twice, ahead=3):
            assert len(read) <= i + 3


def test_what_reading_raises_comes_after_what_was_read() -> None:
    found: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        taken = (i for i, _ in in_order(pool, numbers(5, [], KeyError("read")), twice, ahead=2))
        with pytest.raises(KeyError, match="read"):
            found.extend(taken)
    assert found == [1, 2, 3, 4, 5]


def test_who_stops_taking_ends_the_reading() -> None:
    closed = threading.Event()

    def endless() -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with ThreadPoolExecutor(2) as pool:
        waiting = in_order(pool, endless(), twice, ahead=2)
        next(waiting)
        waiting.close()
    assert closed.is_set()
    assert not any(thread.name == "batch-reader" for thread in threading.enumerate())


def test_an_input_that_cannot_be_closed_keeps_nobody_waiting() -> None:
    def stubborn() -> Generator[int]:
        try:
            yield 1
        finally:
            raise OSError("cannot be closed")

    with ThreadPoolExecutor(1) as pool:
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            list(in_order(pool, stubborn(), twice, ahead=2))


def test_a_process_of_scorers_begins_and_scores() -> None:
    with scorers(1, processes=True, begin=twice, arguments=(2,)) as pool:
        assert pool.submit(twice, 4).result() == 8


def test_a_process_that_died_is_the_models_failure() -> None:
    call: Future[Any] = Future()
    call.set_exception(BrokenExecutor("gone"))
    with pytest.raises(ModelFailed, match="process"):
        result_of(call)


@pytest.mark.parametrize(
    ("one", "both", "scale"), [(1.0, 1.0, True), (1.0, 1.4, True), (1.0, 1.5, False), (1.0, 2.0, False)]
)
def test_threads_are_worth_it_when_two_do_clearly_more_than_one(one: float, both: float, scale: bool) -> None:
    disturbed = [0.0, one, 0.0, 9.0]  # the cores were somebody else's
    moments = iter(
        [0.0, 0.6, one + 5, 0.0, both, *disturbed, *disturbed]
    )  # begin, after a call, end; both together
    assert threads_scale(lambda: None, seconds=0.5, clock=lambda: next(moments)) is scale


def test_processes_are_for_long_runs_of_models_that_hold_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.batch.local.threads_scale", lambda call: False)
    live = live_version(1)
    spec = msgspec.structs.replace(live.bundle.spec, kind="native:python")
    manifest = msgspec.structs.replace(live.bundle.manifest, engine=spec)
    golden = GoldenRows(inputs={"a": [1.0, 2.0], "b": [3.0, 4.0]}, outputs={})
    live.bundle = dataclasses.replace(live.bundle, manifest=manifest, golden=golden)
    calls = Calls(100, 0.001)
    assert wants_processes(live, calls, 2, 0)
    assert not wants_processes(live, calls, 1, 0)
    assert not wants_processes(live, calls, 2, 1000)  # some rows: done before a process has started
