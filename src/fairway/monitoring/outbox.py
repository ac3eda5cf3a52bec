"""Messages on their way: written in the transaction of the event they tell of, sent at least once, never dropped.

    event --write--> waiting --sent--> gone
                       |  ^
             failed, again later; given up --> dead --retry--> waiting

Decisions over the rows of one transaction; when to be woken and how to send are the sender's (`sender.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import msgspec

from fairway.core.alert_settings import AlertSettings, ChannelSettings
from fairway.core.clock import after, seconds_between
from fairway.core.errors import DeliveryFailed, IncidentNotFound
from fairway.core.incident import Event, Message
from fairway.monitoring.alert_rules import channels_for
from fairway.stores.alerts import AlertRows, Sender

_SUPERSEDED = ("updated", "reminded")
"""Of these only the latest that waits is of use."""
_LONGEST_FAILURE = 500
_LONGEST_RETRY_AFTER = 3600.0
_PAUSE_SLACK_SECONDS = 60.0
_LEAST_ATTEMPTS = 10
"""Before a message is too old to be tried again: a sender that was away for days, or a clock that jumped ahead, gives up
nothing at its first failure."""


def record(
    rows: AlertRows,
    events: Iterable[Event],
    channels: Mapping[str, ChannelSettings],
    settings: AlertSettings,
    now: str,
) -> tuple[Event, ...]:
    """Appends the events, and writes a message for every channel that is told."""
    stored = []
    for event in events:
        numbered = rows.append(event)
        stored.append(numbered)
        for name in channels_for(numbered, channels):
            _write(rows, numbered, name, settings, now)
    return tuple(stored)


def _write(rows: AlertRows, event: Event, channel: str, settings: AlertSettings, now: str) -> None:
    if event.kind in _SUPERSEDED:
        for waiting in rows.messages(channel=channel, incident=event.incident.id):
            if waiting.event.kind in _SUPERSEDED:
                rows.drop_message(waiting.id)
    queue = rows.queues().get(channel)
    if queue is not None and queue.waiting >= settings.queue_messages:
        for oldest in rows.messages(channel=channel, limit=queue.waiting - settings.queue_messages + 1):
            why = f"{settings.queue_messages} messages wait for this channel; newer ones took its place"
            rows.put_message(msgspec.structs.replace(oldest, state="dead", failure=why))
    name = f"{event.incident.id}.{event.sequence}.{channel}"
    rows.put_message(Message(id=name, channel=channel, event=event, created=now, due=now))


def take(
    rows: AlertRows, channel: str, owner: str, settings: AlertSettings, now: str, *, lease_seconds: float
) -> Message | None:
    """A message that `owner` may send now, and alone: until `lease_seconds` are over or it takes no more, nobody else
    gets one of this channel. None when none is due or another process is sending. A lease that a wrong clock wrote is
    not believed."""
    held = rows.sender(channel)
    is_others = held is not None and held.owner not in ("", owner)
    if held is not None and is_others and 0 < seconds_between(now, held.until) <= 10 * lease_seconds:
        return None
    found = due(rows, channel, settings, now)
    if found is None:
        return None
    rows.put_sender(channel, Sender(owner, after(now, lease_seconds)))
    return found


def due(rows: AlertRows, channel: str, settings: AlertSettings, now: str) -> Message | None:
    """The message that is to be sent next, if one is due."""
    longest = max(settings.retry_longest_seconds, _LONGEST_RETRY_AFTER) + _PAUSE_SLACK_SECONDS
    found = rows.due(channel, now, 1, furthest=after(now, longest))
    return found[0] if found else None


def release(rows: AlertRows, channel: str, owner: str, now: str) -> None:
    """Lets others send at once."""
    held = rows.sender(channel)
    if held is not None and held.owner == owner:
        rows.put_sender(channel, Sender("", now))


def failed(
    rows: AlertRows,
    message: Message,
    failure: DeliveryFailed,
    settings: AlertSettings,
    now: str,
    chance: random.Random,
) -> Message | None:
    """The message after an attempt that failed: again later, or given up. None when it is no longer there."""
    known = rows.message(message.id)
    if known is None or known.state == "dead":
        return None
    attempts = known.attempts + 1
    is_too_old = (
        attempts >= _LEAST_ATTEMPTS and seconds_between(known.created, now) >= settings.retry_hours * 3600
    )
    changed = msgspec.structs.replace(
        known,
        attempts=attempts,
        failure=str(failure)[:_LONGEST_FAILURE],
        state="dead" if failure.permanent or is_too_old else "waiting",
        due=after(now, pause(attempts, failure.retry_after, settings, chance)),
    )
    rows.put_message(changed)
    return changed


def give_up_orphans(
    rows: AlertRows, channels: Mapping[str, ChannelSettings], settings: AlertSettings, now: str
) -> None:
    """Gives up what waits too long for channels that are no longer set up: nobody sends it."""
    for name in rows.queues():
        if name in channels:
            continue
        for message in rows.messages(channel=name, limit=settings.queue_messages):
            if seconds_between(message.created, now) >= settings.retry_hours * 3600:
                why = "the channel is not set up"
                rows.put_message(msgspec.structs.replace(message, state="dead", failure=why))


def pause(attempts: int, retry_after: float | None, settings: AlertSettings, chance: random.Random) -> float:
    """Seconds to wait after so many failed attempts: doubled each time up to the longest, drawn between half and all of
    that, so that many senders do not come back at once; what the receiver asks for, up to an hour, when that is longer."""
    doubled = settings.retry_first_seconds * 2.0 ** min(attempts - 1, 60)
    longest = min(doubled, settings.retry_longest_seconds)
    asked = min(retry_after or 0.0, _LONGEST_RETRY_AFTER)
    return max(chance.uniform(longest / 2, longest), asked)


def retry(rows: AlertRows, names: Iterable[str], now: str) -> tuple[Message, ...]:
    """Puts messages that were given up back into the queue, with their age counted anew. IncidentNotFound."""
    found = []
    for name in names:
        message = rows.message(name)
        if message is None:
            raise IncidentNotFound(
                f"There is no message {name!r}.", hint="`fairway alerts queue --dead` lists them."
            )
        changed = msgspec.structs.replace(
            message, state="waiting", due=now, created=now, attempts=0, failure=""
        )
        rows.put_message(changed)
        found.append(changed)
    return tuple(found)
