"""ModelStreamInfer, Triton's streaming inference: many requests and answers on one call.

Requests are answered one after the other, in order. An error is an answer, told in `error_message`, and does not end
the stream. Source: Triton's common/protobuf/grpc_service.proto and its client's `start_stream`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fairway.core.errors import DeadlineExceeded
from fairway.inference.live import LiveVersion
from fairway.inference.work import now
from fairway.serving.grpc import wire
from fairway.serving.grpc.answering import Peer
from fairway.serving.grpc.calls import Ticket, fail
from fairway.serving.grpc.infer import INFER, SERVICE
from fairway.serving.grpc.method import Method
from fairway.serving.grpc.status import OPENING, message_of, success
from fairway.serving.grpc.stream import Call, Stream

if TYPE_CHECKING:
    from fairway.serving.grpc.service import GrpcService

_WAITING_MESSAGES = 64
_WAITING_BYTES = 1024 * 1024


class _Streamed(Ticket):
    """One prediction of a streaming call."""

    __slots__ = ("flow",)

    flow: StreamInfer

    def _forget(self) -> None:
        """The stream's call is the whole flow, which goes on."""

    def answered(self, message: bytes, live: LiveVersion) -> None:
        self.leave()
        self.flow.send(_response(0x12, message))

    def tell(self, error: Exception) -> None:
        text = message_of(error, safe=self.service.host.safe)
        self.flow.send(_response(0x0A, text.encode()))


def _response(tag: int, value: bytes) -> bytes:
    """A ModelStreamInferResponse with one of its two fields."""
    return bytes((tag,)) + wire.varint(len(value)) + value


class StreamInfer(Call):
    """One streaming call."""

    def __init__(self, service: GrpcService, connection: Peer, stream: Stream) -> None:
        self._service = service
        self._connection = connection
        self._stream = stream
        self._arrival = service.arrival(stream.head, now())
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._bytes = 0
        self._current: _Streamed | None = None
        self._over = False
        deadline = self._arrival.deadline
        self._expiry = (
            None if deadline is None else service.loop.call_later(max(0.0, deadline - now()), self._expire)
        )

    @property
    def full(self) -> bool:
        return len(self._messages) >= _WAITING_MESSAGES or self._bytes >= _WAITING_BYTES

    @property
    def idle(self) -> bool:
        return self._current is None and not self._messages and not self._stream.queued

    def received(self, message: bytes, compressed: bool) -> None:
        self._messages.append((message, compressed))
        self._bytes += len(message)
        if self._current is None:
            self._next()

    def ended(self) -> None:
        self._over = True
        self._next()

    def cancelled(self) -> None:
        self._messages.clear()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._current is not None:
            self._current.cancelled()

    def drained(self) -> None:
        """The answer has left: the next request may be taken."""
        self._service.loop.call_soon(self._next)

    def send(self, message: bytes) -> None:
        self._current = None
        self._connection.open(self._stream, OPENING)
        self._connection.send(self._stream, message)

    def _next(self) -> None:
        if self._current is not None or self._stream.queued:
            return
        if self._messages:
            message, compressed = self._messages.popleft()
            self._bytes -= len(message)
            service = self._service
            self._current = ticket = _Streamed(
                service, self._connection, self._stream, INFER, self._arrival.request_id
            )
            ticket.flow = self
            service.predict(ticket, message, self._arrival, compressed)
        elif self._over:
            self._end()
        if not self.full:
            self._connection.take_more(self._stream)

    def _end(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        block = success(None, self._arrival.request_id)
        self._connection.close(self._stream, block if self._stream.opened else OPENING + block)

    def _expire(self) -> None:
        self.cancelled()
        error = DeadlineExceeded("the stream's deadline has passed.")
        fail(self._connection, self._stream, error, self._arrival.request_id, safe=self._service.host.safe)


METHODS = (Method(SERVICE + "ModelStreamInfer", "infer", stream=StreamInfer, protocol="grpc"),)
