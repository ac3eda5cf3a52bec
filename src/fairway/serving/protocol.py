"""HTTP/1.1 with a short way for predictions.

uvicorn's protocol builds a scope, a cycle, an event and a task for every request, about half of what a small
prediction costs. This subclass answers a predict request from the parser's callbacks when nothing has to be awaited,
and replays every other request, untouched, into uvicorn's own way, so that there is one behaviour and two speeds.

Answers are written together at the end of the loop's turn. Each write wakes its reader at once, and taking turns with
32 awakened readers costs as much again as everything else here does (measured: 92 us a request, against 48).

A client on a kept connection sends the same head again and again. When a chunk is exactly the last message's head,
byte for byte, and a body of the length that head announces, parsing it again could give nothing new, and is left out.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fairway.core.errors import FairwayError, InvalidInput
from fairway.inference.plane import now
from fairway.serving.answers import heading_from, request_id_from
from fairway.serving.app import PREPARED, DataApp, Prepared, version_headers
from fairway.serving.entrance import Target, Written

_INLINE_BODY = 256 * 1024
_TARGETS = 1024


class PredictProtocol(HttpToolsProtocol):
    """One connection. `data_app` is set on the subclass a worker makes."""

    data_app: DataApp
    outbox: list[tuple[asyncio.Transport, bytes]]
    """Answers of all connections that this turn of the loop has yet to write."""
    targets: dict[bytes, Target | None]
    inline_body = _INLINE_BODY
    """Bytes of body up to which a request is answered from here."""
    head_limit = 64 * 1024

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._target: Target | None = None
        self._parts: list[bytes] = []
        self._prepared: Prepared | None = None
        self._size = 0
        self._head_size = 0
        self._between_messages = True
        self._chunk: bytes | None = None
        self._last_head: _Head | None = None
        self._last_active = self.loop.time()
        self._idle_check = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle_check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._last_active = self.loop.time()
        head = self._last_head
        if head is not None and self._between_messages and head.begins(data) and self._is_free():
            if self._answer(head.target, data[len(head.text) :], head.headers):
                self.server_state.total_requests += 1
                return
            self._last_head = None  # what cannot be answered at once is parsed again, for uvicorn
        self._chunk = data if self._between_messages else None
        super().data_received(data)
        self._chunk = None

    def _is_free(self) -> bool:
        """Nothing on this connection is still being answered, and the client reads what it gets."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
        )

    def _close_if_idle(self) -> None:
        """One timer a connection, moved on when it fires, instead of one a request."""
        idle = self.loop.time() - self._last_active
        busy = self._target is not None or (self.cycle is not None and not self.cycle.response_complete)
        if not busy and idle >= self.timeout_keep_alive:
            if not self.transport.is_closing():
                self.transport.close()
            return
        wait = self.timeout_keep_alive if busy else self.timeout_keep_alive - idle
        self._idle_check = self.loop.call_later(wait, self._close_if_idle)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._target = None
        self._parts = []
        self._size = 0
        self._head_size = 0
        self._between_messages = False

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._head_size += len(url)
        if self._head_size > self.head_limit:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._head_size += len(name) + len(value)
        if self._head_size > self.head_limit:
            self._refuse_head()

    def send_400_response(self, msg: str) -> None:
        _send_all(self.outbox)  # what was asked before comes first
        super().send_400_response(msg)

    def shutdown(self) -> None:
        _send_all(self.outbox)
        super().shutdown()

    def _refuse_head(self) -> None:
        _send_all(self.outbox)
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
        self.transport.close()
        raise ValueError("request head over the limit")  # stops the parser

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"POST" and self._may_go_short():
            self._target = self._find_target()
            if self._target is not None:
                return
        self._hand_over()

    def _may_go_short(self) -> bool:
        return (
            self._prepared is None
            and self._is_free()
            and not self.expect_100_continue
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _find_target(self) -> Target | None:
        try:
            return self.targets[self.url]
        except KeyError:
            try:
                target = self.data_app.router.find("POST", self.url).target
            except FairwayError:
                target = None
            if len(self.targets) < _TARGETS:
                self.targets[self.url] = target
            return target

    def on_body(self, body: bytes) -> None:
        if self._target is None:
            super().on_body(body)
            return
        self._parts.append(body)
        self._size += len(body)
        if self._size > self.inline_body:
            self._hand_over()

    def on_message_complete(self) -> None:
        self._between_messages = True
        target = self._target
        if target is None:
            self._chunk = None
            super().on_message_complete()
            return
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        headers = dict(self.headers)
        if self._answer(target, body, headers):
            self._target = None
            self._parts = []
            self.server_state.total_requests += 1
            self._last_head = None if self._chunk is None else _Head.of(self._chunk, body, target, headers)
        else:
            self._hand_over()
            super().on_message_complete()
        self._chunk = None  # a second message in the same chunk has no head of its own to learn

    def _hand_over(self) -> None:
        """Gives the request to uvicorn as if it had just begun there."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        if self._prepared is not None:
            self.scope["state"] = {PREPARED: self._prepared}
            self._prepared = None
        self.headers += headers
        parts, self._parts, self._target = self._parts, [], None
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def _answer(self, target: Target, body: bytes, headers: dict[bytes, bytes]) -> bool:
        """Answers now, or returns False when that would take an await."""
        received = now()
        app = self.data_app
        plane = app.plane
        codec = target.codec
        request_id = request_id_from(headers.get(b"x-request-id"))
        model = target.model or ""
        try:
            heading = heading_from(target, headers, request_id, plane.table)
            model = heading.model
            live_model = plane.table[model]
            if not plane.short(live_model, heading.version):
                return False
            reading = codec.read(target, heading, body, headers, live_model.primary.contract)
            work = plane.prepare(reading.request, received)
            if not plane.quick(work):
                self._prepared = Prepared(
                    heading, reading, work
                )  # or what the rules counted would count twice
                return False
            outputs = plane.run(work)
        except FairwayError as error:
            if not isinstance(error, InvalidInput):
                return False  # the long way words it, logs it and counts it
            plane.failed(model, target.version, codec.protocol, error.code)
            status, written = codec.word(error, request_id, safe=app.safe)
            self._write(status, request_id, written, b"")
            return True
        except Exception:  # noqa: BLE001 - a parser callback must not raise; the long way meets it again, and logs it
            return False
        ran = now()
        live = work.version
        written = codec.write(reading, outputs, live)
        encoded = now()
        self._write(200, request_id, written, _version_block(live))
        plane.finish(work, outputs, ran, encoded)
        return True

    def _write(self, status: int, request_id: str, written: Written, version_block: bytes) -> None:
        outbox = self.outbox
        extra = version_block
        if written.headers:
            extra += b"".join(b"%b: %b\r\n" % pair for pair in written.headers)
        if not outbox:
            self.loop.call_soon(_send_all, outbox)
        outbox.append(
            (
                self.transport,
                b"%b%bcontent-type: %b\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
                % (
                    STATUS_LINE[status],
                    self._default_block(),
                    written.content_type,
                    extra,
                    request_id.encode(),
                    len(written.body),
                    written.body,
                ),
            )
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
    """The bytes before a body, and what parsing them gave."""

    text: bytes
    message_size: int
    target: Target
    headers: dict[bytes, bytes]

    def begins(self, chunk: bytes) -> bool:
        """Whether `chunk` is one whole message with this head."""
        return len(chunk) == self.message_size and chunk.startswith(self.text)

    @staticmethod
    def of(chunk: bytes, body: bytes, target: Target, headers: dict[bytes, bytes]) -> _Head | None:
        """The head of a chunk that was one message with a body of announced length; None for anything else."""
        text = chunk[: len(chunk) - len(body)]
        whole = text.find(b"\r\n\r\n") == len(text) - 4 and chunk.endswith(body)
        if not whole or headers.get(b"content-length") != b"%d" % len(body):
            return None
        return _Head(text, len(chunk), target, headers)


def _send_all(outbox: list[tuple[asyncio.Transport, bytes]]) -> None:
    """Writes what this turn of the loop answered."""
    ready = outbox.copy()
    outbox.clear()
    for transport, answer in ready:
        if not transport.is_closing():
            transport.write(answer)


_default_blocks: dict[int, tuple[Any, bytes]] = {}
_version_blocks: dict[Any, bytes] = {}


def _version_block(live: Any) -> bytes:
    block = _version_blocks.get(live)
    if block is None:
        if len(_version_blocks) > _TARGETS:
            _version_blocks.clear()
        block = _version_blocks[live] = b"".join(b"%b: %b\r\n" % pair for pair in version_headers(live))
    return block


def protocol_for(app: DataApp) -> type[PredictProtocol]:
    """The protocol class uvicorn instantiates for each connection of this app."""
    limits = {
        "head_limit": app.limits.header_bytes,
        "inline_body": min(_INLINE_BODY, app.limits.body_bytes),
    }
    return type(
        "PredictProtocol", (PredictProtocol,), {"data_app": app, "targets": {}, "outbox": [], **limits}
    )
