"""Limits of keys over threads, workers and their deaths."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.errors import RateLimited
from fairway.security.access import ANYBODY, Access, Caller
from fairway.security.keys import new_key
from fairway.stores import limits as module
from fairway.stores.limits import Limits


def caller(name: str = "app", **limits: float) -> Caller:
    key, secret = new_key(name, scopes=("infer",), now=datetime.now(UTC), **limits)  # type: ignore[arg-type]
    return Access([key]).check(secret.encode(), "infer", None, 0.0)


@pytest.fixture(params=["alone", "shared"])
def limits(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Limits]:
    made = Limits(tmp_path / "limits" if request.param == "shared" else None)
    yield made
    made.close()


def test_who_has_no_limits_is_not_counted(limits: Limits) -> None:
    free = caller()
    for each in (ANYBODY, free):
        for _ in range(3):
            limits.enter(each, 1.0)
        limits.leave(each)
        assert limits.in_flight(each) == 0


def test_a_rate_lets_a_burst_pass_and_says_how_long_to_wait(limits: Limits) -> None:
    app = caller(rate=10, burst=3)
    for _ in range(3):
        limits.enter(app, 100.0)
    with pytest.raises(
        RateLimited, match=r"'app' may make 10 requests per second \(burst 3\).*0.1 s"
    ) as told:
        limits.enter(app, 100.0)
    assert told.value.retry_after == pytest.approx(0.1)
    limits.enter(app, 100.0 + told.value.retry_after)
    assert limits.in_flight(app) == 4


def test_concurrency_is_what_is_in_flight(limits: Limits) -> None:
    app, other = caller(concurrency=2), caller("other", concurrency=1)
    limits.enter(app, 1.0)
    limits.enter(app, 1.0)
    with pytest.raises(RateLimited, match="may have 2 requests in flight"):
        limits.enter(app, 1.0)
    limits.enter(other, 1.0)
    limits.leave(app)
    limits.enter(app, 1.0)
    assert (limits.in_flight(app), limits.in_flight(other)) == (2, 1)


def test_a_refused_request_counts_nothing(limits: Limits) -> None:
    both = caller(rate=1, burst=2, concurrency=1)
    limits.enter(both, 1.0)
    for _ in range(5):  # would use up the burst if they counted
        with pytest.raises(RateLimited, match="in flight"):
            limits.enter(both, 1.0)
    limits.leave(both)
    limits.enter(both, 1.0)
    limits.leave(both)
    for _ in range(5):  # would be in flight if they counted
        with pytest.raises(RateLimited, match="per second"):
            limits.enter(both, 1.0)
    assert limits.in_flight(both) == 0


def test_workers_count_together(tmp_path: Path) -> None:
    workers = [Limits(tmp_path) for _ in range(3)]
    app = caller(rate=1, burst=4, concurrency=3)
    for worker in workers:
        worker.enter(app, 5.0)
    assert [worker.in_flight(app) for worker in workers] == [3, 3, 3]
    for worker in workers:
        with pytest.raises(RateLimited, match="in flight"):
            worker.enter(app, 5.0)
    workers[0].leave(app)
    workers[2].enter(app, 5.0)
    workers[1].leave(app)
    with pytest.raises(RateLimited, match="per second"):
        workers[0].enter(app, 5.0)
    for worker in workers:
        worker.close()


def test_what_a_closed_worker_had_in_flight_no_longer_counts(tmp_path: Path) -> None:
    first, second = Limits(tmp_path), Limits(tmp_path)
    app = caller(concurrency=1)
    first.enter(app, 1.0)
    first.close()
    first.close()
    first.leave(app)  # its request ends after all
    second.enter(app, 1.0)
    second.leave(app)
    assert second.in_flight(app) == 0
    second.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from fairway.security.access import Caller
from fairway.stores.limits import Limits
limits = Limits(Path(sys.argv[1]))
for identity in sys.argv[2:]:
    for _ in range(2):
        limits.enter(Caller(name="app", id=identity, concurrency=2, limited=True), 1.0)
print("in", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_had_in_flight_is_forgotten(tmp_path: Path) -> None:
    mine = Limits(tmp_path)
    app, other = caller(concurrency=2), caller("other", concurrency=2)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), app.id, other.id], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (-9, b"in\n")
    assert mine.in_flight(app) == 2
    mine.enter(app, 1.0)  # noticed when somebody would be refused
    assert mine.in_flight(app) == 1
    assert mine.in_flight(other) == 2
    successor = Limits(tmp_path)  # and when another worker takes the place of the dead
    assert (mine.in_flight(app), mine.in_flight(other)) == (1, 0)
    successor.close()
    mine.close()


def test_living_workers_are_not_swept(tmp_path: Path) -> None:
    first, second = Limits(tmp_path), Limits(tmp_path)
    app = caller(concurrency=1)
    first.enter(app, 1.0)
    for moment in (1.0, 2.0, 3.0):
        with pytest.raises(RateLimited):
            second.enter(app, moment)
    assert first.in_flight(app) == 1
    first.close()
    second.close()


def test_a_folder_that_somebody_tidied_locks_nobody_out_and_lets_nobody_in(tmp_path: Path) -> None:
    first, second = Limits(tmp_path), Limits(tmp_path)
    app = caller(concurrency=1)
    first.enter(app, 1.0)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(RateLimited):
        second.enter(app, 1.0)
    first.leave(app)
    second.enter(app, 2.0)
    assert first.in_flight(app) == 1
    first.close()
    second.close()


def test_threads_lose_nothing(limits: Limits) -> None:
    app = caller(concurrency=1000)

    def work() -> None:
        for _ in range(500):
            limits.enter(app, 1.0)
            limits.leave(app)
        limits.enter(app, 1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limits.in_flight(app) == 4


COUNTED = """
import sys
from pathlib import Path
from fairway.core.errors import RateLimited
from fairway.security.access import Caller
from fairway.stores.limits import Limits
limits = Limits(Path(sys.argv[1]))
app = Caller(name="app", id="0" * 12, rate=1.0, burst=100, concurrency=1000, limited=True)
passed = 0
for _ in range(200):
    try:
        limits.enter(app, 50.0)
        passed += 1
    except RateLimited:
        pass
    else:
        limits.leave(app)
