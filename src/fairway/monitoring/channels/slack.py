"""Slack, by an incoming webhook: blocks, and a text for notifications.

Sources: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, docs.slack.dev/reference/block-kit/blocks
(limits: 150 characters of a header, 3,000 of a section, 2,000 of a field, 10 fields).
"""

from __future__ import annotations

from typing import Any

from fairway.core.incident import Message
from fairway.monitoring.channels.webhook import HttpChannel
from fairway.monitoring.notices import explanation, facts, headline, link, shortened

_SIGNS = {
    "critical": "\N{LARGE RED CIRCLE}",
    "warning": "\N{LARGE ORANGE CIRCLE}",
    "info": "\N{LARGE BLUE CIRCLE}",
}
_DONE = "\N{LARGE GREEN CIRCLE}"
_HEADER, _SECTION, _FIELD = 150, 2900, 1900


class SlackChannel(HttpChannel):
    def payload(self, message: Message) -> dict[str, Any]:
        event = message.event
        sign = _DONE if event.kind in ("resolved", "test") else _SIGNS[event.incident.severity]
        title = f"{sign} {headline(event)}"
        blocks: list[dict[str, Any]] = [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": shortened(title, _HEADER), "emoji": True},
            }
        ]
        causes = "\n".join(f"• {escaped(shortened(text, 900))}" for text in explanation(event))
        if causes:
            blocks.append({"type": "section", "text": _text(shortened(causes, _SECTION))})
        fields = [
            _text(f"*{name}*\n{escaped(shortened(value, 300))}"[:_FIELD]) for name, value in facts(event)
        ]
        blocks.append({"type": "section", "fields": fields[:10]})
        address = link(message, self._address)
        if address:
            blocks.append({"type": "context", "elements": [_text(f"<{escaped(address)}|Open the incident>")]})
        return {"text": escaped(shortened(title, _SECTION)), "blocks": blocks}


def _text(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


def escaped(text: str) -> str:
    """So that a column called `<!channel>` calls nobody (Slack: escaping text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
