"""From a call's path to its answer: who may, in what form, and in which thread.

Predictions whose message is small are read here and given to this turn of the loop. What takes long to read, has to be
unpacked, or is no prediction goes through a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from fairway.core.errors import (
    DeadlineExceeded,
    FairwayError,
)
from fairway.core.request import Request
from fairway.inference.work import now
from fairway.security.access import Caller, presented
from fairway.security.keys import Scope
from fairway.serving.answers import request_id_from
from fairway.serving.entrance import Reading
from fairway.serving.errors import status_of
from fairway.serving.grpc.answering import Peer
from fairway.serving.grpc.calls import Ticket, fail
from fairway.serving.grpc.compression import unpack
from fairway.serving.grpc.head import Head
from fairway.serving.grpc.method import Arrival, Asking, Host, Method
from fairway.serving.grpc.status import OPENING, success, trailers
from fairway.serving.grpc.stream import Call, Stream
from fairway.serving.keyed import key_text
from fairway.serving.loading import loaded
from fairway.serving.turn import Turn

_LARGE_MESSAGE = 256 * 1024
"""Messages from here on are read in a thread: a long read would hold up everybody else."""


class GrpcService:
    """Answers the calls of every connection of a worker. Lives in its event loop."""

    def __init__(
        self,
        host: Host,
        methods: Iterable[Method],
        loop: asyncio.AbstractEventLoop,
        limit: int,
        send: Callable[[], None],
    ) -> None:
        """`send` writes what was answered."""
        self.host = host
        self.loop = loop
        self.turn = Turn(host.plane, send)
        self.limit = limit
        self._methods = {method.path: method for method in methods}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what a connection asks

    def find(self, path: str) -> Method | None:
        return self._methods.get(path)

    def is_streaming(self, method: Any) -> bool:
        return method.stream is not None

    def client(self, transport: asyncio.Transport) -> str | None:
        named = self.host.client_name
        certificate = None if named is None else transport.get_extra_info("peercert")
        return None if named is None or not certificate else named(certificate)

    def streaming(self, connection: Peer, stream: Stream) -> None:
        method: Method = stream.head.method
        assert method.stream is not None
        if self.may_begin(connection, stream):
            stream.call = method.stream(self, connection, stream)

    def refuse(self, connection: Peer, stream: Stream, status: int, message: str) -> None:
        if stream.call is not None:
            stream.call.cancelled()
        block = trailers(status, message, request_id_from(stream.head.headers.get(b"x-request-id")))
        connection.close(stream, block if stream.opened else OPENING + block)

    def may_begin(self, connection: Peer, stream: Stream) -> bool:
        """Whether a caller whose message has yet to come may send it; if not, it was refused."""
        method: Method = stream.head.method
        try:
            if method.scope is not None and self.host.access.required:
                self.check(connection, stream, method.scope, None)
        except FairwayError as error:
            request_id = request_id_from(stream.head.headers.get(b"x-request-id"))
            self._count(method, error.code)
            fail(connection, stream, error, request_id, safe=self.host.safe)
            return False
        return True

    def unary(self, connection: Peer, stream: Stream, message: bytes, compressed: bool) -> None:
        method: Method = stream.head.method
        arrival = self.arrival(stream.head, stream.begun)
        if method.predict is None:
            if method.quick and not compressed:
                self._answer_now(connection, stream, message, arrival)
            else:
                self.start(self._answer(connection, stream, message, arrival, compressed))
            return
        stream.call = ticket = Ticket(self, connection, stream, method.predict, arrival.request_id)
        self.predict(ticket, message, arrival, compressed)

    # -- predictions

    def predict(self, ticket: Ticket, message: bytes, arrival: Arrival, compressed: bool) -> None:
        """Takes a prediction; the ticket is told its answer."""
        received = now()
        if compressed or len(message) > _LARGE_MESSAGE:
            self.start(self._read_slowly(ticket, message, arrival, received, compressed))
        else:
            self._read(ticket, message, arrival, received)

    def _read(self, ticket: Ticket, message: bytes, arrival: Arrival, received: float) -> None:
        """Reads a small message and gives it to this turn of the loop."""
        plane = self.host.plane
        try:
            ticket.reading = reading = self._understand(ticket, message, arrival)
            request = reading.request
            if plane.table[request.model].needs_loading(request.version):
                self.start(self._load(ticket, request, received))
                return
            ticket.work = plane.arrive(request, received)
        except Exception as error:  # noqa: BLE001 - `failed` logs it
            ticket.failed(error)
            return
        self.turn.add(ticket)

    def _understand(self, ticket: Ticket, message: bytes, arrival: Arrival) -> Reading:
        host = self.host

        def admit(model: str) -> str:
            ticket.model = model
            if not host.access.required:
                return ""
            caller = self.check(ticket.connection, ticket.stream, "infer", model)
            if caller.limited and ticket.limited is None:
                host.key_limits.enter(caller, now())
                ticket.limited = caller
            return caller.name

        return ticket.predict.read(message, arrival, admit, host.plane.table)

    async def _read_slowly(
        self, ticket: Ticket, message: bytes, arrival: Arrival, received: float, compressed: bool
    ) -> None:
        host, plane = self.host, self.host.plane
        try:
            if host.access.required:
                self.check(ticket.connection, ticket.stream, "infer", None)
            if compressed:
                message = await host.in_thread(unpack, message, ticket.stream.head.encoding, self.limit)
            ticket.reading = reading = await host.in_thread(self._understand, ticket, message, arrival)
            ticket.work = await host.in_thread(plane.arrive, reading.request, received)
            await host.in_thread(plane.validate, ticket.work)
        except Exception as error:  # noqa: BLE001 - `failed` logs it
            if ticket.gone:
                ticket.leave()  # a key's limits may have been entered since
            else:
                ticket.failed(error)
            return
        if ticket.gone:
            ticket.leave()
        else:
            self.turn.settle_alone(ticket)

    async def _load(self, ticket: Ticket, request: Request, received: float) -> None:
        """A version that has to be loaded first: for as long as anybody should wait."""
        try:
            model = await loaded(
                self.host.plane.table[request.model],
                request.version,
                request.deadline,
                self.host.settings.serving.load_seconds,
            )
            ticket.work = self.host.plane.arrive(request, received, model)
        except Exception as error:  # noqa: BLE001 - `failed` logs it
            if not ticket.gone:
                ticket.failed(error)
            return
        self.turn.add(ticket)

    # -- everything else

    def asking(self, connection: Peer, stream: Stream, message: bytes, arrival: Arrival) -> Asking:
        scope: Scope | None = stream.head.method.scope

        def admit(model: str) -> str:
            return "" if scope is None else self.check(connection, stream, scope, model).name

        return Asking(self.host, message, admit, arrival)

    def _answer_now(self, connection: Peer, stream: Stream, message: bytes, arrival: Arrival) -> None:
        method: Method = stream.head.method
        assert method.handle is not None
        try:
            if method.scope is not None:
                self.check(connection, stream, method.scope, None)
            answer = method.handle(self.asking(connection, stream, message, arrival))
        except Exception as error:  # noqa: BLE001 - `_failed` logs it
            self._failed(connection, stream, arrival, error)
            return
        connection.reply(stream, OPENING, answer, success(None, arrival.request_id))

    async def _answer(
        self, connection: Peer, stream: Stream, message: bytes, arrival: Arrival, compressed: bool
    ) -> None:
        head = stream.head
        method: Method = head.method
        assert method.handle is not None
        stream.call = call = _Watched()
        limited: Caller | None = None
        try:
            if method.scope is not None:
                caller = self.check(connection, stream, method.scope, None)
                if caller.limited:
                    self.host.key_limits.enter(caller, now())
                    limited = caller
            if compressed:
                message = await self.host.in_thread(unpack, message, head.encoding, self.limit)
            left = None if arrival.deadline is None else max(0.0, arrival.deadline - now())
            asking = self.asking(connection, stream, message, arrival)
            answer = await asyncio.wait_for(self.host.in_thread(method.handle, asking), left)
        except TimeoutError:
            late = DeadlineExceeded(f"{method.path} did not answer before the deadline.")
            self._failed(connection, stream, arrival, late)
            return
        except Exception as error:  # noqa: BLE001 - `_failed` logs it
            if not call.gone:
                self._failed(connection, stream, arrival, error)
            return
        finally:
            if limited is not None:
                self.host.key_limits.leave(limited)
        connection.reply(stream, OPENING, answer, success(None, arrival.request_id))

    def _failed(self, connection: Peer, stream: Stream, arrival: Arrival, error: Exception) -> None:
        self._count(stream.head.method, error.code if isinstance(error, FairwayError) else "internal_error")
        self.log(error, arrival.request_id, stream.head.method.protocol)
        fail(connection, stream, error, arrival.request_id, safe=self.host.safe)

    # -- what all need

    def arrival(self, head: Head, received: float) -> Arrival:
        headers = head.headers
        key = headers.get(b"x-fairway-key")
        return Arrival(
            request_id_from(headers.get(b"x-request-id")),
            None if key is None else key_text(key),
            None if head.timeout is None else received + head.timeout,
        )

    def check(self, connection: Peer, stream: Stream, scope: Scope, model: str | None) -> Caller:
        """Raises Unauthenticated or Forbidden."""
        secret = presented(stream.head.headers)
        return self.host.access.check(secret, scope, model, time.time(), connection.client)

    def count_failure(self, ticket: Ticket, code: str) -> None:
        version = None if ticket.reading is None else ticket.reading.request.version
        self.host.plane.failed(ticket.model, version, ticket.predict.protocol, code)

    def _count(self, method: Method, code: str) -> None:
        protocol = method.predict.protocol if method.predict is not None else method.protocol
        if protocol:
            self.host.plane.failed("", None, protocol, code)

    def log(
        self, error: Exception, request_id: str, protocol: str, model: str = "", caller: str = ""
    ) -> None:
        self.host.failures.note(
            error,
            status=int(status_of(error)),
            request_id=request_id,
            model=model,
            protocol=protocol,
            caller=caller,
        )

    def start(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)


class _Watched(Call):
    """Knows whether somebody still waits."""

    gone = False

    def cancelled(self) -> None:
        self.gone = True
