"""The group `[alerts]` of the settings: when incidents open and close, and who is told."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from fairway.core.incident import EventKind, Severity

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]

TOLD: tuple[EventKind, ...] = ("opened", "reopened", "raised", "reminded", "unsilenced", "resolved", "test")
"""Events that a channel is told when it does not say which."""


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[alerts.rules]]`. Patterns as in a shell (`pay*`). The first rule that matches a finding decides; what it
    leaves out is as `[alerts]` has it."""

    name: str = ""
    """For people."""
    model: str = "*"
    """Of these models."""
    kind: str = "*"
    """`drift`, `quality`, `performance`, `estimate`, `fairness`, `operations`, `log`, `answers`, `external`."""
    field: str = "*"
    """Of these columns, metrics or measures of operation."""
    slice: str = "*"
    """Of these groups of rows, such as `country=*`."""
    arm: str = "*"
    """Of these arms of a route."""
    ignore: bool = False
    """Such findings never make an incident."""
    minimum_effect: float | None = None
    """Smaller effects are ignored."""
    severity: Severity | None = None
    """Instead of what the monitor said."""
    open_after: _Count | None = None
    """Instead of `alerts.open_after`."""
    resolve_after: _Count | None = None
    """Instead of `alerts.resolve_after`."""
    channels: tuple[str, ...] | None = None
    """Only these are told of incidents that have such a finding; together with those of other rules that match."""


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[alerts.channels.NAME]`. Where a secret may stand, write `env:VARIABLE` or `file:PATH`."""

    kind: Literal["webhook", "slack", "teams", "smtp", "alertmanager", "log"]
    """How it is told."""
    url: str = ""
    """Where to send: http or https; `smtp`: see `host`. Slack's and Teams' addresses are secrets: `env:SLACK_URL`."""
    secret: str = ""
    """`webhook`: what messages are signed with, `env:` or `file:`; several, the newest first, separated by spaces."""
    headers: dict[str, str] = {}
    """Sent with every request; values may be `env:` or `file:`."""
    ca_file: str = ""
    """PEM file of the authorities that the receiver's certificate is checked against; empty: the system's."""
    timeout_seconds: _Positive = 10.0
    """Longest that sending one message may take in all."""
    minimum: Severity = "warning"
    """Less severe incidents are not told here."""
    events: tuple[EventKind, ...] = TOLD
    """What is told here."""
    models: tuple[str, ...] = ("*",)
    """Patterns of the models whose incidents are told here."""
    host: str = ""
    """`smtp`: the mail server."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 587
    """`smtp`: its port."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`none` is refused together with a password."""
    username: str = ""
    """`smtp`: who logs in; empty: nobody."""
    password: str = ""
    """`env:` or `file:`."""
    sender: str = ""
    """`smtp`: the address that mails come from."""
    recipients: tuple[str, ...] = ()
    """`smtp`: the addresses that they go to."""
    labels: dict[str, str] = {}
    """`alertmanager`: further labels of every alert."""
    refresh_seconds: _Positive = 60.0
    """`alertmanager`: how often open incidents are sent again, since it forgets alerts that are not."""


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Incidents and who is told of them. The defaults need no tuning."""

    open_after: _Count = 1
    """Windows in a row that must have a finding before it counts. The monitors' own tests ask for persistence already."""
    resolve_after: _Count = 3
    """Windows in a row that must be without it before it is over; doubled with each time that an incident comes back."""
    flap_hours: _Positive = 24.0
    """What comes back sooner reopens the incident it belonged to."""
    expire_hours: _Positive = 168.0
    """An incident that no monitor looked at for so long, such as of a version without traffic, is resolved."""
    remind_hours: Annotated[float, msgspec.Meta(ge=0)] = 24.0
    """Open incidents that nobody acknowledged are told again after so long; 0: never."""
    retry_first_seconds: _Positive = 5.0
    """First pause after a failed attempt; it doubles each time, and each pause is drawn between half of it and all."""
    retry_longest_seconds: _Positive = 900.0
    """The longest pause."""
    retry_hours: _Positive = 72.0
    """A message that could not be sent for so long, and in ten attempts, is given up: `fairway alerts queue --dead`."""
    queue_messages: Annotated[int, msgspec.Meta(ge=10)] = 10_000
    """Most messages that wait for one channel; beyond that the oldest are given up."""
    keep_days: _Positive = 400.0
    """How long resolved incidents, events and given-up messages are kept."""
    link: str = ""
    """Address of the dashboard; messages link to `<link>/incidents/<id>`."""
    rules: tuple[AlertRule, ...] = ()
    channels: dict[str, ChannelSettings] = {}
    """By name. Without one, incidents are told to the log."""
