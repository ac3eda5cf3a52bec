"""From what monitors looked at to incidents and events. Pure: no clock, no chance, no disk.

    pending --open_after windows in a row--> open --resolve_after clean windows--> resolved
    resolved --comes back within flap_hours--> open again, and then slower to resolve

Laws (tests/unit/monitoring/test_incidents.py):
- of one cause (a version of a model) at most one incident is not resolved;
- looking at the same window twice changes nothing, so a monitor that was killed looks again;
- what was announced as open is announced as resolved, and nothing is announced twice;
- a window that could not judge a kind says nothing about it, so no traffic is not recovery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from fairway.core.alert_settings import TOLD, AlertSettings
from fairway.core.clock import after, seconds_between
from fairway.core.incident import (
    Entry,
    Event,
    EventKind,
    Incident,
    Note,
    Signal,
    Silence,
    Window,
    cause_of,
    key_of,
    rank,
)
from fairway.monitoring.alert_rules import Judgement, is_silenced, judged
from fairway.monitoring.windows import checked
from fairway.monitoring.wording import likeliest, title, weight_of

MOST_SIGNALS = 200
"""Findings that one incident keeps; the weightiest."""
MOST_ENTRIES = 200
"""Lines of history that one incident keeps: the first, and the latest."""
EVENT_SIGNALS = 20
"""Findings that an event carries; the weightiest."""
_MOST_DOUBLINGS = 3
_CLOCK_SLACK_SECONDS = 3600.0
"""A window that ends later than this from now was written by a clock that was wrong."""
_HOUR = 3600.0


def step(
    incidents: Iterable[Incident],
    windows: Iterable[Window],
    settings: AlertSettings,
    now: str,
    silences: Sequence[Silence] = (),
    *,
    is_sure: bool = True,
) -> tuple[tuple[Incident, ...], tuple[Event, ...]]:
    """The incidents after these windows and at this time, and what changed.

    `incidents` are those that are not resolved and, of each cause, the last that is. Call it without windows too, now
    and then: reminders, silences that end and incidents that nobody looks at any more need only time. An incident that
    was pending and came to nothing is not among those returned. Unless it `is_sure` what time it is, time
    alone closes and reminds of none. Errors: `InvalidInput` for a window whose times are none.
    """
    known: dict[str, Incident] = {}
    others: list[Incident] = []
    for incident in sorted(incidents, key=lambda incident: (incident.updated, incident.id)):
        before = known.get(incident.cause)
        if before is None:
            known[incident.cause] = incident
        elif before.state != "resolved" and incident.state == "resolved":
            others.append(incident)
        else:
            others.append(before)
            known[incident.cause] = incident
    events: list[Event] = []
    for window in sorted(
        (checked(window) for window in windows), key=lambda window: (window.end, window.start)
    ):
        cause = cause_of(window.model, window.digest)
        looked = _look(known.pop(cause, None), window, settings, now, others)
        if looked is None:
            continue
        incident, made = _tell(*looked, now, silences)
        events += made
        if incident.state != "pending" or incident.signals:
            known[cause] = incident
    after_time = []
    for incident in known.values():
        incident, made = _pass_time(incident, settings, now, silences, is_sure)
        events += made
        after_time.append(incident)
    return (*others, *after_time), tuple(events)


def acknowledge(incident: Incident, *, who: str, why: str, now: str) -> tuple[Incident, Event]:
    """Somebody takes it on: no reminders until it gets worse."""
    changed = msgspec.structs.replace(incident, acknowledged=Note(who=who, when=now, why=why))
    return _entered(changed, "acknowledged", now, why, who, notify=not incident.muted)


def resolve(incident: Incident, *, who: str, why: str, now: str) -> tuple[Incident, Event]:
    """Somebody says that it is over. Findings that still come open it again."""
    changed = msgspec.structs.replace(
        incident, state="resolved", resolved=Note(who=who, when=now, why=why), signals=(), muted=False
    )
    return _entered(changed, "resolved", now, why, who, notify=incident.announced)


def mute(
    incident: Incident, silences: Sequence[Silence], *, who: str, why: str, now: str
) -> tuple[Incident, Event] | None:
    """The incident when silences that are new now match all of it; None when they do not, or did before."""
    if incident.state != "open" or incident.muted or not is_silenced(incident, silences, now):
        return None
    return _entered(msgspec.structs.replace(incident, muted=True), "silenced", now, why, who, notify=False)


def _look(
    incident: Incident | None, window: Window, settings: AlertSettings, now: str, others: list[Incident]
) -> tuple[Incident, EventKind | None] | None:
    """The incident after one window, and what it amounts to. None when there is neither an incident nor a finding."""
    if incident is not None and incident.state == "resolved" and _is_long_ago(incident, settings, now):
        others.append(incident)
        incident = None
    judgements = [
        judgement
        for finding in window.findings
        if (judgement := judged(window.model, finding, settings)) is not None
    ]
    if incident is None:
        if not judgements:
            return None
        incident = _new(window, now, {other.id for other in others})
    end = min(window.end, now) if seconds_between(now, window.end) > _CLOCK_SLACK_SECONDS else window.end
    fresh: set[str] = {kind for kind in window.kinds if _is_fresh(incident.seen.get(kind), end, now)}
    if not fresh:
        return incident, None
    was = {signal.key for signal in incident.signals if signal.confirmed}
    signals = _signals(incident, [j for j in judgements if j.finding.kind in fresh], fresh, end, settings)
    is_now = {signal.key for signal in signals if signal.confirmed}
    seen = {**incident.seen, **dict.fromkeys(fresh, end)}
    channels = _channels(incident, judgements, begins=not was)
    incident = msgspec.structs.replace(incident, signals=signals, seen=seen, looked=now, channels=channels)
    kind: EventKind | None = None
    if is_now and incident.state == "pending":
        kind = "opened"
    elif is_now and incident.state == "resolved":
        kind = "reopened"
    elif incident.state == "open" and not is_now:
        kind = "resolved"
    elif incident.state == "open" and _worst(signals) > rank(incident.severity):
        kind = "raised"
    elif incident.state == "open" and is_now != was:
        kind = "updated"
    return incident, kind


def _signals(
    incident: Incident, judgements: Sequence[Judgement], fresh: set[str], end: str, settings: AlertSettings
) -> tuple[Signal, ...]:
    """The signals after a window in which kinds `fresh` were judged."""
    found = {key_of(judgement.finding): judgement for judgement in judgements}
    kept: dict[str, Signal] = {}
    for signal in incident.signals:
        if signal.finding.kind not in fresh or signal.key in found:
            kept[signal.key] = signal
        elif signal.confirmed and signal.clean + 1 < _needed(incident, signal, settings):
            kept[signal.key] = msgspec.structs.replace(signal, clean=signal.clean + 1)
    for key, judgement in found.items():
        before = kept.get(key)
        times = before.times + 1 if before is not None else 1
        kept[key] = Signal(
            finding=judgement.finding,
            first=before.first if before is not None else end,
            last=end,
            times=times,
            confirmed=times >= judgement.open_after or (before is not None and before.confirmed),
        )
    signals = sorted(
        kept.values(),
        key=lambda s: (not s.confirmed, -rank(s.finding.severity), -weight_of(s.finding), s.key),
    )
    return tuple(signals[:MOST_SIGNALS])


def _needed(incident: Incident, signal: Signal, settings: AlertSettings) -> int:
    judgement = judged(incident.model, signal.finding, settings)
    windows = settings.resolve_after if judgement is None else judgement.resolve_after
    return windows << min(incident.reopened, _MOST_DOUBLINGS)


def _tell(
    incident: Incident,
    kind: EventKind | None,
    now: str,
    silences: Sequence[Silence],
) -> tuple[Incident, list[Event]]:
    """The incident with a change of kind `kind` entered, and the event about it."""
    if kind is None:
        return incident, []
    worst = _worst(incident.signals)
    values: dict[str, object] = {}
    if kind in ("opened", "reopened"):
        values = {"state": "open", "resolved": None, "acknowledged": None, "announced": False, "muted": False}
        values["severity"] = _severity(worst)
        if kind == "reopened":
            values["reopened"] = incident.reopened + 1
        else:
            values["opened"] = now
    elif kind == "raised":
        values = {"severity": _severity(worst), "acknowledged": None}
    elif kind == "resolved":
        values = {"state": "resolved", "resolved": Note(who="", when=now, why="it stayed as it should be")}
    changed = msgspec.structs.replace(incident, **values)
    if kind == "resolved":
        return _listed(*_entered(changed, kind, now, "", "", notify=incident.announced))
    changed = msgspec.structs.replace(changed, title=title(changed), causes=likeliest(changed.signals))
    muted = is_silenced(changed, silences, now)
    if incident.muted and not muted and kind in ("updated", "raised"):
        kind = "unsilenced"
    changed = msgspec.structs.replace(changed, muted=muted)
    text = changed.causes[0].text if changed.causes else ""
    return _listed(*_entered(changed, kind, now, text, "", notify=not muted))


def _pass_time(
    incident: Incident, settings: AlertSettings, now: str, silences: Sequence[Silence], is_sure: bool
) -> tuple[Incident, list[Event]]:
    """What time alone does to an open incident."""
    if incident.state != "open":
        return incident, []
    if is_sure and seconds_between(incident.looked, now) >= settings.expire_hours * _HOUR:
        why = f"no monitor has looked at it since {incident.looked[:19]}Z"
        over = msgspec.structs.replace(
            incident, state="resolved", resolved=Note(who="", when=now, why=why), signals=()
        )
        return _listed(*_entered(over, "resolved", now, why, "", notify=incident.announced))
    muted = is_silenced(incident, silences, now)
    if muted != incident.muted:
        changed = msgspec.structs.replace(incident, muted=muted)
        kind: EventKind = "silenced" if muted else "unsilenced"
        return _listed(*_entered(changed, kind, now, "", "", notify=not muted))
    due = settings.remind_hours * _HOUR
    if (
        due
        and is_sure
        and not muted
        and incident.acknowledged is None
        and incident.told
        and not -_CLOCK_SLACK_SECONDS
        <= seconds_between(incident.told, now)
        < due  # told in the future: long ago
    ):
        text = f"open since {incident.opened[:19]}Z"
        return _listed(*_entered(incident, "reminded", now, text, "", notify=True))
    return incident, []


def _entered(
    incident: Incident,
    kind: EventKind,
    now: str,
    text: str,
    who: str,
    *,
    notify: bool,
) -> tuple[Incident, Event]:
    """The incident with a line of history, and the event."""
    now = max(now, incident.updated) if seconds_between(now, incident.updated) < _CLOCK_SLACK_SECONDS else now
    history = (*incident.history, Entry(when=now, what=kind, text=text, who=who))
    if len(history) > MOST_ENTRIES:
        history = (history[0], *history[-(MOST_ENTRIES - 1) :])
    told = notify and kind in TOLD
    changed = msgspec.structs.replace(
        incident,
        updated=now,
        history=history,
        told=now if told else incident.told,
        announced=incident.announced or told,
    )
    bare = msgspec.structs.replace(changed, history=(), seen={}, signals=changed.signals[:EVENT_SIGNALS])
    return changed, Event(kind=kind, when=now, incident=bare, text=text, who=who, notify=notify)


def _listed(incident: Incident, event: Event) -> tuple[Incident, list[Event]]:
    return incident, [event]


def _new(window: Window, now: str, taken: set[str]) -> Incident:
    """One that has no id of those that are `taken`: windows of several kinds may end at one moment."""
    cause = cause_of(window.model, window.digest)
    text = f"{cause}\n{window.end}\n{now}"
    while (name := hashlib.sha256(text.encode()).hexdigest()[:10]) in taken:
        text += "\nagain"
    return Incident(
        id=name,
        cause=cause,
        model=window.model,
        digest=window.digest,
        version=window.version,
        state="pending",
        updated=now,
        looked=now,
    )


def _is_fresh(seen: str | None, end: str, now: str) -> bool:
    """Whether a window that ends at `end` was not counted yet. A mark that a wrong clock left ahead of us counts for
    nothing."""
    return seen is None or end > seen or seen > after(now, _CLOCK_SLACK_SECONDS)


def _is_long_ago(incident: Incident, settings: AlertSettings, now: str) -> bool:
    resolved = incident.resolved.when if incident.resolved is not None else incident.updated
    return seconds_between(resolved, now) > settings.flap_hours * _HOUR


def _worst(signals: Iterable[Signal]) -> int:
    return max((rank(signal.finding.severity) for signal in signals if signal.confirmed), default=0)


def _severity(worst: int) -> str:
    return ("info", "warning", "critical")[worst]


def _channels(incident: Incident, judgements: Sequence[Judgement], *, begins: bool) -> tuple[str, ...] | None:
    """The channels that rules named, of this window and of those before; None as soon as a finding goes to all."""
    if not judgements:
        return incident.channels
    named = [judgement.channels for judgement in judgements]
    if not begins:
        named.append(incident.channels)
    if any(names is None for names in named):
        return None
    return tuple(sorted({name for names in named for name in names or ()}))
