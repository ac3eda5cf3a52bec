"""The loops against a server and a clock made here, so that every latency can be computed beforehand."""

import heapq
import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bench.histogram import Histogram
from fairway.bench.load import ClosedLoop, Load, OpenLoop
from fairway.bench.recording import OK, TIMEOUT, Recorder, Tally
from fairway.bench.schedule import Arrivals, schedule

SWEEP = 0.01


class World:
    """Simulated time. `serve(number, moment)` gives when the answer to request `number`, which arrived at `moment`,
    comes and what it is; None for one that never comes."""

    def __init__(self, serve: Callable[[int, float], tuple[float, str] | None]) -> None:
        self.now = 0.0
        self.serve = serve
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = itertools.count()
        self.sent = 0
        self.load: Load

    def at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.count), act))

    def play(self, lanes: int) -> None:
        for _ in range(lanes):
            self.load.joined(SimulatedLane(self), 0.0)
        self.at(0.0, self.tick)
        self.at(0.0, self.sweep)
        while self.events:
            self.now, _, act = heapq.heappop(self.events)
            act()

    def tick(self) -> None:
        due = self.load.tick(self.now)
        if due is not None:
            self.at(due, self.tick)

    def sweep(self) -> None:
        self.load.expire(self.now)
        if not self.load.finished(self.now):
            self.at(self.now + SWEEP, self.sweep)


class SimulatedLane:
    def __init__(self, world: World) -> None:
        self.world = world
        self.due = self.sent = 0.0
        self.alive = True

    def send(self) -> None:
        world = self.world
        answer = world.serve(world.sent, world.now)
        world.sent += 1
        if answer is not None:
            moment, outcome = answer
            world.at(moment, lambda: self.answer(outcome))

    def answer(self, outcome: str) -> None:
        if not self.alive:
            return
        if outcome == "broken":
            self.cut()
            self.world.load.lost(self, "connection closed", self.world.now)
        else:
            self.world.load.answered(self, outcome, self.world.now)

    def cut(self) -> None:
        self.alive = False
        fresh = SimulatedLane(self.world)
        self.world.at(self.world.now + 0.001, lambda: self.world.load.joined(fresh, self.world.now))


def open_loop(
    serve: Callable[[int, float], tuple[float, str] | None],
    *,
    moments: Iterator[float],
    lanes: int = 4,
    timeout: float = 10.0,
    warmup: float = 0.0,
) -> Tally:
    world = World(serve)
    recorder = Recorder(warmup, 1.0)
    world.load = OpenLoop(moments, timeout, recorder, lambda: world.now)
    world.play(lanes)
    return recorder.tally(0.0)


def closed_loop(
    serve: Callable[[int, float], tuple[float, str] | None],
    *,
    seconds: float,
    lanes: int = 1,
    timeout: float = 10.0,
    warmup: float = 0.0,
) -> Tally:
    world = World(serve)
    recorder = Recorder(warmup, 1.0, by_end=True)
    world.load = ClosedLoop(seconds, timeout, recorder, lambda: world.now)
    world.play(lanes)
    return recorder.tally(0.0)


def stalling(start: float, end: float, took: float) -> Callable[[int, float], tuple[float, str]]:
    """A server that answers every request after `took`, but nothing between two moments."""

    def serve(number: int, moment: float) -> tuple[float, str]:
        return (end if start <= moment + took < end else moment + took), OK

    return serve


def even(rate: float, seconds: float) -> Iterator[float]:
    return schedule(Arrivals.fixed, rate, seconds)


def test_one_stall_shows_in_the_tail_of_the_open_loop() -> None:
    """100 requests a second for 10 s, a stall of 1 s in the middle: whoever comes within it waits until its end, so 1 in
    10 requests has a latency spread evenly over 0..1 s. Exactly the requests due at 4.00 to 4.99 s are hit (but the first
    answers at 4.001, within it), and wait 5 - due."""
    tally = open_loop(stalling(4.0, 5.0, 0.001), moments=even(100, 10), lanes=200)
    expected = sorted([0.001] * 900 + [5.0 - (400 + i) / 100 for i in range(100)])
    latency = Histogram.of(tally.latency)
    for share in (0.5, 0.9, 0.95, 0.99, 0.999, 1.0):
        assert latency.quantile(share) == pytest.approx(expected[max(round(share * 1000), 1) - 1], rel=0.002)
    assert latency.quantile(0.99) == pytest.approx(0.9, abs=0.011)
    assert tally.outcomes == {OK: 1000}


