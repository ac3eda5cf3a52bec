"""Memory of this process, and threads that step back."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from fairway.inference import memory
from fairway.inference.memory import give_back, resident_bytes, step_back

MB = 2**20


def test_memory_in_use_is_seen_to_grow_and_to_be_given_back() -> None:
    give_back()  # else what other tests left free is used first
    before = resident_bytes()
    assert before > MB
    held = [np.ones(1000) for _ in range(6000)]  # 48 MB in pieces that malloc keeps when they are freed
    grown = resident_bytes()
    assert grown - before > 30 * MB
    held.clear()
    give_back()
    assert grown - resident_bytes() > 20 * MB


class Circle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("collector")
def test_what_was_frozen_in_a_circle_is_found_when_it_is_missed() -> None:
    circle = Circle()
    gone = weakref.ref(circle)
    gc.freeze()
    del circle
    give_back()
    assert gone() is not None
    give_back([gone])
    assert gone() is None
    assert gc.get_freeze_count() > 0  # what stays is left out again


def test_only_the_thread_that_steps_back_does() -> None:
    priorities: list[int] = []

    def step() -> None:
        step_back(7)
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert priorities == [max(7, before)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_system_that_has_none_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.setattr(memory, "_STATM", memory.Path(tmp_path) / "nothing")
    assert resident_bytes() == 0
    monkeypatch.setattr(memory, "_glibc", lambda name, *takes: None)
    give_back()

    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    step_back(5)


def test_large_blocks_are_kept_for_the_next_call() -> None:
    """In a process of its own: the tests beside this one rely on glibc's own choices."""
    script = """
import numpy as np
from fairway.inference.memory import keep_freed
keep_freed()
def faults():
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(500_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500  # 4 MB are 1,000 pages each time otherwise
