"""Who is asking, and whether they may.

Programs send an API key with each request. People log in with one and get a session in a cookie, which browsers send by
themselves, also when another site makes them: so a request that changes something and goes by the cookie must carry the
session's form token, and come from this site's own pages as far as the browser says. While there are no keys, reading is
free and writing is off, as on the data port; then the name in the request must be this machine's, or a page elsewhere could
have its own name lead here (DNS rebinding).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request

from fairway.control.web.session import COOKIE, Sessions
from fairway.core.errors import Forbidden, Unauthenticated
from fairway.security.access import Access, Caller, presented
from fairway.security.keys import Scope
from fairway.serving.supervisor import is_loopback

FORM_HEADER = "x-csrf-token"
FORM_FIELD = "csrf"
READ: tuple[Scope, ...] = ("metrics", "admin")
"""One of these scopes is needed to look."""


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `form_token` is for the forms of pages; empty where nobody is logged in."""

    caller: Caller
    cookie: str = ""
    form_token: str = ""

    @property
    def name(self) -> str:
        return self.caller.name

    def reaches(self, model: str) -> bool:
        return self.caller.models is None or model in self.caller.models


class Gate:
    """`access` is replaced whenever keys change."""

    def __init__(self, sessions: Sessions, *, host: str, clock: Callable[[], float] = time.time) -> None:
        """`host` is the address listened on; `clock` gives seconds since 1970."""
        self.access = Access()
        self.sessions = sessions
        self._host = host
        self._clock = clock

    def log_in(self, secret: str) -> str:
        """The session's cookie. Unauthenticated, or Forbidden for a key that may not look."""
        now = self._clock()
        caller = self.access.identify(secret.strip().encode(), now)
        self._check_reads(caller)
        return self.sessions.begin(caller.id, now)

    def reader(self, request: Request) -> Visitor:
        """Who may look. Unauthenticated, Forbidden."""
        visitor = self._visitor(request)
        self._check_reads(visitor.caller)
        return visitor

    def writer(self, request: Request, token: str) -> Visitor:
        """Who may change something, of some models at least: see `check_model`. `token` is what the form carries."""
        visitor = self.reader(request)
        if visitor.cookie:
            self.check_same_site(request)
            given = request.headers.get(FORM_HEADER, token)
            if not self.sessions.is_form_token(visitor.cookie, given):
                raise Forbidden("This was not sent by a page of this server.", hint="Load the page again.")
        some = min(visitor.caller.models) if visitor.caller.models else None
        self.access.check_reach(visitor.caller, "admin", some)
        return visitor

    def may_change(self, visitor: Visitor) -> bool:
        """Whether forms that change something are shown to them."""
        try:
            self.access.check_reach(visitor.caller, "admin", min(visitor.caller.models or {""}) or None)
        except Forbidden:
            return False
        return True

    def check_model(self, visitor: Visitor, model: str | None) -> None:
        """Forbidden where the key does not reach the model; None stands for what concerns them all."""
        self.access.check_reach(visitor.caller, "admin", model)

    def check_same_site(self, request: Request) -> None:
        """Forbidden when the browser says that another site's page sent this."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin")
        foreign = (
            origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
        )
        if site not in ("same-origin", "none") or foreign:
            raise Forbidden("This was sent by a page of another site.", hint="Use this server's own pages.")

    def _visitor(self, request: Request) -> Visitor:
        headers = {
            name: value for name, value in request.headers.raw if name in (b"x-api-key", b"authorization")
        }
        secret, cookie, now = presented(headers), request.cookies.get(COOKIE, ""), self._clock()
        if not self.access.required:
            self._check_name(request)
            return Visitor(caller=self.access.identify(None, now))
        if secret is not None:
            return Visitor(caller=self.access.identify(secret, now))
        identity = self.sessions.read(cookie, now) if cookie else None
        if identity is None:
            raise Unauthenticated(
                "Log in first, with an API key.", hint="Programs send it as 'Authorization: Bearer fw_...'."
            )
        caller = self.access.identify_session(identity, now)
        return Visitor(caller=caller, cookie=cookie, form_token=self.sessions.form_token(cookie))

    def _check_reads(self, caller: Caller) -> None:
        if self.access.required and not caller.scopes.intersection(READ):
            raise Forbidden(
                f"The API key {caller.name!r} has neither the scope 'metrics' nor 'admin'.",
                hint="Use a key that has one.",
            )

    def _check_name(self, request: Request) -> None:
        host = request.url.hostname or ""
        if not is_loopback(host) and host != self._host:
            raise Forbidden(
                f"Without keys, this server answers on this machine's own names only, not as {host[:100]!r}.",
                hint="Make a key with: fairway keys create NAME --scope admin",
            )
