"""When a clock is not to be believed."""

from hypothesis import given
from hypothesis import strategies as st

from fairway.core.clock import Clock, trusted


@given(st.lists(st.floats(1e9, 2e9), min_size=1, max_size=20))
def test_a_time_is_trusted_only_when_the_clock_went_on_from_there(times: list[float]) -> None:
    state, calm = Clock(), []
    for time in times:
        before = state.seen
        state, sure = trusted(state, time)
        assert state.seen == time
        if before and time > before + 86_400:
            assert not sure
            calm = [time]
        elif calm and calm[0] <= time < calm[0] + 3600:
            assert not sure


def test_a_machine_that_was_off_for_long_is_trusted_after_an_hour() -> None:
    state, _ = trusted(Clock(), 1e9)
    state, sure = trusted(state, 1e9 + 30 * 86_400)
    assert not sure
    state, sure = trusted(state, 1e9 + 30 * 86_400 + 3000)
    assert not sure
    state, sure = trusted(state, 1e9 + 30 * 86_400 + 3601)
    assert sure
