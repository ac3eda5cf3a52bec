"""Versions that have left the table: unloaded when the last request that uses them is gone."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from weakref import finalize, ref

from fairway.inference.live import LiveVersion
from fairway.inference.memory import give_back
from fairway.runtimes.base import Engine

logger = logging.getLogger("fairway.serving")

_COLLECT_SECONDS = 10.0


class Leaving:
    """Reference counting knows when a version is not used any more, at no cost to those who use it. Whoever had it last
    only hands its engine over: `tidy`, called from a background thread, takes the time that unloading takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drained: SimpleQueue[Engine] = SimpleQueue()
        self._expected: list[tuple[ref[LiveVersion], float]] = []
        """Versions that have left the table, and when the collector is to look for them."""

    def watch(self, live: LiveVersion) -> None:
        """From now on its engine is unloaded some time after nobody holds it any more."""
        finalize(live, self._drained.put, live.engine).atexit = False

    def expect(self, live: LiveVersion) -> None:
        """It is not served any more."""
        with self._lock:
            self._expected.append((ref(live), time.monotonic() + _COLLECT_SECONDS))

    def tidy(self) -> int:
        """Unloads what nobody uses any more, and gives its memory back. Returns how many."""
        self._look_for_circles()
        gone: list[ref[Engine]] = []
        while True:
            try:
                engine = self._drained.get_nowait()  # another thread may have taken the last one
            except Empty:
                break
            try:
                engine.unload()
            except Exception:
                logger.exception("a version could not be unloaded")
            gone.append(ref(engine))
            del engine
        if gone:
            give_back(gone)
        return len(gone)

    def _look_for_circles(self) -> None:
        """A version that a failed request's error still refers to is in a circle, which only the collector opens. It
        is given the time that requests take first: collecting holds everybody up for a few milliseconds."""
        if not self._expected:
            return
        now = time.monotonic()
        with self._lock:
            self._expected = [(version, due) for version, due in self._expected if version() is not None]
            late = any(due <= now for _, due in self._expected)
            if late:
                self._expected = [(version, now + _COLLECT_SECONDS) for version, _ in self._expected]
        if late:
            give_back()
