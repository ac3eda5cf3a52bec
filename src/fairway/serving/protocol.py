"""HTTP/1.1 with a short way for predictions.

uvicorn's protocol builds a scope, a cycle, an event and a task for every request, about half of what a small
prediction costs. This subclass takes a predict request from the parser's callbacks into the `Turn` of the event loop,
which answers it together with all others, and replays every other request, untouched, into uvicorn's own way, so that
there is one behaviour and two speeds.

A client on a kept connection sends the same head again and again. When a chunk is exactly the last message's head,
byte for byte but for the digits of content-length, and a body of just that length, parsing it again could give nothing
new, and is left out.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fairway.core.errors import FairwayError, InvalidInput
from fairway.inference.work import now
from fairway.security.access import presented
from fairway.serving.answers import heading_from, request_id_from
from fairway.serving.app import CLIENT, DataApp
from fairway.serving.entrance import Match, Reply
from fairway.serving.formats import takes_long
from fairway.serving.keyed import with_key
from fairway.serving.ticket import HttpTicket, Outbox
from fairway.serving.tracing import Served
from fairway.serving.turn import Turn

_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_INLINE_BODY = 256 * 1024
_TARGETS = 1024


class _Answering:
    """Stands where uvicorn keeps the request it is answering, so that what follows on the connection waits."""

    def __init__(self) -> None:
        self.response_complete = True
        self.keep_alive = True
        self.disconnected = False
        self.more_body = False
        self.body = b""
        self.waiting_for_100_continue = False
        self.message_event = self
        self.ticket: HttpTicket | None = None

    def set(self) -> None:
        """Nobody waits for this event."""


class PredictProtocol(HttpToolsProtocol):
    """One connection. `data_app` is set on the subclass a worker makes."""

    data_app: DataApp
    turn: Turn
    outbox: Outbox
    matches: dict[bytes, Match | None]
    inline_body = _INLINE_BODY
    """Bytes of body up to which a request is answered from here."""
    head_limit = 64 * 1024
    most_connections = 10_000
    receive_seconds = 75.0
    receive_rate = 4096.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._match: Match | None = None
        self._answering = _Answering()
        named = self.data_app.client_name
        certificate = None if named is None else transport.get_extra_info("peercert")
        self._client = None if named is None or not certificate else named(certificate)
        self._parts: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._between_messages = True
        self._in_head = False
        self._began = 0.0
        self._chunk: bytes | None = None
        self._last_head: _Head | None = None
        self._last_active = self.loop.time()
        self._idle_check = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)
        if len(self.connections) > self.most_connections:
            transport.write(_TOO_MANY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle_check.cancel()
        if self._answering.ticket is not None:
            self._answering.ticket.leave()
            self._answering.ticket = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._last_active = self.loop.time()
        head = self._last_head
        if head is not None and self._between_messages and self._is_free():
            body = head.body_of(data)
            if body is not None and len(body) <= self.inline_body:
                if self._take(head.match, body, head.headers):
                    return
                self._last_head = None  # what cannot be answered at once is parsed again, for uvicorn
        self._chunk = data if self._between_messages else None
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._in_http_1() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                if not self.transport.is_closing():  # else it has been told why
                    self.send_400_response("Invalid HTTP request received.")
                break
        self._chunk = None

    def _in_http_1(self) -> bytes:
        """Nothing else is spoken here, and who asks for it, as Java's client asks for HTTP/2 with its first request, is
        answered as if it had not asked (RFC 9110, section 7.8). The parser, though, takes the body for the other protocol."""
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                value = b"close" if b"close" in value.lower() else b"keep-alive"
            if name not in (b"upgrade", b"http2-settings"):
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._between_messages = True
        self._chunk = None
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _is_free(self) -> bool:
        """Nothing on this connection is still being answered, and the client reads what it gets."""
        return (
            self._answering.response_complete
            and (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
        )

    def _close_if_idle(self) -> None:
        """One timer a connection, moved on when it fires, instead of one a request. A request whose rest does not come, or
        comes too slowly, is idle too: nobody may hold what has come of it for ever."""
        if not self.transport.is_closing():
            time = self.loop.time()
            receiving = self._is_receiving()
            begun = self._match is not None or (self.cycle is not None and not self.cycle.response_complete)
            wait: float = self.timeout_keep_alive
            if receiving or not begun:
                wait = self._last_active + self.timeout_keep_alive - time
            if receiving:
                wait = min(wait, self._began + self._allowed(self._size) - time)
            if wait > 0:
                self._idle_check = self.loop.call_later(wait, self._close_if_idle)
                return
            if begun or self._in_head:
                self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n")
            self.transport.close()
        # What was answered leaves first; a client that does not read it is not waited for without end.
        wait = self._allowed(self.transport.get_write_buffer_size())
        self._idle_check = self.loop.call_later(wait, self.transport.abort)

    def _allowed(self, size: int) -> float:
        """Seconds that so many bytes may take."""
        return self.receive_seconds + size / self.receive_rate

    def _is_receiving(self) -> bool:
        """Whether it is the client's turn: the rest of the head, or of the body, is awaited."""
        if self._match is not None:
            return True
        if self.pipeline:
            return False
        if self.cycle is None or self.cycle.response_complete:
            return not self._between_messages
        return self.cycle.more_body and not (self.flow.read_paused or self.cycle.waiting_for_100_continue)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._match = None
        self._parts = []
        self._size = 0
        self._head_size = 0
        self._between_messages = False
        self._in_head = True
        self._began = self._last_active

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._head_size += len(url)
        if self._head_size > self.head_limit:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > self.head_limit:
            self._refuse_head()
        if not self._in_head:
            return  # a trailer, which must not pass for a header (RFC 9110, section 6.5.1)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def send_400_response(self, msg: str) -> None:
        self.turn.settle()  # what was asked before comes first
        super().send_400_response(msg)

    def shutdown(self) -> None:
        self.turn.settle()
        super().shutdown()

    def _refuse_head(self, status: bytes = b"431 Request Header Fields Too Large", why: bytes = b"") -> None:
        self.turn.settle()
        if why:
            why = b"content-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(why), why)
        self.transport.write(b"HTTP/1.1 %b\r\nconnection: close\r\n%b" % (status, why or b"\r\n"))
        self.transport.close()
        raise ValueError("refused")  # stops the parser

    def _check_head(self) -> bool:
        """Refuses what RFC 9112 wants refused and the parser lets pass (sections 2.3, 3.2, 6.1). Whether the announced body
        may be one that is answered from here."""
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse_head(b"505 HTTP Version Not Supported", b"HTTP/1.1 is spoken here.\n")
        hosts, small = 0, True
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                small = int(value) <= self.inline_body
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                self._refuse_head(
                    b"501 Not Implemented",
                    b"Transfer-Encoding may be chunked; use Content-Encoding to compress.\n",
                )
        if hosts > 1 or (not hosts and version == "1.1"):
            self._refuse_head(b"400 Bad Request", b"HTTP/1.1 wants exactly one Host header.\n")
        return small

    def on_headers_complete(self) -> None:
        self._in_head = False
        small = self._check_head()
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return  # `_in_http_1` says it again without
        if small and self.parser.get_method() == b"POST" and self._may_go_short():
            self._match = self._find()
            if self._match is not None:
                return
        self._hand_over()

    def _may_go_short(self) -> bool:
        return (
            self._is_free()
            and not self.expect_100_continue
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _find(self) -> Match | None:
        """The entrance of a prediction; None for every other path."""
        try:
            return self.matches[self.url]
        except KeyError:
            match: Match | None = None
            try:
                match = self.data_app.router.find("POST", self.url)
            except FairwayError:
                pass  # the long way words it
            if match is not None and match.target is None:
                match = None
            if len(self.matches) < _TARGETS:
                self.matches[self.url] = match
            return match

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._match is None:
            super().on_body(body)
            return
        self._parts.append(body)
        if self._size > self.inline_body:
            self._hand_over()

    def on_message_complete(self) -> None:
        self._between_messages = True
        if self.parser.should_upgrade():
            return
        match = self._match
        if match is None:
            self._chunk = None
            super().on_message_complete()
            return
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        headers = dict(self.headers)
        if self._take(match, body, headers):
            self._match = None
            self._parts = []
            self._last_head = None if self._chunk is None else _Head.of(self._chunk, body, match, headers)
        else:
            self._hand_over()
            super().on_message_complete()
        self._chunk = None  # a second message in the same chunk has no head of its own to learn

    def _hand_over(self) -> None:
        """Gives the request to uvicorn as if it had just begun there."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        if self._client is not None:
            self.scope["state"] = {CLIENT: self._client}
        self.headers += headers
        parts, self._parts, self._match = self._parts, [], None
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def _take(self, match: Match, body: bytes, headers: dict[bytes, bytes]) -> bool:
        """Reads the request and gives it to this turn of the loop, or returns False where something has to be
        awaited first or somebody has to be refused; uvicorn's way does both."""
        received = now()
        app = self.data_app
        plane = app.plane
        target = match.target
        assert target is not None
        codec = target.codec
        request_id = request_id_from(headers.get(b"x-request-id"))
        model = target.model or ""
        try:
            caller, limited = "", None
            if app.access.required:
                who = app.access.check(presented(headers), "infer", target.model, time.time(), self._client)
                if target.model is None and who.models is not None:
                    return False
                caller, limited = who.name, who if who.limited else None
            heading = heading_from(target, headers, request_id, plane.table, caller)
            model = heading.model
            live_model = plane.table[model]
            if (
                live_model.needs_loading(heading.version)
                or b"content-encoding" in headers
                or takes_long(headers)
            ):
                return False
            if live_model.primary.key_name:
                heading = with_key(heading, headers, live_model)
            reading = codec.read(target, heading, body, headers, live_model.primary.contract)
            work = plane.arrive(reading.request, received)
            if limited is not None:
                app.key_limits.enter(limited, received)
        except FairwayError as error:
            if not isinstance(error, InvalidInput):
                return False  # the long way words it, logs it and counts it
            plane.failed(model, target.version, codec.protocol, error.code)
            reply = app.error_reply(match, error, request_id, model)
            self.write(reply, request_id)
            if app.traces(headers):
                failed = Served(model, codec.protocol, reply.status, request_id, error=error.code)
                app.trace(headers, match, received, (), failed)
            return True
        except Exception:  # noqa: BLE001 - a parser callback must not raise; the long way meets it again, and logs it
            return False
        answering = self._answering
        answering.response_complete = False
        self.cycle = answering  # type: ignore[assignment]
        answering.ticket = HttpTicket(app, self, match, reading, work, headers, limited)
        self.turn.add(answering.ticket)
        return True

    def answered(self) -> None:
        """The answer has been handed to `write`; what the connection brought meanwhile can go on."""
        answering = self._answering
        answering.ticket = None
        answering.response_complete = True
        if self.pipeline and self.parser is not None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def write(self, reply: Reply, request_id: str) -> None:
        """Any answer."""
        self.write_lines(
            reply.status, request_id, b"".join([b"%b: %b\r\n" % pair for pair in reply.headers]), reply.body
        )

    def write_lines(self, status: int, request_id: str, headers: bytes, body: bytes) -> None:
        """An answer whose headers are already lines."""
        self.outbox.post(
            self.transport,
            b"%b%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (STATUS_LINE[status], self._default_block(), headers, request_id.encode(), len(body), body),
            close=not self._answering.keep_alive,
        )

    def _default_block(self) -> bytes:
        """uvicorn's own headers (date, server), which change once a second."""
        headers = self.server_state.default_headers
        cached = _default_blocks.get(id(headers))
        if cached is not None and cached[0] is headers:
            return cached[1]
        block = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        _default_blocks.clear()
        _default_blocks[id(headers)] = (headers, block)
        return block


class _Head(msgspec.Struct, frozen=True, gc=False):
    """The bytes before a body, and what parsing them gave. `before` and `behind` are those around the digits of
    content-length; `headers` are without it, since it differs from message to message."""

    text: bytes
    message_size: int
    match: Match
    headers: dict[bytes, bytes]
    before: bytes
    behind: bytes

    def body_of(self, chunk: bytes) -> bytes | None:
        """The body of a chunk that is one whole message with this head; None for any other chunk."""
        if len(chunk) == self.message_size and chunk.startswith(self.text):
            return chunk[len(self.text) :]
        before, behind = self.before, self.behind
        if not chunk.startswith(before):
            return None
        begin = len(before)
        end = chunk.find(b"\r", begin, begin + _LENGTH_DIGITS + 1)
        if not chunk.startswith(behind, end) or end < 0:
            return None
        body = chunk[end + len(behind) :]
        return body if chunk[begin:end] == b"%d" % len(body) else None

    @staticmethod
    def of(chunk: bytes, body: bytes, match: Match, headers: dict[bytes, bytes]) -> _Head | None:
        """The head of a chunk that was one message with a body of announced length; None for anything else."""
        text = chunk[: len(chunk) - len(body)]
        whole = text.find(b"\r\n\r\n") == len(text) - 4 and chunk.endswith(body)
        length = b"%d" % len(body)
        if not whole or headers.get(b"content-length") != length:
            return None
        begin = text.lower().find(_LENGTH) + len(_LENGTH)
        if not text.startswith(length + b"\r", begin):  # written in an unusual way
            return None
        others = {name: value for name, value in headers.items() if name != b"content-length"}
        return _Head(text, len(chunk), match, others, text[:begin], text[begin + len(length) :])


_LENGTH = b"\r\ncontent-length: "
_LENGTH_DIGITS = 9


_default_blocks: dict[int, tuple[Any, bytes]] = {}


def protocol_for(app: DataApp) -> type[PredictProtocol]:
    """The protocol class uvicorn instantiates for each connection of this app."""
    outbox = Outbox()
    limits = {
        "head_limit": app.limits.header_bytes,
        "most_connections": app.limits.connections,
        "receive_seconds": app.limits.receive_seconds,
        "receive_rate": app.limits.receive_rate,
        "inline_body": min(_INLINE_BODY, app.limits.body_bytes),
    }
    return type(
        "PredictProtocol",
        (PredictProtocol,),
        {"data_app": app, "matches": {}, "turn": Turn(app.plane, outbox.send), "outbox": outbox, **limits},
    )
