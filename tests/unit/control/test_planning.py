"""Decisions about due times and runs, each with a time given by hand."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fairway.control.planning import (
    MOST_OVERLAPPING,
    Outcome,
    begun,
    due_now,
    ended,
    may_begin,
)
from fairway.core.clock import utc_text
from fairway.core.schedule import MOST_INTERRUPTIONS, BatchWork, Schedule, ScheduleRun, ScheduleState

NIGHTLY = Schedule(
    name="nightly", cron="0 2 * * *", work=BatchWork(model="churn", input="in", output="out/{utc}"), retries=2
)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
replace = msgspec.structs.replace


def state(settled: datetime = NOON, **values: object) -> ScheduleState:
    schedule = replace(NIGHTLY, **{k: v for k, v in values.items() if k in Schedule.__struct_fields__})
    own = {k: v for k, v in values.items() if k in ScheduleState.__struct_fields__}
    return ScheduleState(schedule=schedule, settled=utc_text(settled), **own)


def run(number: int = 1, at: datetime = NOON, **values: object) -> ScheduleRun:
    made = ScheduleRun(
        id=number, schedule="nightly", model="churn", due=utc_text(at), kind="due", state="waiting",
        created=utc_text(at), next_attempt=utc_text(at),
    )  # fmt: skip
    return replace(made, **values)


# What is due.


def test_nothing_is_due_before_its_time() -> None:
    assert due_now(state(), [], NOON + timedelta(hours=13, minutes=59)) is None


def test_what_is_due_is_run_for_the_time_it_is_due() -> None:
    now = NOON + timedelta(hours=14, seconds=1)
    settling = due_now(state(), [], now)
    assert settling is not None
    assert settling.settled == "2026-05-02T02:00:00.000000Z"
    found = settling.run
    assert found is not None
    assert (found.due, found.kind, found.missed, found.state) == (settling.settled, "due", 0, "waiting")
    assert found.next_attempt == utc_text(now)


def test_what_was_missed_is_caught_up_once_for_the_last_time_it_was_due() -> None:
    settling = due_now(state(), [], NOON + 9 * DAY)
    assert settling is not None
    assert settling.run is not None
    assert (settling.run.due, settling.run.kind, settling.run.missed) == (
        "2026-05-10T02:00:00.000000Z",
        "caught up",
        8,
    )


def test_one_that_is_late_is_said_to_be_caught_up() -> None:
    settling = due_now(state(), [], NOON + timedelta(hours=15))
    assert settling is not None
    assert settling.run is not None
    assert (settling.run.kind, settling.run.missed) == ("caught up", 0)


def test_nothing_is_due_while_it_is_paused_or_a_run_is_active() -> None:
    now = NOON + 2 * DAY
    assert due_now(state(paused=True), [], now) is None
    assert due_now(state(), [run(state="running")], now) is None
    assert due_now(state(), [run(state="waiting")], now) is None
    assert due_now(state(), [], now) is not None


def test_runs_that_may_overlap_do_so_up_to_a_number() -> None:
    now = NOON + 2 * DAY
    active = [run(i, state="running") for i in range(MOST_OVERLAPPING)]
    assert due_now(state(allow_overlap=True), active[1:], now) is not None
    assert due_now(state(allow_overlap=True), active, now) is None


def test_a_clock_that_went_back_settles_nothing_and_starts_from_there() -> None:
    settling = due_now(state(), [], NOON - 30 * DAY)
    assert settling is not None
    assert (settling.settled, settling.run) == (utc_text(NOON - 30 * DAY), None)


def test_what_the_history_may_have_forgotten_is_not_run_again() -> None:
    now = NOON + timedelta(hours=15)
    settling = due_now(state(forgotten="2026-05-02T02:00:00.000000Z"), [], now)
    assert settling is not None
    assert (settling.settled, settling.run) == ("2026-05-02T02:00:00.000000Z", None)
    assert due_now(state(forgotten="2026-05-02T01:59:59.000000Z"), [], now).run is not None  # type: ignore[union-attr]


# What may begin.


def test_runs_begin_in_turn_and_only_so_many_at_once() -> None:
    states = [state(), *(replace(state(), schedule=replace(NIGHTLY, name=name)) for name in "abc")]
    waiting = [run(i, NOON - timedelta(seconds=i), schedule=name) for i, name in enumerate("abc")]
    found = may_begin([run(9, state="running"), *waiting], states, NOON, processes=3)
    assert [each.schedule for each in found] == ["c", "b"]
    assert may_begin(waiting, states, NOON, processes=0) == []


def test_two_runs_of_a_schedule_do_not_overlap_unless_they_may() -> None:
    two = [run(1), run(2)]
    assert [each.id for each in may_begin(two, [state()], NOON, processes=9)] == [1]
    assert [each.id for each in may_begin(two, [state(allow_overlap=True)], NOON, processes=9)] == [1, 2]
    assert may_begin([run(1), run(2, state="running")], [state()], NOON, processes=9) == []


def test_a_paused_schedule_begins_only_what_is_asked_for_by_hand() -> None:
    assert may_begin([run()], [state(paused=True)], NOON, processes=9) == []
    assert len(may_begin([run(kind="manual")], [state(paused=True)], NOON, processes=9)) == 1
    assert may_begin([run(schedule="gone")], [state()], NOON, processes=9) == []


def test_a_run_waits_for_its_pause_unless_the_clock_went_back() -> None:
    later = run(next_attempt=utc_text(NOON + timedelta(seconds=50)), attempt=1)
    assert may_begin([later], [state()], NOON, processes=9) == []
    assert may_begin([later], [state()], NOON + timedelta(seconds=50), processes=9) == [later]
    assert may_begin([later], [state()], NOON - DAY, processes=9) == [later]


# What becomes of it.


def test_a_run_that_succeeds_is_over() -> None:
    over = ended(
        begun(run(), NOON), NIGHTLY, Outcome(state="succeeded", rows=7, rejected=1, batch_run="c-1"), NOON
    )
    assert (over.state, over.rows, over.rejected, over.batch_run, over.attempt) == (
        "succeeded",
        7,
        1,
        "c-1",
        1,
    )
    assert not over.is_active


def test_a_run_that_fails_is_tried_again_after_ever_longer_pauses_and_then_not() -> None:
    now, waits, found = NOON, [], run()
    failed = Outcome(state="failed", reason="the database is away", batch_run="c-1")
    while found.is_active:
        found = ended(begun(found, now), NIGHTLY, failed, now)
        waits.append((datetime.fromisoformat(found.next_attempt) - now).total_seconds())
    assert (found.state, found.attempt, waits) == ("failed", 3, [60.0, 120.0, 0.0])
    assert found.reason == "the database is away"
    assert found.batch_run == "c-1"


@pytest.mark.parametrize(("outcome", "over"), [(Outcome(state="failed", retry=False), "failed"), (Outcome(state="cancelled"), "cancelled")])  # fmt: skip
def test_some_ends_are_for_good(outcome: Outcome, over: str) -> None:
    assert ended(begun(run(), NOON), NIGHTLY, outcome, NOON).state == over


def test_interruptions_do_not_count_as_tries_but_do_not_go_on_for_ever() -> None:
    found, count = run(), 0
    while found.is_active:
        found = ended(begun(found, NOON), replace(NIGHTLY, retries=0), Outcome(state="interrupted"), NOON)
        assert found.next_attempt == utc_text(NOON)
        count += 1
    assert count == MOST_INTERRUPTIONS + 1
    assert found.state == "failed"
    once = ended(begun(run(), NOON), replace(NIGHTLY, retries=0), Outcome(state="interrupted"), NOON)
    assert (
        ended(begun(once, NOON), replace(NIGHTLY, retries=0), Outcome(state="failed"), NOON).state == "failed"
    )
    assert (
        ended(begun(once, NOON), replace(NIGHTLY, retries=1), Outcome(state="failed"), NOON).state
        == "waiting"
    )


def test_pauses_have_a_longest() -> None:
    assert [NIGHTLY.pause_seconds(attempt) for attempt in (1, 2, 7, 1000)] == [60, 120, 3600, 3600]
