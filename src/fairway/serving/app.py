"""The data port as one bare ASGI callable: predictions, metadata, health, metrics.

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
from urllib.parse import unquote

import msgspec

from fairway import __version__
from fairway.core.errors import FairwayError, NotFound, Overloaded, PayloadTooLarge
from fairway.core.request import Request
from fairway.core.settings import LimitSettings, ServingSettings
from fairway.inference.live import LiveVersion
from fairway.inference.plane import Plane, Work, now
from fairway.serving import metrics, v2
from fairway.serving.answers import read_request, request_id_from
from fairway.serving.errors import MethodNotAllowed, error_answer

logger = logging.getLogger("fairway.serving")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Reply = tuple[int, bytes, list[tuple[bytes, bytes]]]

JSON = (b"content-type", b"application/json")
_LARGE_BODY = 256 * 1024
"""Bodies from here on are parsed in a thread: a long parse would hold up everybody else."""


class _NoSuchPath(NotFound):
    code = "no_such_path"


class _Disconnected(Exception):
    """The caller went away before its request was whole: there is nobody to answer."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A request that the short way has read and validated before it knew that the model takes long."""

    request: Request
    echoed: str | None
    work: Work


PREPARED = "fairway.prepared"
"""Its key in the ASGI scope's state."""


class DataApp:
    """ASGI application of the data port."""

    def __init__(
        self,
        plane: Plane,
        serving: ServingSettings,
        limits: LimitSettings,
        counters_directory: Path | None = None,
    ) -> None:
        self.plane = plane
        self.limits = limits
        self.safe = serving.errors == "safe"
        self._counters_directory = counters_directory
        self._pool = ThreadPoolExecutor(serving.threads, thread_name_prefix="fairway-run")
        self._queue = serving.queue
        self._waiting = 0
        self.ready = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers = dict(scope["headers"])
        request_id = request_id_from(headers.get(b"x-request-id"))
        try:
            status, body, extra = await self._dispatch(scope, headers, receive)
        except FairwayError as error:
            status, body = error_answer(error, request_id, safe=self.safe)
            extra = [JSON]
            if isinstance(error, MethodNotAllowed):
                extra.append((b"allow", ", ".join(error.allowed).encode()))
            if isinstance(error, Overloaded):
                extra.append((b"retry-after", b"1"))
            if status >= 500:
                logger.error("request %s failed: %s", request_id, error, exc_info=error.__cause__)
        except _Disconnected:
            return
        except Exception as error:
            logger.exception("request %s failed", request_id)
            status, body = error_answer(error, request_id, safe=self.safe)
            extra = [JSON]
        extra.append((b"x-request-id", request_id.encode()))
        extra.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": int(status), "headers": extra})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _dispatch(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Reply:
        method, path = scope["method"], scope["path"]
        target = infer_target(scope.get("raw_path") or path.encode())
        if target is not None:
            _allow(method, "POST")
            body = await self._body(headers, receive)
            prepared = scope.get("state", {}).get(PREPARED)
            return await self._infer(*target, body, headers, prepared)
        _allow(method, "GET", "HEAD")
        return await self._describe(path)

    async def _infer(
        self,
        model: str,
        version: str | None,
        body: bytes,
        headers: dict[bytes, bytes],
        prepared: Prepared | None,
    ) -> Reply:
        received = now()
        try:
            live_model = self.plane.table[model]
            contract = live_model.primary.contract
            if prepared is not None:
                request, echoed, work = prepared.request, prepared.echoed, prepared.work
            elif len(body) > _LARGE_BODY or live_model.needs_loading(version):
                request, echoed = await self._in_thread(read_request, model, version, contract, body, headers)
                work = await self._in_thread(self.plane.prepare, request, received)
            else:
                request, echoed = read_request(model, version, contract, body, headers)
                work = self.plane.prepare(request, received)
            if self.plane.quick(work):
                outputs = self.plane.run(work)
            else:
                outputs = await self._in_thread(self.plane.run, work)
        except Exception as error:
            code = error.code if isinstance(error, FairwayError) else "internal_error"
            self.plane.failed(model, version, "rest", code)
            raise
        ran = now()
        live = work.version
        answer = v2.encode_answer(outputs, live.contract, model, str(live.version), request.wanted, echoed)
        self.plane.finish(work, outputs, ran, now())
        headers[b"x-request-id"] = request.request_id.encode()
        return 200, answer, [JSON, *version_headers(live)]

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
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

    async def _describe(self, path: str) -> Reply:
        parts = path.strip("/").split("/")
        match parts:
            case ["metrics"]:
                text = metrics.page(self.plane.counters, self._counters_directory)
                return 200, text, [(b"content-type", metrics.CONTENT_TYPE)]
            case ["v2"]:
                return _json({"name": "fairway", "version": __version__, "extensions": []})
            case ["v2", "health", "live"]:
                return _json({"live": True})
            case ["v2", "health", "ready"]:
                return _json({"ready": self.ready}, 200 if self.ready else 503)
            case ["v2", "models", name]:
                return await self._metadata(name, None)
            case ["v2", "models", name, "versions", version]:
                return await self._metadata(name, version)
            case ["v2", "models", name, "ready"]:
                return self._model_ready(name, None)
            case ["v2", "models", name, "versions", version, "ready"]:
                return self._model_ready(name, version)
        raise _NoSuchPath(
            f"there is nothing at {path}.", hint="Predictions are at POST /v2/models/NAME/infer."
        )

    async def _metadata(self, name: str, version: str | None) -> Reply:
        live = self.plane.table[name]
        if live.needs_loading(version):
            await self._in_thread(live.load, version)
        chosen = live.primary if version is None else live.pick(version, "")
        versions = [str(number) for number in live.numbers]
        body = v2.metadata(name, versions, f"fairway_{chosen.bundle.spec.kind}", chosen.contract)
        return 200, body, [JSON, *version_headers(chosen)]

    def _model_ready(self, name: str, version: str | None) -> Reply:
        live = self.plane.table[name]
        if version is not None and not live.has(version):
            live.pick(version, "")
        return _json({"name": name, "ready": self.ready}, 200 if self.ready else 503)


def infer_target(raw_path: bytes) -> tuple[str, str | None] | None:
    """Model and version of a predict path, None for any other path."""
    parts = raw_path.partition(b"?")[0].decode("latin-1").split("/")
    match parts:
        case ["", "v2", "models", model, "infer"]:
            return unquote(model), None
        case ["", "v2", "models", model, "versions", version, "infer"]:
            return unquote(model), unquote(version)
    return None


def version_headers(live: LiveVersion) -> list[tuple[bytes, bytes]]:
    """Which version answered; the digest is its identity."""
    return [
        (b"fairway-version", f"{live.model}:{live.version}".encode()),
        (b"fairway-digest", live.digest.encode()),
    ]


def too_large(size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The body has {size} bytes; the limit is {limit} (limits.body_bytes).",
        hint="Send fewer rows a request.",
    )


def _json(value: object, status: int = 200) -> Reply:
    return status, msgspec.json.encode(value), [JSON]


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise MethodNotAllowed(method, allowed)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
