"""An event in words for people, the same on every channel. Pure."""

from __future__ import annotations

from fairway.core.incident import Event, EventKind, Message
from fairway.monitoring.wording import subject

_VERBS: dict[EventKind, str] = {
    "opened": "",
    "reopened": "Back again: ",
    "raised": "Worse: ",
    "updated": "Changed: ",
    "reminded": "Still open: ",
    "acknowledged": "Acknowledged: ",
    "silenced": "Silenced: ",
    "unsilenced": "Silence over, still open: ",
    "resolved": "Resolved: ",
    "test": "Test: ",
}


def headline(event: Event) -> str:
    """One line, such as `[critical] payments:3: drift (amount)`."""
    severity = "" if event.kind in ("resolved", "test") else f"[{event.incident.severity}] "
    return f"{severity}{_VERBS[event.kind]}{event.incident.title}"


def explanation(event: Event) -> list[str]:
    """The likeliest causes, one a line; or why it is over."""
    incident = event.incident
    if event.kind == "resolved":
        why = incident.resolved.why if incident.resolved is not None else ""
        return [why] if why else []
    if event.kind in ("acknowledged", "silenced", "test") and event.text:
        return [event.text]
    return [cause.text for cause in incident.causes]


def facts(event: Event) -> list[tuple[str, str]]:
    """Names and values: what it is about, since when, who."""
    incident = event.incident
    found = [
        ("Model", subject(incident.model, incident.version)),
        ("Version", incident.digest[:19]),
        ("Severity", incident.severity),
        ("Open since", _when(incident.opened)),
        ("By", event.who),
        ("Incident", incident.id),
    ]
    return [(name, value) for name, value in found if value]


def link(message: Message, address: str) -> str:
    """The incident's page; empty without the dashboard's address."""
    return f"{address.rstrip('/')}/incidents/{message.event.incident.id}" if address else ""


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _when(text: str) -> str:
    return f"{text[:19]}Z" if text else ""
