"""The laws of incidents, on histories that hypothesis makes up, and the cases that people ask about."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.alert_settings import AlertRule, AlertSettings
from fairway.core.clock import after, utc_text
from fairway.core.errors import InvalidInput
from fairway.core.incident import Event, Finding, Incident, Silence, Window, rank
from fairway.monitoring.incidents import (
    MOST_ENTRIES,
    MOST_SIGNALS,
    acknowledge,
    mute,
    resolve,
    step,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
QUIET = AlertSettings(remind_hours=0)


def at(hours: float) -> str:
    return utc_text(START + timedelta(hours=hours))


def drift(field: str = "amount", **values: Any) -> Finding:
    return Finding(kind="drift", field=field, **values)


def window(hour: int, *findings: Finding, kinds: Sequence[Any] = ("drift",), **values: Any) -> Window:
    values = {"model": "payments", "digest": "sha256:1", "version": 3, **values}
    return Window(start=at(hour - 1), end=at(hour), kinds=tuple(kinds), findings=findings, **values)


class Life:
    """Windows hour by hour, and every event so far."""

    def __init__(self, settings: AlertSettings = QUIET) -> None:
        self.settings = settings
        self.incidents: tuple[Incident, ...] = ()
        self.silences: tuple[Silence, ...] = ()
        self.events: list[Event] = []

    def see(self, hour: float, *windows: Window) -> list[str]:
        self.incidents, events = step(self.incidents, windows, self.settings, at(hour), self.silences)
        self.events += events
        return [event.kind for event in events]

    def hours(self, pattern: str, start: int = 1) -> list[str]:
        """`!` is an hour with drift, `.` without, a space one in which drift could not be judged."""
        kinds = []
        for hour, sign in enumerate(pattern, start):
            kinds += {
                "!": lambda hour=hour: self.see(hour, window(hour, drift())),
                ".": lambda hour=hour: self.see(hour, window(hour)),
                " ": lambda hour=hour: self.see(hour, window(hour, kinds=())),
            }[sign]()
        return kinds

    @property
    def one(self) -> Incident:
        assert len(self.incidents) == 1
        return self.incidents[0]


# The laws

FINDINGS = st.builds(
    Finding,
    kind=st.sampled_from(["drift", "performance", "quality"]),
    field=st.sampled_from(["a", "b", "c"]),
    severity=st.sampled_from(["info", "warning", "critical"]),
    effect=st.none() | st.floats(allow_nan=True, allow_infinity=True),
    weight=st.none() | st.floats(0, 10),
)
WINDOWS = st.builds(
    Window,
    model=st.sampled_from(["m", "n", ""]),
    digest=st.sampled_from(["1", "2"]),
    start=st.just(at(-500)),
    end=st.integers(-20, 400).map(at),
    kinds=st.lists(st.sampled_from(["drift", "performance", "quality"]), max_size=3).map(tuple),
    findings=st.lists(FINDINGS, max_size=4).map(tuple),
)
SILENCES = st.builds(
    Silence,
    id=st.just("s"),
    who=st.just("ann"),
    since=st.integers(0, 300).map(at),
    until=st.integers(0, 400).map(at),
    model=st.sampled_from(["", "m"]),
    kind=st.sampled_from(["", "drift"]),
    field=st.sampled_from(["", "a", "[ab]"]),
)
SETTINGS = st.builds(
    AlertSettings,
    open_after=st.integers(1, 3),
    resolve_after=st.integers(1, 3),
    flap_hours=st.sampled_from([1.0, 24.0]),
    expire_hours=st.sampled_from([30.0, 1000.0]),
    remind_hours=st.sampled_from([0.0, 24.0]),
    rules=st.lists(
        st.builds(
            AlertRule,
            kind=st.sampled_from(["*", "drift"]),
            field=st.sampled_from(["*", "a"]),
            ignore=st.booleans(),
            severity=st.sampled_from([None, "critical"]),
            minimum_effect=st.none() | st.just(0.2),
        ),
        max_size=2,
    ).map(tuple),
)
ROUNDS = st.lists(st.tuples(st.integers(0, 400).map(at), st.lists(WINDOWS, max_size=4)), max_size=12)
"""Clocks jump back and forth, windows come late, twice and out of order."""


@settings(max_examples=80, deadline=None)
@given(ROUNDS, SETTINGS, st.lists(SILENCES, max_size=2))
def test_the_laws_hold_whatever_comes(rounds: Any, chosen: AlertSettings, silences: list[Silence]) -> None:
    incidents: tuple[Incident, ...] = ()
    state: dict[str, str] = {}
    told: dict[str, bool] = {}
    severity: dict[str, int] = {}
    for now, windows in rounds:
        incidents, events = step(incidents, windows, chosen, now, silences)
        for event in events:
            name = event.incident.id
            # Opened only when it was not open, resolved only when it was.
            if event.kind in ("opened", "reopened"):
                assert state.get(name) == (None if event.kind == "opened" else "resolved")
                severity[name] = 0
            else:
                assert state[name] == "open"
            state[name] = event.incident.state
            # What was announced as open is announced as resolved, once.
            if event.kind == "resolved":
                assert event.notify == told.pop(name, False)
            elif event.notify:
                assert event.kind != "opened" or name not in told
                told[name] = True
            # It gets worse, never better, while it is open.
            if event.incident.state == "open":
                assert rank(event.incident.severity) >= severity[name]
                severity[name] = rank(event.incident.severity)
            assert event.incident.history == ()
            assert len(event.incident.causes) <= 3
            msgspec.json.decode(msgspec.json.encode(event), type=Event)
        unresolved = [incident.cause for incident in incidents if incident.state != "resolved"]
        assert len(unresolved) == len(set(unresolved))
        assert len({incident.id for incident in incidents}) == len(incidents)
        for incident in incidents:
            if incident.state == "open":
                assert any(signal.confirmed for signal in incident.signals)
            assert msgspec.json.decode(msgspec.json.encode(incident), type=Incident) == incident
        # The same again, as after a monitor was killed: nothing new.
        repeated, more = step(incidents, windows, chosen, now, silences)
        late = {window.end for window in windows}
        if len(late) <= 1:
            assert not [event for event in more if event.kind not in ("silenced", "unsilenced")]
            assert {i.id for i in repeated} == {i.id for i in incidents}


@settings(max_examples=25, deadline=None)
@given(ROUNDS, SETTINGS, st.randoms(use_true_random=False))
def test_the_order_in_which_windows_and_incidents_are_handed_over_does_not_matter(
    rounds: Any, chosen: AlertSettings, random: Any
) -> None:
    first: tuple[Incident, ...] = ()
    second: tuple[Incident, ...] = ()
    for now, windows in rounds:
        windows = list({(w.model, w.digest, w.end): w for w in windows}.values())
        first, _ = step(first, windows, chosen, now)
        mixed, known = list(windows), list(second)
        random.shuffle(mixed)
        random.shuffle(known)
        second, _ = step(known, mixed, chosen, now)
        assert sorted(first, key=lambda i: i.id) == sorted(second, key=lambda i: i.id)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="!. ", max_size=60))
def test_flapping_is_told_less_and_less(pattern: str) -> None:
    """Opened once, then at most as often as doubled patience lets it come back."""
    life = Life()
    life.hours(pattern)
    told = [event for event in life.events if event.notify]
    assert len(told) <= 2 + 2 * (len(pattern) // 7 + 1)
    assert len({event.incident.id for event in told if event.kind == "opened"}) <= 1 + len(pattern) // 24


# Opening and resolving


def test_one_incident_for_all_findings_of_a_version() -> None:
    life = Life()
    findings = [drift(f"c{i}", weight=float(i), effect=0.1) for i in range(30)]
    findings.append(
        Finding(kind="performance", field="roc_auc", severity="critical", value=0.81, threshold=0.9)
    )
    assert life.see(1, window(1, *findings, kinds=("drift", "performance"))) == ["opened"]
    assert life.one.severity == "critical"
    assert life.one.title == "payments:3: drift in c29, c28 and 28 more; performance (ROC AUC)"
    assert [cause.field for cause in life.one.causes] == ["c29", "c28", "c27"]
    assert life.one.causes[0].text == "drift of c29, effect 0.1"
    assert life.see(2, window(2, *findings)) == []


def test_it_opens_again_in_the_same_incident_and_needs_more_to_resolve() -> None:
    life = Life()
    assert life.hours("!...") == ["opened", "resolved"]
    assert life.hours("!...", 5) == ["reopened"]
    assert life.hours("...", 9) == ["resolved"]
    assert life.one.reopened == 1
    assert [entry.what for entry in life.one.history] == ["opened", "resolved", "reopened", "resolved"]


def test_long_after_it_is_a_new_incident() -> None:
    life = Life()
    life.hours("!...")
    assert life.see(100, window(100, drift())) == ["opened"]
    assert len(life.incidents) == 2


def test_no_traffic_is_not_recovery() -> None:
    life = Life()
    assert life.hours("!" + " " * 20) == ["opened"]
    assert life.one.state == "open"


def test_another_kind_says_nothing_about_drift() -> None:
    life = Life()
    life.see(1, window(1, drift()))
    for hour in range(2, 10):
        assert life.see(hour, window(hour, kinds=("quality", "performance"))) == []


def test_persistence_is_in_windows_in_a_row() -> None:
    life = Life(AlertSettings(open_after=3, remind_hours=0))
    assert life.hours("!!.!!") == []
    assert life.hours("!", 6) == ["opened"]
    assert Life(AlertSettings(open_after=3)).hours("!!.") == []


def test_what_came_to_nothing_is_forgotten() -> None:
    life = Life(AlertSettings(open_after=3))
    life.hours("!")
    assert life.one.state == "pending"
    life.hours(".", 2)
    assert life.incidents == ()


def test_getting_worse_and_another_column_are_told_apart() -> None:
    life = Life()
    life.see(1, window(1, drift()))
    assert life.see(2, window(2, drift(), drift("country"))) == ["updated"]
    assert life.see(3, window(3, drift(severity="critical"), drift("country"))) == ["raised"]
    assert life.see(4, window(4, drift(), drift("country"))) == []
    assert life.one.severity == "critical"
    assert [event.notify for event in life.events] == [True, True, True]


def test_a_version_that_nobody_looks_at_any_more_is_closed() -> None:
    life = Life()
    life.see(1, window(1, drift()))
    assert life.see(168) == []
    assert life.see(169) == ["resolved"]
    assert "no monitor has looked" in life.one.resolved.why  # type: ignore[union-attr]


def test_reminders_until_somebody_takes_it_on() -> None:
    life = Life(AlertSettings())
    life.see(1, window(1, drift()))
    assert life.see(24) == []
    assert life.see(25) == ["reminded"]
    assert life.see(26) == []
    taken, event = acknowledge(life.one, who="ann", why="mine", now=at(27))
    assert (event.kind, event.who, event.text) == ("acknowledged", "ann", "mine")
    life.incidents = (taken,)
    assert life.see(80) == []
    assert life.see(81, window(81, drift(severity="critical"))) == ["raised"]
    assert life.one.acknowledged is None


def test_resolved_by_hand_it_comes_back_when_it_is_still_there() -> None:
    life = Life()
    life.see(1, window(1, drift()))
    over, event = resolve(life.one, who="ann", why="known", now=at(1.5))
    assert (over.state, event.notify, over.resolved.who) == ("resolved", True, "ann")  # type: ignore[union-attr]
    life.incidents = (over,)
    assert life.see(1.6, window(1, drift())) == []
    assert life.see(2, window(2, drift())) == ["reopened"]


# Silences


def silence(**values: Any) -> Silence:
    return Silence(**{"id": "s", "who": "ann", "since": at(0), "until": at(10), **values})


def test_a_silenced_incident_is_told_when_the_silence_ends() -> None:
    life = Life()
    life.silences = (silence(model="pay*", kind="drift"),)
    assert life.see(1, window(1, drift())) == ["opened"]
    assert life.events[-1].notify is False
    assert life.see(9) == []
    assert life.see(10) == ["unsilenced"]
    assert life.events[-1].notify is True


def test_silenced_to_the_end_nobody_ever_hears_of_it() -> None:
    life = Life()
    life.silences = (silence(),)
    assert life.hours("!...") == ["opened", "resolved"]
    assert not any(event.notify for event in life.events)


def test_a_column_that_no_silence_matches_breaks_it() -> None:
    life = Life()
    life.silences = (silence(field="amount"),)
    life.see(1, window(1, drift()))
    assert life.see(2, window(2, drift(), drift("country"))) == ["unsilenced"]
    assert life.events[-1].notify is True


def test_what_is_open_is_muted_by_a_new_silence() -> None:
    life = Life()
    life.see(1, window(1, drift()))
    muted, event = mute(life.one, [silence(incident=life.one.id)], who="ann", why="", now=at(2))  # type: ignore[misc]
    assert (muted.muted, event.kind, event.notify) == (True, "silenced", False)
    assert mute(muted, [silence()], who="ann", why="", now=at(2)) is None
    assert mute(life.one, [silence(model="other")], who="ann", why="", now=at(2)) is None
    life.incidents, life.silences = (muted,), (silence(incident=muted.id),)
    assert life.hours("...", 3) == ["resolved"]
    assert life.events[-1].notify is True, "it was announced before it was silenced"


# Rules


def test_the_first_rule_that_matches_decides() -> None:
    rules = (
        AlertRule(field="noise*", ignore=True),
        AlertRule(kind="drift", minimum_effect=0.2),
        AlertRule(severity="critical", channels=("ops",)),
    )
    life = Life(AlertSettings(rules=rules, remind_hours=0))
    assert life.see(1, window(1, drift("noise_1"), drift("a", effect=0.1))) == []
    assert life.see(
        2, window(2, drift("a", effect=-0.3), Finding(kind="quality"), kinds=("drift", "quality"))
    ) == ["opened"]
    assert life.one.severity == "critical"
    assert life.one.channels is None, "the drift goes to all"
    life = Life(AlertSettings(rules=rules, remind_hours=0))
    life.see(1, window(1, Finding(kind="quality")))
    life.see(2, window(2, kinds=("quality",)))
    assert life.one.channels == ("ops",)


# Bad input


def test_clocks_that_jump() -> None:
    life = Life()
    life.see(1, window(1, drift()))
    assert life.see(2, window(100_000)) == [], "a window from the far future counts as one of now"
    assert life.hours("..", 3) == ["resolved"]
    life.see(100_000, window(100_000))
    life.see(6, window(6, drift()))
    assert life.incidents[-1].state == "open", "a mark from the far future does not blind us"


def test_times_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput) as error:
        step(
            (),
            [msgspec.structs.replace(window(1), start="yesterday", end="2026-01-01T00:00:00")],
            QUIET,
            at(1),
        )
    assert [problem.field for problem in error.value.problems] == ["start", "end"]


def test_numbers_that_are_none_and_lines_that_forge() -> None:
    life = Life()
    nan = float("nan")
    life.see(
        1, window(1, drift("a\r\nBcc: x", value=nan, effect=float("inf"), p_value=nan, text="\ud800\x00\n"))
    )
    finding = life.one.signals[0].finding
    assert (finding.value, finding.effect, finding.p_value) == (None, None, None)
    assert finding.field == "a  Bcc: x"
    assert finding.text == "   "
    assert "\n" not in life.one.title


def test_an_incident_has_limits() -> None:
    life = Life()
    life.see(1, window(1, *(drift(f"c{i}", weight=float(i)) for i in range(5000))))
    assert len(life.one.signals) == MOST_SIGNALS
    assert life.one.causes[0].field == "c4999"
    incident = life.one
    for _ in range(MOST_ENTRIES + 50):
        incident, _ = acknowledge(incident, who="ann", why="", now=after(at(1), 1))
    assert len(incident.history) == MOST_ENTRIES
    assert incident.history[0].what == "opened"
