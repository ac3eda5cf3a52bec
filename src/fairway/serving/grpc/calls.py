"""A prediction on its way: what its turn tells, whatever kind of call it came in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from fairway.core.columns import Outputs
from fairway.core.errors import FairwayError
from fairway.inference.live import LiveVersion
from fairway.inference.microbatch import Waiting
from fairway.inference.work import Work
from fairway.security.access import Caller
from fairway.serving.app import served
from fairway.serving.entrance import Reading
from fairway.serving.grpc import wire
from fairway.serving.grpc.answering import Peer
from fairway.serving.grpc.method import Host, Predict
from fairway.serving.grpc.status import OPENING, Status, failure, success
from fairway.serving.grpc.stream import Call, Stream


class Told(Protocol):
    """Who is told what became of a call."""

    host: Host

    def count_failure(self, ticket: Ticket, code: str) -> None:
        """In the metrics."""

    def log(
        self, error: Exception, request_id: str, protocol: str, model: str = "", caller: str = ""
    ) -> None:
        """Where it is not the caller's fault."""


class Ticket(Call):
    """One prediction of a unary call. `work` and `reading` are there once it was read; `gone`: nobody waits any more,
    or it was answered."""

    __slots__ = (
        "connection",
        "expiry",
        "gone",
        "limited",
        "model",
        "predict",
        "reading",
        "request_id",
        "service",
        "stream",
        "waiting",
        "work",
    )

    work: Work

    def __init__(
        self, service: Told, connection: Peer, stream: Stream, predict: Predict, request_id: str
    ) -> None:
        self.service = service
        self.connection = connection
        self.stream = stream
        self.predict = predict
        self.request_id = request_id
        self.waiting: Waiting | None = None
        self.limited: Caller | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.model = ""
        self.reading: Reading | None = None
        self.gone = False

    def cancelled(self) -> None:
        if not self.gone:
            self.leave()
            self.service.count_failure(self, "cancelled")

    def leave(self) -> None:
        """Nothing is to be answered any more: a queued call is not run, the key's limits are told."""
        self.gone = True
        self._forget()
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None  # it knows this ticket
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        if self.limited is not None:
            self.service.host.key_limits.leave(self.limited)
            self.limited = None

    def _forget(self) -> None:
        """Ends the cycle of stream and call: collections are rare in a worker, and this is one for every call."""
        self.stream.call = None

    @property
    def traced(self) -> bool:
        tracer = self.service.host.tracer
        return tracer is not None and tracer.wants(self.stream.head.headers.get(b"traceparent"))

    def answer(self, outputs: Outputs, validated: float, began: float, ended: float) -> bool:
        version = self.work.version
        assert self.reading is not None
        try:
            message = self.predict.write(self.reading, outputs, version)
        except Exception as error:  # noqa: BLE001 - `failed` logs it; the other answers of this turn go on
            self.failed(error)
            return False
        found = self.work.found
        if found is not None and self.predict.protocol == "grpc":
            message += wire.parameters(
                (("fairway_source", found.source.value), ("fairway_age", str(int(found.age))))
            )
        self.answered(message, version)
        return True

    def answered(self, message: bytes, live: LiveVersion) -> None:
        self.leave()
        self.connection.reply(self.stream, OPENING, message, success(live, self.request_id, self.work.found))

    def trace(self, stages: Sequence[tuple[str, float]]) -> None:
        tracer = self.service.host.tracer
        if tracer is not None:
            head, work = self.stream.head, self.work
            about = msgspec.structs.replace(served(work, int(Status.ok)), method=head.path[1:])
            tracer.record(head.headers.get(b"traceparent"), work.received, stages, about)

    def failed(self, error: Exception) -> None:
        """Answers, counts and, where it is not the caller's fault, logs an error."""
        self.leave()
        self.service.count_failure(self, error.code if isinstance(error, FairwayError) else "internal_error")
        caller = "" if self.reading is None else self.reading.request.caller
        self.service.log(error, self.request_id, self.predict.protocol, self.model, caller)
        self.tell(error)
        error.__traceback__ = None  # its frames hold what it is about, and they are a cycle

    def tell(self, error: Exception) -> None:
        fail(self.connection, self.stream, error, self.request_id, safe=self.service.host.safe)


def fail(connection: Peer, stream: Stream, error: Exception, request_id: str, *, safe: bool) -> None:
    """Ends a call with an error."""
    block = failure(error, request_id, safe=safe)
    connection.close(stream, block if stream.opened else OPENING + block)
