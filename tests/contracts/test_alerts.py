"""What every store of incidents does: SQLite, PostgreSQL, memory."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairway.core.clock import after, utc_now
from fairway.core.incident import Event, Finding, Incident, Message, Note, Signal, Silence
from fairway.core.settings import RegistrySettings
from fairway.stores.alerts import AlertStore, Queue, Sender
from fairway.stores.opening import open_alerts

OpenStore = Callable[[], AlertStore]
NOW = utc_now()
FURTHEST = after(NOW, 3600)


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the same store as often as it is called."""
    if request.param == "memory":
        store = open_alerts(tmp_path, RegistrySettings(database_url="memory://"))
        return lambda: store
    url = request.getfixturevalue("postgres").new_database() if request.param == "postgresql" else ""
    return lambda: open_alerts(tmp_path, RegistrySettings(database_url=url, lock_timeout_seconds=30))


@pytest.fixture
def store(open_again: OpenStore) -> Iterator[AlertStore]:
    store = open_again()
    yield store
    store.close()


def incident(name: str = "a", **values: Any) -> Incident:
    finding = Finding(kind="drift", field="beträg", effect=0.5, text="a 'text' \\ \x00 with ünïcode")
    signal = Signal(finding=finding, first=NOW, last=NOW, confirmed=True)
    values = {"state": "open", "cause": name, "updated": NOW, "seen": {"drift": NOW}, **values}
    return Incident(id=name, model="m", digest="d", looked=NOW, signals=(signal,), **values)


def event(name: str = "a", **values: Any) -> Event:
    return Event(**{"kind": "opened", "when": NOW, "incident": incident(name), "notify": True, **values})


def message(sequence: int, name: str = "a", channel: str = "ops", **values: Any) -> Message:
    values = {"id": f"{name}.{sequence}.{channel}", "created": NOW, "due": NOW, **values}
    return Message(channel=channel, event=event(name, sequence=sequence), **values)


def test_a_new_store_is_empty(store: AlertStore) -> None:
    with store.reading() as rows:
        assert rows.current("") == rows.incidents() == ()
        assert rows.incident("a") is None
        assert rows.events(0, 10) == ()
        assert rows.last_sequence() == 0
        assert rows.silences() == ()
        assert rows.message("a") is None
        assert rows.due("ops", NOW, 10, furthest=FURTHEST) == rows.messages() == ()
        assert rows.mark("clock") == ""
        assert rows.queues() == rows.next_due() == {}
        assert rows.sender("ops") is None


def test_what_is_written_is_read_by_another_opening(store: AlertStore, open_again: OpenStore) -> None:
    first = incident()
    second = incident("b", state="resolved", resolved=Note(who="ann", when=NOW, why="done"))
    silence = Silence(id="s", until=after(NOW, 60), who="ann", since=NOW, model="m*")
    with store.writing() as rows:
        rows.put_incident(msgspec.structs.replace(first, title="old"))
        rows.put_incident(first)
        rows.put_incident(second)
        rows.put_incident(incident("gone"))
        rows.drop_incident("gone")
        rows.put_silence(silence)
        rows.put_sender("ops", Sender("me", NOW))
        rows.put_sender("ops", Sender("you", NOW))
        written = rows.append(event())
        rows.put_message(message(written.sequence))
    other = open_again()
    with other.reading() as rows:
        assert rows.incident("a") == first
        assert rows.incidents() == (second, first)
        assert rows.incidents(states=("resolved",)) == (second,)
        assert rows.incidents(model="m", limit=1) == (second,)
        assert rows.incidents(model="other") == ()
        assert {i.id for i in rows.current(NOW)} == {"a", "b"}
        assert rows.current(after(NOW, 1)) == (first,)
        assert rows.silences() == (silence,)
        assert rows.sender("ops") == Sender("you", NOW)
        assert rows.events(0, 10) == (written,)
        assert rows.message("a.1.ops") == message(1)
    other.close()


