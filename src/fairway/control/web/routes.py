"""What a route of the admin API is, and how its handler is called: in a thread, with the body read and the caller known."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway.control.web.gate import Gate, Visitor
from fairway.control.web.service import Service
from fairway.core.errors import FairwayError, InvalidInput, MalformedInput, PayloadTooLarge
from fairway.security.access import ANYBODY
from fairway.serving.errors import error_answer
from fairway.serving.logs import logger

JSON = "application/json"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be answered. `names` are the path's, `query` what follows it."""

    service: Service
    gate: Gate
    visitor: Visitor
    names: dict[str, str]
    query: dict[str, str]
    body: Any = None

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number of the query from 1 to `most`. InvalidInput."""
        text = self.query.get(name, str(default))
        if not text.isdecimal() or not 1 <= int(text[:9]) <= most or len(text) > 9:
            raise InvalidInput(f"{name}={text[:20]!r} is not a number from 1 to {most}.")
        return int(text)


class ApiRoute(msgspec.Struct, frozen=True, kw_only=True):
    """`takes` and `gives` are types of JSON values; None for none. `access` is "open", "read" or "write"."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    access: Literal["open", "read", "write"]
    summary: str
    handler: Callable[[Call], Any]
    takes: Any = None
    gives: Any = None
    status: int = 200


def route_of(entry: ApiRoute, service: Service, gate: Gate) -> Route:
    async def endpoint(request: Request) -> Response:
        identity = uuid.uuid4().hex
        try:
            return await _answer(entry, service, gate, request)
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller gets an answer
            return error_response(error, identity, service)

    return Route(entry.path, endpoint, methods=[entry.method], name=f"{entry.method} {entry.path}")


async def _answer(entry: ApiRoute, service: Service, gate: Gate, request: Request) -> Response:
    body = await read_body(request, service.settings.control.body_bytes)
    visitor = Visitor(caller=ANYBODY)
    if entry.access != "open":
        visitor = gate.writer(request, "") if entry.access == "write" else gate.reader(request)
    call = Call(
        service=service,
        gate=gate,
        visitor=visitor,
        names=dict(request.path_params),
        query=dict(request.query_params),
        body=None if entry.takes is None else decoded(body, entry.takes),
    )
    value = await run_in_threadpool(entry.handler, call)
    if entry.status == 204:
        return Response(status_code=204)
    return Response(msgspec.json.encode(value), entry.status, media_type=JSON)


def decoded(body: bytes, kind: Any) -> Any:
    """MalformedInput says where it is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise MalformedInput(f"The body cannot be read: {error}.") from error


async def read_body(request: Request, most: int) -> bytes:
    """PayloadTooLarge, before more than that is held."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most:
            raise PayloadTooLarge(
                f"The body is larger than {most} bytes.", hint="control.body_bytes says how much."
            )
    return bytes(content)


def error_response(error: Exception, identity: str, service: Service) -> Response:
    if not isinstance(error, FairwayError):
        logger.exception("request %s of the control process failed", identity, exc_info=error)
    status, body = error_answer(error, identity, safe=service.settings.serving.errors == "safe")
    headers = {"x-request-id": identity}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(body, int(status), headers, JSON)
