"""Messages on their way: routed, kept in order, tried again, given up, never lost."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.alert_settings import AlertSettings, ChannelSettings
from fairway.core.clock import after, seconds_between
from fairway.core.errors import DeliveryFailed, IncidentNotFound
from fairway.core.incident import Message
from fairway.monitoring import outbox
from fairway.stores.alerts_memory import MemoryAlertRows, MemoryAlerts
from tests.unit.monitoring.messages import NOW, event, incident

SETTINGS = AlertSettings(queue_messages=10)
OPS = ChannelSettings(kind="log")


@pytest.fixture
def rows() -> MemoryAlertRows:
    return MemoryAlertRows(MemoryAlerts()._state)


def written(rows: MemoryAlertRows, *events: Any, **channels: ChannelSettings) -> list[str]:
    outbox.record(rows, events, channels or {"ops": OPS}, SETTINGS, NOW)
    return [message.id for message in rows.messages()]


def failed(rows: MemoryAlertRows, message: Message, now: str = NOW, **failure: Any) -> Message:
    changed = outbox.failed(rows, message, DeliveryFailed("no", **failure), SETTINGS, now, random.Random(1))
    assert changed is not None
    return changed


def test_an_event_is_told_to_whom_it_concerns(rows: MemoryAlertRows) -> None:
    channels = {
        "all": OPS,
        "worst": ChannelSettings(kind="log", minimum="critical"),
        "other": ChannelSettings(kind="log", models=("fraud*", "pay[0]")),
        "over": ChannelSettings(kind="log", events=("resolved",)),
        "info": ChannelSettings(kind="log", minimum="info", models=("pay*",)),
    }
    found = written(rows, event(), event(incident=incident(severity="info")), event(notify=False), **channels)
    assert found == ["3f0c1d2b4a.1.all", "3f0c1d2b4a.1.info", "3f0c1d2b4a.1.worst", "3f0c1d2b4a.2.info"]
    named = event("resolved", incident=incident(channels=("over", "gone")))
    assert written(rows, named, **channels)[-1] == "3f0c1d2b4a.4.over"


def test_all_events_are_kept_also_those_nobody_is_told_of(rows: MemoryAlertRows) -> None:
    assert written(rows, event(notify=False), event("silenced", notify=False)) == []
    assert [e.sequence for e in rows.events(0, 10)] == [1, 2]


def test_what_a_newer_one_says_too_is_not_sent(rows: MemoryAlertRows) -> None:
    every = {"ops": ChannelSettings(kind="log", events=("opened", "updated", "reminded", "resolved"))}
    kinds = ["opened", "updated", "updated", "reminded", "resolved"]
    written(rows, *(event(kind) for kind in kinds), event("updated", "b"), **every)
    assert [m.event.kind for m in rows.messages()] == ["opened", "reminded", "resolved", "updated"]


def test_a_queue_that_is_full_gives_up_the_oldest_and_says_so(rows: MemoryAlertRows) -> None:
    written(rows, *(event(name=f"i{number}") for number in range(12)))
    queue = rows.queues()["ops"]
    assert (queue.waiting, queue.dead) == (10, 2)
    dead = rows.messages(state="dead")
    assert [m.event.incident.id for m in dead] == ["i0", "i1"]
    assert "10 messages wait" in dead[0].failure


# One sender


def take(rows: MemoryAlertRows, owner: str, now: str = NOW) -> Message | None:
    return outbox.take(rows, "ops", owner, SETTINGS, now, lease_seconds=20)


def test_one_sends_at_a_time_until_its_lease_is_over(rows: MemoryAlertRows) -> None:
    written(rows, event(), event("raised", "b"))
    first = take(rows, "me")
    assert first is not None
    assert take(rows, "you") is None
    assert take(rows, "me") == first, "a process that was killed and one that asks again get the same"
    assert take(rows, "you", after(NOW, 19)) is None
    assert take(rows, "you", after(NOW, 20)) == first
    assert take(rows, "me", after(NOW, 21)) is None


def test_a_lease_is_given_back(rows: MemoryAlertRows) -> None:
    written(rows, event())
    take(rows, "me")
    outbox.release(rows, "ops", "you", NOW)
    assert take(rows, "you") is None
    outbox.release(rows, "ops", "me", NOW)
    assert take(rows, "you") is not None


def test_a_lease_from_the_far_future_is_not_believed(rows: MemoryAlertRows) -> None:
    written(rows, event())
    assert take(rows, "me", after(NOW, 365 * 86_400)) is not None
    assert take(rows, "you") is not None


def test_the_resolution_does_not_overtake_the_opening(rows: MemoryAlertRows) -> None:
    written(rows, event(), event("resolved"), event("opened", "b"))
    opened = take(rows, "me")
    assert opened is not None
    failed(rows, opened)
    other = take(rows, "me")
    assert other is not None
    assert other.event.incident.id == "b"
    rows.drop_message(other.id)
    assert take(rows, "me") is None
    rows.drop_message(opened.id)
    last = take(rows, "me")
    assert last is not None
    assert last.event.kind == "resolved"


# Trying again


def test_pauses_double_and_are_drawn_between_half_and_all() -> None:
    chance = random.Random(3)
    settings = AlertSettings(retry_first_seconds=5, retry_longest_seconds=100)
    for attempts, longest in ((1, 5), (2, 10), (3, 20), (6, 100), (10_000, 100)):
        drawn = [outbox.pause(attempts, None, settings, chance) for _ in range(200)]
        assert longest / 2 <= min(drawn) < max(drawn) <= longest
    assert outbox.pause(1, 60.0, settings, chance) == 60.0
    assert outbox.pause(1, 1e9, settings, chance) == 3600.0
    assert outbox.pause(9, 1.0, settings, chance) > 1.0


@given(st.integers(1, 10**6), st.none() | st.floats(0, 1e12), st.integers())
def test_a_pause_is_never_shorter_than_half_the_first_or_longer_than_an_hour(
    attempts: int, asked: float | None, seed: int
) -> None:
    assert 2.5 <= outbox.pause(attempts, asked, AlertSettings(), random.Random(seed)) <= 3600


def test_an_attempt_that_failed_is_counted_and_waits(rows: MemoryAlertRows) -> None:
    written(rows, event())
    message = take(rows, "me")
    assert message is not None
    changed = failed(rows, message)
    assert (changed.attempts, changed.failure, changed.state) == (1, "no", "waiting")
    assert 2.5 <= seconds_between(NOW, changed.due) <= 5
    assert failed(rows, message).attempts == 2


def test_what_is_refused_for_good_or_too_old_is_given_up_and_can_be_sent_again(rows: MemoryAlertRows) -> None:
    written(rows, event(), event(name="b"))
    first, second = rows.messages()
    assert failed(rows, first, permanent=True).state == "dead"
    late = after(NOW, 72 * 3600)
    assert [failed(rows, second, late).state for _ in range(10)] == ["waiting"] * 9 + ["dead"]
    assert outbox.failed(rows, first, DeliveryFailed("no"), SETTINGS, NOW, random.Random(1)) is None
    later = after(NOW, 80 * 3600)
    (again,) = outbox.retry(rows, [first.id], later)
    assert (again.id, again.state, again.attempts, again.created) == (first.id, "waiting", 0, later)
    with pytest.raises(IncidentNotFound, match="no message 'x'"):
        outbox.retry(rows, ["x"], NOW)


def test_a_clock_that_is_ahead_for_a_moment_neither_gives_up_nor_delays(rows: MemoryAlertRows) -> None:
    written(rows, event())
    (message,) = rows.messages()
    changed = failed(rows, message, after(NOW, 365 * 86_400))
    assert changed.state == "waiting"
    again = take(rows, "me", after(NOW, 1))
    assert again is not None
    assert again.id == message.id


def test_one_that_another_has_sent_meanwhile_is_not_brought_back(rows: MemoryAlertRows) -> None:
    written(rows, event())
    (message,) = rows.messages()
    rows.drop_message(message.id)
    assert outbox.failed(rows, message, DeliveryFailed("no"), SETTINGS, NOW, random.Random(1)) is None
    assert rows.messages() == ()


def test_what_waits_for_a_channel_that_is_gone_is_given_up_in_the_end(rows: MemoryAlertRows) -> None:
    written(rows, event(), ops=OPS, gone=OPS)
    outbox.give_up_orphans(rows, {"ops": OPS}, SETTINGS, after(NOW, 71 * 3600))
    assert rows.messages(state="dead") == ()
    outbox.give_up_orphans(rows, {"ops": OPS}, SETTINGS, after(NOW, 72 * 3600))
    assert [(m.channel, m.failure) for m in rows.messages(state="dead")] == [
        ("gone", "the channel is not set up")
    ]
    assert [m.channel for m in rows.messages()] == ["ops"]
