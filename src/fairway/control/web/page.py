"""What a page is made of, and what a form that was sent is."""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.control.web.gate import Gate, Visitor
from fairway.control.web.service import Service
from fairway.core.errors import Forbidden, InvalidInput, ModelNotFound


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page that was asked for by somebody who may see it. `changes` says whether the visitor's key may change
    something, so that forms are shown to who can use them."""

    service: Service
    visitor: Visitor
    names: dict[str, str]
    query: dict[str, str]
    path: str = "/"
    changes: bool = False

    def check_model(self, model: str) -> None:
        """Forbidden for a key made for other models, whether there is such a model or not."""
        if not self.visitor.reaches(model):
            raise Forbidden(f"The API key {self.visitor.name!r} does not reach the model {model!r}.")

    def check_known(self, model: str) -> None:
        """Forbidden, ModelNotFound."""
        self.check_model(model)
        if not any(known.name == model for known in self.service.models.models()):
            raise ModelNotFound(f"There is no model {model[:100]!r}.")

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number of the query from 1 to `most`. InvalidInput."""
        text = self.query.get(name, "") or str(default)
        if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
            raise InvalidInput(f"{name}={text[:20]!r} is not a number from 1 to {most}.")
        return int(text)


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A form that was sent by somebody who may change something; the action checks what it changes."""

    service: Service
    gate: Gate
    visitor: Visitor
    names: dict[str, str]
    form: dict[str, str]


Shown = tuple[str, dict[str, Any]]
"""A template's name and what it shows."""
