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

import msgspec

from fairway.core.columns import Outputs
from fairway.core.errors import DeadlineExceeded, FairwayError, Overloaded
from fairway.inference.live import LiveVersion
from fairway.inference.merging import shares
from fairway.inference.microbatch import Waiting
from fairway.inference.plane import Plane
from fairway.inference.stats import STAGES
from fairway.inference.work import Outcome, Ran, Together, Work, now, share_out

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


_Key = tuple[LiveVersion, str]
"""A version, and the protocol its requests came by."""


class _Call(msgspec.Struct, frozen=True, gc=False):
    """Requests that were queued as one, and who waits for their answers."""

    key: _Key
    group: Together
    tickets: Sequence[Ticket]


class _Held(msgspec.Struct):
    """Requests of one version that wait for its next call, while `running` calls are made."""

    works: list[Work]
    running: int = 0
    releasing: bool = False


class Turn:
    """The requests to answer, of all connections of a worker that speak one protocol."""

    def __init__(self, plane: Plane, send: Callable[[], None]) -> None:
        """`send` writes what the tickets have answered."""
        self._plane = plane
        self._send = send
        self._tickets: list[Ticket] = []
        self._held: dict[_Key, _Held] = {}
        self._ran: deque[tuple[Ticket | _Call, Waiting]] = deque()
        self._collecting = False

    def add(self, ticket: Ticket) -> None:
        """Takes a request; it is answered when the loop has read all that came with it."""
        if not self._tickets:
            asyncio.get_running_loop().call_soon(self.settle)
        self._tickets.append(ticket)

    def settle(self) -> None:
        """Answers what was added, as far as it is quick."""
        tickets, self._tickets = self._tickets, []
        groups: dict[_Key, list[Work]] = {}
        for ticket in tickets:
            if not ticket.gone:
                work = ticket.work
                work.origin = ticket
                groups.setdefault((work.version, work.request.protocol), []).append(work)
        for key, works in groups.items():
            held = self._held.get(key) if self._held else None
            self._settle(key, works if held is None else self._hold(held, works))
        self._plane.commit()
        self._send()

    def _settle(self, key: _Key, works: list[Work]) -> None:
        """Answers requests of one version, as far as it is quick."""
        try:
            for outcome in self._plane.answer_together(works) if works else ():
                self._give(key, outcome)
        except Exception as error:  # whatever goes wrong, every caller is told something
            logger.exception("a turn of %d requests failed unexpectedly", len(works))
            for work in works:
                if work.origin is not None and not work.origin.gone and work.origin.waiting is None:
                    work.origin.failed(error)
        for work in works:
            work.origin = None  # what refers to each other here is not looked at by the garbage collector

    def _hold(self, held: _Held, works: list[Work]) -> list[Work]:
        """Keeps requests for the next call of a version that is being run, so that all of them are validated, run and
        recorded as one. Returns those that are not to be kept: a queue knows what to do with a deadline."""
        hurried: list[Work] = []
        for work in works:
            if work.request.deadline is not None:
                hurried.append(work)
                continue
            try:
                self._plane.hold(work.version, len(held.works))
            except FairwayError as error:
                ticket, work.origin = work.origin, None
                self._failed(ticket, error)
            else:
                held.works.append(work)
        return hurried

    def _release(self, key: _Key) -> None:
        """The next call of a version whose last is over."""
        held = self._held[key]
        held.releasing = False
        works, held.works = held.works, []
        self._plane.let_go(key[0], len(works))
        for work in works:
            if work.origin.gone:
                work.origin = None
        self._settle(key, [work for work in works if work.origin is not None])
        if not held.running:
            del self._held[key]
        self._plane.commit()
        self._send()

    def settle_alone(self, ticket: Ticket) -> None:
        """Answers a request that was also validated, apart from the others: its body was large."""
        work = ticket.work
        if work.version.key_name:
            self.add(ticket)
            return
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
        self._plane.commit()

    def _give(self, key: _Key, outcome: Outcome) -> None:
        if isinstance(outcome, Ran):
            self._write(outcome)
        elif isinstance(outcome, Together):
            self._begin_together(_Call(key, outcome, [work.origin for work in outcome.works]))
        elif isinstance(outcome, Work):
            self._begin(outcome.origin)
        else:
            self._failed(outcome[0].origin, outcome[1])

    def _write(self, ran: Ran) -> None:
        """The answers to the requests of one engine call."""
        works = ran.works
        outputs: Sequence[Any] = (ran.outputs,) if len(works) == 1 else shares(ran.outputs, ran.counts)
        judged = ran.validated - ran.begun
        began = ran.validated + ran.waited
        for work, share in zip(works, outputs, strict=True):
            work.origin.answer(share, work.parsed + judged, began, ran.ended)
        encoded = now()
        self._plane.finish_together(ran, encoded)
        for work in works:
            if work.origin.traced:
                ends = (work.parsed, ran.begun + ran.waited, began, ran.ended, encoded)
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
            ticket.waiting = self._plane.begin(work, partial(self._from_thread, loop, ticket))
        except FairwayError as error:
            self._failed(ticket, error)
            return
        deadline = work.request.deadline
        if deadline is not None and ticket.expiry is None:
            ticket.expiry = loop.call_later(max(0.0, deadline - now()), self._expire, ticket)

    def _begin_together(self, call: _Call) -> None:
        """Queues requests that were validated as one; until they have run, those that come are held."""
        loop = asyncio.get_running_loop()
        try:
            self._plane.begin_together(call.group, partial(self._from_thread, loop, call))
        except FairwayError:  # too many for the queue: as many as it takes
            self._begin_each(call)
            return
        held = self._held.get(call.key)
        if held is None:
            held = self._held[call.key] = _Held([])
        held.running += 1

    def _begin_each(self, call: _Call) -> None:
        group = call.group
        share_out(group.works, group.columns, group.counts, group.validated)
        for ticket in call.tickets:
            if not ticket.gone:
                self._begin(ticket)

    def _from_thread(self, loop: asyncio.AbstractEventLoop, ticket: Ticket | _Call, waiting: Waiting) -> None:
        """A queue has an answer; the loop is woken once for all that come before it looks."""
        self._ran.append((ticket, waiting))
        if not self._collecting:
            self._collecting = True
            loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._collecting = False
        while self._ran:
            ticket, waiting = self._ran.popleft()
            if isinstance(ticket, _Call):
                self._take_up(ticket, waiting)
                continue
            if ticket.gone or waiting.cancelled:
                continue
            if waiting.error is not None:
                self._failed(ticket, waiting.error)
                continue
            if waiting.outputs is None:  # it was looked up, and the model answers
                ticket.waiting = None
                self.add(ticket)
                continue
            self._write_one(ticket, waiting.outputs, waiting.began, waiting.ended)
        self._plane.commit()
        self._send()

    def _take_up(self, call: _Call, waiting: Waiting) -> None:
        """What a call of several requests gave. The next is made when the loop has read what came meanwhile."""
        held = self._held[call.key]
        held.running -= 1
        if held.running < self._plane.calls_at_once(call.key[0]) and not held.releasing:
            held.releasing = True
            asyncio.get_running_loop().call_soon(self._release, call.key)
        if waiting.error is not None:
            self._begin_each(call)
            return
        waits = [not ticket.gone for ticket in call.tickets]
        if not any(waits):
            return
        for work, ticket in zip(call.group.works, call.tickets, strict=True):
            work.origin = ticket
        try:
            self._write(call.group.answered(waiting, waits))
        except Exception as error:  # whatever goes wrong, every caller is told something
            logger.exception("%d requests that ran as one could not be answered", len(waits))
            for ticket in call.tickets:
                if not ticket.gone:
                    ticket.failed(error)
        for work in call.group.works:
            work.origin = None

    def _failed(self, ticket: Ticket, error: Exception) -> None:
        """An error. What was computed ahead may stand in for a model that is overloaded."""
        if isinstance(error, Overloaded) and self._plane.fall_back(ticket.work):
            self._begin(ticket)
        else:
            ticket.failed(error)

    def _expire(self, ticket: Ticket) -> None:
        if not ticket.gone:  # it then leaves the queue it is in
            name = ticket.work.version.model
            ticket.failed(DeadlineExceeded(f"{name} did not answer before the deadline."))
