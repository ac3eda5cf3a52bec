"""Incidents: what is wrong, its likeliest causes, its history, and what people do about it."""

from __future__ import annotations

from collections.abc import Sequence

from fairway.control.web.page import Page, Sent, Shown
from fairway.core.clock import utc_now
from fairway.core.errors import Forbidden, InvalidInput
from fairway.core.incident import Entry, Incident, Silence, rank
from fairway.monitoring.alerts import until_text
from fairway.monitoring.wording import KINDS, advice, harm, sentence
from fairway.stores.alerts import IncidentState

PAGE = 50
_FINDINGS = 100
_ENTRIES = 100
_STATES: dict[str, tuple[IncidentState, ...]] = {
    "open": ("open",),
    "pending": ("pending",),
    "resolved": ("resolved",),
    "all": ("open", "pending", "resolved"),
}
HOURS: tuple[tuple[str, str], ...] = (
    ("2h", "2 hours"),
    ("12h", "12 hours"),
    ("2d", "2 days"),
    ("7d", "7 days"),
)


def listed(page: Page) -> Shown:
    chosen = page.query.get("state", "open")
    if chosen not in _STATES:
        raise InvalidInput(f"state={chosen[:20]!r} is none of {', '.join(_STATES)}.")
    number = page.number("page", 1, 20)
    model = page.query.get("model", "")
    if model:
        page.check_model(model)
    found = page.service.alerts.incidents(
        states=_STATES[chosen], model=model or None, limit=PAGE * number + 1
    )
    seen = [incident for incident in found if reaches(page, incident.model)]
    return "incidents.html", {
        "section": "incidents",
        "incidents": seen[(number - 1) * PAGE : number * PAGE],
        "silences": [silence for silence in page.service.alerts.silences() if _sees(page, silence)][:PAGE],
        "chosen": chosen,
        "states": tuple(_STATES),
        "model": model,
        "number": number,
        "more": len(found) > PAGE * number and number < 20,
    }


def shown(page: Page) -> Shown:
    incident = page.service.alerts.incident(page.names["incident"])
    check(page, incident)
    signals = sorted(
        incident.signals,
        key=lambda signal: (
            not signal.confirmed,
            -rank(signal.finding.severity),
            signal.clean,
            -signal.times,
        ),
    )
    now = utc_now()
    silences = [s for s in page.service.alerts.silences() if s.incident == incident.id and s.until > now]
    return "incident.html", {
        "section": "incidents",
        "incident": incident,
        "signals": [(signal, sentence(signal.finding)) for signal in signals[:_FINDINGS]],
        "more_signals": max(0, len(signals) - _FINDINGS),
        "harm": harm(incident),
        "advice": advice(incident),
        "judged": [kind for kind in ("performance", "estimate") if kind in incident.seen],
        "kinds": KINDS,
        "silences": silences,
        "hours": HOURS,
        "history": folded(incident.history)[:_ENTRIES],
    }


def folded(history: Sequence[Entry]) -> list[tuple[Entry, int]]:
    """The newest first; of updates that follow each other the newest, with how many they are."""
    found: list[tuple[Entry, int]] = []
    for entry in reversed(history):
        if found and entry.what == found[-1][0].what == "updated":
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((entry, 1))
    return found


def acknowledge(sent: Sent) -> str:
    incident = _changed(sent)
    sent.service.alerts.acknowledge(incident.id, who=_who(sent), why=sent.form.get("why", ""))
    return f"/incidents/{incident.id}"


def resolve(sent: Sent) -> str:
    incident = _changed(sent)
    sent.service.alerts.resolve(incident.id, who=_who(sent), why=sent.form.get("why", ""))
    return f"/incidents/{incident.id}"


def silence(sent: Sent) -> str:
    incident = _changed(sent)
    until = until_text(sent.form.get("for", "12h"), utc_now())
    sent.service.alerts.silence(until, who=_who(sent), why=sent.form.get("why", ""), incident=incident.id)
    return f"/incidents/{incident.id}"


def end_silence(sent: Sent) -> str:
    name = sent.names["silence"]
    found = next((s for s in sent.service.alerts.silences() if s.id == name), None)
    target = ""
    if found is not None and found.incident:
        target = found.incident
        sent.gate.check_model(sent.visitor, sent.service.alerts.incident(target).model or None)
    else:
        sent.gate.check_model(sent.visitor, None)  # patterns may match what others have to do with
    sent.service.alerts.end_silence(name)
    return f"/incidents/{target}" if target else "/incidents"


def reaches(page: Page, model: str) -> bool:
    """What is wrong with the server as a whole is for keys of all models."""
    return page.visitor.reaches(model) if model else page.visitor.caller.models is None


def check(page: Page, incident: Incident) -> None:
    """Forbidden."""
    if not reaches(page, incident.model):
        raise Forbidden(f"The API key {page.visitor.name!r} does not reach this incident's model.")


def _sees(page: Page, silence: Silence) -> bool:
    return page.visitor.caller.models is None or silence.model in page.visitor.caller.models


def _changed(sent: Sent) -> Incident:
    incident = sent.service.alerts.incident(sent.names["incident"])
    sent.gate.check_model(sent.visitor, incident.model or None)
    return incident


def _who(sent: Sent) -> str:
    return sent.visitor.name or "dashboard"
