"""Calls that wait for a slow model: a bounded queue, from which as many as it pays are run as one.

Nothing waits for company: the first call is run at once, and what came meanwhile is merged when that is over. A
call whose deadline has passed is not run, nor is one whose caller has gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import DeadlineExceeded, FairwayError, ModelFailed, Overloaded
from fairway.inference.merging import Predict, run_together

logger = logging.getLogger("fairway.inference")


class Waiting(msgspec.Struct):
    """A call in the queue. `done` is called once, from the thread that ran it, unless it was cancelled: then
    `outputs` or `error` is set. `began` and `ended` are when the engine ran, on `time.perf_counter`. `requests` is for
    how many the call is made."""

    columns: Columns
    done: Callable[[Waiting], None]
    deadline: float | None = None
    requests: int = 1
    outputs: Outputs | None = None
    error: Exception | None = None
    began: float = 0.0
    ended: float = 0.0
    cancelled: bool = False

    def cancel(self) -> None:
        """Nobody waits any more: it is not run if it has not begun, and `done` is not called."""
        self.cancelled = True


class Merges(Protocol):
    """How far merging pays now."""

    def merge_rows(self) -> int:
        """Most rows of a merged call; 1: none are merged."""

    def merged(self, requests: int) -> None:
        """Told how many requests a merged call was made for."""


class MergingQueue:
    """The calls that wait for one version. `run` makes the engine call; `submit` starts something in a thread."""

    def __init__(
        self,
        name: str,
        run: Predict,
        merges: Merges,
        *,
        limit: int,
        runners: int,
        submit: Callable[[Callable[[], None]], Any],
        count: Callable[[int], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`limit`: most requests waiting; `runners`: most engine calls at once; `count` hears by how many requests the
        queue grew or shrank."""
        self.runners = runners
        self._name = name
        self._run = run
        self._merges = merges
        self._limit = limit
        self._submit = submit
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: deque[Waiting] = deque()
        self._requests = 0
        self._running = 0

    def __len__(self) -> int:
        return self._requests

    def put(self, waiting: Waiting) -> None:
        """Raises Overloaded when the queue is full, once those whose time is up have been let go."""
        late: list[Waiting] = []
        with self._lock:
            if self._requests + waiting.requests > self._limit:
                late = self._shed()
            full = self._requests + waiting.requests > self._limit
            if not full:
                self._calls.append(waiting)
                self._requests += waiting.requests
                starts = self._running < self.runners
                self._running += starts
        self._count((0 if full else waiting.requests) - _requests(late))
        self._refuse(late)
        if full:
            raise self._overloaded()
        if starts:
            self._submit(self._drain)

    def admit(self, holding: int) -> None:
        """Counts one more request among the `holding` that wait elsewhere to be put as one. Raises Overloaded."""
        if self._requests + holding >= self._limit:
            raise self._overloaded()
        self._count(1)

    def let_go(self, held: int) -> None:
        """So many wait elsewhere no more."""
        self._count(-held)

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"{self._limit} requests wait for {self._name} (serving.queue).", hint="Try again in a second."
        )

    def _shed(self) -> list[Waiting]:
        """Takes out, wherever they stand, those whose deadline has passed, and those nobody waits for."""
        now = self._clock()
        late = [call for call in self._calls if call.cancelled or _is_late(call, now)]
        if late:
            gone = set(map(id, late))
            self._calls = deque(call for call in self._calls if id(call) not in gone)
            self._requests -= _requests(late)
        return late

    def _drain(self) -> None:
        """Runs what waits until nothing does."""
        while True:
            calls, late = self._take()
            self._refuse(late)
            if calls:
                self._execute(calls)
            elif not late:
                return

    def _take(self) -> tuple[list[Waiting], list[Waiting]]:
        """The calls to run as one, from the front; and the late ones that stood before them. With nothing left,
        this runner has ended."""
        calls: list[Waiting] = []
        late: list[Waiting] = []
        most = self._merges.merge_rows()
        rows = 0
        with self._lock:
            now = self._clock()
            while self._calls:
                first = self._calls[0]
                if first.cancelled or _is_late(first, now):
                    late.append(self._calls.popleft())
                    continue
                if calls and rows + first.columns.rows > most:
                    break
                rows += first.columns.rows
                calls.append(self._calls.popleft())
            left = _requests(calls) + _requests(late)
            self._requests -= left
            if not left:
                self._running -= 1
        self._count(-left)
        return calls, late

    def _execute(self, calls: list[Waiting]) -> None:
        began = self._clock()
        answers: list[Outputs | FairwayError]
        requests = _requests(calls)
        if requests > 1:
            self._merges.merged(requests)
        try:
            answers = run_together(self._run, [call.columns for call in calls])
        except Exception as error:
            logger.exception("a call of %s failed unexpectedly", self._name)
            answers = [ModelFailed(f"{self._name} failed: {error}")] * len(calls)
        ended = self._clock()
        for call, answer in zip(calls, answers, strict=True):
            call.began, call.ended = began, ended
            if isinstance(answer, FairwayError):
                call.error = answer
            else:
                call.outputs = answer
            self._tell(call)

    def _refuse(self, late: list[Waiting]) -> None:
        for call in late:
            call.error = DeadlineExceeded(f"the deadline passed while the request waited for {self._name}.")
            self._tell(call)

    def _tell(self, call: Waiting) -> None:
        if call.cancelled:
            return
        try:
            call.done(call)
        except Exception:
            logger.exception("a caller of %s could not be told", self._name)


def _is_late(call: Waiting, now: float) -> bool:
    return call.deadline is not None and call.deadline <= now


def _requests(calls: Iterable[Waiting]) -> int:
    return sum([call.requests for call in calls])
