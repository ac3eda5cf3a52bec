"""The paths of the OpenAPI documents and of the page on which a model is tried."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

import msgspec

from fairway.inference.live import LiveModel
from fairway.serving.entrance import Call, Entry, Reply, Service
from fairway.serving.openapi import Described, document

_PAGE = Path(__file__).with_name("openapi_page.html")
_TYPE = b"application/json"  # what browsers show; application/openapi+json is still a draft


async def server_document(service: Service, call: Call) -> Reply:
    """Every model that the caller's key reaches."""
    reach = service.access.models_of(call.caller)
    models = [model for model in service.plane.table if reach is None or model.route.model in reach]
    described = [_described(model) for model in sorted(models, key=lambda model: model.route.model)]
    return _reply(document(described, title="Fairway", server=True))


async def model_document(service: Service, call: Call) -> Reply:
    model = service.plane.table[call.names["model"]]
    return _reply(document([_described(model)], title=model.route.model, server=False))


async def page(service: Service, call: Call) -> Reply:
    """The same page for every model: it asks for the document itself, with the key that is typed into it, so that
    the page tells nothing to those without one."""
    body, policy = _page()
    return Reply(
        200,
        body,
        [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-cache"),
        ],
    )


def _described(model: LiveModel) -> Described:
    live = model.primary
    return Described(live.model, tuple(map(str, model.numbers)), live.contract, live.bundle.golden)


def _reply(content: object) -> Reply:
    return Reply(200, msgspec.json.encode(content), [(b"content-type", _TYPE)])


@cache
def _page() -> tuple[bytes, bytes]:
    """The page, and a policy under which nothing but its own style and script runs, and only this server is asked."""
    text = _PAGE.read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy.encode()


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


ENTRIES = (
    Entry("GET", "/openapi.json", "infer", handler=server_document),
    Entry("GET", "/v2/models/{model}/openapi.json", "infer", handler=model_document),
    Entry("GET", "/v2/docs", "open", handler=page),
    Entry("GET", "/v2/models/{model}/docs", "open", handler=page),
)
