"""A function in a process of its own: what it answers, and that whatever happens to it happens to it alone."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.columns import Columns
from fairway.core.errors import EnvironmentFailed, ModelFailed, Overloaded, PayloadTooLarge, Unavailable
from fairway.runtimes.isolated import pool
from fairway.runtimes.isolated.engine import IsolatedEngine
from tests.unit.runtimes.isolated.programs import FAST, answers, eventually, one, running

IMPATIENT = msgspec.structs.replace(FAST, call_seconds=1.0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolatedEngine]:
    with running(tmp_path_factory.mktemp("model")) as engine:
        yield engine


def test_answers(engine: IsolatedEngine) -> None:
    assert engine.predict(one(50.0))["prediction"].tolist() == [100.0]


@pytest.mark.parametrize(
    ("act", "how"),
    [
        (1, "was killed by SIGSEGV(.|\n)*Segmentation fault"),
        (2, "ended with exit code 3"),
        (7, "was killed by SIGKILL; the system does so when memory runs out"),
        (8, "ended with exit code 4"),
        (9, "was killed by SIGABRT(.|\n)*last words"),
    ],
)
def test_a_death_fails_its_own_call_only(engine: IsolatedEngine, act: float, how: str) -> None:
    with pytest.raises(ModelFailed, match=f"legacy:1 {how}"):
        engine.predict(one(act))
    eventually(lambda: answers(engine))


def test_a_hang_is_ended(tmp_path: Path) -> None:
    with running(tmp_path, settings=IMPATIENT) as engine:
        with pytest.raises(ModelFailed, match="did not answer within 1 s and was killed"):
            engine.predict(one(3))
        eventually(lambda: answers(engine))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (4, "it raised ValueError: four is not allowed"),
        (6, "it raised SystemExit: said goodbye"),
        (20, r"gave 'prediction' of shape \[0\] for 1 rows"),
        (22, r"'prediction' holds \|S5"),
        (23, "'prediction' holds complex128"),
    ],
)
def test_a_wrong_answer_leaves_the_process_alive(engine: IsolatedEngine, act: float, message: str) -> None:
    eventually(lambda: answers(engine))
    with pytest.raises(ModelFailed, match=message):
        engine.predict(one(act))
    assert engine.predict(one(50.0))["prediction"].tolist() == [100.0]  # at once: nothing had to start


def test_garbage_without_end_on_its_output_disturbs_nothing(
    engine: IsolatedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    eventually(lambda: answers(engine))
    with caplog.at_level(logging.WARNING, "fairway.isolated"):
        assert engine.predict(one(5))["prediction"].tolist() == [10.0]
        eventually(lambda: bool(caplog.records))
    assert sum(len(record.getMessage()) for record in caplog.records) < 200_000


def test_a_process_that_closes_its_output_is_not_thought_dead(engine: IsolatedEngine) -> None:
    eventually(lambda: answers(engine))
    assert engine.predict(one(10))["prediction"].tolist() == [20.0]
    assert engine.predict(one(50.0))["prediction"].tolist() == [100.0]


def test_buffers_are_bounded_in_both_directions(tmp_path: Path) -> None:
    small = msgspec.structs.replace(FAST, buffer_bytes=1 << 20)
    with running(tmp_path, settings=small) as engine:
        with pytest.raises(PayloadTooLarge, match=r"may have 1,048,576\. Send fewer rows"):
            engine.predict(Columns(("a",), 1 << 18, packed=np.zeros((1 << 18, 1))))
        with pytest.raises(
            ModelFailed, match=r"its answer needs 8,388,\d+ bytes of shared memory and may have 1,048,576"
        ):
            engine.predict(one(21))
        rows = np.full((100_000, 1), 50.0)
        assert engine.predict(Columns(("a",), 100_000, packed=rows))["prediction"].sum() == 1e7


def test_memory_is_limited(tmp_path: Path) -> None:
    limited = msgspec.structs.replace(FAST, memory_bytes=4 << 30)
    with (
        running(tmp_path, settings=limited) as engine,
        pytest.raises(ModelFailed, match="it raised MemoryError"),
    ):
        engine.predict(one(25))


def test_a_process_that_dies_unasked_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, function="who") as engine:
        first = int(engine.predict(one(0))["pid"][0])
        os.kill(first, 9)

        def replaced() -> bool:
            try:
                return int(engine.predict(one(0))["pid"][0]) != first
            except (Unavailable, ModelFailed):
                return False

        eventually(replaced)


def test_one_that_dies_again_and_again_is_started_more_and_more_rarely(tmp_path: Path) -> None:
    with running(
        tmp_path, "import os\n" + "count = 0\n" + "def score(rows: dict):\n    os._exit(5)\n"
    ) as engine:
        told = ""
        for _ in range(4):
            while True:
                try:
                    engine.predict(one(0))
                except ModelFailed:
                    break
                except Unavailable as error:
                    told = str(error)
        assert "legacy:1 ended with exit code 5; the next one" in told


def test_calls_are_told_quickly_that_no_process_is_there(tmp_path: Path) -> None:
    slow = "import time, os\nif os.path.exists(__file__ + '.slow'): time.sleep(60)\ndef score(rows: dict):\n    os._exit(1)\n"
    with running(tmp_path, slow) as engine:
        (tmp_path / "predict.py.slow").touch()
        with pytest.raises(ModelFailed):
            engine.predict(one(0))
        with pytest.raises(Unavailable, match=r"ended with exit code 1; the next one.*Try again in a moment"):
            engine.predict(one(0))


def test_who_had_nothing_to_do_with_a_death_does_not_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pool, "_RESTART_SECONDS", 30.0
    )  # this machine may be slow; what is asked is that it waits
    with running(tmp_path) as engine:
        for _ in range(3):
            with pytest.raises(ModelFailed, match="exit code 3"):
                engine.predict(one(2))
            assert engine.predict(one(50.0))["prediction"].tolist() == [100.0]


def test_a_signal_to_all_processes_of_a_service_is_for_the_server(tmp_path: Path) -> None:
    with running(tmp_path, function="who") as engine:
        pid = int(engine.predict(one(1))["pid"][0])
        os.kill(pid, 15)
        assert int(engine.predict(one(1))["pid"][0]) == pid


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    waiting = "import time\ndef score(rows: dict):\n    time.sleep(1.0)\n    return rows['a']\n"
    with running(tmp_path, waiting, settings=msgspec.structs.replace(FAST, queue=1)) as engine:
        begun = threading.Barrier(4)

        def call(_: int) -> str:
            begun.wait()
            try:
                engine.predict(one(0))
            except Overloaded as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(4) as threads:
            told = sorted(threads.map(call, range(4)))
    assert told[:2] == ["", ""]
    assert all("1 calls wait for legacy:1 already" in text for text in told[2:])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import nothing_like_this",
            "cannot start: ModuleNotFoundError: No module named 'nothing_like_this'",
        ),
        ("def other(rows): pass", "has no function 'score'"),
        ("import os; os._exit(7)", "ended with exit code 7"),
        ("import os, sys; sys.stderr.write('why'); sys.stderr.flush(); os.abort()", "SIGABRT(.|\n)*why"),
    ],
)
def test_a_model_that_does_not_start_says_why(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(EnvironmentFailed, match=message), running(tmp_path, source):
        pass


def test_one_that_takes_too_long_to_start_is_ended(tmp_path: Path) -> None:
    hasty = msgspec.structs.replace(FAST, start_seconds=0.3)
    with (
        pytest.raises(EnvironmentFailed, match=r"was not ready within 0\.3 s"),
        running(tmp_path, "import time; time.sleep(60)", settings=hasty),
    ):
        pass


@pytest.mark.timeout(120)
def test_concurrent_calls_never_mix_their_answers(tmp_path: Path) -> None:
    """Law: whoever calls gets what the function says to his own rows, whoever else calls, and whatever dies."""
    several = msgspec.structs.replace(FAST, processes=2, queue=1000)
    with running(tmp_path, settings=several) as engine:
        sizes = st.lists(st.integers(1, 400), min_size=1, max_size=12)

        @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(sizes=sizes, deadly=st.sets(st.integers(0, 11), max_size=1))
        def law(sizes: list[int], deadly: set[int]) -> None:
            def call(position: int) -> bool:
                rows = 1000.0 * (position + 1) + np.arange(sizes[position], dtype=np.float64)
                if position in deadly:
                    rows[0] = 2.0
                try:
                    given = engine.predict(Columns(("a",), len(rows), packed=rows.reshape(-1, 1)))[
                        "prediction"
                    ]
                except (ModelFailed, Unavailable):
                    return True
                assert position not in deadly
                return given.tolist() == (rows * 2).tolist()

            with ThreadPoolExecutor(6) as threads:
                assert all(threads.map(call, range(len(sizes))))

        law()


def test_answers_do_not_change_when_the_next_call_uses_the_same_memory(engine: IsolatedEngine) -> None:
    eventually(lambda: answers(engine))
    first = engine.predict(one(50.0))["prediction"]
    engine.predict(one(60.0))
    assert first.tolist() == [100.0]


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # that forking with threads is risky is the point
def test_a_forked_process_gets_processes_of_its_own(tmp_path: Path) -> None:
    with running(tmp_path, function="who") as engine:
        ours = int(engine.predict(one(1))["pid"][0])
        read, write = os.pipe()
        forked = os.fork()
        if forked == 0:
            theirs = int(engine.predict(one(1))["pid"][0])
            os.write(write, str(theirs).encode())
            os._exit(0)
        assert os.waitpid(forked, 0)[1] == 0
        theirs = int(os.read(read, 100))
        os.close(read)
        os.close(write)
        assert theirs != ours
        assert int(engine.predict(one(1))["pid"][0]) == ours


def test_unloading_ends_the_processes(tmp_path: Path) -> None:
    with running(tmp_path, function="who") as engine:
        pid = int(engine.predict(one(1))["pid"][0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Unavailable, match="being unloaded"):
        engine.predict(one(1))
