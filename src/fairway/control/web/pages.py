"""Pages for people: a page is a function from a `Page` to a template and what it shows, an action one from a form that was
`Sent` to the path to go to then. dashboard/pages.py lists them.

Templates extend layout.html, which has the head, the navigation and who is logged in. A form that changes something posts
`csrf` with the token that every template is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from fairway.control.web.dashboard.pages import ACTIONS, PAGES
from fairway.control.web.dashboard.words import FILTERS
from fairway.control.web.gate import FORM_FIELD, Gate, Visitor
from fairway.control.web.page import Page, Sent, Shown
from fairway.control.web.routes import read_body
from fairway.control.web.service import Service
from fairway.control.web.session import COOKIE
from fairway.core.clock import utc_now
from fairway.core.errors import AccessDenied, FairwayError, Unauthenticated
from fairway.core.release import VERSION
from fairway.serving.errors import error_text, status_of
from fairway.serving.logs import logger

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
_MOST_FORM = 16 * 1024

templates = Jinja2Templates(directory=_HERE / "templates")
templates.env.filters.update(FILTERS)
templates.env.trim_blocks = templates.env.lstrip_blocks = True


def page_routes(service: Service, gate: Gate) -> list[Route]:
    pages = [Route(path, _page_endpoint(service, gate, make), methods=["GET"]) for path, make in PAGES]
    actions = [Route(path, _action_endpoint(service, gate, do), methods=["POST"]) for path, do in ACTIONS]
    visits = _Visits(service, gate)
    return [
        *pages,
        *actions,
        Route("/login", visits.ask, methods=["GET"]),
        Route("/login", visits.enter, methods=["POST"]),
        Route("/logout", visits.leave, methods=["POST"]),
    ]


def _page_endpoint(
    service: Service, gate: Gate, make: Callable[[Page], Shown]
) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        visitor = None
        try:
            visitor = gate.reader(request)
            page = Page(
                service=service,
                visitor=visitor,
                names=dict(request.path_params),
                query=dict(request.query_params),
                path=request.url.path,
                changes=gate.may_change(visitor),
            )
            return await run_in_threadpool(lambda: _made(request, page, make))
        except Unauthenticated:
            return RedirectResponse(f"/login?next={quote(_here(request), safe='')}", 303)
        except FairwayError as error:
            return error_page(request, error, service, visitor)
        except Exception as error:  # noqa: BLE001 - whatever it was, people get a page
            logger.exception("the page %s failed", request.url.path, exc_info=error)
            return error_page(request, error, service, visitor)

    return show


def _action_endpoint(
    service: Service, gate: Gate, do: Callable[[Sent], str]
) -> Callable[[Request], Awaitable[Response]]:
    async def act(request: Request) -> Response:
        visitor = None
        try:
            form = await _form(request)
            visitor = gate.writer(request, form.get(FORM_FIELD, ""))
            sent = Sent(
                service=service, gate=gate, visitor=visitor, names=dict(request.path_params), form=form
            )
            path = await run_in_threadpool(do, sent)
        except FairwayError as error:
            return error_page(request, error, service, visitor)
        return RedirectResponse(_own_path(path), 303)

    return act


class _Visits:
    """Who looks at the pages: logs in with a key, and out again."""

    def __init__(self, service: Service, gate: Gate) -> None:
        self._service = service
        self._gate = gate

    async def ask(self, request: Request) -> Response:
        if not self._gate.access.required:
            return RedirectResponse("/", 303)
        return _page(request, "login.html", {"next": request.query_params.get("next", "/"), "live": False})

    async def enter(self, request: Request) -> Response:
        form = await _form(request)
        try:
            self._gate.check_same_site(request)
            cookie = self._gate.log_in(form.get("key", ""))
        except AccessDenied as error:
            values = {"next": form.get("next", "/"), "problem": error_text(error, safe=False), "live": False}
            return _page(request, "login.html", values, int(status_of(error)))
        answer = RedirectResponse(_own_path(form.get("next", "/")), 303)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=int(self._gate.sessions.seconds),
            httponly=True,
            samesite="lax",  # a link in a message leads to the page, not to the log-in
            secure=request.url.scheme == "https" or bool(self._service.settings.tls.certificate),
        )
        return answer

    async def leave(self, request: Request) -> Response:
        form = await _form(request)
        try:
            visitor = self._gate.reader(request)
            token = form.get(FORM_FIELD, "")
            if visitor.cookie and not self._gate.sessions.is_form_token(visitor.cookie, token):
                raise Unauthenticated("This was not sent by a page of this server.")
        except AccessDenied as error:
            return error_page(request, error, self._service)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer


def _made(request: Request, page: Page, make: Callable[[Page], Shown]) -> Response:
    """In a thread: what a page needs is read from the disk, and a long one takes a moment to write."""
    name, values = make(page)
    return _page(request, name, {"visitor": page.visitor, "changes": page.changes, **values})


def _page(request: Request, name: str, values: dict[str, Any], status: int = 200) -> Response:
    given: dict[str, Any] = {
        "visitor": None,
        "version": VERSION,
        "problem": "",
        "here": _here(request),
        "path": request.url.path,
        "section": "",
        "every": 5,
        "live": request.method == "GET",
        "changes": False,
        "now": utc_now(),
        **values,
    }
    return templates.TemplateResponse(request, name, given, status_code=status)


def error_page(
    request: Request, error: Exception, service: Service, visitor: Visitor | None = None
) -> Response:
    safe = service.settings.serving.errors == "safe"
    known = error if isinstance(error, FairwayError) else None
    text = "Something went wrong here; the log says what." if known is None else error_text(known, safe=safe)
    status = 500 if known is None else int(status_of(known))
    return _page(request, "error.html", {"problem": text, "visitor": visitor, "live": False}, status)


def _here(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


async def _form(request: Request) -> dict[str, str]:
    body = await read_body(request, _MOST_FORM)
    return {name: found[-1] for name, found in parse_qs(body.decode(errors="replace")).items()}


def _own_path(path: str) -> str:
    """Where to go after logging in: a path of this server, whatever the link said."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_own and "\\" not in path else "/"
