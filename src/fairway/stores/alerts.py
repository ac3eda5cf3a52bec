"""The port of incidents, their events, silences, and the outbox: messages that are to be sent."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, Protocol

import msgspec

from fairway.core.incident import Event, Incident, Message, Silence

IncidentState = Literal["pending", "open", "resolved"]


class Sender(msgspec.Struct, frozen=True):
    """Which process sends to a channel; nobody else may before `until`."""

    owner: str
    until: str


class Queue(msgspec.Struct, frozen=True):
    """How many messages of a channel wait, and how many were given up."""

    waiting: int = 0
    dead: int = 0
    oldest: str = ""
    """When the oldest one that waits was written."""


class AlertRows(Protocol):
    """The rows inside one transaction. Verbs only; the rules are `monitoring`'s. Limits are on the newest."""

    def current(self, since: str) -> tuple[Incident, ...]:
        """Those that are not resolved, and those that were resolved at `since` or later."""

    def incidents(
        self, *, states: tuple[IncidentState, ...] = (), model: str | None = None, limit: int = 100
    ) -> tuple[Incident, ...]:
        """The newest change first; of any state when none is named."""

    def incident(self, name: str) -> Incident | None: ...

    def put_incident(self, incident: Incident) -> None: ...

    def drop_incident(self, name: str) -> None: ...

    def append(self, event: Event) -> Event:
        """Adds the event with the next sequence, and returns it. Sequences are in the order of commits: who has seen
        one has missed none before it."""

    def events(self, after: int, limit: int) -> tuple[Event, ...]:
        """The oldest first, beginning behind sequence `after`."""

    def last_sequence(self) -> int:
        """0 at first."""

    def silences(self) -> tuple[Silence, ...]:
        """By when they end."""

    def put_silence(self, silence: Silence) -> None: ...

    def drop_silence(self, name: str) -> bool:
        """Whether it was there."""

    def put_message(self, message: Message) -> None:
        """Adds it, or replaces the one of its id."""

    def drop_message(self, name: str) -> None:
        """Nothing when it is not there."""

    def message(self, name: str) -> Message | None: ...

    def due(self, channel: str, now: str, limit: int, *, furthest: str) -> tuple[Message, ...]:
        """Messages that may be sent now, the longest due first: of each incident only the oldest that waits. What is due
        after `furthest`, beyond any pause, was written by a clock that was ahead, and may be sent now too."""

    def messages(
        self,
        *,
        channel: str | None = None,
        incident: str | None = None,
        state: str = "waiting",
        limit: int = 100,
    ) -> tuple[Message, ...]:
        """The oldest first."""

    def queues(self) -> dict[str, Queue]:
        """By channel."""

    def next_due(self) -> dict[str, str]:
        """Channel -> the earliest time at which a message of it is due."""

    def sender(self, channel: str) -> Sender | None: ...

    def put_sender(self, channel: str, sender: Sender) -> None: ...

    def mark(self, name: str) -> str:
        """Empty at first."""

    def put_mark(self, name: str, value: str) -> None: ...

    def prune(self, before: str) -> int:
        """Forgets resolved incidents, events, ended silences and dead messages that are older; returns how many. The
        last event stays, so that sequences go on."""


class AlertStore(Protocol):
    """Errors: as `RegistryDatabase`."""

    @property
    def where(self) -> str:
        """For messages: a path or URL without secrets."""

    def reading(self) -> AbstractContextManager[AlertRows]: ...

    def writing(self) -> AbstractContextManager[AlertRows]:
        """One writer at a time. All of the block's writes or, when it raises or the process dies, none of them."""

    def close(self) -> None: ...
