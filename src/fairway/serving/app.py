"""The data port as one bare ASGI callable: finds the entrance of a path and takes the request through its steps.

Most predictions never come here: `protocol.py` answers them from the socket. What does come is whatever needs an
await: slow models, large bodies, everything that is not a prediction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec

from fairway.core.columns import Outputs
from fairway.core.errors import (
    DeadlineExceeded,
    FairwayError,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    Unauthenticated,
)
from fairway.core.settings import Settings
from fairway.inference.freshness import Source
from fairway.inference.live import LiveModel, LiveVersion
from fairway.inference.microbatch import Waiting
from fairway.inference.opening import open_label_log
from fairway.inference.plane import Plane
from fairway.inference.precomputed import Found
from fairway.inference.repository import Health, Repository
from fairway.inference.stats import STAGES
from fairway.inference.work import Work, now
from fairway.security.access import Access, presented
from fairway.serving.answers import heading_from, request_id_from
from fairway.serving.compression import SMALLEST, compressed, decompressed
from fairway.serving.entrance import (
    Call,
    Entry,
    Headers,
    Heading,
    Match,
    Reading,
    Reply,
    Router,
    Target,
    words,
)
from fairway.serving.entrances import ENTRIES
from fairway.serving.errors import MethodNotAllowed
from fairway.serving.formats import takes_long
from fairway.serving.keyed import with_key
from fairway.serving.label_writer import LabelWriter
from fairway.serving.loading import loaded
from fairway.serving.logs import FailureLog
from fairway.serving.tracing import Served, Tracer
from fairway.stores.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LARGE_BODY = 256 * 1024
"""Bodies from here on are parsed in a thread: a long parse would hold up everybody else."""


CLIENT = "fairway.client"
"""Where the ASGI scope's state has the name in the connection's client certificate."""


class _Disconnected(Exception):
    """The caller went away before its request was whole: there is nobody to answer."""


class DataApp:
    """ASGI application of the data port, and the `Service` that handlers see."""

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        counters_directory: Path | None = None,
        *,
        access: Access | None = None,
        limits_directory: Path | None = None,
        entries: tuple[Entry, ...] = ENTRIES,
    ) -> None:
        self.plane = plane
        self.settings = settings
        self.limits = settings.limits
        self.safe = settings.serving.errors == "safe"
        self.counters_directory = counters_directory
        self.router = Router(entries)
        self.access = access or Access(open_admin=settings.access.open_admin)
        """The keys known now; a new one takes its place when they change."""
        self.client_name: Callable[[Mapping[str, Any]], str | None] | None = None
        """The name in a verified client certificate, where one stands for a key."""
        self._limits_directory = limits_directory
        self._key_limits: Limits | None = None
        self.failures = FailureLog(settings.telemetry)
        self.tracer: Tracer | None = None
        """Where spans go, when they go anywhere."""
        self.ready = True
        self.repository: Repository | None = None
        self.health: Callable[[], Health] = lambda: Health(ready=self.ready)
        self._pool = ThreadPoolExecutor(settings.serving.threads, thread_name_prefix="fairway-work")
        self._queue = settings.serving.queue
        self._waiting = 0
        self.labels = LabelWriter(
            open_label_log(settings), settings.log, plane.counters, self.in_thread, settings.limits.problems
        )

    @property
    def key_limits(self) -> Limits:
        """What keys with limits have used. Made when the first of them calls: without such keys there is nothing to
        count, and no file that a full disk could refuse."""
        if self._key_limits is None:
            self._key_limits = Limits(self._limits_directory)
        return self._key_limits

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
            reply = await self._packed(reply, headers)
        except _Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - every error has an answer; `error_reply` logs what is not expected
            reply = self.error_reply(match, error, request_id)
        extra = [*reply.headers, (b"x-request-id", request_id.encode())]
        extra.append((b"content-length", str(len(reply.body)).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": extra})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})

    async def _reply(
        self, match: Match, scope: Scope, headers: dict[bytes, bytes], request_id: str, receive: Receive
    ) -> Reply:
        client = scope.get("state", {}).get(CLIENT)
        if match.target is not None:
            return await self._predict(match, match.target, request_id, headers, client, receive)
        entry = match.entry
        with self._admitted(entry.scope, headers, match.names.get("model"), client) as caller:
            body = b"" if scope["method"] in ("GET", "HEAD") else await self._body(headers, receive)
            body = await self._unpacked(body, headers)
            query = scope.get("query_string", b"").decode("latin-1")
            call = Call(scope["method"], scope["path"], match.names, query, headers, body, caller)
            assert entry.handler is not None
            return await entry.handler(self, call)

    @contextmanager
    def _admitted(self, scope: str, headers: Headers, model: str | None, client: str | None) -> Iterator[str]:
        """Who calls, once it is known that they may; their limits count while this is open."""
        if scope == "open":
            yield self._name(headers, client)
            return
        caller = self.access.check(presented(headers), cast(Any, scope), model, time.time(), client)
        if not caller.limited:
            yield caller.name
            return
        self.key_limits.enter(caller, now())
        try:
            yield caller.name
        finally:
            self.key_limits.leave(caller)

    def _name(self, headers: Headers, client: str | None) -> str:
        """Of whoever calls where no key is needed: empty when none is sent that holds."""
        try:
            return self.access.identify(presented(headers), time.time(), client).name
        except Unauthenticated:
            return ""

    def _heading(
        self, target: Target, request_id: str, headers: dict[bytes, bytes], client: str | None
    ) -> Heading:
        """What path and headers say. Where they name no model, whoever may not know them all is not told which there are."""
        if target.model is not None:
            return heading_from(target, headers, request_id, self.plane.table)
        caller = self.access.check(presented(headers), "infer", None, time.time(), client)
        try:
            return heading_from(target, headers, request_id, self.plane.table)
        except ModelNotFound:
            if caller.models is None:
                raise
            raise ModelNotFound(
                "the path names no model.", hint="Name one in the header X-Fairway-Model."
            ) from None

    async def _predict(
        self,
        match: Match,
        target: Target,
        request_id: str,
        headers: dict[bytes, bytes],
        client: str | None,
        receive: Receive,
    ) -> Reply:
        arrived = now()
        model = target.model or ""
        try:
            heading = self._heading(target, request_id, headers, client)
            model = heading.model
            with self._admitted("infer", headers, model, client) as caller:
                body = await self._unpacked(await self._body(headers, receive), headers)
                heading = msgspec.structs.replace(heading, caller=caller)
                reading, work = await self._understood(target, heading, body, headers)
                outputs, began, ended = await self._outputs(work, receive)
        except _Disconnected:
            self.plane.failed(model, target.version, target.codec.protocol, "disconnected")
            raise
        except Exception as error:  # noqa: BLE001 - as in `__call__`, and its trace tells the model
            return self._failed(match, target, error, request_id, model, headers, arrived)
        return await self._answered(match, target, reading, work, outputs, headers, began, ended)

    async def _understood(
        self, target: Target, heading: Heading, body: bytes, headers: Headers
    ) -> tuple[Reading, Work]:
        """The request in a body, on its way to its version and held against its contract; in a thread where that takes long."""
        received = now()
        live_model = self.plane.table[heading.model]
        waited_for: LiveModel | None = None
        if live_model.needs_loading(heading.version):
            live_model = waited_for = await loaded(
                live_model, heading.version, heading.deadline, self.settings.serving.load_seconds
            )
        contract = live_model.primary.contract
        if live_model.primary.key_name:
            heading = with_key(heading, headers, live_model)
        codec = target.codec
        if takes_long(headers) or len(body) > _LARGE_BODY:
            reading = await self.in_thread(codec.read, target, heading, body, headers, contract)
            work = await self.in_thread(self.plane.arrive, reading.request, received, waited_for)
            await self.in_thread(self.plane.validate, work)
        else:
            reading = codec.read(target, heading, body, headers, contract)
            work = self.plane.arrive(reading.request, received, waited_for)
            self.plane.validate(work)
        return reading, work

    def _failed(
        self,
        match: Match,
        target: Target,
        error: Exception,
        request_id: str,
        model: str,
        headers: Headers,
        arrived: float,
    ) -> Reply:
        protocol = target.codec.protocol
        code = error.code if isinstance(error, FairwayError) else "internal_error"
        self.plane.failed(model, target.version, protocol, code)
        reply = self.error_reply(match, error, request_id, model)
        if self.traces(headers):
            failed = Served(model, protocol, reply.status, request_id, error=code)
            self.trace(headers, match, arrived, (), failed)
        return reply

    async def _answered(
        self,
        match: Match,
        target: Target,
        reading: Reading,
        work: Work,
        outputs: Outputs,
        headers: Headers,
        began: float,
        ended: float,
    ) -> Reply:
        """What the model said, written, counted and recorded."""
        live, write = work.version, target.codec.write
        if takes_long(headers):
            written = await self.in_thread(write, reading, outputs, live)
        else:
            written = write(reading, outputs, live)
        encoded = now()
        self.plane.finish(work, outputs, ended, encoded, began)
        await self._committed()
        extra = [(b"content-type", written.content_type), *written.headers, *version_headers(live)]
        if work.found is not None:
            extra += source_headers(work.found)
        ends = (work.parsed, work.validated, began, ended, encoded)
        if b"x-fairway-timing" in headers:
            extra.append((b"server-timing", server_timing(work.received, *ends)))
        if self.traces(headers):
            stages = tuple(zip(STAGES, ends, strict=True))
            self.trace(headers, match, work.received, stages, served(work, 200))
        return Reply(200, written.body, extra)

    async def _outputs(self, work: Work, receive: Receive) -> tuple[Outputs, float, float]:
        """What the model says, or what was computed ahead; and when that began and ended."""
        if work.version.key_name:
            looked = await self._queued(work, receive)
            if looked.outputs is not None:
                return looked.outputs, looked.began, looked.ended
        try:
            if self.plane.quick(work):
                began, outputs = now(), self.plane.run(work)
                return outputs, began, now()
            waiting = await self._queued(work, receive)
        except Overloaded:
            if not self.plane.fall_back(work):
                raise
            waiting = await self._queued(work, receive)
        assert waiting.outputs is not None
        return waiting.outputs, waiting.began, waiting.ended

    async def _committed(self) -> None:
        """In the log's durable mode, until the prediction is on the disk; this loop does not wait for that."""
        if self.settings.log.durable:
            await self.in_thread(self.plane.commit)

    def traces(self, headers: Headers) -> bool:
        """Whether this request is to leave a span."""
        return self.tracer is not None and self.tracer.wants(headers.get(b"traceparent"))

    def trace(
        self,
        headers: Headers,
        match: Match,
        started: float,
        stages: Sequence[tuple[str, float]],
        about: Served,
    ) -> None:
        """Leaves the span of a request that `traces` chose."""
        if self.tracer is not None:
            method = f"{match.entry.method} {match.entry.path}"
            self.tracer.record(
                headers.get(b"traceparent"), started, stages, msgspec.structs.replace(about, method=method)
            )

    async def _queued(self, work: Work, receive: Receive) -> Waiting:
        """Through the queue. What nobody waits for any more, because its time is up or its caller is gone, is taken
        out of it."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not over.done():
                over.set_result(None)

        def ran(waiting: Waiting) -> None:
            loop.call_soon_threadsafe(wake)

        waiting = self.plane.begin(work, ran)
        gone = asyncio.ensure_future(receive())
        deadline = work.request.deadline
        try:
            await asyncio.wait(
                (over, gone),
                timeout=None if deadline is None else max(0.0, deadline - now()),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            gone.cancel()
            if not over.done():
                waiting.cancel()
        if not over.done():
            if gone.done() and not gone.cancelled():
                raise _Disconnected
            raise DeadlineExceeded(f"{work.version.model} did not answer before the deadline.")
        if waiting.error is not None:
            raise waiting.error
        return waiting

    def error_reply(
        self, match: Match | None, error: Exception, request_id: str, model: str = "", caller: str = ""
    ) -> Reply:
        """An error in the words of the protocol that was spoken; it is logged as it deserves."""
        word = words
        if match is not None:
            word = match.entry.words if match.target is None else match.target.codec.word
        status, written = word(error, request_id, safe=self.safe)
        protocol = "" if match is None or match.target is None else match.target.codec.protocol
        self.failures.note(
            error, status=status, request_id=request_id, model=model, protocol=protocol, caller=caller
        )
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

    async def _unpacked(self, body: bytes, headers: Headers) -> bytes:
        if b"content-encoding" not in headers:
            return body
        unpacked: bytes = await self.in_thread(decompressed, body, headers, self.limits.body_bytes)
        return unpacked

    async def _packed(self, reply: Reply, headers: Headers) -> Reply:
        if len(reply.body) < SMALLEST or b"accept-encoding" not in headers:
            return reply
        if len(reply.body) > _LARGE_BODY:
            body, extra = await self.in_thread(compressed, reply.body, headers)
        else:
            body, extra = compressed(reply.body, headers)
        return Reply(reply.status, body, [*reply.headers, *extra])


def served(work: Work, status: int, error: str = "") -> Served:
    """What a span says about a request that found its version."""
    version, request = work.version, work.request
    return Served(
        version.model,
        request.protocol,
        status,
        request.request_id,
        version.version,
        version.digest,
        0 if work.columns is None else work.columns.rows,
        error=error,
        source="" if work.found is None or error else work.found.source.value,
    )


def version_headers(live: LiveVersion) -> list[tuple[bytes, bytes]]:
    """Which version answered; the digest is its identity."""
    return [
        (b"fairway-version", f"{live.model}:{live.version}".encode()),
        (b"fairway-digest", live.digest.encode()),
    ]


_SOURCES = {source: source.value.encode() for source in Source}


def source_headers(found: Found) -> list[tuple[bytes, bytes]]:
    """Of a model with precomputed answers: who answered, and how old the answer is, in seconds."""
    return [(b"fairway-source", _SOURCES[found.source]), (b"fairway-age", b"%d" % found.age)]


def server_timing(
    received: float, parsed: float, validated: float, began: float, ended: float, encoded: float
) -> bytes:
    """The stages of a request in milliseconds, as a Server-Timing header (W3C Server Timing)."""
    stages = zip(
        STAGES,
        (received, parsed, validated, began, ended),
        (parsed, validated, began, ended, encoded),
        strict=True,
    )
    return ", ".join(f"{name};dur={(after - before) * 1000:.3f}" for name, before, after in stages).encode()


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
