"""HTTP/2 on one socket, as far as gRPC needs it (RFC 9113; no push, no priorities).

Frames of one call that have arrived whole are answered in the same turn of the loop, without a task, an event or a
queue. Answers of all connections leave together at the end of the turn: see `serving/ticket.py` for what that saves.

What bounds a caller: the size of a message, of a header block, the number of streams, how many bytes of unfinished
messages and unread answers one connection and all together may hold, how long what was begun may take (see
`patience.py`), and how often it may reset streams or have frames acknowledged that carry nothing. A peer that does not
read what it is sent is not read from either.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time

from fairway.inference.work import now
from fairway.serving.grpc import frames
from fairway.serving.grpc.answering import Bounds, Service
from fairway.serving.grpc.frames import FRAME_HEAD, ConnectionFault, Reason, Setting
from fairway.serving.grpc.gathering import Gathering
from fairway.serving.grpc.head import HeadReader
from fairway.serving.grpc.patience import Patience
from fairway.serving.grpc.sending import Outbox, Waiting
from fairway.serving.grpc.stream import Stream

logger = logging.getLogger("fairway.serving")

_unpack_head = FRAME_HEAD.unpack_from
_LONG_HEAD = 2048
"""Headers from here on count as bytes that a stream holds."""
_SMALL_GRANT = 1024
"""Bytes by which a window is opened for no good reason."""
_NOT_HTTP_2 = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 50\r\nconnection: close\r\n\r\n"
    b"This port speaks gRPC: HTTP/2 without an upgrade.\n"
)


class Connection(Gathering, asyncio.Protocol):
    """One peer. Streams that are open are in `streams`, by number."""

    def __init__(
        self, service: Service, bounds: Bounds, outbox: Outbox, everybody: set[Connection], waiting: Waiting
    ) -> None:
        super().__init__(service, bounds, outbox, waiting)
        self._everybody = everybody
        self._most = bounds.connections
        self._heads = HeadReader(service.find, bounds.header_block)
        self._rest = b""
        self._greeted = False
        self._block: tuple[int, int, bytearray] | None = None
        self._last_stream = 0
        self._receive_window = bounds.connection_window
        self._consumed = 0
        self._idle_since = time.monotonic()
        self._patience = Patience(self, bounds, outbox.loop)

    # -- the socket

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        _keep_alive(transport)
        self._everybody.add(self)
        self.client = self._service.client(transport)
        if len(self._everybody) > self._most:
            self._closing = True
            transport.close()
            return
        self._patience.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._patience.end()
        self._everybody.discard(self)
        for stream in list(self.streams.values()):
            if stream.number in self.streams:
                self.drop(stream)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """The peer does not read what it is sent: it is not read from either."""
        self._patience.paused_since = now()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._patience.paused_since = math.inf
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._patience.heard = now()
        try:
            self._frames(data)
        except ConnectionFault as fault:
            self._end(fault.reason, str(fault))
        except Exception:
            logger.exception("a gRPC connection failed")
            self._end(Reason.internal_error, "")

    def _frames(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, end = 0, len(data)
        if not self._greeted:
            preface = frames.PREFACE
            if not data.startswith(preface[:end]):
                self._refuse_http_1()
                return
            if end < len(preface):
                self._rest = data
                return
            self._greeted = True
            position = len(preface)
            self._greet()
        while end - position >= 9:
            high, low, kind, flags, number = _unpack_head(data, position)
            size = high << 16 | low
            if size > frames.DEFAULT_FRAME:
                raise ConnectionFault(Reason.frame_size_error, f"a frame of {size} bytes")
            stop = position + 9 + size
            if stop > end:
                break
            payload = data[position + 9 : stop]
            position = stop
            number &= 0x7FFFFFFF
            if self._block is not None and kind != frames.CONTINUATION:
                raise ConnectionFault(Reason.protocol_error, "a header block was not continued")
            if kind == frames.DATA:
                self._on_data(flags, number, payload, size)
            elif kind == frames.HEADERS:
                self._on_headers(flags, number, payload)
            else:
                self._on_other(kind, flags, number, payload)
            if self._closing:
                return
        self._rest = rest = data[position:]
        if rest or self._block is not None:
            self._patience.partly(new=position > 0 and self._block is None)
        else:
            self._patience.part_since = math.inf

    def _greet(self) -> None:
        bounds = self._bounds
        self._send(
            frames.settings(
                {
                    Setting.max_concurrent_streams: bounds.streams,
                    Setting.initial_window_size: bounds.stream_window,
                    Setting.max_header_list_size: bounds.header_block,
                }
            )
            + frames.window_update(0, bounds.connection_window - frames.DEFAULT_WINDOW)
        )

    def _refuse_http_1(self) -> None:
        """Who speaks something else than HTTP/2 is told in HTTP/1.1, and not in frames."""
        self._closing = True
        self._out.clear()
        self.transport.write(_NOT_HTTP_2)
        self.transport.close()

    # -- what arrives

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & (frames.PADDED | frames.PRIORITISED):
            payload = frames.unpadded(flags, payload)
            if flags & frames.PRIORITISED:
                if len(payload) < 5:
                    raise ConnectionFault(Reason.frame_size_error, "HEADERS without its priority")
                if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == number:
                    raise ConnectionFault(Reason.protocol_error, "a stream that depends on itself")
                payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._on_block(number, flags, payload)
        else:
            self._block = (number, flags, bytearray(payload))

    def _on_block(self, number: int, flags: int, block: bytes) -> None:
        if not number & 1 or not block:
            raise ConnectionFault(Reason.protocol_error, "HEADERS on a stream no client opens, or empty")
        head = self._heads.read(block)
        ended = flags & frames.END_STREAM
        stream = self.streams.get(number)
        if stream is not None:
            if stream.ended or not ended:
                self._fail(stream, Reason.protocol_error)
            else:
                self.end_of(stream)
            return
        if number <= self._last_stream:
            return  # of a stream answered or reset already, whose peer has not heard of it yet
        self._last_stream = number
        if self._refuse_after is not None and number > self._refuse_after:
            return
        if (
            len(self.streams) >= self._bounds.streams
            or self.unread > 4 * self._bounds.message
            or self.waiting.size > self._bounds.waiting
        ):
            self._take_back()
            self._send(frames.reset(number, Reason.refused_stream))
            return
        if head.malformed is not None:
            self._take_back()
            self._send(frames.reset(number, Reason.protocol_error))
            return
        begun = self._patience.heard
        stream = self.streams[number] = Stream(
            number, head, self._peer_stream_window, self._bounds.stream_window, begun
        )
        if head.size > _LONG_HEAD:
            self.count(stream, head.size)
        if head.timeout is not None and begun + head.timeout < self._patience.look_at:
            self._patience.until(begun + head.timeout)
        if head.status:
            self._plain(stream, head.status)
        elif head.method is None:
            self._service.refuse(self, stream, 12, f"there is no method {head.path[:200]}")
        elif self._service.is_streaming(head.method):
            self._service.streaming(self, stream)
        if ended and number in self.streams:
            self.end_of(stream)

    def _on_data(self, flags: int, number: int, payload: bytes, size: int) -> None:
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(Reason.flow_control_error, "more was sent than the window takes")
        self._consumed += size
        if self._consumed >= self._bounds.connection_window >> 1:
            self._send(frames.window_update(0, self._consumed))
            self._receive_window += self._consumed
            self._consumed = 0
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        stream = self.streams.get(number)
        if stream is None:
            if number > self._last_stream or not number:
                raise ConnectionFault(Reason.protocol_error, "DATA on a stream that was not opened")
            return
        stream.receive_window -= size
        if stream.ended or stream.receive_window < 0:
            reason = Reason.stream_closed if stream.ended else Reason.flow_control_error
            self._fail(stream, reason)
            return
        if (
            flags & frames.END_STREAM
            and stream.buffer is None
            and stream.call is None
            and len(payload) >= 5
            and payload[0] <= 1
            and int.from_bytes(payload[1:5], "big") == len(payload) - 5
        ):
            stream.ended = True
            self._service.unary(self, stream, payload[5:], payload[0] == 1)
            return
        if not payload and not flags & frames.END_STREAM:
            self._take_back()
        stream.consumed += size
        if stream.buffer is None and stream.call is None and not self._service.may_begin(self, stream):
            return
        self.gather(stream, payload)
        if number in self.streams:
            if flags & frames.END_STREAM:
                self.end_of(stream)
            elif stream.consumed >= self._bounds.stream_window >> 1 and not (
                stream.call is not None and stream.call.full
            ):
                self.take_more(stream)

    def _on_other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        if kind == frames.WINDOW_UPDATE:
            self._on_window(number, payload)
        elif kind == frames.PING:
            if size != 8 or number:
                raise ConnectionFault(Reason.frame_size_error, "PING has eight bytes and no stream")
            if not flags & frames.ACK:
                self._take_back()
                self._send(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.SETTINGS:
            self._on_settings(flags, number, payload)
        elif kind == frames.RST_STREAM:
            if size != 4 or not number or number > self._last_stream:
                raise ConnectionFault(Reason.protocol_error, "RST_STREAM of a stream that was not opened")
            self._take_back()
            stream = self.streams.get(number)
            if stream is not None:
                self.drop(stream)
        elif kind == frames.CONTINUATION:
            if self._block is None or self._block[0] != number:
                raise ConnectionFault(Reason.protocol_error, "CONTINUATION without its HEADERS")
            block = self._block[2]
            block += payload
            if not payload:
                self._take_back()
            if len(block) > self._bounds.header_block:
                raise ConnectionFault(Reason.enhance_your_calm, "the header block is over the limit")
            if flags & frames.END_HEADERS:
                opened, self._block = self._block, None
                self._on_block(number, opened[1], bytes(block))
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(Reason.protocol_error, "clients do not push")
        elif kind == frames.PRIORITY and (size != 5 or not number):
            raise ConnectionFault(Reason.frame_size_error, "PRIORITY has five bytes and a stream")
        else:
            self._take_back()  # GOAWAY asks for nothing more; unknown frames are ignored

    def _take_back(self) -> None:
        now = time.monotonic()
        forgiven = (now - self._idle_since) * self._bounds.idle_control_rate
        self._idle_since = now
        self.idle_control = max(0.0, self.idle_control - forgiven) + 1
        if self.idle_control > self._bounds.idle_control:
            raise ConnectionFault(Reason.enhance_your_calm, "too many frames that ask for nothing")

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(Reason.protocol_error, "SETTINGS of a stream")
        if flags & frames.ACK:
            return
        self._take_back()
        self.peer_settings(payload)

    def _on_window(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Reason.frame_size_error, "WINDOW_UPDATE has four bytes")
        more = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if not number:
            if not more:
                raise ConnectionFault(Reason.protocol_error, "a window that grows by nothing")
            if more < _SMALL_GRANT:
                self._take_back()
            self.widen(more)
        else:
            stream = self.streams.get(number)
            if stream is None:
                if number > self._last_stream:
                    raise ConnectionFault(
                        Reason.protocol_error, "WINDOW_UPDATE of a stream that was not opened"
                    )
                return
            if more < _SMALL_GRANT:
                self._take_back()
            if not more or stream.send_window + more > frames.LARGEST_WINDOW:
                self._fail(stream, Reason.protocol_error if not more else Reason.flow_control_error)
                return
            self.widen_stream(stream, more)

    def _plain(self, stream: Stream, status: int) -> None:
        """An HTTP answer for what is not gRPC."""
        allow = frames.literal(b"allow", b"POST") if status == 405 else b""
        self.close(stream, frames.literal(b":status", str(status).encode()) + allow)

    def _fail(self, stream: Stream, reason: Reason) -> None:
        """Ends one stream that broke the rules."""
        self._take_back()
        self._send(frames.reset(stream.number, reason))
        self.drop(stream)

    # -- the end

    def late(self, stream: Stream, why: str) -> None:
        """Ends a call whose message did not come, or whose answer nobody took, in time."""
        if stream.queued:
            self._send(frames.reset(stream.number, Reason.cancel))
            self.drop(stream)
        else:
            self._service.refuse(self, stream, 4, why)

    def stalled(self, why: str) -> None:
        """Ends a connection on which nothing can go on."""
        if self._greeted and not self.transport.get_write_buffer_size():
            self._end(Reason.enhance_your_calm, why)
            return
        self._closing = True
        self.transport.abort()

    def drain(self, *, last: bool) -> None:
        """Asks the peer for no new calls; with `last`, those that come anyway are left to be tried elsewhere."""
        if self._closing:
            return
        if not last:
            self._send(frames.goaway(frames.LARGEST_WINDOW, Reason.no_error, "shutting down"))
            return
        self._refuse_after = self._last_stream
        self._send(frames.goaway(self._last_stream, Reason.no_error, "shutting down"))

    def end_idle(self) -> None:
        """Ends streaming calls that answer nothing now and would go on for ever."""
        for stream in list(self.streams.values()):
            if stream.call is not None and stream.call.idle:
                self._service.refuse(self, stream, 14, "the server is shutting down")

    def _end(self, reason: Reason, why: str) -> None:
        self._send(frames.goaway(self._last_stream, reason, why))
        self._closing = True
        self.flush()
        self.transport.close()


def _keep_alive(transport: asyncio.Transport) -> None:
    """Lets the system find out that a peer is gone which never said so: gRPC's connections may idle for days."""
    connected = transport.get_extra_info("socket")
    if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
