"""Incidents of a store: what monitors report, what people do about them, and the feed of events for other parts.

Each verb is one transaction: the incidents, the events and the messages about them are written together or not at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from fairway.core.alert_settings import AlertSettings, ChannelSettings
from fairway.core.clock import Clock, after, moment_of, trusted, utc_now, utc_text
from fairway.core.errors import ChannelNotFound, Conflict, IncidentNotFound, InvalidInput
from fairway.core.incident import Event, Incident, Message, Silence, Window
from fairway.monitoring import incidents as rules
from fairway.monitoring import outbox
from fairway.monitoring.windows import checked, printable
from fairway.stores.alerts import AlertRows, AlertStore, IncidentState, Queue

MOST_SILENCES = 1000
_LONGEST_SILENCE_DAYS = 400
_LONGEST_TEXT = 1000
_PRUNE_EVERY_SECONDS = 3600.0
_CLOCK = "clock of alerts"
_JUMP_SECONDS = 8 * 86_400.0
"""Incidents may be reported as seldom as once a week, by a cron job."""


class Alerts:
    """`channels` are those of the settings; nothing is sent here, but by a `Sender` on the same store."""

    def __init__(
        self,
        store: AlertStore,
        settings: AlertSettings,
        channels: Mapping[str, ChannelSettings],
        *,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self.store = store
        self._settings = settings
        self._channels = channels
        self._now = now
        self._seen: Clock | None = None
        self._written = Clock()
        self._pruned = ""

    # What monitors report

    def observe(self, windows: Iterable[Window] = ()) -> tuple[Event, ...]:
        """Takes what monitors looked at, and lets time pass. Call it now and then without windows too. Events that came
        of it, numbered. InvalidInput for windows whose times are none; then nothing is taken."""
        looked = [checked(window) for window in windows]
        now = self._now()
        settings = self._settings
        with self.store.writing() as rows:
            sure = self._trusts_clock(rows, now)
            before = rows.current(after(now, -settings.flap_hours * 3600 - 86_400))
            kept, events = rules.step(before, looked, settings, now, rows.silences(), is_sure=sure)
            _put_changes(rows, before, kept)
            stored = outbox.record(rows, events, self._channels, settings, now)
            is_due = not self._pruned or not self._pruned <= now < after(self._pruned, _PRUNE_EVERY_SECONDS)
            if sure and is_due:
                rows.prune(after(now, -settings.keep_days * 86_400))
                outbox.give_up_orphans(rows, self._channels, settings, now)
                self._pruned = now
        return stored

    def _trusts_clock(self, rows: AlertRows, now: str) -> bool:
        """Whether what is old may go; a clock that has just jumped ahead does not decide that. What is known of it is
        written down when that changes, and from hour to hour."""
        if self._seen is None:
            try:
                self._seen = msgspec.json.decode(rows.mark(_CLOCK), type=Clock)
            except msgspec.MsgspecError:
                self._seen = Clock()
            self._written = self._seen
        self._seen, sure = trusted(self._seen, moment_of(now).timestamp(), jump_seconds=_JUMP_SECONDS)
        is_same = self._seen.odd_since == self._written.odd_since
        if not is_same or abs(self._seen.seen - self._written.seen) >= _PRUNE_EVERY_SECONDS:
            rows.put_mark(_CLOCK, msgspec.json.encode(self._seen).decode())
            self._written = self._seen
        return sure

    # What other parts listen to

    def events_since(self, cursor: int, limit: int = 100) -> tuple[tuple[Event, ...], int]:
        """Events behind the cursor, the oldest first, and the cursor behind them. Begin with 0, or with `cursor()` for
        what happens from now on; keep the cursor when what the events asked for is done. None is missed or comes out of
        order. Those older than `alerts.keep_days` are gone."""
        with self.store.reading() as rows:
            found = rows.events(cursor, limit)
        return found, (found[-1].sequence if found else cursor)

    def cursor(self) -> int:
        with self.store.reading() as rows:
            return rows.last_sequence()

    # What people see

    def incidents(
        self, *, states: tuple[IncidentState, ...] = ("open",), model: str | None = None, limit: int = 100
    ) -> tuple[Incident, ...]:
        with self.store.reading() as rows:
            return rows.incidents(states=states, model=model, limit=limit)

    def incident(self, name: str) -> Incident:
        """IncidentNotFound."""
        with self.store.reading() as rows:
            return _known(rows, name)

    def silences(self) -> tuple[Silence, ...]:
        """Those that have not ended."""
        now = self._now()
        with self.store.reading() as rows:
            return tuple(silence for silence in rows.silences() if silence.until > now)

    def queues(self) -> dict[str, Queue]:
        """By channel; also of channels that are no longer set up, whose messages nobody sends."""
        with self.store.reading() as rows:
            return {**dict.fromkeys(self._channels, Queue()), **rows.queues()}

    def messages(
        self, *, channel: str | None = None, dead: bool = False, limit: int = 100
    ) -> tuple[Message, ...]:
        with self.store.reading() as rows:
            return rows.messages(channel=channel, state="dead" if dead else "waiting", limit=limit)

    # What people do

    def acknowledge(self, name: str, *, who: str, why: str = "") -> Incident:
        """IncidentNotFound; Conflict when it is over."""
        now = self._now()
        with self.store.writing() as rows:
            incident = _open(rows, name)
            changed, event = rules.acknowledge(incident, who=printable(who), why=_short(why), now=now)
            return self._changed(rows, changed, event, now)

    def resolve(self, name: str, *, who: str, why: str = "") -> Incident:
        """IncidentNotFound; Conflict when it is over."""
        now = self._now()
        with self.store.writing() as rows:
            incident = _open(rows, name)
            changed, event = rules.resolve(incident, who=printable(who), why=_short(why), now=now)
            return self._changed(rows, changed, event, now)

    def silence(
        self,
        until: str,
        *,
        who: str,
        why: str = "",
        incident: str = "",
        model: str = "",
        kind: str = "",
        field: str = "",
        slice: str = "",
    ) -> Silence:
        """Tells nobody of what matches all the patterns given, until a time. Errors: InvalidInput, IncidentNotFound,
        Conflict beyond `MOST_SILENCES`."""
        now = self._now()
        if not any((incident, model, kind, field, slice)):
            raise InvalidInput(
                "A silence that matches everything.", hint="Name an incident, or use model '*'."
            )
        try:
            end = utc_text(moment_of(until))
        except (ValueError, OverflowError) as error:
            raise InvalidInput(f"{until!r} is not a time with a zone.") from error
        if not now < end <= after(now, _LONGEST_SILENCE_DAYS * 86_400):
            raise InvalidInput(f"A silence ends in the next {_LONGEST_SILENCE_DAYS} days; {end} is not.")
        with self.store.writing() as rows:
            if len(rows.silences()) >= MOST_SILENCES:
                raise Conflict(f"There are {MOST_SILENCES} silences already.", hint="End some first.")
            target = _known(rows, incident).id if incident else ""
            made = Silence(
                id=uuid.uuid4().hex[:8],
                until=end,
                since=now,
                who=printable(who),
                why=_short(why),
                incident=target,
                model=printable(model),
                kind=printable(kind),
                field=printable(field),
                slice=printable(slice),
            )
            rows.put_silence(made)
            known = rows.silences()
            for one in rows.incidents(states=("open",), limit=10_000):
                muted = rules.mute(one, known, who=made.who, why=made.why, now=now)
                if muted is not None:
                    self._changed(rows, *muted, now)
        return made

    def end_silence(self, name: str) -> None:
        """IncidentNotFound. What it hid and is still open is told at once."""
        with self.store.writing() as rows:
            if not rows.drop_silence(name):
                raise IncidentNotFound(f"There is no silence {name!r}.", hint="fairway incidents silences")
        self.observe()

    def test(self, channel: str, *, who: str) -> Message:
        """A message to try a channel with. It is not written anywhere: hand it to the channel's `send`. ChannelNotFound."""
        if channel not in self._channels:
            known = ", ".join(self._channels)
            raise ChannelNotFound(f"There is no channel {channel!r}; there are: {known}.")
        now = self._now()
        incident = Incident(
            id=f"test{uuid.uuid4().hex[:6]}",
            cause="test",
            model="test",
            digest="",
            state="open",
            severity="info",
            title=f"message to the channel {channel}",
            updated=now,
            looked=now,
        )
        text = "If you can read this, the channel works."
        event = Event(kind="test", when=now, incident=incident, text=text, who=printable(who), notify=True)
        return Message(id=f"{incident.id}.0.{channel}", channel=channel, event=event, created=now, due=now)

    def retry(self, names: Iterable[str]) -> tuple[Message, ...]:
        """Messages that were given up are sent again. IncidentNotFound."""
        with self.store.writing() as rows:
            return outbox.retry(rows, names, self._now())

    def close(self) -> None:
        self.store.close()

    def _changed(self, rows: AlertRows, incident: Incident, event: Event, now: str) -> Incident:
        rows.put_incident(incident)
        outbox.record(rows, [event], self._channels, self._settings, now)
        return incident


