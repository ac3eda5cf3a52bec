"""The predictions that one turn of the event loop brought over gRPC, answered together.

`serving/turn.py` does the same for HTTP and says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from fairway.core.columns import Outputs
from fairway.core.errors import DeadlineExceeded, FairwayError
from fairway.inference.live import LiveVersion
from fairway.inference.merging import shares
from fairway.inference.microbatch import Waiting
from fairway.inference.plane import Ran, Work, now
from fairway.inference.stats import STAGES
from fairway.serving.grpc.calls import Ticket
from fairway.serving.grpc.method import Host
from fairway.serving.grpc.status import Status
from fairway.serving.spans import Served

logger = logging.getLogger("fairway.serving")

_TURN_STAGES = ("parse", "queue", "validate", "run", "encode")


class Turn:
    """The requests to answer, of all connections of a worker."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._plane = host.plane
        self._loop = loop
        self._tickets: list[Ticket] = []
        self._ran: deque[tuple[Ticket, Waiting]] = deque()
        self._collecting = False

    def add(self, ticket: Ticket) -> None:
        """Takes a request that was read; it is answered when the loop has read all that came with it."""
        if not self._tickets:
            self._loop.call_soon(self._answer)
        self._tickets.append(ticket)

    def settle(self, ticket: Ticket) -> None:
        """Answers a request that was also validated, apart from the others: its message was large."""
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

    def _answer(self) -> None:
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
                for work in works:
                    work.origin = (
                        None  # what refers to each other here is not looked at by the garbage collector
                    )
            except Exception as error:
                logger.exception("a turn of %d requests failed unexpectedly", len(works))
                for work in works:
                    ticket, work.origin = work.origin, None
                    if ticket is not None and not ticket.gone and ticket.waiting is None:
                        ticket.failed(error)

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
        for work, share in zip(works, outputs, strict=True):
            self._encode(work.origin, share)
        encoded = now()
        self._plane.finish_together(ran, encoded)
        if self._host.tracer is not None:
            for work in works:
                self._trace(
                    work.origin, _TURN_STAGES, (work.parsed, ran.begun, ran.validated, ran.ended, encoded)
                )

    def _encode(self, ticket: Ticket, outputs: Outputs) -> bool:
        version = ticket.work.version
        assert ticket.reading is not None
        try:
            message = ticket.predict.write(ticket.reading, outputs, version)
        except Exception as error:  # noqa: BLE001 - `failed` logs it; the other answers of this turn go on
            ticket.failed(error)
            return False
        ticket.answered(message, version)
        return True

    def _write_one(self, ticket: Ticket, outputs: Outputs, began: float, ended: float) -> None:
        if self._encode(ticket, outputs):
            work, encoded = ticket.work, now()
            self._plane.finish(work, outputs, ended, encoded, began)
            if self._host.tracer is not None:
                self._trace(ticket, STAGES, (work.parsed, work.validated, began, ended, encoded))

    def _trace(self, ticket: Ticket, stages: Sequence[str], ends: Sequence[float]) -> None:
        """Leaves the span of a request whose caller or whose luck chose it."""
        tracer, work = self._host.tracer, ticket.work
        traceparent = ticket.stream.head.headers.get(b"traceparent")
        if tracer is not None and tracer.wants(traceparent):
            version, request = work.version, work.request
            about = Served(
                version.model,
                request.protocol,
                int(Status.ok),
                request.request_id,
                version.version,
                version.digest,
                work.rows.rows,
                method=ticket.stream.head.path[1:],
            )
            tracer.record(traceparent, work.received, tuple(zip(stages, ends, strict=True)), about)

    def _begin(self, ticket: Ticket) -> None:
        """Queues a request whose model takes long."""
        work = ticket.work
        try:
            ticket.waiting = self._plane.begin(work, partial(self._from_thread, ticket))
        except FairwayError as error:
            ticket.failed(error)
            return
        deadline = work.request.deadline
        if deadline is not None:
            ticket.expiry = self._loop.call_later(max(0.0, deadline - now()), self._expire, ticket)

    def _from_thread(self, ticket: Ticket, waiting: Waiting) -> None:
        """A queue has an answer; the loop is woken once for all that come before it looks."""
        self._ran.append((ticket, waiting))
        if not self._collecting:
            self._collecting = True
            self._loop.call_soon_threadsafe(self._collect)

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

    def _expire(self, ticket: Ticket) -> None:
        if not ticket.gone:
            name = ticket.work.version.model
            ticket.failed(DeadlineExceeded(f"{name} did not answer before the deadline."))
