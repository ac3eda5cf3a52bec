"""The data port as one bare ASGI callable: finds the entrance of a path and takes the request through its steps.

Most predictions never come here: `protocol.py` answers them from the socket. What does come is whatever needs an
await: slow models, large bodies, everything that is not a prediction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from fairway.core.errors import FairwayError, Overloaded, PayloadTooLarge, RateLimited, Unauthenticated
from fairway.core.settings import Settings
from fairway.inference.live import LiveVersion
from fairway.inference.plane import Plane, Work, now
from fairway.inference.repository import Repository
from fairway.serving.answers import heading_from, request_id_from
from fairway.serving.entrance import Call, Entry, Heading, Match, Reading, Reply, Router, Target, words
from fairway.serving.entrances import ENTRIES
from fairway.serving.errors import MethodNotAllowed

logger = logging.getLogger("fairway.serving")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LARGE_BODY = 256 * 1024
"""Bodies from here on are parsed in a thread: a long parse would hold up everybody else."""


class _Disconnected(Exception):
    """The caller went away before its request was whole: there is nobody to answer."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A request that the short way has read and validated before it knew that the model takes long."""

    heading: Heading
    reading: Reading
    work: Work


PREPARED = "fairway.prepared"
"""Its key in the ASGI scope's state."""


class DataApp:
    """ASGI application of the data port, and the `Service` that handlers see."""

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        counters_directory: Path | None = None,
        entries: tuple[Entry, ...] = ENTRIES,
    ) -> None:
        self.plane = plane
        self.settings = settings
        self.limits = settings.limits
        self.safe = settings.serving.errors == "safe"
        self.counters_directory = counters_directory
        self.router = Router(entries)
        self.ready = True
        self.repository: Repository | None = None
        self._pool = ThreadPoolExecutor(settings.serving.threads, thread_name_prefix="fairway-run")
        self._queue = settings.serving.queue
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = dict(scope["headers"])
        request_id = request_id_from(headers.get(b"x-request-id"))
        match: Match | None = None
        try:
            match = self.router.find(scope["method"], scope.get("raw_path") or scope["path"].encode())
            reply = await self._reply(match, scope, headers, request_id, receive)
        except _Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - every error has an answer; `_error` logs what is not expected
            reply = self._error(match, error, request_id)
        extra = [*reply.headers, (b"x-request-id", request_id.encode())]
        extra.append((b"content-length", str(len(reply.body)).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": extra})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})

    async def _reply(
        self, match: Match, scope: Scope, headers: dict[bytes, bytes], request_id: str, receive: Receive
    ) -> Reply:
        body = b"" if scope["method"] in ("GET", "HEAD") else await self._body(headers, receive)
        if match.target is not None:
            prepared = scope.get("state", {}).get(PREPARED)
            return await self._predict(match.target, request_id, headers, body, prepared)
        assert match.entry.handler is not None
        query = scope.get("query_string", b"").decode("latin-1")
        call = Call(scope["method"], scope["path"], match.names, query, headers, body)
        return await match.entry.handler(self, call)

    async def _predict(
        self,
        target: Target,
        request_id: str,
        headers: dict[bytes, bytes],
        body: bytes,
        prepared: Prepared | None,
    ) -> Reply:
        received = now()
        codec = target.codec
        model = target.model or ""
        try:
            heading = heading_from(target, headers, request_id, self.plane.table)
            model = heading.model
            live_model = self.plane.table[model]
            contract = live_model.primary.contract
            if prepared is not None:
                reading, work = prepared.reading, prepared.work
            elif len(body) > _LARGE_BODY or live_model.needs_loading(heading.version):
                reading = await self.in_thread(codec.read, target, heading, body, headers, contract)
                work = await self.in_thread(self.plane.prepare, reading.request, received)
            else:
                reading = codec.read(target, heading, body, headers, contract)
                work = self.plane.prepare(reading.request, received)
            if self.plane.quick(work):
                outputs = self.plane.run(work)
            else:
                outputs = await self.in_thread(self.plane.run, work)
        except Exception as error:
            code = error.code if isinstance(error, FairwayError) else "internal_error"
            self.plane.failed(model, target.version, codec.protocol, code)
            raise
        ran = now()
        live = work.version
        written = codec.write(reading, outputs, live)
        self.plane.finish(work, outputs, ran, now())
        return Reply(
            200,
            written.body,
            [(b"content-type", written.content_type), *written.headers, *version_headers(live)],
        )

    def _error(self, match: Match | None, error: Exception, request_id: str) -> Reply:
        word = words
        if match is not None:
            word = match.entry.words if match.target is None else match.target.codec.word
        status, written = word(error, request_id, safe=self.safe)
        if not isinstance(error, FairwayError):
            logger.error("request %s failed", request_id, exc_info=error)
        elif status >= 500:
            logger.error("request %s failed: %s", request_id, error, exc_info=error.__cause__)
        return Reply(
            status,
            written.body,
            [(b"content-type", written.content_type), *written.headers, *error_headers(error)],
        )

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._waiting >= self._queue:
            raise Overloaded(
                f"{self._waiting} requests are waiting (serving.queue).", hint="Try again in a second."
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        finally:
            self._waiting -= 1

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self.limits.body_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise too_large(int(declared), limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(size, limit)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


def version_headers(live: LiveVersion) -> list[tuple[bytes, bytes]]:
    """Which version answered; the digest is its identity."""
    return [
        (b"fairway-version", f"{live.model}:{live.version}".encode()),
        (b"fairway-digest", live.digest.encode()),
    ]


def error_headers(error: Exception) -> list[tuple[bytes, bytes]]:
    """What HTTP wants beside some errors."""
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allowed).encode())]
    if isinstance(error, Overloaded):
        return [(b"retry-after", b"1")]
    if isinstance(error, RateLimited):
        return [(b"retry-after", str(max(1, round(error.retry_after + 0.5))).encode())]
    if isinstance(error, Unauthenticated):
        return [(b"www-authenticate", b'Bearer realm="fairway"')]
    return []


def too_large(size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The body has {size} bytes; the limit is {limit} (limits.body_bytes).",
        hint="Send fewer rows a request.",
    )


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
