"""The children of one model: a few processes, a bounded queue before them, and a thread that replaces the dead.

    starting -> idle <-> busy -> lost          a lost child is replaced: at once, then after ever longer pauses
                                               while children die without having answered anything

The caller's own thread talks to a child, so a call costs no hand-over between threads. The pool's thread starts
every child, because on Linux a child is made to die with the *thread* that started it, and that one must live as long
as the pool.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections.abc import Mapping

from fairway.core.columns import Array
from fairway.core.errors import EnvironmentFailed, ModelFailed, Overloaded, Unavailable
from fairway.runtimes.isolated.process import Child, Lost, Program

logger = logging.getLogger("fairway.isolated")

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 0.5
_RESTART_SECONDS = 1.0


def next_pause(deaths: int) -> float:
    """Seconds before the next child, after so many deaths in a row: none, then doubling."""
    return 0.0 if deaths <= 1 else min(_FIRST_PAUSE_SECONDS * 2.0 ** (deaths - 2), _LONGEST_PAUSE_SECONDS)


class Pool:
    """Starts with `start`, which waits for the first child. `close` ends the children."""

    def __init__(
        self, run: Program, *, processes: int, queue: int, call_seconds: float, start_seconds: float
    ) -> None:
        self.pid = os.getpid()
        self._run = run
        self._processes = processes
        self._queue = queue
        self._call_seconds = call_seconds
        self._start_seconds = start_seconds
        self._changed = threading.Condition()
        self._starting: list[Child] = []
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._buried: list[Child] = []
        self._waiting = 0
        self._deaths = 0
        self._due = [0.0] * processes
        self._trouble = "is starting"
        self._failed: EnvironmentFailed | None = None
        self._ready = False
        self._closing = False
        self._ended = False
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._tend, name=f"isolated {run.label}", daemon=True)

    def start(self) -> None:
        """Returns when a child is ready. Raises EnvironmentFailed when the first one cannot start, saying why."""
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failed is not None)
            failed = self._failed
        if failed is not None:
            self.close()
            raise failed

    def call(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Raises ModelFailed when the function or its process fails, Unavailable while there is no process,
        Overloaded when the queue is full, and PayloadTooLarge."""
        child = self._take()
        lost = True
        try:
            outputs = child.call(arrays, self._call_seconds)
            lost = False
            return outputs
        except Lost as error:
            child.kill()
            words = child.last_words()
            told = f" Its last lines: {words}" if words else ""
            self._trouble = str(error)
            raise ModelFailed(f"the process of {self._run.label} {error}.{told}") from error
        except Exception:
            lost = False
            raise
        finally:
            self._give_back(child, lost=lost)

    def _take(self) -> Child:
        """An idle child. Waits for a busy one, and a moment for the one that follows a death that came alone: who
        had nothing to do with that need not hear of it."""
        deadline = time.monotonic() + self._call_seconds
        patience = 0.0
        with self._changed:
            if not self._idle and self._waiting >= self._queue:
                raise Overloaded(
                    f"{self._waiting} calls wait for {self._run.label} already.", hint="Try again later."
                )
            self._waiting += 1
            try:
                while not self._idle:
                    now = time.monotonic()
                    if not self._busy:
                        patience = patience or now + (_RESTART_SECONDS if self._deaths <= 1 else 0.0)
                    until = deadline if self._busy else patience
                    if self._closing or (not self._busy and now >= until):
                        raise Unavailable(self._absence(), hint="Try again in a moment.")
                    if now >= until:
                        raise Overloaded(
                            f"no process of {self._run.label} was free for {self._call_seconds:g} s.",
                            hint="Raise isolation.processes if this happens often.",
                        )
                    self._changed.wait(until - now)
            finally:
                self._waiting -= 1
            child = self._idle.pop()
            self._busy.add(child)
            return child

    def _absence(self) -> str:
        if self._closing:
            return f"{self._run.label} is being unloaded."
        wait = max(0.0, min(self._due, default=0.0) - time.monotonic())
        when = (
            f"the next one starts in {wait:.1f} s"
            if wait and not self._starting
            else "the next one is starting"
        )
        return f"the process of {self._run.label} {self._trouble}; {when}."

    def _give_back(self, child: Child, *, lost: bool) -> None:
        with self._changed:
            self._busy.discard(child)
            if lost or self._closing:
                self._bury(child)
            else:
                self._idle.append(child)
            self._changed.notify_all() if lost else self._changed.notify()
        if lost:
            self._wake()

    def _bury(self, child: Child) -> None:
        """To be closed by the pool's thread, and replaced. With the lock held."""
        self._buried.append(child)
        steady = child.answered > 0 or time.monotonic() - child.started > _STEADY_SECONDS
        self._deaths = 1 if steady else self._deaths + 1
        if not self._closing:
            pause = next_pause(self._deaths)
            self._due.append(time.monotonic() + pause)
            logger.warning(
                "the process of %s %s; starting another in %.1f s", self._run.label, self._trouble, pause
            )

    def close(self) -> None:
        """Ends every child; calls still running fail."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self._start_seconds)

    def _wake(self) -> None:
        with self._changed:
            if not self._ended:  # its number may belong to another file by now
                with contextlib.suppress(BlockingIOError):
                    os.write(self._wake_write, b"x")

    # Below: the pool's own thread.

    def _tend(self) -> None:
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        try:
            while not self._closing:
                try:
                    self._turn()
                except Exception:  # without this thread the model would have no process any more
                    logger.exception("looking after the processes of %s failed", self._run.label)
                    time.sleep(_LOOK_SECONDS)
        finally:
            self._end()

    def _turn(self) -> None:
        self._start_due()
        self._bury_dead()
        self._clear()
        for key, _ in self._selector.select(self._until_next()):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            elif key.fileobj is key.data.connection:
                self._greet(key.data)
            else:
                self._log(key.data)

    def _until_next(self) -> float:
        with self._changed:
            due = min(self._due, default=float("inf"))
        return min(max(0.0, due - time.monotonic()), _LOOK_SECONDS)

    def _start_due(self) -> None:
        now = time.monotonic()
        with self._changed:
            ready = [due for due in self._due if due <= now]
            self._due = [due for due in self._due if due > now]
        for _ in ready:
            try:
                child = Child(self._run)
            except Lost as error:
                self._could_not_start(str(error))
                continue
            self._starting.append(child)
            self._selector.register(child.output, selectors.EVENT_READ, child)
            self._selector.register(child.connection, selectors.EVENT_READ, child)

    def _could_not_start(self, why: str) -> None:
        with self._changed:
            self._trouble = why
            self._deaths += 1
            pause = next_pause(self._deaths)
            self._due.append(time.monotonic() + pause)
            self._fail(f"the process of {self._run.label} {why}.")
        logger.warning("the process of %s %s; trying again in %.1f s", self._run.label, why, pause)

    def _fail(self, message: str) -> None:
        """Tells `start`, if it still waits. With the lock held."""
        if not self._ready and self._failed is None:
            self._failed = EnvironmentFailed(message)
        self._changed.notify_all()

    def _greet(self, child: Child) -> None:
        """A starting child says that it is ready, or why it is not, or is gone."""
        self._selector.unregister(child.connection)
        words = ""
        try:
            error = child.hello()
            refusal = f"cannot start: {error}" if error else ""
        except Lost as lost:
            refusal = str(lost)
            words = child.last_words()
        with self._changed:
            self._starting.remove(child)
            if not refusal:
                self._ready = True
                self._idle.append(child)
                self._changed.notify()
                return
            self._trouble = refusal
            self._fail(
                f"the process of {self._run.label} {refusal}.{f' Its last lines: {words}' if words else ''}"
            )
            self._bury(child)

    def _bury_dead(self) -> None:
        """Idle children that died without being asked anything, and those that take too long to start."""
        now = time.monotonic()
        with self._changed:
            for child in [child for child in self._idle if not child.alive()]:
                self._idle.remove(child)
                self._trouble = child.ending()
                self._bury(child)
            for child in [c for c in self._starting if now - c.started > self._start_seconds]:
                self._selector.unregister(child.connection)
                self._starting.remove(child)
                self._trouble = f"was not ready within {self._start_seconds:g} s and was killed"
                self._fail(f"the process of {self._run.label} {self._trouble}.")
                self._bury(child)

    def _clear(self) -> None:
        with self._changed:
            buried, self._buried = self._buried, []
        for child in buried:
            child.kill()
            self._log(child)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(child.output)
            child.close()

    def _log(self, child: Child) -> None:
        lines, more = child.drain()
        for line in lines:
            logger.warning("%s[%d] %s", self._run.label, child.pid, line)
        if not more:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(child.output)

    def _end(self) -> None:
        with self._changed:
            children = [*self._starting, *self._idle, *self._buried]
            busy = list(self._busy)
            self._starting, self._idle, self._buried = [], [], []
        for child in busy:  # their callers learn it, and bury them
            child.kill("was stopped because the model is unloaded")
        for child in children:
            child.close(_GRACE_SECONDS)
        deadline = time.monotonic() + 5.0
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, max(0.0, deadline - time.monotonic()))
            late, self._buried = self._buried, []
        for child in late:
            child.close()
        with self._changed:
            self._ended = True
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