print(passed)
"""


def test_processes_share_one_burst_exactly(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", COUNTED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    passed = [int(process.communicate()[0]) for process in processes]
    assert sum(passed) == 100


def test_rows_of_keys_that_limit_nobody_any_more_are_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    first, second = Limits(tmp_path), Limits(tmp_path)
    busy, slow, new = caller(concurrency=1), caller("slow", rate=0.1, burst=1), caller("new", concurrency=1)
    second.enter(busy, 1.0)
    first.enter(slow, 1.0)
    first.leave(slow)
    with pytest.raises(RateLimited, match="2 keys with limits"):
        first.enter(new, 5.0)
    first.enter(new, 12.0)  # slow's rate has recovered
    first.leave(new)
    second.leave(busy)
    first.enter(slow, 13.0)  # the row changed hands, and a worker that knew it looks again
    second.enter(busy, 14.0)
    assert (first.in_flight(slow), first.in_flight(busy)) == (1, 1)
    first.close()
    second.close()


steps = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 2), st.sampled_from(["enter", "leave", "die"]), st.floats(0, 1)
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=40, deadline=None)
def test_in_flight_is_always_what_was_entered_and_not_left(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, str, float]]
) -> None:
    """Any workers, any keys, any order, any deaths: never above the limit, and never below what is in flight."""
    directory = tmp_path_factory.mktemp("limits")
    workers = [Limits(directory) for _ in range(3)]
    callers = [caller(f"k{number}", concurrency=number + 1) for number in range(3)]
    held = [[0, 0, 0] for _ in workers]
    now = 0.0
    for worker, key, step, gap in steps:
        now += gap + 0.06  # past the pause between two sweeps
        app = callers[key]
        if step == "enter":
            try:
                workers[worker].enter(app, now)
                held[worker][key] += 1
            except RateLimited:
                assert sum(each[key] for each in held) == app.concurrency
        elif step == "leave" and held[worker][key]:
            workers[worker].leave(app)
            held[worker][key] -= 1
        elif step == "die":
            workers[worker].close()
            workers[worker] = Limits(directory)
            held[worker] = [0, 0, 0]
        for number, app in enumerate(callers):
            assert workers[0].in_flight(app) == sum(each[number] for each in held) <= app.concurrency
    for limits in workers:
        limits.close()
