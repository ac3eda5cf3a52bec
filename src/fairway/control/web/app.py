"""The control process's web application: what is added to every answer, then pages, API and static files."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairway.control.web.api import ROUTES
from fairway.control.web.gate import Gate
from fairway.control.web.openapi import document
from fairway.control.web.pages import STATIC, error_page, page_routes
from fairway.control.web.routes import JSON, ApiRoute, error_response, route_of
from fairway.control.web.service import Service
from fairway.core.errors import FairwayError
from fairway.serving.errors import MethodNotAllowed, NoSuchPath

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def control_app(service: Service, gate: Gate, more: Iterable[ApiRoute] = ()) -> ASGIApp:
    """`more` are routes of other features' APIs."""
    entries = (*ROUTES, *more)
    described = msgspec.json.encode(document(entries))

    async def openapi(_request: Request) -> Response:
        return Response(described, media_type=JSON)

    routes: list[BaseRoute] = [route_of(entry, service, gate) for entry in entries]
    routes += [Route("/openapi.json", openapi), *page_routes(service, gate)]
    routes.append(Mount("/static", StaticFiles(directory=STATIC)))

    async def nowhere(request: Request, error: Exception) -> Response:
        """What no route takes is told as all else is: to programs as JSON, to people as a page."""
        assert isinstance(error, HTTPException)
        told: FairwayError = NoSuchPath(f"there is nothing at {request.url.path[:200]}.")
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            told = MethodNotAllowed(request.method, tuple((error.headers or {}).get("Allow", "").split(", ")))
        if request.url.path.startswith("/api/"):
            answer = error_response(told, uuid.uuid4().hex, service)
        else:
            answer = error_page(request, told, service)
        answer.headers.update(error.headers or {})
        return answer

    return _Guarded(Starlette(routes=routes, exception_handlers={HTTPException: nowhere}))


class _Guarded:
    """Headers that keep browsers from misusing an answer; and nothing but static files is kept by anybody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_static = scope["path"].startswith(
                    "/static/"
                )  # asked for again, so that they change with the version
                kept = (b"cache-control", b"no-cache" if is_static else b"no-store")
                message["headers"] = [*message["headers"], *_HEADERS, kept]
            await send(message)

        await self._app(scope, receive, guarded)
