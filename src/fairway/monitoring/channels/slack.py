"""Slack, by an incoming webhook: blocks, and a text for notifications.

All that is not ours is `plain_text`: names of columns and values of categories are shown as they are, with their stars,
back-ticks and colons, and call nobody.

Sources: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, docs.slack.dev/reference/block-kit/blocks
(limits: 150 characters of a header, 3,000 of a section, 2,000 of a field, 10 fields),
docs.slack.dev/messaging/formatting-message-text (escaping).
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
_HEADER, _SECTION, _FIELD = 150, 3000, 2000


class SlackChannel(HttpChannel):
    def payload(self, message: Message) -> dict[str, Any]:
        event = message.event
        sign = _DONE if event.kind in ("resolved", "test") else _SIGNS[event.incident.severity]
        title = f"{sign} {headline(event)}"
        blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(title, _HEADER)}]
        causes = "\n".join(f"• {shortened(text, 900)}" for text in explanation(event))
        if causes:
            blocks.append({"type": "section", "text": _plain(causes, _SECTION)})
        fields = [_plain(f"{name}: {shortened(value, 300)}", _FIELD) for name, value in facts(event)]
        blocks.append({"type": "section", "fields": fields[:10]})
        address = link(message, self._address)
        if address:
            text = f"<{escaped(address)}|Open the incident>"
            blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]})
        return {"text": escaped_to(title, _SECTION), "mrkdwn": False, "unfurl_links": False, "blocks": blocks}


def _plain(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": escaped_to(text, most), "emoji": False}


def escaped_to(text: str, most: int) -> str:
    """Escaped and at most so long, with no escape cut in two."""
    kept = shortened(text, most)
    while len(escaped(kept)) > most:
        kept = shortened(kept, len(kept) - max(1, (len(escaped(kept)) - most) // 5))
    return escaped(kept)


def escaped(text: str) -> str:
    """So that a column called `<!channel>` calls nobody (Slack: escaping text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
