"""Counters that add up over processes, living and dead."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fairway.stores import counters as module
from fairway.stores.counters import Counters, read_totals

REQUESTS = ("requests_total", (("model", "m"),))
OVERFLOW = "fairway_counters_overflow_total"


def test_a_counter_has_one_slot_and_adds_up() -> None:
    counters = Counters()
    slot = counters.slot(*REQUESTS)
    assert counters.slot(*REQUESTS) == slot
    counters.add(slot)
    counters.add(slot, 2.5)
    assert counters.totals()[REQUESTS] == 3.5


def test_threads_lose_nothing() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(5000):
            counters.add(counters.slot(*REQUESTS))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.totals()[REQUESTS] == 20_000


def test_what_processes_count_is_added_up_and_outlives_them(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fairway.stores.counters import Counters\n"
        "c = Counters(Path(sys.argv[1])); c.add(c.slot('requests_total', (('model', 'm'),)), 3)\n"
        "c.add(c.slot('loaded'), 1)"  # how it was in there is of no interest when it is dead
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    here = Counters(tmp_path)
    here.add(here.slot(*REQUESTS))
    here.add(here.slot("other"), 5)
    here.close()
    assert read_totals(tmp_path) == {REQUESTS: 7.0, ("other", ()): 5.0, (OVERFLOW, ()): 0.0}


def test_a_process_id_that_comes_again_does_not_touch_the_dead_ones_counters(tmp_path: Path) -> None:
    dead = Counters(tmp_path)
    dead.add(dead.slot(*REQUESTS), 4)
    successor = Counters(tmp_path)  # the same process id
    successor.add(successor.slot("other"), 1)
    successor.add(successor.slot(*REQUESTS), 1)
    dead.close()
    successor.close()
    assert read_totals(tmp_path)[REQUESTS] == 5.0


def test_how_things_were_in_a_process_whose_number_came_again_is_left_out(tmp_path: Path) -> None:
    def worker() -> Counters:  # as after a restart in a container, where each is process 7
        counters = Counters(tmp_path)
        counters.add(counters.slot("loaded"), 1)
        counters.add(counters.slot(*REQUESTS), 1)
        counters.close()
        return counters

    dead = worker()
    del dead
    here = worker()
    assert read_totals(tmp_path) == {("loaded", ()): 1.0, REQUESTS: 2.0, (OVERFLOW, ()): 0.0}
    assert here.totals()[("loaded", ())] == 1.0


def test_no_free_slot_is_counted_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", 3)
    counters = Counters()
    for i in range(5):
        counters.add(counters.slot("many", (("i", str(i)),)))
    assert counters.totals()[(OVERFLOW, ())] == 3.0


def test_a_writer_killed_in_the_middle_of_a_line(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    counters.add(counters.slot(*REQUESTS), 2)
    counters.close()
    [index] = tmp_path.glob("*.index")
    with index.open("ab") as file:
        file.write(b'["requ')
    assert read_totals(tmp_path)[REQUESTS] == 2.0


def test_nothing_yet(tmp_path: Path) -> None:
    assert read_totals(tmp_path) == {}
