"""Versions that have left: who tidies up beside another thread waits for nothing."""

import threading
from queue import Empty, SimpleQueue
from typing import Any

from fairway.inference.leaving import Leaving


class Engine:
    def __init__(self) -> None:
        self.unloaded = 0

    def unload(self) -> None:
        self.unloaded += 1


def test_two_threads_that_tidy_at_once_wait_for_nothing() -> None:
    """One may take what the other has just seen: the thread that follows the registry would wait for ever."""

    class Taken(SimpleQueue[Any]):
        def empty(self) -> bool:
            seen = super().empty()
            self._take()
            return seen

        def _take(self) -> None:
            try:
                taken.append(super().get_nowait())
            except Empty:
                return

    taken: list[Engine] = []
    leaving = Leaving()
    leaving._drained = Taken()
    leaving._drained.put(Engine())
    tidying = threading.Thread(target=leaving.tidy, daemon=True)
    tidying.start()
    tidying.join(30)
    assert not tidying.is_alive()


def test_each_is_unloaded_once() -> None:
    leaving = Leaving()
    engines: list[Any] = [Engine() for _ in range(200)]
    for engine in engines:
        leaving._drained.put(engine)
    threads = [threading.Thread(target=leaving.tidy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {engine.unloaded for engine in engines} == {1}
