"""A prediction asked for over HTTP on its way: what its turn tells, as bytes of HTTP/1.1.

Answers are written together at the end of the loop's turn. Each write wakes its reader at once, and taking turns with
32 awakened readers costs as much again as everything else does (measured: 92 us a request, against 48).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from fairway.core.columns import Outputs
from fairway.core.errors import FairwayError
from fairway.inference.freshness import Source
from fairway.inference.live import LiveVersion
from fairway.inference.microbatch import Waiting
from fairway.inference.work import Work, now
from fairway.security.access import Caller
from fairway.serving.app import DataApp, served, server_timing, version_headers
from fairway.serving.compression import SMALLEST, compressed_for
from fairway.serving.entrance import Headers, Match, Reading, Reply


class Peer(Protocol):
    """The connection that waits for an answer."""

    def write(self, reply: Reply, request_id: str) -> None:
        """Any answer."""

    def write_lines(self, status: int, request_id: str, headers: bytes, body: bytes) -> None:
        """An answer whose headers are already lines."""

    def answered(self) -> None:
        """The answer has been handed to `write`; what the connection brought meanwhile can go on."""


class Outbox:
    """The answers of all connections that this turn of the loop has yet to write."""

    def __init__(self) -> None:
        self._answers: list[tuple[asyncio.Transport, bytes, bool]] = []

    def post(self, transport: asyncio.Transport, answer: bytes, *, close: bool = False) -> None:
        """Takes an answer, to be written at the end of this turn."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self.send)
        self._answers.append((transport, answer, close))

    def send(self) -> None:
        """Writes them now."""
        ready = self._answers.copy()
        self._answers.clear()
        for transport, answer, close in ready:
            if not transport.is_closing():
                transport.write(answer)
                if close:
                    transport.close()


class HttpTicket:
    """A request that was read, and the connection that waits for its answer. `limited` is the caller whose limits
    count it."""

    __slots__ = (
        "_app",
        "_connection",
        "_headers",
        "_limited",
        "_match",
        "_reading",
        "expiry",
        "gone",
        "traced",
        "waiting",
        "work",
    )

    def __init__(
        self,
        app: DataApp,
        connection: Peer,
        match: Match,
        reading: Reading,
        work: Work,
        headers: Headers,
        limited: Caller | None,
    ) -> None:
        self._app = app
        self._connection = connection
        self._match = match
        self._reading = reading
        self._headers = headers
        self._limited = limited
        self.work = work
        self.waiting: Waiting | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.gone = False
        self.traced = app.traces(headers)

    def leave(self) -> None:
        """Nothing is to be answered any more: a queued call is not run, the key's limits are told."""
        self.gone = True
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None  # it knows this ticket
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        if self._limited is not None:
            self._app.key_limits.leave(self._limited)
            self._limited = None

    def answer(self, outputs: Outputs, validated: float, began: float, ended: float) -> bool:
        target, work, headers = self._match.target, self.work, self._headers
        assert target is not None
        try:
            written = target.codec.write(self._reading, outputs, work.version)
        except Exception as error:  # noqa: BLE001 - `failed` logs it; the other answers of this turn go on
            self.failed(error)
            return False
        lines = b"content-type: %b\r\n%b" % (written.content_type, _version_lines(work.version))
        if work.found is not None:
            lines += b"%b%d\r\n" % (_SOURCE_LINES[work.found.source], work.found.age)
        if written.headers:
            lines += b"".join([b"%b: %b\r\n" % pair for pair in written.headers])
        if b"x-fairway-timing" in headers:
            timing = server_timing(work.received, work.parsed, validated, began, ended, now())
            lines += b"server-timing: %b\r\n" % timing
        body = written.body
        if len(body) >= SMALLEST and b"accept-encoding" in headers:
            body, extra = compressed_for(headers.get(b"accept-encoding"), body)
            lines += b"".join([b"%b: %b\r\n" % pair for pair in extra])
        self.leave()
        self._connection.write_lines(200, work.request.request_id, lines, body)
        self._connection.answered()
        return True

    def failed(self, error: Exception) -> None:
        app, work, request = self._app, self.work, self.work.request
        self.leave()
        code = error.code if isinstance(error, FairwayError) else "internal_error"
        app.plane.failed(request.model, request.version, request.protocol, code)
        reply = app.error_reply(self._match, error, request.request_id, request.model, request.caller)
        self._connection.write(reply, request.request_id)
        self._connection.answered()
        if self.traced:
            about = served(work, reply.status, code)
            app.trace(self._headers, self._match, work.received, (("parse", work.parsed),), about)

    def trace(self, stages: Sequence[tuple[str, float]]) -> None:
        self._app.trace(self._headers, self._match, self.work.received, stages, served(self.work, 200))


_SOURCE_LINES = {source: f"fairway-source: {source.value}\r\nfairway-age: ".encode() for source in Source}
_lines: WeakKeyDictionary[LiveVersion, bytes] = WeakKeyDictionary()


def _version_lines(version: LiveVersion) -> bytes:
    """The header lines that say which version answered."""
    lines = _lines.get(version)
    if lines is None:
        lines = _lines[version] = b"".join([b"%b: %b\r\n" % pair for pair in version_headers(version)])
    return lines
