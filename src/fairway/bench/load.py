"""The two loops as state machines: no sockets, no clock of their own, every moment is passed in.

Open loop: requests are due by a schedule that knows nothing of the answers, as independent callers' are. One that is
due while every connection is busy waits in the client, and its latency counts from when it was due. A load generator
that sends the next request only after an answer is made slow by a slow server, and never sends the requests that would
have met the stall: "coordinated omission" (G. Tene, How NOT to Measure Latency, 2013; wrk2 corrects it the same way).

Closed loop: each lane sends again as soon as it has its answer. It finds how much a server can do; its latencies say
nothing about callers who would have come meanwhile.

The law of both: every request ends in exactly one outcome: `ok` (2xx), another status, `timeout`, or the reason its
connection broke.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from fairway.bench.recording import TIMEOUT, Recorder


class Lane(Protocol):
    """A connection (HTTP) or a call slot (gRPC): one request at a time. `due` and `sent` are the load's to write."""

    due: float
    sent: float

    def send(self) -> None:
        """Sends the next body."""

    def cut(self) -> None:
        """Gives up what is under way; the lane is not used again before it `joined` anew."""


class Load(Protocol):
    """What lanes report to, and the driver asks. All moments are seconds from the start."""

    def joined(self, lane: Lane, now: float) -> None:
        """A lane can send."""

    def answered(self, lane: Lane, outcome: str, now: float, *, reusable: bool = True) -> None:
        """The answer of what a lane sent is complete. A lane that cannot be used again joins anew when it can."""

    def lost(self, lane: Lane, reason: str, now: float) -> None:
        """A lane broke; what it had sent, if anything, failed."""

    def unreachable(self, reason: str, now: float) -> None:
        """A lane could not be opened."""

    def tick(self, now: float) -> float | None:
        """Sends what is due. Gives when it wants to be called again, None when nothing more will be due."""

    def expire(self, now: float) -> None:
        """Gives up what has taken longer than the timeout."""

    def finished(self, now: float) -> bool:
        """Whether every request has its outcome."""


class OpenLoop:
    """`moments` is the schedule. `clock` gives the seconds from the start at the moment of a send."""

    def __init__(
        self, moments: Iterator[float], timeout: float, recorder: Recorder, clock: Callable[[], float]
    ) -> None:
        self._moments = moments
        self._next = next(moments, None)
        self._timeout = timeout
        self._recorder = recorder
        self._clock = clock
        self._waiting: deque[float] = deque()
        self._free: deque[Lane] = (
            deque()
        )  # in turns, so that every worker behind a shared port gets its share
        self._busy: set[Lane] = set()

    def joined(self, lane: Lane, now: float) -> None:
        if self._waiting:
            self._send(lane, self._waiting.popleft())
        else:
            self._free.append(lane)

    def answered(self, lane: Lane, outcome: str, now: float, *, reusable: bool = True) -> None:
        if lane not in self._busy:
            return  # given up before
        self._busy.remove(lane)
        self._recorder.note(lane.due, lane.sent, now, outcome)
        if reusable:
            self.joined(lane, now)
        else:
            self._recorder.reconnected += 1

    def lost(self, lane: Lane, reason: str, now: float) -> None:
        if lane in self._busy:
            self._busy.remove(lane)
            self._recorder.note(lane.due, lane.sent, now, reason)
        elif lane in self._free:
            self._free.remove(lane)
        self._recorder.reconnected += 1

    def unreachable(self, reason: str, now: float) -> None:
        if self._busy or self._free:
            return
        while self._waiting:  # nobody is left to send them
            self._recorder.note(self._waiting.popleft(), None, now, reason)

    def tick(self, now: float) -> float | None:
        due = self._next
        while due is not None and due <= now:
            if self._free:
                self._send(self._free.popleft(), due)
                self._recorder.note_lag(due, now - due)
            else:
                self._waiting.append(due)
                if self._recorder.measures(due):
                    self._recorder.waited += 1
            due = next(self._moments, None)
        self._next = due
        return due

    def expire(self, now: float) -> None:
        limit = now - self._timeout
        for lane in [lane for lane in self._busy if lane.due <= limit]:
            self._busy.remove(lane)
            self._recorder.note(lane.due, None, now, TIMEOUT)
            lane.cut()
        while self._waiting and self._waiting[0] <= limit:
            self._recorder.note(self._waiting.popleft(), None, now, TIMEOUT)

    def finished(self, now: float) -> bool:
        return self._next is None and not self._busy and not self._waiting

    def _send(self, lane: Lane, due: float) -> None:
        lane.due = due
        lane.sent = self._clock()
        self._busy.add(lane)
        lane.send()


class ClosedLoop:
    """Every lane sends until `seconds`; what is under way then is still waited for."""

    def __init__(
        self, seconds: float, timeout: float, recorder: Recorder, clock: Callable[[], float]
    ) -> None:
        self._seconds = seconds
        self._timeout = timeout
        self._recorder = recorder
        self._clock = clock
        self._idle: list[Lane] = []
        self._busy: set[Lane] = set()
        self._begun = False

    def joined(self, lane: Lane, now: float) -> None:
        if not self._begun:
            self._idle.append(lane)
        elif now < self._seconds:
            self._busy.add(lane)
            self._send(lane)

    def answered(self, lane: Lane, outcome: str, now: float, *, reusable: bool = True) -> None:
        if lane not in self._busy:
            return
        self._recorder.note(lane.due, lane.sent, now, outcome)
        if reusable and now < self._seconds:
            self._send(lane)
            return
        self._busy.remove(lane)
        if not reusable:
            self._recorder.reconnected += 1

    def lost(self, lane: Lane, reason: str, now: float) -> None:
        if lane in self._busy:
            self._busy.remove(lane)
            self._recorder.note(lane.due, lane.sent, now, reason)
        elif lane in self._idle:
            self._idle.remove(lane)
        self._recorder.reconnected += 1

    def unreachable(self, reason: str, now: float) -> None:
        """Nobody waits for a lane here: a closed loop has as many callers as it has lanes."""
        self._recorder.note(now, None, now, reason)

    def tick(self, now: float) -> float | None:
        if not self._begun:
            self._begun = True
            for lane in self._idle:
                self._busy.add(lane)
                self._send(lane)
            self._idle.clear()
        return self._seconds if now < self._seconds else None

    def expire(self, now: float) -> None:
        for lane in [lane for lane in self._busy if lane.due <= now - self._timeout]:
            self._busy.remove(lane)
            self._recorder.note(lane.due, None, now, TIMEOUT)
            lane.cut()

    def finished(self, now: float) -> bool:
        return now >= self._seconds and not self._busy

    def _send(self, lane: Lane) -> None:
        lane.due = lane.sent = self._clock()
        lane.send()
