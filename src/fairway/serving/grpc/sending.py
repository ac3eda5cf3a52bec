"""The half of a connection that sends: answers as far as the peer's windows let them go, the rest when they do.

Answers of all connections leave together at the end of the loop's turn: see `serving/ticket.py` for what that saves.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fairway.inference.work import now
from fairway.serving.grpc import frames
from fairway.serving.grpc.frames import ConnectionFault, Reason, Setting
from fairway.serving.grpc.stream import Stream

_MOST_FRAME = 1024 * 1024
_FORGIVEN = 10
"""Frames that asked for nothing which an answer forgives, or a message of one: more than any client sends for it."""


class Outbox:
    """Connections with bytes to send at the end of this turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: list[Sending] = []

    def add(self, connection: Sending) -> None:
        if not self._waiting:
            self.loop.call_soon(self.send)
        self._waiting.append(connection)

    def send(self) -> None:
        """Sends them now."""
        ready, self._waiting = self._waiting, []
        for connection in ready:
            connection.flush()


class Waiting:
    """Bytes of half-sent messages and unread answers that all connections of a server hold."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class Sending:
    """Streams that are open are in `streams`, by number. `unread` is how many bytes of answers windows hold back."""

    transport: asyncio.Transport

    def __init__(self, outbox: Outbox, waiting: Waiting) -> None:
        self.client: str | None = None
        """The name in the peer's certificate, where one stands for a key."""
        self.streams: dict[int, Stream] = {}
        self.unread = 0
        self.waiting = waiting
        self.idle_control = 0.0
        """Frames of the peer's that asked for nothing and are not forgiven yet."""
        self._outbox = outbox
        self._out: list[bytes] = []
        self._held: deque[Stream] = deque()
        """Streams whose answers only the connection's window holds back."""
        self._send_window = frames.DEFAULT_WINDOW
        self._peer_stream_window = frames.DEFAULT_WINDOW
        self._peer_frame = frames.DEFAULT_FRAME
        self._refuse_after: int | None = None
        """While draining, the last stream that is still answered."""
        self._closing = False

    def release(self, stream: Stream) -> None:
        """What arrived of the stream's message is not needed any more."""

    def unqueue(self, stream: Stream) -> None:
        """What is left of a stream's answer is not sent any more."""
        if stream.queued:
            self._unread(-sum(len(part) for part in stream.queued))
        stream.queued = None

    def _unread(self, more: int) -> None:
        self.unread += more
        self.waiting.size += more

    def peer_settings(self, payload: bytes) -> None:
        """Takes and acknowledges the peer's SETTINGS."""
        # Of a setting that stands there often the last counts; going through all streams for each would be costly.
        for name, value in dict(frames.read_settings(payload)).items():
            if name == Setting.initial_window_size:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFault(Reason.flow_control_error, "a window of over 2**31 bytes")
                change = value - self._peer_stream_window
                self._peer_stream_window = value
                for stream in self.streams.values() if change else ():
                    stream.send_window += change
                    if stream.send_window > frames.LARGEST_WINDOW:
                        raise ConnectionFault(Reason.flow_control_error, "a window of over 2**31 bytes")
                    self._hold(stream)
            elif name == Setting.max_frame_size:
                if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                    raise ConnectionFault(Reason.protocol_error, "a frame size outside the allowed")
                self._peer_frame = min(value, _MOST_FRAME)
        self._send(frames.frame(frames.SETTINGS, frames.ACK, 0))  # before anything that makes use of them
        self._pump()

    def widen_stream(self, stream: Stream, more: int) -> None:
        """The peer takes more bytes on this stream."""
        stream.send_window += more
        self._hold(stream)
        self._pump()

    def widen(self, more: int) -> None:
        """The peer takes more bytes on this connection."""
        self._send_window += more
        if self._send_window > frames.LARGEST_WINDOW:
            raise ConnectionFault(Reason.flow_control_error, "a window of over 2**31 bytes")
        self._pump()

    def reply(self, stream: Stream, opening: bytes, message: bytes, closing: bytes) -> None:
        """A whole unary answer: header block, message, trailer block."""
        size = len(message) + 5
        number = stream.number
        if size > self._send_window or size > stream.send_window or size > self._peer_frame or stream.opened:
            self.open(stream, opening)
            self.send(stream, message)
            self.close(stream, closing)
            return
        if self.streams.pop(number, None) is None:
            return
        self._send_window -= size
        self._forgive()
        if stream.counted:
            self.release(stream)
        told = number.to_bytes(4, "big")
        self._send(
            b"".join(
                (
                    len(opening).to_bytes(3, "big"),
                    b"\x01\x04",
                    told,
                    opening,
                    size.to_bytes(3, "big"),
                    b"\x00\x00",
                    told,
                    b"\x00",
                    (size - 5).to_bytes(4, "big"),
                    message,
                    len(closing).to_bytes(3, "big"),
                    b"\x01\x05",
                    told,
                    closing,
                )
            )
        )

    def open(self, stream: Stream, block: bytes) -> None:
        """The answer's headers."""
        if stream.number in self.streams and not stream.opened:
            stream.opened = True
            self._send(frames.frame(frames.HEADERS, frames.END_HEADERS, stream.number, block))

    def send(self, stream: Stream, message: bytes) -> None:
        """One message, as far as the windows allow; the rest follows when they do."""
        if stream.number not in self.streams:
            return
        if stream.queued is None:
            stream.queued = deque()
        if not stream.queued:
            stream.owed, stream.owed_since = 0, now()
        whole = b"\x00" + len(message).to_bytes(4, "big") + message
        stream.queued.append(memoryview(whole))
        stream.owed += len(whole)
        self._unread(len(whole))
        self._hold(stream)
        self._pump()

    def close(self, stream: Stream, block: bytes) -> None:
        """The trailers; nothing is sent on the stream after them."""
        if stream.number not in self.streams:
            return
        self._forgive()
        stream.tail = frames.frame(
            frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream.number, block
        )
        if not stream.queued:
            self._finish(stream)

    def _forgive(self) -> None:
        """A whole answer, or a whole message of one, has left."""
        if self.idle_control > 0:
            self.idle_control -= _FORGIVEN

    def _finish(self, stream: Stream) -> None:
        assert stream.tail is not None
        self.release(stream)
        self._send(stream.tail)
        if not stream.ended:  # what the peer still sends is not wanted
            self._send(frames.reset(stream.number, Reason.no_error))
        del self.streams[stream.number]

    def _hold(self, stream: Stream) -> None:
        """Lets a stream take its turn, if it has something to send and its own window lets it."""
        if stream.queued and not stream.held and stream.send_window > 0:
            stream.held = True
            self._held.append(stream)

    def _pump(self) -> None:
        """Sends what windows held back, one frame of each stream in turn."""
        held = self._held
        while held and self._send_window > 0:
            stream = held.popleft()
            stream.held = False
            if stream.number not in self.streams or not stream.queued or stream.send_window <= 0:
                continue
            size = min(self._send_window, stream.send_window, self._peer_frame, len(stream.queued[0]))
            part = stream.queued[0]
            self._send(frames.frame(frames.DATA, 0, stream.number, bytes(part[:size])))
            self._send_window -= size
            stream.send_window -= size
            self._unread(-size)
            if size == len(part):
                stream.queued.popleft()
                self._forgive()
            else:
                stream.queued[0] = part[size:]
            if stream.queued:
                self._hold(stream)
            elif stream.tail is not None:
                self._finish(stream)
            elif stream.call is not None:
                stream.call.drained()

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._outbox.add(self)
        self._out.append(data)

    def flush(self) -> None:
        out, self._out = self._out, []
        if out and not self.transport.is_closing():
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._refuse_after is not None and not self.streams:
            self._closing = True
            self.transport.close()
