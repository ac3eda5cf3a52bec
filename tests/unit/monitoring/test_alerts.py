"""What monitors report and people do, written with its messages in one transaction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairway.core.alert_settings import AlertSettings, ChannelSettings
from fairway.core.clock import after, utc_now
from fairway.core.errors import ChannelNotFound, Conflict, IncidentNotFound, InvalidInput, MalformedInput
from fairway.core.incident import Finding, Window
from fairway.core.settings import RegistrySettings
from fairway.monitoring.alerts import Alerts, until_text
from fairway.monitoring.windows import read_windows
from fairway.stores.opening import open_alerts

BEGIN = utc_now()


class Clock:
    def __init__(self) -> None:
        self.hours = 0.0

    def __call__(self) -> str:
        return after(BEGIN, self.hours * 3600)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alerts(clock: Clock) -> Any:
    store = open_alerts(Path(), RegistrySettings(database_url="memory://"))
    alerts = Alerts(store, AlertSettings(), {"ops": ChannelSettings(kind="log", minimum="info")}, now=clock)
    yield alerts
    alerts.close()


@pytest.fixture
def look(alerts: Alerts, clock: Clock) -> Callable[..., list[str]]:
    def look(*fields: str, model: str = "payments", hours: float = 1) -> list[str]:
        clock.hours += hours
        findings = tuple(Finding(kind="drift", field=name) for name in fields)
        looked = Window(
            model=model,
            digest="d",
            start=after(clock(), -3600),
            end=clock(),
            kinds=("drift",),
            findings=findings,
        )
        return [event.kind for event in alerts.observe([looked])]

    return look


def test_from_drift_to_all_is_well(alerts: Alerts, look: Any) -> None:
    assert look("amount") == ["opened"]
    assert look("amount", "country") == ["updated"]
    (found,) = alerts.incidents()
    assert [look() for _ in range(3)] == [[], [], ["resolved"]]
    assert alerts.incidents() == ()
    assert alerts.incident(found.id).state == "resolved"
    assert [m.event.kind for m in alerts.messages()] == ["opened", "resolved"]
    events, cursor = alerts.events_since(0)
    assert [e.kind for e in events] == ["opened", "updated", "resolved"]
    assert cursor == alerts.cursor() == 3
    assert alerts.events_since(cursor) == ((), 3)
    assert [e.sequence for e in alerts.events_since(0, 2)[0]] == [1, 2]


def test_what_comes_back_long_after_is_another_incident(alerts: Alerts, look: Any) -> None:
    look("amount")
    for _ in range(3):
        look()
    assert look("amount", hours=48) == ["opened"]
    assert len(alerts.incidents(states=("open", "resolved"))) == 2


def test_bad_windows_change_nothing(alerts: Alerts, clock: Clock) -> None:
    good = Window(model="m", start=clock(), end=clock(), findings=(Finding(kind="drift"),))
    with pytest.raises(InvalidInput):
        alerts.observe([good, msgspec.structs.replace(good, end="later")])
    assert alerts.incidents() == ()
    assert alerts.cursor() == 0


def test_people(alerts: Alerts, look: Any) -> None:
    look("amount")
    (found,) = alerts.incidents()
    assert alerts.acknowledge(found.id, who="ann", why="mine").acknowledged.who == "ann"  # type: ignore[union-attr]
    assert alerts.resolve(found.id, who="ann\r\nX: y", why="done").resolved.who == "ann  X: y"  # type: ignore[union-attr]
    for verb in (alerts.acknowledge, alerts.resolve):
        with pytest.raises(Conflict, match="is resolved"):
            verb(found.id, who="ann")
        with pytest.raises(IncidentNotFound):
            verb("nothing", who="ann")
    assert look("amount") == ["reopened"]


def test_a_silence_and_its_end(alerts: Alerts, look: Any, clock: Clock) -> None:
    look("amount")
    (found,) = alerts.incidents()
    made = alerts.silence(after(clock(), 3600 * 5), who="ann", incident=found.id)
    assert alerts.incident(found.id).muted
    assert alerts.silences() == (made,)
    assert look("amount", "country") == ["updated"]
    alerts.end_silence(made.id)
    assert not alerts.incident(found.id).muted
    kinds = [event.kind for event in alerts.events_since(0)[0]]
    assert kinds == ["opened", "silenced", "updated", "unsilenced"]
    with pytest.raises(IncidentNotFound):
        alerts.end_silence(made.id)


@pytest.mark.parametrize(
    ("until", "match"),
    [
        ("2001-01-01T00:00:00Z", {"model": "m"}),
        ("soon", {"model": "m"}),
        ("9999-01-01T00:00:00Z", {"model": "m"}),
        (after(BEGIN, 60), {}),
    ],
    ids=["in the past", "no time", "too long", "of everything"],
)
def test_silences_that_are_none(alerts: Alerts, until: str, match: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        alerts.silence(until, who="ann", **match)
    with pytest.raises(IncidentNotFound):
        alerts.silence(after(BEGIN, 60), who="ann", incident="nothing")


def test_times_as_people_write_them() -> None:
    assert until_text("90m", BEGIN) == after(BEGIN, 5400)
    assert until_text("7d", BEGIN) == after(BEGIN, 7 * 86_400)
    assert until_text("2030-01-02", BEGIN) == "2030-01-02T00:00:00.000000Z"
    assert until_text("2030-01-02T03:00+01:00", BEGIN) == "2030-01-02T02:00:00.000000Z"
    for text in ("", "m", "-5m", "5 weeks", "99999999999d", "١m"):
        with pytest.raises(InvalidInput):
            until_text(text, BEGIN)


def test_a_channel_that_is_not_set_up(alerts: Alerts) -> None:
    with pytest.raises(ChannelNotFound, match="there are: ops"):
        alerts.test("ups", who="ann")
    assert alerts.test("ops", who="ann").event.kind == "test"
    assert alerts.cursor() == 0


def test_a_year_of_hourly_windows_stays_small(alerts: Alerts, look: Any, clock: Clock) -> None:
    """Old events and incidents go; sequences go on."""
    look("amount")
    for _ in range(3):
        look()
    clock.hours += 24 * 401
    assert look("amount") == ["opened"]
    clock.hours += 1  # from when on the clock is believed
    alerts.observe()
    assert [e.sequence for e in alerts.events_since(0)[0]] == [3] or alerts.cursor() == 3
    assert len(alerts.incidents(states=("open", "resolved"))) == 1


# What a check of somebody's own hands in

WINDOW = b'{"model":"m","start":"2026-01-01T00:00:00Z","end":"2026-01-01T01:00:00+00:00","findings":[{"kind":"external"}]}'


@pytest.mark.parametrize(
    "content", [WINDOW, b"[" + WINDOW + b"]", WINDOW + b"\n" + WINDOW.replace(b"m", b"n", 1) + b"\n"][:2]
)
def test_windows_are_read(content: bytes) -> None:
    assert [window.kinds for window in read_windows(content)] == [("external",)]


def test_windows_one_a_line_are_read() -> None:
    assert len(read_windows(WINDOW + b"\n" + WINDOW)) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 100_000, b"[1," + b" " * 17_000_000 + b"2]", b"[" + b"0," * 2000 + b"0]"],
)
def test_what_is_not_json_or_too_much(content: bytes) -> None:
    with pytest.raises(MalformedInput):
        read_windows(content)


def test_every_problem_of_every_window_is_named() -> None:
    bad = [
        {"model": "m", "start": "x", "end": "y"},
        {"model": "m", "start": "2026-01-01T02:00:00Z", "end": "2026-01-01T01:00:00Z"},
        {"model": "m", "start": BEGIN, "end": BEGIN, "findings": [{"kind": "weather"}]},
        {"model": "m", "start": BEGIN, "end": BEGIN, "severity": "warning"},
        7,
    ]
    with pytest.raises(InvalidInput) as error:
        read_windows(msgspec.json.encode(bad))
    assert [(problem.row, problem.field) for problem in error.value.problems] == [
        (0, "start"),
        (0, "end"),
        (1, "end"),
        (2, None),
        (3, None),
        (4, None),
    ]


def test_a_clock_that_is_two_years_ahead_for_a_moment_closes_and_forgets_nothing(
    alerts: Alerts, look: Callable[..., list[str]], clock: Clock
) -> None:
    assert look("amount") == ["opened"]
    assert look("amount", model="other") == ["opened"]
    [other] = alerts.incidents(model="other")
    alerts.resolve(other.id, who="ann")
    clock.hours += 2 * 365 * 24
    assert alerts.observe() == ()
    again = Alerts(alerts.store, AlertSettings(), {}, now=clock)  # a process that was restarted meanwhile
    assert again.observe() == ()
    assert len(alerts.incidents(states=("open", "resolved"))) == 2
    clock.hours -= 2 * 365 * 24
    assert look("amount") == []
    clock.hours += 2 * 365 * 24  # this time it stays there
    alerts.observe()
    clock.hours += 2
    assert [event.kind for event in alerts.observe()] == ["resolved"]
    assert alerts.incidents(states=("resolved",), model="other") == ()
