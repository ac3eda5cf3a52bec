"""The half of a connection that puts messages together from the pieces they come in."""

from __future__ import annotations

from fairway.inference.work import now
from fairway.serving.grpc import frames
from fairway.serving.grpc.answering import Bounds, Service
from fairway.serving.grpc.sending import Outbox, Sending, Waiting
from fairway.serving.grpc.stream import Stream


class Gathering(Sending):
    """`unfinished` is how many bytes have come of messages that are not whole yet, and of their long headers."""

    def __init__(self, service: Service, bounds: Bounds, outbox: Outbox, waiting: Waiting) -> None:
        super().__init__(outbox, waiting)
        self._service = service
        self._bounds = bounds
        self.unfinished = 0

    def _refuse(self, stream: Stream, status: int, message: str) -> None:
        self._service.refuse(self, stream, status, message)

    def count(self, stream: Stream, more: int) -> None:
        """Counts bytes that are held for a stream."""
        stream.counted += more
        self.unfinished += more
        self.waiting.size += more

    def gather(self, stream: Stream, payload: bytes) -> None:
        """Adds to the message that is arriving; hands on those that are whole when the call takes many."""
        buffer = stream.buffer
        if buffer is None:
            buffer = stream.buffer = bytearray()
        streaming = stream.call is not None
        if streaming and not buffer:
            stream.begun = now()
        buffer += payload
        self.count(stream, len(payload))
        while len(buffer) >= 5:
            if not stream.need:
                size = int.from_bytes(buffer[1:5], "big")
                stream.need = 5 + size
                if size > self._bounds.message:
                    self._refuse(
                        stream,
                        8,
                        f"The message has {size} bytes; the limit is {self._bounds.message} (limits.body_bytes). "
                        "Send fewer rows a request.",
                    )
                    return
                if buffer[0] > 1:
                    self._refuse(stream, 13, "the message's first byte is neither 0 nor 1")
                    return
            if len(buffer) < stream.need or not streaming:
                break
            message = bytes(buffer[5 : stream.need])
            compressed = buffer[0] == 1
            del buffer[: stream.need]
            self.count(stream, -stream.need)
            stream.need = 0
            assert stream.call is not None
            stream.call.received(message, compressed)
            if stream.number not in self.streams:
                return
        if stream.need and len(buffer) > stream.need and not streaming:
            self._refuse(stream, 12, "a unary call takes one message")
        elif self.unfinished > 2 * self._bounds.message:
            self._refuse(stream, 8, "this connection has too many unfinished messages")
        elif self.waiting.size > self._bounds.waiting and buffer:
            self._refuse(
                stream,
                8,
                f"the server holds {self.waiting.size} bytes of unfinished messages and unread answers "
                f"(limits.waiting_bytes: {self._bounds.waiting}); try again later",
            )

    def end_of(self, stream: Stream) -> None:
        stream.ended = True
        buffer = stream.buffer
        if stream.call is not None:
            if buffer:
                self._refuse(stream, 13, "the last message was cut short")
            else:
                stream.call.ended()
            return
        if not buffer or not stream.need or len(buffer) != stream.need:
            what = "the message was cut short" if buffer else "a unary call needs a message"
            self._refuse(stream, 13, what)
            return
        self.release(stream)
        self._service.unary(self, stream, bytes(memoryview(buffer)[5:]), buffer[0] == 1)

    def release(self, stream: Stream) -> None:
        if stream.counted:
            self.count(stream, -stream.counted)
        stream.buffer = None

    def take_more(self, stream: Stream) -> None:
        """Lets the peer send more on this stream."""
        if stream.consumed and not stream.ended and stream.number in self.streams:
            self._send(frames.window_update(stream.number, stream.consumed))
            stream.receive_window += stream.consumed
            stream.consumed = 0

    def drop(self, stream: Stream) -> None:
        """Forgets a stream; who was to answer it is told."""
        del self.streams[stream.number]
        self.release(stream)
        self.unqueue(stream)
        if stream.call is not None:
            stream.call.cancelled()
