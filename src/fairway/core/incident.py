"""What monitors see and what becomes of it: `Window` -> `Incident` -> `Event`.

A monitor hands over what it looked at (`Window`) with what it found (`Finding`); findings of one version of one model
become one `Incident`; every change of an incident is an `Event`, which people are told and other parts listen to.
Times are text as `core.clock` writes them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From the least to the most severe."""

Kind = Literal[
    "drift", "quality", "performance", "estimate", "fairness", "operations", "log", "answers", "external"
]
"""`external` is what somebody else's check found; the others are Fairway's own monitors."""

EventKind = Literal[
    "opened",
    "reopened",
    "raised",
    "updated",
    "reminded",
    "acknowledged",
    "silenced",
    "unsilenced",
    "resolved",
    "test",
]

_Name = Annotated[str, msgspec.Meta(max_length=300)]
_Text = Annotated[str, msgspec.Meta(max_length=2000)]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing that is not as it should be."""

    kind: Kind
    text: _Text = ""
    """One sentence for people; empty: one is made of the fields."""
    field: _Name = ""
    """The column, the metric (`roc_auc`), or the measure of operation (`latency_p99`)."""
    arm: _Name = ""
    slice: _Name = ""
    """The group of rows, such as `country=FR`; empty: all rows."""
    severity: Severity = "warning"
    statistic: _Name = ""
    """What `value` is, such as `psi`."""
    value: float | None = None
    effect: float | None = None
    """How large, in the units of the statistic's effect size."""
    p_value: float | None = None
    threshold: float | None = None
    weight: float | None = None
    """How much it matters beside the others: importance times size times estimated loss. None: by `effect`."""


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a monitor looked at, and all it found there. `kinds` says what it had enough rows to judge: of such a kind,
    what is not among the findings is as it should be."""

    model: _Name = ""
    """Empty: the server as a whole."""
    digest: _Name = ""
    version: int = 0
    """0 where there is none."""
    start: str
    end: str
    kinds: tuple[Kind, ...] = ()
    """Those of the findings are always among them."""
    findings: Annotated[tuple[Finding, ...], msgspec.Meta(max_length=10_000)] = ()


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding that comes again window after window."""

    finding: Finding
    """The latest."""
    first: str
    """The end of the first window that had it."""
    last: str
    times: int = 1
    clean: int = 0
    """Windows without it since."""
    confirmed: bool = False
    """It came often enough to count."""

    @property
    def key(self) -> str:
        return key_of(self.finding)


def key_of(finding: Finding) -> str:
    """What makes two findings of one version the same: all but how large it is."""
    return "|".join((finding.kind, finding.field, finding.slice, finding.arm, finding.statistic))


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Who did something, when and why."""

    who: str
    when: str
    why: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of an incident's history."""

    when: str
    what: EventKind
    text: str = ""
    who: str = ""


class Likely(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A likely cause."""

    kind: Kind
    field: str = ""
    text: str = ""
    weight: float = 0.0


class Silence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Until `until` nobody is told of what it matches. Patterns as in a shell (`pay*`); empty matches everything."""

    id: str
    until: str
    who: str
    since: str
    why: str = ""
    incident: str = ""
    model: str = ""
    kind: str = ""
    field: str = ""
    slice: str = ""


class Incident(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that is wrong with one version of one model, from when it began until it is over."""

    id: str
    cause: str
    """`cause_of` its windows: of one cause, one incident is open."""
    model: str
    digest: str
    version: int = 0
    state: Literal["pending", "open", "resolved"]
    """`pending`: seen, not yet often enough; nobody is told."""
    severity: Severity = "info"
    """The worst since it opened."""
    title: str = ""
    opened: str = ""
    updated: str
    looked: str
    """When a monitor last looked."""
    resolved: Note | None = None
    acknowledged: Note | None = None
    muted: bool = False
    """Silences match all of it."""
    announced: bool = False
    """Somebody was told that it is open."""
    told: str = ""
    """When somebody was last told."""
    reopened: int = 0
    signals: tuple[Signal, ...] = ()
    causes: tuple[Likely, ...] = ()
    """The three likeliest, the likeliest first."""
    channels: tuple[str, ...] | None = None
    """The channels that rules named; None: all that want such events."""
    seen: dict[str, str] = {}
    """By kind, the end of the last window that was counted."""
    history: tuple[Entry, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change of an incident. Rollout and retraining listen to these."""

    kind: EventKind
    when: str
    incident: Incident
    """As it is after the change, without its history and with its weightiest findings."""
    text: str = ""
    who: str = ""
    """Empty: Fairway itself."""
    notify: bool = False
    """Whether channels are told."""
    sequence: int = 0
    """Its place among all events, given by the store."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way to a channel."""

    id: str
    """Stays the same however often it is sent: receivers drop what they had before."""
    channel: str
    event: Event
    created: str
    due: str
    state: Literal["waiting", "dead"] = "waiting"
    attempts: int = 0
    failure: str = ""
    """Why the last attempt failed."""


def cause_of(model: str, digest: str) -> str:
    return f"{model}@{digest}"


def rank(severity: Severity) -> int:
    return SEVERITIES.index(severity)