def _put_changes(rows: AlertRows, before: Iterable[Incident], kept: Iterable[Incident]) -> None:
    known = {incident.id: incident for incident in before}
    # Those that are over first: of one cause, the database lets only one not be.
    for incident in sorted(kept, key=lambda incident: incident.state != "resolved"):
        if known.pop(incident.id, None) != incident:
            rows.put_incident(incident)
    for name in known:
        rows.drop_incident(name)


def _known(rows: AlertRows, name: str) -> Incident:
    incident = rows.incident(name)
    if incident is None:
        raise IncidentNotFound(
            f"There is no incident {name!r}.", hint="`fairway incidents list --all` lists them."
        )
    return incident


def _open(rows: AlertRows, name: str) -> Incident:
    incident = _known(rows, name)
    if incident.state != "open":
        raise Conflict(f"The incident {name} is {incident.state}, not open.")
    return incident


def _short(text: str) -> str:
    return printable(text)[:_LONGEST_TEXT]


def until_text(text: str, now: str) -> str:
    """When a silence ends: `90m`, `12h`, `7d`, a date, or a time with a zone. InvalidInput."""
    units = {"m": 60, "h": 3600, "d": 86_400}
    if text[-1:] in units and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 8:
        return after(now, int(text[:-1]) * units[text[-1]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"{text!r} is no time to wait for.", hint="Write 90m, 12h, 7d or a date."
        ) from error
    return utc_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def described(incident: Incident) -> dict[str, object]:
    """The incident as programs get it: every field, also those that are as they are by default."""
    return {name: msgspec.to_builtins(getattr(incident, name)) for name in incident.__struct_fields__}