def test_the_same_with_few_connections_is_no_better() -> None:
    """Two lanes: everybody but two waits in the client. Latency counts from when each was due, so the figures are those
    of many lanes; the service time, as a tool that omits would report it, has two long requests."""
    tally = open_loop(stalling(4.0, 5.0, 0.001), moments=even(100, 10), lanes=2)
    latency, service = Histogram.of(tally.latency), Histogram.of(tally.service)
    assert latency.quantile(0.99) == pytest.approx(0.9, abs=0.06)
    assert latency.quantile(1 - 0.096) <= 0.1 <= latency.quantile(1 - 0.083)
    assert service.quantile(0.99) == pytest.approx(0.001, rel=0.01)
    assert service.quantile(1 - 3 / 1000) <= 0.1 <= service.quantile(1 - 1 / 1000)
    assert 98 <= tally.waited <= 98 + 6  # and those due in the 50 ms that the backlog takes


def test_a_closed_loop_hides_it() -> None:
    """The same server, one connection as quick as it can: a single long request among thousands. This is what the note
    on closed loops says, and why --rate exists."""
    tally = closed_loop(stalling(4.0, 5.0, 0.001), seconds=10)
    latency = Histogram.of(tally.latency)
    assert latency.quantile(0.999) == pytest.approx(0.001, rel=0.01)
    assert latency.largest == pytest.approx(1.0, abs=0.003)
    assert tally.outcomes[OK] == pytest.approx(9000, abs=5)


def test_past_capacity_latency_grows_with_the_backlog() -> None:
    """One lane, 10 ms each, 200 a second for 2 s: request i is due at i/200 and answered at (i+1)/100."""
    tally = open_loop(lambda i, now: (now + 0.01, OK), moments=even(200, 2), lanes=1)
    latency = Histogram.of(tally.latency)
    assert latency.largest == pytest.approx(4.0 - 399 / 200)
    assert latency.quantile(0.5) == pytest.approx((199 + 1) / 100 - 199 / 200, rel=0.002)
    assert tally.measured_seconds == pytest.approx(4.0)
    assert tally.outcomes == {OK: 400}


def test_timeouts_count_at_what_they_took_at_least() -> None:
    """Every fourth request is never answered, with a timeout of half a second; nobody is left out."""
    tally = open_loop(
        lambda i, now: None if i % 4 == 0 else (now + 0.002, OK),
        moments=even(20, 4),
        lanes=50,
        timeout=0.5,
    )
    assert tally.outcomes == {OK: 60, TIMEOUT: 20}
    latency = Histogram.of(tally.latency)
    assert latency.count == 80
    assert latency.quantile(0.7) == pytest.approx(0.002, rel=0.01)
    assert 0.5 <= latency.quantile(0.8) <= 0.5 + 2 * SWEEP
    assert latency.largest <= 0.5 + 2 * SWEEP


def test_who_waits_in_the_client_times_out_too() -> None:
    """A server that answers nothing, one lane: each request is a timeout of its own, though many were never sent."""
    tally = open_loop(lambda i, now: None, moments=even(100, 1), lanes=1, timeout=0.3)
    assert tally.outcomes == {TIMEOUT: 100}
    assert Histogram.of(tally.latency).count == 100
    assert Histogram.of(tally.service).count == 0


def test_errors_are_counted_by_status_and_left_out_of_the_latencies() -> None:
    outcomes = [OK, "503", OK, "400", "broken"]
    tally = open_loop(lambda i, now: (now + 0.001, outcomes[i % 5]), moments=even(50, 2), lanes=10)
    assert tally.outcomes == {OK: 40, "503": 20, "400": 20, "connection closed": 20}
    assert Histogram.of(tally.latency).count == 40
    assert sum(slot.failed for slot in tally.slots) == 60
    assert tally.reconnected == 20


def test_the_warmup_is_sent_and_not_counted() -> None:
    seen = []

    def serve(number: int, moment: float) -> tuple[float, str]:
        seen.append(moment)
        return moment + (0.5 if moment < 1 else 0.001), OK

    tally = open_loop(serve, moments=even(10, 3), lanes=20, warmup=1.0)
    assert len(seen) == 30
    assert tally.outcomes == {OK: 20}
    assert Histogram.of(tally.latency).largest == pytest.approx(0.001)
    assert tally.measured_seconds == pytest.approx(1.901)


