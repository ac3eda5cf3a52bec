"""What one turn of the event loop brought, answered together; the same for every protocol.

Requests of one version that are read in the same turn are validated, run, counted and recorded as one where that
changes nothing for anybody, so nobody waits: a request that is alone is answered as soon as one that came with others.
Models that take longer than a turn may are run in threads, and their answers come back here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from fairway.core.columns import Outputs
from fairway.core.errors import DeadlineExceeded, FairwayError
from fairway.inference.live import LiveVersion
from fairway.inference.merging import shares
from fairway.inference.microbatch import Waiting
from fairway.inference.plane import Plane, Ran, Work, now
from fairway.inference.stats import STAGES

logger = logging.getLogger("fairway.serving")

_TURN_STAGES = ("parse", "queue", "validate", "run", "encode")


class Ticket(Protocol):
    """A request that was read, and who waits for its answer. `gone`: it was answered, or nobody waits any more.
    `waiting` is its place in a model's queue, while it has one; `expiry` is due when its deadline passes there."""

    work: Work
    waiting: Waiting | None
    expiry: asyncio.TimerHandle | None

    @property
    def gone(self) -> bool: ...

    @property
    def traced(self) -> bool:
        """Whether it is to leave a span."""

    def answer(self, outputs: Outputs, validated: float, began: float, ended: float) -> bool:
        """Writes the answer; the moments are `perf_counter` seconds. False when that failed, and the caller was told
        so."""

    def failed(self, error: Exception) -> None:
        """Answers, counts and logs an error."""

    def trace(self, stages: Sequence[tuple[str, float]]) -> None:
        """Leaves the span of a request that was answered."""


class Turn:
    """The requests to answer, of all connections of a worker that speak one protocol."""

    def __init__(self, plane: Plane, send: Callable[[], None]) -> None:
        """`send` writes what the tickets have answered."""
        self._plane = plane
        self._send = send
        self._tickets: list[Ticket] = []
        self._ran: deque[tuple[Ticket, Waiting]] = deque()
        self._collecting = False

    def add(self, ticket: Ticket) -> None:
        """Takes a request; it is answered when the loop has read all that came with it."""
        if not self._tickets:
            asyncio.get_running_loop().call_soon(self.settle)
        self._tickets.append(ticket)

    def settle(self) -> None:
        """Answers what was added, as far as it is quick."""
        tickets, self._tickets = self._tickets, []
        groups: dict[tuple[LiveVersion, str], list[Work]] = {}
        for ticket in tickets:
            if not ticket.gone:
                work = ticket.work
                work.origin = ticket
                groups.setdefault((work.version, work.request.protocol), []).append(work)
        for works in groups.values():
            try:
                for outcome in self._plane.answer_together(works):
                    self._give(outcome)
            except Exception as error:  # whatever goes wrong, every caller is told something
                logger.exception("a turn of %d requests failed unexpectedly", len(works))
                for work in works:
                    if not work.origin.gone and work.origin.waiting is None:
                        work.origin.failed(error)
            for work in works:
                work.origin = None  # what refers to each other here is not looked at by the garbage collector
        self._send()

    def settle_alone(self, ticket: Ticket) -> None:
        """Answers a request that was also validated, apart from the others: its body was large."""
        work = ticket.work
        if not self._plane.quick(work):
            self._begin(ticket)
            return
        began = now()
        try:
            outputs = self._plane.run(work)
        except Exception as error:  # noqa: BLE001 - `failed` logs it
            ticket.failed(error)
            return
        self._write_one(ticket, outputs, began, now())

    def _give(self, outcome: Ran | Work | tuple[Work, FairwayError]) -> None:
        if isinstance(outcome, Ran):
            self._write(outcome)
        elif isinstance(outcome, Work):
            self._begin(outcome.origin)
        else:
            outcome[0].origin.failed(outcome[1])

    def _write(self, ran: Ran) -> None:
        """The answers to the requests of one engine call."""
        works = ran.works
        outputs: Sequence[Any] = (ran.outputs,) if len(works) == 1 else shares(ran.outputs, ran.counts)
        judged = ran.validated - ran.begun
        for work, share in zip(works, outputs, strict=True):
            work.origin.answer(share, work.parsed + judged, ran.validated, ran.ended)
        encoded = now()
        self._plane.finish_together(ran, encoded)
        for work in works:
            if work.origin.traced:
                ends = (work.parsed, ran.begun, ran.validated, ran.ended, encoded)
                work.origin.trace(tuple(zip(_TURN_STAGES, ends, strict=True)))

    def _write_one(self, ticket: Ticket, outputs: Outputs, began: float, ended: float) -> None:
        work = ticket.work
        if ticket.answer(outputs, work.validated, began, ended):
            encoded = now()
            self._plane.finish(work, outputs, ended, encoded, began)
            if ticket.traced:
                ends = (work.parsed, work.validated, began, ended, encoded)
                ticket.trace(tuple(zip(STAGES, ends, strict=True)))

    def _begin(self, ticket: Ticket) -> None:
        """Queues a request whose model takes long."""
        loop = asyncio.get_running_loop()
        work = ticket.work
        try:
            ticket.waiting = waiting = self._plane.begin(work, partial(self._from_thread, loop, ticket))
        except FairwayError as error:
            ticket.failed(error)
            return
        deadline = work.request.deadline
        if deadline is not None:
            ticket.expiry = loop.call_later(max(0.0, deadline - now()), self._expire, ticket, waiting)

    def _from_thread(self, loop: asyncio.AbstractEventLoop, ticket: Ticket, waiting: Waiting) -> None:
        """A queue has an answer; the loop is woken once for all that come before it looks."""
        self._ran.append((ticket, waiting))
        if not self._collecting:
            self._collecting = True
            loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._collecting = False
        while self._ran:
            ticket, waiting = self._ran.popleft()
            if ticket.gone or waiting.cancelled:
                continue
            if waiting.error is not None:
                ticket.failed(waiting.error)
                continue
            assert waiting.outputs is not None
            self._write_one(ticket, waiting.outputs, waiting.began, waiting.ended)
        self._send()

    def _expire(self, ticket: Ticket, waiting: Waiting) -> None:
        if not ticket.gone and not waiting.cancelled:
            waiting.cancel()
            name = ticket.work.version.model
            ticket.failed(DeadlineExceeded(f"{name} did not answer before the deadline."))
