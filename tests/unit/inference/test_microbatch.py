"""The queue of a slow model: bounded, merged as far as it pays, nobody's trouble anybody else's."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import DeadlineExceeded, FairwayError, ModelFailed, Overloaded
from fairway.inference.microbatch import MergingQueue, Waiting


class Most:
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def merge_rows(self) -> int:
        return self.rows

    def merged(self, requests: int) -> None:
        assert requests > 1


class Later:
    """Runs what it was given when it is told to."""

    def __init__(self) -> None:
        self.started: list[Callable[[], None]] = []

    def __call__(self, start: Callable[[], None]) -> None:
        self.started.append(start)

    def go(self) -> None:
        while self.started:
            self.started.pop(0)()


class Engine:
    """Doubles; a negative number is an error of the batch it is in."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, columns: Columns) -> Outputs:
        self.calls.append(columns.rows)
        assert columns.packed is not None
        if (columns.packed < 0).any():
            raise ModelFailed("negative")
        return {"y": columns.packed[:, 0] * 2}


def rows(*values: float) -> Columns:
    return Columns(("x",), len(values), packed=np.array(values, dtype=np.float64).reshape(-1, 1))


def queue(engine: Any, most: int = 100, *, limit: int = 100, submit: Any, **options: Any) -> MergingQueue:
    depth = options.pop("depth", lambda change: None)
    return MergingQueue(
        "m:1",
        engine,
        Most(most),
        limit=limit,
        runners=options.pop("runners", 1),
        submit=submit,
        count=depth,
        **options,
    )


def outcome(call: Waiting) -> list[float] | str:
    return call.outputs["y"].tolist() if call.outputs is not None else type(call.error).__name__


def test_what_waits_is_merged_and_each_gets_its_own() -> None:
    engine, later, told = Engine(), Later(), []
    calls = queue(engine, submit=later)
    for value in range(5):
        calls.put(Waiting(rows(value, value + 0.5), told.append))
    assert len(later.started) == 1  # one runner, however many wait
    later.go()
    assert engine.calls == [10]
    assert [outcome(call) for call in told] == [[2.0 * v, 2.0 * v + 1] for v in range(5)]
    assert all(0 < call.began <= call.ended for call in told)


@pytest.mark.parametrize(("most", "sizes"), [(1, [2, 2, 2]), (4, [4, 2]), (5, [4, 2]), (6, [6])])
def test_no_more_rows_than_pay_and_never_a_request_split(most: int, sizes: list[int]) -> None:
    engine, later = Engine(), Later()
    calls = queue(engine, most, submit=later)
    for value in range(3):
        calls.put(Waiting(rows(value, value), lambda call: None))
    later.go()
    assert engine.calls == sizes


def test_one_bad_request_is_its_own() -> None:
    engine, later, told = Engine(), Later(), []
    calls = queue(engine, submit=later)
    for value in (1.0, -1.0, 3.0):
        calls.put(Waiting(rows(value), told.append))
    later.go()
    assert [outcome(call) for call in told] == [[2.0], "ModelFailed", [6.0]]


def test_an_engine_that_raises_anything_fails_its_calls_and_the_queue_lives_on() -> None:
    failing = [True]

    def engine(columns: Columns) -> Outputs:
        if failing:
            raise MemoryError("out of it")
        return {"y": np.zeros(columns.rows)}

    later, told = Later(), []
    calls = queue(engine, submit=later)
    calls.put(Waiting(rows(1.0), told.append))
    later.go()
    failing.clear()
    calls.put(Waiting(rows(1.0), told.append))
    later.go()
    assert [outcome(call) for call in told] == ["ModelFailed", [0.0]]