def test_sequences_go_on(store: AlertStore) -> None:
    with store.writing() as rows:
        assert [rows.append(event(name)).sequence for name in "abaa"] == [1, 2, 3, 4]
        assert [e.sequence for e in rows.events(1, 2)] == [2, 3]
    with store.writing() as rows:
        assert rows.prune(after(NOW, 1)) == 3
        assert rows.append(event()).sequence == 5


def test_of_each_incident_the_oldest_message_goes_first(store: AlertStore) -> None:
    later = after(NOW, 30)
    with store.writing() as rows:
        for sent in (
            message(3, "b"),
            message(1, due=later),
            message(2),
            message(4, "c"),
            message(5, channel="x"),
        ):
            rows.put_message(sent)
        assert [m.id for m in rows.due("ops", NOW, 10, furthest=FURTHEST)] == ["b.3.ops", "c.4.ops"]
        assert [m.id for m in rows.due("ops", later, 10, furthest=FURTHEST)] == [
            "b.3.ops",
            "c.4.ops",
            "a.1.ops",
        ]
        assert [m.id for m in rows.due("ops", later, 1, furthest=FURTHEST)] == ["b.3.ops"]
        assert rows.next_due() == {"ops": NOW, "x": NOW}
        rows.put_message(message(1, state="dead", failure="no"))
        assert [m.id for m in rows.due("ops", NOW, 10, furthest=FURTHEST)] == [
            "a.2.ops",
            "b.3.ops",
            "c.4.ops",
        ]
        assert rows.queues() == {"ops": Queue(3, 1, NOW), "x": Queue(1, 0, NOW)}
        rows.drop_message("a.2.ops")
        rows.drop_message("a.2.ops")
        assert [m.id for m in rows.messages(channel="ops")] == ["b.3.ops", "c.4.ops"]
        assert [m.id for m in rows.messages(incident="a", state="dead")] == ["a.1.ops"]
        assert len(rows.messages(limit=2)) == 2


def test_what_a_clock_that_was_ahead_wrote_does_not_wait_for_it(store: AlertStore) -> None:
    with store.writing() as rows:
        rows.put_message(message(1, due=after(NOW, 365 * 86_400)))
        rows.put_message(message(2, "b", due=FURTHEST))
        assert [m.id for m in rows.due("ops", NOW, 10, furthest=FURTHEST)] == ["a.1.ops"]


def test_marks_are_kept(store: AlertStore, open_again: OpenStore) -> None:
    for value in ("1", "2"):
        with store.writing() as rows:
            rows.put_mark("clock", value)
    other = open_again()
    with other.reading() as rows:
        assert (rows.mark("clock"), rows.mark("other")) == ("2", "")
    other.close()


def test_what_is_old_is_forgotten_and_what_waits_is_not(store: AlertStore) -> None:
    with store.writing() as rows:
        rows.put_incident(incident())
        rows.put_incident(incident("b", state="resolved"))
        rows.put_silence(Silence(id="s", until=NOW, who="ann", since=NOW))
        rows.put_message(message(1))
        rows.put_message(message(2, "b", state="dead"))
        assert rows.prune(NOW) == 0
        assert rows.prune(after(NOW, 1)) == 3
        assert [i.id for i in rows.incidents()] == ["a"]
        assert [m.id for m in rows.messages()] == ["a.1.ops"]
        assert not rows.drop_silence("s")


def test_a_block_that_raises_writes_nothing(store: AlertStore) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        _write_and_raise(store)
    test_a_new_store_is_empty(store)


def _write_and_raise(store: AlertStore) -> None:
    with store.writing() as rows:
        rows.put_incident(incident())
        rows.append(event())
        rows.put_message(message(1))
        raise RuntimeError("stop")


def test_writers_take_turns(store: AlertStore, open_again: OpenStore) -> None:
    """Two that give out the same sequence would fail on the key, or hide an event from who reads by sequence."""

    def write() -> None:
        mine = open_again()
        for _ in range(10):
            with mine.writing() as rows:
                rows.append(event())
        mine.close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as rows:
        assert [e.sequence for e in rows.events(0, 100)] == list(range(1, 41))
