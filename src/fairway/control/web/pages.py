"""Pages for people. Each is a function from a `Page` to a template and what it shows; `PAGES` lists them.

Templates extend layout.html, which has the head, the navigation and who is logged in. A form that changes something posts
`csrf` with the token that every template is given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from fairway import __version__
from fairway.control.web.gate import FORM_FIELD, Gate, Visitor
from fairway.control.web.routes import read_body
from fairway.control.web.service import Service
from fairway.control.web.session import COOKIE
from fairway.core.errors import AccessDenied, FairwayError, Unauthenticated
from fairway.serving.errors import error_text, status_of

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
_MOST_FORM = 16 * 1024

templates = Jinja2Templates(directory=_HERE / "templates")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page that was asked for by somebody who may see it."""

    service: Service
    visitor: Visitor
    names: dict[str, str]
    query: dict[str, str]


Shown = tuple[str, dict[str, Any]]
"""A template's name and what it shows."""


def _index(page: Page) -> Shown:
    models = [model for model in page.service.models.models() if page.visitor.reaches(model.name)]
    return "index.html", {"models": models, "state": page.service.state()}


PAGES: tuple[tuple[str, Callable[[Page], Shown]], ...] = (("/", _index),)
"""Path and what makes the page."""


def page_routes(service: Service, gate: Gate) -> list[Route]:
    def endpoint(make: Callable[[Page], Shown]) -> Callable[[Request], Any]:
        async def show(request: Request) -> Response:
            try:
                visitor = gate.reader(request)
                page = Page(
                    service=service,
                    visitor=visitor,
                    names=dict(request.path_params),
                    query=dict(request.query_params),
                )
                name, values = await run_in_threadpool(make, page)
            except Unauthenticated:
                path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"/login?next={quote(path, safe='')}", 303)
            except FairwayError as error:
                return _error(request, error, service)
            return _page(request, name, {**values, "visitor": visitor})

        return show

    async def login(request: Request) -> Response:
        if not gate.access.required:
            return RedirectResponse("/", 303)
        return _page(request, "login.html", {"next": request.query_params.get("next", "/")})

    async def enter(request: Request) -> Response:
        form = await _form(request)
        try:
            gate.check_same_site(request)
            cookie = gate.log_in(form.get("key", ""))
        except AccessDenied as error:
            values = {"next": form.get("next", "/"), "problem": error_text(error, safe=False)}
            return _page(request, "login.html", values, int(status_of(error)))
        answer = RedirectResponse(_own_path(form.get("next", "/")), 303)
        secure = request.url.scheme == "https" or bool(service.settings.tls.certificate)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=int(gate.sessions.seconds),
            httponly=True,
            samesite="lax",  # a link in a message leads to the page, not to the log-in
            secure=secure,
        )
        return answer

    async def leave(request: Request) -> Response:
        form = await _form(request)
        try:
            visitor = gate.reader(request)
            if visitor.cookie and not gate.sessions.is_form_token(visitor.cookie, form.get(FORM_FIELD, "")):
                raise Unauthenticated("This was not sent by a page of this server.")
        except AccessDenied as error:
            return _error(request, error, service)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    pages = [Route(path, endpoint(make), methods=["GET"]) for path, make in PAGES]
    return [
        *pages,
        Route("/login", login, methods=["GET"]),
        Route("/login", enter, methods=["POST"]),
        Route("/logout", leave, methods=["POST"]),
    ]


def _page(request: Request, name: str, values: dict[str, Any], status: int = 200) -> Response:
    given: dict[str, Any] = {"visitor": None, "version": __version__, "problem": "", **values}
    return templates.TemplateResponse(request, name, given, status_code=status)


def _error(request: Request, error: FairwayError, service: Service) -> Response:
    safe = service.settings.serving.errors == "safe"
    values = {"problem": error_text(error, safe=safe)}
    return _page(request, "error.html", values, int(status_of(error)))


async def _form(request: Request) -> dict[str, str]:
    body = await read_body(request, _MOST_FORM)
    return {name: found[-1] for name, found in parse_qs(body.decode(errors="replace")).items()}


def _own_path(path: str) -> str:
    """Where to go after logging in: a path of this server, whatever the link said."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_own and "\\" not in path else "/"