def test_with_nobody_to_send_it_a_request_fails_at_once() -> None:
    world = World(lambda i, now: (now, OK))
    recorder = Recorder(0.0, 1.0)
    load = world.load = OpenLoop(even(10, 1), 5.0, recorder, lambda: world.now)
    load.tick(0.95)
    load.unreachable("connection refused", 0.96)
    assert load.finished(0.96)
    assert recorder.tally(0.0).outcomes == {"connection refused": 10}


def test_a_lane_that_broke_while_idle_is_not_used() -> None:
    world = World(lambda i, now: (now, OK))
    recorder = Recorder(0.0, 1.0)
    world.load = OpenLoop(iter([0.1]), 5.0, recorder, lambda: world.now)
    lane = SimulatedLane(world)
    world.load.joined(lane, 0.0)
    world.load.lost(lane, "connection closed", 0.05)
    world.load.tick(0.1)
    assert not world.load.finished(0.1)
    assert recorder.waited == 1


def test_how_late_the_client_itself_was() -> None:
    world = World(lambda i, now: (now + 0.001, OK))
    recorder = Recorder(0.0, 1.0)
    world.load = OpenLoop(iter([0.1, 0.2]), 5.0, recorder, lambda: world.now)
    world.load.joined(SimulatedLane(world), 0.0)
    world.load.joined(SimulatedLane(world), 0.0)
    world.load.tick(0.25)  # woken 150 and 50 ms late, with two connections free
    lag = Histogram.of(recorder.tally(0.0).lag)
    assert lag.count == 2
    assert lag.largest == pytest.approx(0.15)


def test_a_closed_loop_keeps_every_lane_busy_until_the_end() -> None:
    tally = closed_loop(lambda i, now: (now + 0.1, OK), seconds=2.05, lanes=3)
    assert tally.outcomes == {OK: 3 * 21}  # the last are begun before 2.05 s and waited for
    assert tally.measured_seconds == pytest.approx(2.1)


def test_a_server_that_hangs_from_the_warmup_on_is_shown_hanging() -> None:
    tally = closed_loop(lambda i, now: None, seconds=3, lanes=2, timeout=5.0, warmup=1.0)
    assert tally.outcomes == {TIMEOUT: 2}
    assert Histogram.of(tally.latency).smallest >= 5.0


def test_a_closed_loop_counts_what_ended_after_the_warmup() -> None:
    tally = closed_loop(lambda i, now: (now + 0.4, OK), seconds=2.1, warmup=1.0)
    assert tally.outcomes == {OK: 4}  # they end at 1.2, 1.6, 2.0 and 2.4
    assert tally.measured_seconds == pytest.approx(1.4)


def test_a_closed_loop_goes_on_after_timeouts_and_broken_lanes() -> None:
    def serve(number: int, moment: float) -> tuple[float, str] | None:
        return [(moment + 0.01, OK), None, (moment + 0.01, "broken")][number % 3]

    tally = closed_loop(serve, seconds=3, lanes=1, timeout=0.1)
    assert set(tally.outcomes) == {OK, TIMEOUT, "connection closed"}
    counts = list(tally.outcomes.values())
    assert max(counts) - min(counts) <= 1
    assert min(counts) > 20


@given(
    st.lists(st.sampled_from([OK, "503", "broken", "never"]), min_size=1, max_size=8),
    st.floats(1, 200),
    st.integers(1, 6),
    st.floats(0.0005, 0.2),
)
def test_every_request_ends_in_exactly_one_outcome(
    kinds: list[str], rate: float, lanes: int, took: float
) -> None:
    def serve(number: int, moment: float) -> tuple[float, str] | None:
        kind = kinds[number % len(kinds)]
        return None if kind == "never" else (moment + took, kind)

    tally = open_loop(serve, moments=even(rate, 1.0), lanes=lanes, timeout=0.25)
    assert sum(tally.outcomes.values()) == len(list(even(rate, 1.0)))
    timed = tally.outcomes.get(OK, 0) + tally.outcomes.get(TIMEOUT, 0)
    assert Histogram.of(tally.latency).count == timed
    assert sum(Histogram.of(slot.latency).count for slot in tally.slots) == timed
    assert Histogram.of(tally.latency).largest <= 0.25 + took + 2 * SWEEP
