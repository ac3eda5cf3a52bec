"""The cell rate algorithm: never more than `rate * t + burst`, and whoever waits as told gets in."""

from hypothesis import given
from hypothesis import strategies as st

from fairway.security.rate import admit

rates = st.floats(0.01, 1000)
bursts = st.integers(1, 50)
gaps = st.lists(st.floats(0, 3), max_size=200)


@given(rates, bursts, gaps, st.floats(0, 1e7))
def test_no_stretch_of_time_sees_more_than_its_share(
    rate: float, burst: int, gaps: list[float], start: float
) -> None:
    arrival, now, passed = 0.0, start, []
    for gap in gaps:
        now += gap / rate
        arrival, wait = admit(arrival, now, rate=rate, burst=burst)
        if wait == 0:
            passed.append(now)
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert last - first + 1 <= rate * (end - begin) + burst + 0.01


@given(rates, bursts, gaps, st.floats(0, 1e7))
def test_whoever_waits_as_told_gets_in_and_whoever_does_not_waits_less(
    rate: float, burst: int, gaps: list[float], start: float
) -> None:
    arrival, now = 0.0, start
    for gap in gaps:
        now += gap / rate
        arrival, wait = admit(arrival, now, rate=rate, burst=burst)
        if wait > 0:
            assert wait <= 1 / rate * 1.001
            now += wait
            arrival, wait = admit(arrival, now, rate=rate, burst=burst)
            assert wait == 0


@given(rates, bursts, st.floats(0, 1e7))
def test_a_pause_gives_a_burst_and_not_more(rate: float, burst: int, now: float) -> None:
    arrival = 0.0
    passed = 0
    for _ in range(burst + 5):
        arrival, wait = admit(arrival, now, rate=rate, burst=burst)
        passed += wait == 0
    assert passed == burst


def test_refused_requests_cost_nothing() -> None:
    arrival, _ = admit(0.0, 10.0, rate=1, burst=1)
    for _ in range(100):
        arrival, wait = admit(arrival, 10.5, rate=1, burst=1)
        assert wait == 0.5
    assert admit(arrival, 11.0, rate=1, burst=1) == (12.0, 0.0)


@given(rates, bursts, st.floats(1, 1e6))
def test_a_clock_that_went_back_locks_nobody_out(rate: float, burst: int, back: float) -> None:
    arrival = 1e6
    for _ in range(burst):
        arrival, _ = admit(arrival, 1e6, rate=rate, burst=burst)
    _, wait = admit(arrival, 1e6 - back, rate=rate, burst=burst)
    assert 0 <= wait <= 1 / rate * 1.001
