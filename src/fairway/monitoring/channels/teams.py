"""Microsoft Teams, by a workflow that posts what its webhook gets: an Adaptive Card in a message.

The connectors of Office 365, with their own kind of card, are retired; a workflow takes Adaptive Cards only. Sentences are
runs of text, which no card reads Markdown in: names of columns and values of categories are shown as they are.
Sources: learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using,
adaptivecards.io/explorer (schema 1.4). A message may have 28 KB.
"""

from __future__ import annotations

import re
from typing import Any

from fairway.core.incident import Message
from fairway.monitoring.channels.webhook import HttpChannel
from fairway.monitoring.notices import explanation, facts, headline, link, shortened

_COLORS = {"critical": "Attention", "warning": "Warning", "info": "Accent"}
_MARKDOWN = re.compile(r"([\\`*_\[\]()#<>~|&{}!+.=-])")


class TeamsChannel(HttpChannel):
    def payload(self, message: Message) -> dict[str, Any]:
        event = message.event
        is_over = event.kind in ("resolved", "test")
        color = "Good" if is_over else _COLORS[event.incident.severity]
        title = _text(shortened(headline(event), 400), size="Medium", weight="Bolder", color=color)
        body: list[dict[str, Any]] = [title]
        body += [{**_text(shortened(text, 900)), "spacing": "Small"} for text in explanation(event)]
        known = [{"title": name, "value": plain(shortened(value, 300))} for name, value in facts(event)]
        body.append({"type": "FactSet", "facts": known})
        card: dict[str, Any] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": body,
            "msteams": {"width": "Full"},
        }
        address = link(message, self._address)
        if address:
            card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the incident", "url": address}]
        attachment = {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": None,
            "content": card,
        }
        return {"type": "message", "attachments": [attachment]}


def _text(text: str, **style: str) -> dict[str, Any]:
    text = text.replace("{{", "{\N{ZERO WIDTH SPACE}{")  # {{DATE(...)}} would become a date, also here
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def plain(text: str) -> str:
    """So that a model's name is shown as it is: the value of a fact is Markdown."""
    return _MARKDOWN.sub(r"\\\1", text.strip())
