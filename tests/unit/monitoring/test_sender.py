"""The sender's threads: nothing lost, nobody held up, one at a time."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from fairway.core.alert_settings import AlertSettings, ChannelSettings
from fairway.core.errors import DeliveryFailed, RegistryUnavailable
from fairway.core.incident import Incident, Message
from fairway.monitoring import outbox
from fairway.monitoring.sender import Sender
from fairway.stores.alerts import AlertRows
from fairway.stores.alerts_memory import MemoryAlerts
from tests.unit.monitoring.messages import NOW, event, incident

FAST = AlertSettings(retry_first_seconds=0.01, retry_longest_seconds=0.02)


@dataclass
class FakeChannel:
    """Takes messages, unless it is told to fail or to hang."""

    failures: list[Exception] = field(default_factory=list)
    hangs: threading.Event | None = None
    sent: list[str] = field(default_factory=list)
    refreshed: list[int] = field(default_factory=list)
    timeout_seconds: float = 0.1
    refresh_seconds: float = 0.0

    def send(self, message: Message) -> str:
        if self.hangs is not None:
            self.hangs.wait(30)
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message.id)
        return "ok"

    def refresh(self, incidents: tuple[Incident, ...]) -> None:
        self.refreshed.append(len(incidents))


def write(store: Any, *events: Any, channels: tuple[str, ...] = ("ops",)) -> None:
    with store.writing() as rows:
        outbox.record(rows, events, dict.fromkeys(channels, ChannelSettings(kind="log")), FAST, NOW)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def sending(store: Any, **channels: FakeChannel) -> Iterator[Sender]:
    sender = Sender(store, channels, FAST, poll_seconds=0.01)
    sender.start()
    yield sender
    sender.stop()


def waiting(store: Any) -> int:
    with store.reading() as rows:
        return sum(queue.waiting for queue in rows.queues().values())


def test_what_is_written_is_sent_and_gone() -> None:
    store, channel = MemoryAlerts(), FakeChannel()
    with sending(store, ops=channel):
        write(store, event(), event(name="b"))
        until(lambda: waiting(store) == 0)
    assert sorted(channel.sent) == ["3f0c1d2b4a.1.ops", "b.2.ops"]


def test_a_channel_that_hangs_holds_up_no_other() -> None:
    store, slow, quick = MemoryAlerts(), FakeChannel(hangs=threading.Event()), FakeChannel()
    assert slow.hangs is not None
    with sending(store, slow=slow, quick=quick) as sender:
        write(store, *(event(name=f"i{n}") for n in range(20)), channels=("slow", "quick"))
        until(lambda: len(quick.sent) == 20)
        assert slow.sent == []
        begun = time.monotonic()
        sender.stop(0.05)
        assert time.monotonic() - begun < 5
        assert waiting(store) == 20, "what could not be sent is still there"
        slow.hangs.set()


def test_a_channel_that_is_down_gets_everything_later_and_in_order() -> None:
    store = MemoryAlerts()
    channel = FakeChannel(failures=[DeliveryFailed("down")] * 3 + [RuntimeError("a bug")])
    with sending(store, ops=channel):
        write(store, event(), event("raised"), event("resolved"))
        until(lambda: waiting(store) == 0)
    assert channel.sent == [f"3f0c1d2b4a.{n}.ops" for n in (1, 2, 3)]


def test_what_is_refused_for_good_is_kept_and_said(caplog: pytest.LogCaptureFixture) -> None:
    store, channel = MemoryAlerts(), FakeChannel(failures=[DeliveryFailed("bad", permanent=True)])
    write(store, event(), event(name="b"))
    assert Sender(store, {"ops": channel}, FAST).deliver("ops") == 1
    with store.reading() as rows:
        (dead,) = rows.messages(state="dead")
    assert (dead.failure, dead.attempts) == ("bad", 1)
    assert "given up: bad" in caplog.text


def test_of_two_processes_one_sends() -> None:
    store, channel = MemoryAlerts(), FakeChannel(hangs=threading.Event(), timeout_seconds=60)
    assert channel.hangs is not None
    write(store, *(event(name=f"i{n}") for n in range(5)))
    first, second = (Sender(store, {"ops": channel}, FAST) for _ in range(2))
    thread = threading.Thread(target=first.deliver, args=("ops",))
    thread.start()
    with store.reading() as rows:
        assert rows is not None
    until(lambda: _held(store))
    assert second.deliver("ops") == 0
    channel.hangs.set()
    thread.join()
    assert len(channel.sent) == len(set(channel.sent)) == 5
    assert second.deliver("ops") == 0


def _held(store: MemoryAlerts) -> bool:
    with store.reading() as rows:
        return rows.sender("ops") is not None


class Flaky(MemoryAlerts):
    """A database that is away for a while."""

    away = 0

    @contextmanager
    def reading(self) -> Iterator[AlertRows]:  # type: ignore[override]
        if self.away > 0:
            self.away -= 1
            raise RegistryUnavailable("away")
        with super().reading() as rows:
            yield rows


def test_a_database_that_is_away_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    store, channel = Flaky(), FakeChannel()
    write(store, event())
    store.away = 3
    with sending(store, ops=channel):
        until(lambda: channel.sent)
    assert "away" in caplog.text


def test_what_is_open_is_said_again_to_who_forgets() -> None:
    store, channel = MemoryAlerts(), FakeChannel(refresh_seconds=0.01)
    with store.writing() as rows:
        rows.put_incident(incident())
        rows.put_incident(incident("b", state="resolved"))
    with sending(store, ops=channel):
        until(lambda: len(channel.refreshed) >= 2)
    assert set(channel.refreshed) == {1}


def test_a_sender_that_ends_leaves_the_channel_to_others_also_after_a_failure() -> None:
    store, channel = MemoryAlerts(), FakeChannel(failures=[DeliveryFailed("down")])
    write(store, event(), event(name="b"))
    assert Sender(store, {"ops": channel}, FAST).deliver("ops") >= 1
    write(store, event(name="c"))
    assert Sender(store, {"ops": channel}, FAST).deliver("ops") >= 1
    assert "c.3.ops" in channel.sent
