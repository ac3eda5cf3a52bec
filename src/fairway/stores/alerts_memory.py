"""Incidents and outbox in this process's memory: for tests and for embedding without a disk."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from fairway.core.incident import Event, Incident, Message, Silence
from fairway.stores.alerts import IncidentState, Queue, Sender
from fairway.stores.memory_state import MemoryState


@dataclass
class _State:
    """Values are immutable, so a copy of the containers is a copy of the state."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    silences: dict[str, Silence] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    senders: dict[str, Sender] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)

    def copy(self) -> _State:
        return _State(
            dict(self.incidents),
            list(self.events),
            dict(self.silences),
            dict(self.messages),
            dict(self.senders),
            dict(self.marks),
        )


class MemoryAlertRows:
    def __init__(self, state: _State) -> None:
        self._state = state

    def current(self, since: str) -> tuple[Incident, ...]:
        return tuple(
            incident
            for incident in self._state.incidents.values()
            if incident.state != "resolved" or incident.updated >= since
        )

    def incidents(
        self, *, states: tuple[IncidentState, ...] = (), model: str | None = None, limit: int = 100
    ) -> tuple[Incident, ...]:
        found = [
            incident
            for incident in self._state.incidents.values()
            if (not states or incident.state in states) and model in (None, incident.model)
        ]
        return tuple(sorted(found, key=lambda i: (i.updated, i.id), reverse=True)[:limit])

    def incident(self, name: str) -> Incident | None:
        return self._state.incidents.get(name)

    def put_incident(self, incident: Incident) -> None:
        self._state.incidents[incident.id] = incident

    def drop_incident(self, name: str) -> None:
        self._state.incidents.pop(name, None)

    def append(self, event: Event) -> Event:
        stored = msgspec.structs.replace(event, sequence=self.last_sequence() + 1)
        self._state.events.append(stored)
        return stored

    def events(self, after: int, limit: int) -> tuple[Event, ...]:
        return tuple([event for event in self._state.events if event.sequence > after][:limit])

    def last_sequence(self) -> int:
        return self._state.events[-1].sequence if self._state.events else 0

    def silences(self) -> tuple[Silence, ...]:
        return tuple(sorted(self._state.silences.values(), key=lambda silence: (silence.until, silence.id)))

    def put_silence(self, silence: Silence) -> None:
        self._state.silences[silence.id] = silence

    def drop_silence(self, name: str) -> bool:
        return self._state.silences.pop(name, None) is not None

    def put_message(self, message: Message) -> None:
        self._state.messages[message.id] = message

    def drop_message(self, name: str) -> None:
        self._state.messages.pop(name, None)

    def message(self, name: str) -> Message | None:
        return self._state.messages.get(name)

    def due(self, channel: str, now: str, limit: int, *, furthest: str) -> tuple[Message, ...]:
        heads: dict[str, Message] = {}
        for message in self.messages(channel=channel, limit=len(self._state.messages)):
            heads.setdefault(message.event.incident.id, message)
        found = [message for message in heads.values() if message.due <= now or message.due > furthest]
        return tuple(sorted(found, key=lambda m: (m.due, m.event.sequence))[:limit])

    def messages(
        self,
        *,
        channel: str | None = None,
        incident: str | None = None,
        state: str = "waiting",
        limit: int = 100,
    ) -> tuple[Message, ...]:
        found = [
            message
            for message in self._state.messages.values()
            if message.state == state
            and channel in (None, message.channel)
            and incident in (None, message.event.incident.id)
        ]
        return tuple(sorted(found, key=lambda message: (message.event.sequence, message.id))[:limit])

    def queues(self) -> dict[str, Queue]:
        found: dict[str, Queue] = {}
        for message in sorted(self._state.messages.values(), key=lambda message: message.created):
            queue = found.get(message.channel, Queue())
            if message.state == "dead":
                changed = msgspec.structs.replace(queue, dead=queue.dead + 1)
            else:
                oldest = queue.oldest or message.created
                changed = msgspec.structs.replace(queue, waiting=queue.waiting + 1, oldest=oldest)
            found[message.channel] = changed
        return found

    def next_due(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for message in self._state.messages.values():
            if message.state == "waiting":
                found[message.channel] = min(message.due, found.get(message.channel, message.due))
        return found

    def sender(self, channel: str) -> Sender | None:
        return self._state.senders.get(channel)

    def put_sender(self, channel: str, sender: Sender) -> None:
        self._state.senders[channel] = sender

    def mark(self, name: str) -> str:
        return self._state.marks.get(name, "")

    def put_mark(self, name: str, value: str) -> None:
        self._state.marks[name] = value

    def prune(self, before: str) -> int:
        state = self._state
        incidents = [i.id for i in state.incidents.values() if i.state == "resolved" and i.updated < before]
        messages = [m.id for m in state.messages.values() if m.state == "dead" and m.created < before]
        silences = [s.id for s in state.silences.values() if s.until < before]
        for name in incidents:
            del state.incidents[name]
        for name in messages:
            del state.messages[name]
        for name in silences:
            del state.silences[name]
        last = self.last_sequence()
        kept = [event for event in state.events if event.when >= before or event.sequence == last]
        gone = len(state.events) - len(kept)
        state.events[:] = kept
        return gone + len(incidents) + len(messages) + len(silences)


class MemoryAlerts(MemoryState[_State, MemoryAlertRows]):
    def __init__(self, *, lock_timeout_seconds: float = 10.0) -> None:
        super().__init__(
            _State(), MemoryAlertRows, "the incidents", lock_timeout_seconds=lock_timeout_seconds
        )
