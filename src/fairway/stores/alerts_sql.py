"""Incidents and outbox in the registry's database, SQLite or PostgreSQL: the same statements for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sa

from fairway.core.incident import Event, Incident, Message, Silence
from fairway.stores.alerts import IncidentState, Queue, Sender
from fairway.stores.schema import events, incidents, monitor_marks, outbox, outbox_senders, silences
from fairway.stores.sql import SqlDatabase

_WAITING = outbox.c.state == "waiting"


class SqlAlerts:
    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @property
    def where(self) -> str:
        return self._database.where

    @contextmanager
    def reading(self) -> Iterator[SqlAlertRows]:
        with self._database.transaction(writing=False) as connection:
            yield SqlAlertRows(connection)

    @contextmanager
    def writing(self) -> Iterator[SqlAlertRows]:
        with self._database.transaction(writing=True) as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
                connection.exec_driver_sql(f"LOCK TABLE {events.name} IN SHARE ROW EXCLUSIVE MODE")
            yield SqlAlertRows(connection)

    def close(self) -> None:
        self._database.close()


class SqlAlertRows:
    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def current(self, since: str) -> tuple[Incident, ...]:
        return self._incidents(
            sa.or_(incidents.c.state != "resolved", incidents.c.updated >= since), sa.true(), None
        )

    def incidents(
        self, *, states: tuple[IncidentState, ...] = (), model: str | None = None, limit: int = 100
    ) -> tuple[Incident, ...]:
        return self._incidents(
            incidents.c.state.in_(states) if states else sa.true(),
            incidents.c.model == model if model is not None else sa.true(),
            limit,
        )

    def incident(self, name: str) -> Incident | None:
        found = self._incidents(incidents.c.id == name, sa.true(), 1)
        return found[0] if found else None

    def put_incident(self, incident: Incident) -> None:
        row = {
            "cause": incident.cause,
            "model": incident.model,
            "state": incident.state,
            "updated": incident.updated,
            "incident": _text(incident),
        }
        self._put(incidents, incident.id, row)

    def drop_incident(self, name: str) -> None:
        self._connection.execute(sa.delete(incidents).where(incidents.c.id == name))

    def append(self, event: Event) -> Event:
        stored = msgspec.structs.replace(event, sequence=self.last_sequence() + 1)
        row = {"sequence": stored.sequence, "incident": stored.incident.id, "at": stored.when}
        self._connection.execute(sa.insert(events).values(**row, event=_text(stored)))
        return stored

    def events(self, after: int, limit: int) -> tuple[Event, ...]:
        query = sa.select(events.c.event).where(events.c.sequence > after)
        found = self._connection.execute(query.order_by(events.c.sequence).limit(limit)).scalars()
        return tuple(msgspec.json.decode(text, type=Event) for text in found)

    def last_sequence(self) -> int:
        return int(self._connection.execute(sa.select(sa.func.max(events.c.sequence))).scalar() or 0)

    def silences(self) -> tuple[Silence, ...]:
        query = sa.select(silences.c.silence).order_by(silences.c.until, silences.c.id)
        found = self._connection.execute(query).scalars()
        return tuple(msgspec.json.decode(text, type=Silence) for text in found)

    def put_silence(self, silence: Silence) -> None:
        self._put(silences, silence.id, {"until": silence.until, "silence": _text(silence)})

    def drop_silence(self, name: str) -> bool:
        gone = self._connection.execute(sa.delete(silences).where(silences.c.id == name))
        return bool(gone.rowcount)

    def put_message(self, message: Message) -> None:
        row = {
            "channel": message.channel,
            "incident": message.event.incident.id,
            "sequence": message.event.sequence,
            "state": message.state,
            "due": message.due,
            "message": _text(message),
        }
        self._put(outbox, message.id, row)

    def drop_message(self, name: str) -> None:
        self._connection.execute(sa.delete(outbox).where(outbox.c.id == name))

    def message(self, name: str) -> Message | None:
        query = sa.select(outbox.c.message).where(outbox.c.id == name)
        text = self._connection.execute(query).scalar()
        return None if text is None else msgspec.json.decode(text, type=Message)

    def due(self, channel: str, now: str, limit: int, *, furthest: str) -> tuple[Message, ...]:
        earlier = outbox.alias()
        is_behind = sa.exists().where(
            earlier.c.channel == channel,
            earlier.c.state == "waiting",
            earlier.c.incident == outbox.c.incident,
            earlier.c.sequence < outbox.c.sequence,
        )
        is_due = sa.or_(outbox.c.due <= now, outbox.c.due > furthest)
        query = (
            sa.select(outbox.c.message)
            .where(outbox.c.channel == channel, _WAITING, is_due, ~is_behind)
            .order_by(outbox.c.due, outbox.c.sequence)
            .limit(limit)
        )
        return _messages(self._connection.execute(query).scalars())

    def messages(
        self,
        *,
        channel: str | None = None,
        incident: str | None = None,
        state: str = "waiting",
        limit: int = 100,
    ) -> tuple[Message, ...]:
        query = sa.select(outbox.c.message).where(outbox.c.state == state)
        if channel is not None:
            query = query.where(outbox.c.channel == channel)
        if incident is not None:
            query = query.where(outbox.c.incident == incident)
        found = self._connection.execute(query.order_by(outbox.c.sequence, outbox.c.id).limit(limit))
        return _messages(found.scalars())

    def queues(self) -> dict[str, Queue]:
        count = sa.select(outbox.c.channel, outbox.c.state, sa.func.count(), sa.func.min(outbox.c.sequence))
        found: dict[str, Queue] = {}
        for channel, state, number, first in self._connection.execute(
            count.group_by(outbox.c.channel, outbox.c.state)
        ).all():
            queue = found.get(channel, Queue())
            if state == "dead":
                found[channel] = msgspec.structs.replace(queue, dead=number)
            else:
                oldest = self._oldest(channel, first)
                found[channel] = msgspec.structs.replace(queue, waiting=number, oldest=oldest)
        return found

    def next_due(self) -> dict[str, str]:
        query = sa.select(outbox.c.channel, sa.func.min(outbox.c.due)).where(_WAITING)
        found = self._connection.execute(query.group_by(outbox.c.channel))
        return {row[0]: row[1] for row in found}

    def sender(self, channel: str) -> Sender | None:
        query = sa.select(outbox_senders).where(outbox_senders.c.channel == channel)
        row = self._connection.execute(query).first()
        return None if row is None else Sender(row.owner, row.until)

    def put_sender(self, channel: str, sender: Sender) -> None:
        row = {"owner": sender.owner, "until": sender.until}
        self._put(outbox_senders, channel, row, key="channel")

    def mark(self, name: str) -> str:
        query = sa.select(monitor_marks.c.value).where(monitor_marks.c.name == name)
        return str(self._connection.execute(query).scalar() or "")

    def put_mark(self, name: str, value: str) -> None:
        self._put(monitor_marks, name, {"value": value}, key="name")

    def prune(self, before: str) -> int:
        last = self.last_sequence()
        old_messages = [
            message.id for message in self.messages(state="dead", limit=10_000) if message.created < before
        ]
        gone = [
            sa.delete(incidents).where(incidents.c.state == "resolved", incidents.c.updated < before),
            sa.delete(events).where(events.c.at < before, events.c.sequence < last),
            sa.delete(silences).where(silences.c.until < before),
            sa.delete(outbox).where(outbox.c.id.in_(old_messages)),
        ]
        return sum(self._connection.execute(statement).rowcount for statement in gone)

    def _oldest(self, channel: str, sequence: int) -> str:
        query = sa.select(outbox.c.message).where(
            outbox.c.channel == channel, outbox.c.sequence == sequence, _WAITING
        )
        found = _messages(self._connection.execute(query).scalars())
        return min((message.created for message in found), default="")

    def _incidents(
        self, one: sa.ColumnElement[bool], other: sa.ColumnElement[bool], limit: int | None
    ) -> tuple[Incident, ...]:
        query = sa.select(incidents.c.incident).where(one, other)
        query = query.order_by(incidents.c.updated.desc(), incidents.c.id.desc()).limit(limit)
        found = self._connection.execute(query).scalars()
        return tuple(msgspec.json.decode(text, type=Incident) for text in found)

    def _put(self, table: sa.Table, name: str, row: dict[str, Any], key: str = "id") -> None:
        known = self._connection.execute(sa.update(table).where(table.c[key] == name).values(row))
        if known.rowcount == 0:
            self._connection.execute(sa.insert(table).values({key: name, **row}))


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _messages(found: sa.ScalarResult[Any]) -> tuple[Message, ...]:
    return tuple(msgspec.json.decode(text, type=Message) for text in found)