def test_a_full_queue_refuses_and_counts_right() -> None:
    depth: list[int] = []
    later, told = Later(), []
    calls = queue(Engine(), limit=2, submit=later, depth=depth.append)
    calls.put(Waiting(rows(1.0), told.append))
    calls.put(Waiting(rows(2.0), told.append))
    with pytest.raises(Overloaded, match=r"2 requests wait for m:1 \(serving.queue\)"):
        calls.put(Waiting(rows(3.0), told.append))
    assert sum(depth) == len(calls) == 2
    later.go()
    assert sum(depth) == len(calls) == 0
    assert len(told) == 2


def test_the_late_are_shed_first_and_not_run() -> None:
    now = [0.0]
    engine, later, told = Engine(), Later(), []
    calls = queue(engine, limit=2, submit=later, clock=lambda: now[0])
    calls.put(Waiting(rows(1.0), told.append, deadline=1.0))
    calls.put(Waiting(rows(2.0), told.append, deadline=5.0))
    now[0] = 2.0
    calls.put(Waiting(rows(3.0), told.append))  # there is room: the first one's time is up
    assert [outcome(call) for call in told] == ["DeadlineExceeded"]
    now[0] = 6.0
    later.go()
    assert [outcome(call) for call in told] == ["DeadlineExceeded", "DeadlineExceeded", [6.0]]
    assert engine.calls == [1]


def test_a_cancelled_call_is_not_run_nor_told() -> None:
    engine, later, told = Engine(), Later(), []
    calls = queue(engine, submit=later)
    waiting = [Waiting(rows(float(i)), told.append) for i in range(3)]
    for call in waiting:
        calls.put(call)
    waiting[1].cancel()
    later.go()
    assert engine.calls == [2]
    assert [outcome(call) for call in told] == [[0.0], [4.0]]


def test_a_caller_that_cannot_be_told_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    later, told = Later(), []

    def gone(call: Waiting) -> None:
        raise RuntimeError("the loop is closed")

    calls = queue(Engine(), submit=later)
    calls.put(Waiting(rows(1.0), gone))
    calls.put(Waiting(rows(2.0), told.append))
    later.go()
    assert [outcome(call) for call in told] == [[4.0]]
    assert "could not be told" in caplog.text


REQUEST = st.tuples(
    st.integers(1, 4),  # rows
    st.sampled_from(["plain", "plain", "plain", "bad", "late", "cancelled"]),
)


@settings(deadline=None)
@given(st.lists(REQUEST, max_size=30), st.integers(1, 12), st.integers(1, 3))
def test_law_any_mix_gets_its_unbatched_answers(
    requests: list[tuple[int, str]], most: int, runners: int
) -> None:
    """Sizes, failures, deadlines and cancellations in any mix, on real threads."""
    told: dict[int, list[Any]] = {i: [] for i in range(len(requests))}
    with ThreadPoolExecutor(runners) as pool:
        calls = queue(Engine(), most, submit=pool.submit, runners=runners)
        for i, (count, kind) in enumerate(requests):
            values = [-1.0 if kind == "bad" else 10.0 * i + row for row in range(count)]
            deadline = time.perf_counter() - 1 if kind == "late" else None
            waiting = Waiting(rows(*values), lambda call, i=i: told[i].append(outcome(call)), deadline)
            if kind == "cancelled":
                waiting.cancel()
            calls.put(waiting)
    for i, (count, kind) in enumerate(requests):
        expected: Any = [[2 * (10.0 * i + row) for row in range(count)]]
        if kind != "plain":
            expected = {"bad": ["ModelFailed"], "late": ["DeadlineExceeded"], "cancelled": []}[kind]
        assert told[i] == expected


def test_nothing_is_left_waiting_when_many_put_at_once() -> None:
    over = threading.Semaphore(0)
    with ThreadPoolExecutor(2) as pool:
        calls = queue(Engine(), 8, limit=10_000, submit=pool.submit, runners=2)

        def put() -> None:
            for i in range(300):
                calls.put(Waiting(rows(float(i)), lambda call: over.release()))

        threads = [threading.Thread(target=put) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(1200):
            assert over.acquire(timeout=20)
    assert issubclass(DeadlineExceeded, FairwayError)
