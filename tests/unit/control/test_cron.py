"""When schedules are due. Clock changes are those of the tz database: Berlin goes forward on 2026-03-29 at 02:00 and
back on 2026-10-25 at 03:00."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.control import cron
from fairway.control.cron import check_cron, due_between, next_due
from fairway.core.errors import InvalidInput

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def following(expression: str, zone: str, after: str, count: int) -> list[str]:
    found, moment = [], at(after)
    for _ in range(count):
        due = next_due(expression, zone, moment)
        assert due is not None
        found.append(due.strftime("%m-%d %H:%M"))
        moment = due
    return found


@pytest.mark.parametrize(
    ("expression", "after", "utc"),
    [
        # 02:30 does not exist on the night the clocks go forward: it is due as soon as they have.
        ("30 2 * * *", "2026-03-28T12:00+01:00", ["03-29 01:00", "03-30 00:30"]),
        # 02:30 comes twice on the night they go back: it is due the first time.
        ("30 2 * * *", "2026-10-24T12:00+02:00", ["10-25 00:30", "10-26 01:30"]),
        # Asked in the second of the two hours, the first is over.
        ("30 2 * * *", "2026-10-25T02:40+01:00", ["10-26 01:30"]),
        ("15 2 * * *", "2026-10-25T02:10+01:00", ["10-26 01:15"]),
        # What goes by every half hour does so in both hours, and skips none.
        ("*/30 * * * *", "2026-10-25T02:15+02:00", ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]),
        ("*/30 * * * *", "2026-03-29T01:15+01:00", ["03-29 00:30", "03-29 01:00"]),
        ("@daily", "2026-03-29T12:00+02:00", ["03-29 22:00"]),
        ("0 2 * * MON-FRI", "2026-11-20T12:00+01:00", ["11-23 01:00"]),
        ("0 0 L * *", "2026-02-01T00:00+01:00", ["02-27 23:00", "03-30 22:00"]),
    ],
)  # fmt: skip
def test_times_in_berlin(expression: str, after: str, utc: list[str]) -> None:
    assert following(expression, BERLIN, after, len(utc)) == utc


def test_a_leap_day_is_waited_for() -> None:
    assert next_due("0 0 29 2 *", "UTC", at("2026-01-01T00:00Z")) == at("2028-02-29T00:00Z")


@pytest.mark.parametrize("never", ["0 0 31 2 *", "0 0 30 feb *", "0 0 31 4,6,9,11 *", "0 0 0 31 2 *"])
def test_what_is_never_due_is_refused(never: str) -> None:
    with pytest.raises(InvalidInput, match="is never due: no month that it names has such a day"):
        check_cron(never, "UTC")


@pytest.mark.parametrize(
    "wrong", ["", "* * * *", "60 * * * *", "0 24 * * *", "0 0 32 * *", "@often", "0 2 * * MON-", "x" * 300, "*/0 * * * *"]
)  # fmt: skip
def test_what_is_not_cron_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="Write minute, hour"):
        check_cron(wrong, "UTC")


@pytest.mark.parametrize("zone", ["Europe/Belin", "", "../etc/passwd", "/etc/passwd", "x" * 300])
def test_a_time_zone_that_nobody_knows_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time zone"):
        check_cron("* * * * *", zone)


def test_the_last_of_the_due_times_is_found_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    start = at("2026-01-01T00:00Z")
    assert due_between("0 2 * * *", "UTC", start, start + timedelta(hours=2)) == (
        start + timedelta(hours=2),
        1,
    )
    assert due_between("0 2 * * *", "UTC", start, start + timedelta(days=10)) == (
        start + timedelta(days=9, hours=2),
        10,
    )
    assert due_between("0 2 * * *", "UTC", start, start + timedelta(hours=1)) == (None, 0)
    assert due_between("0 2 * * *", "UTC", start, start - timedelta(days=9)) == (None, 0)
    monkeypatch.setattr(cron, "_MOST_TIMES", 5)
    for end in (timedelta(days=3), timedelta(days=3, seconds=0.5), timedelta(days=3, seconds=59)):
        assert due_between("* * * * *", "UTC", start, start + end) == (start + timedelta(days=3), 5)


EXPRESSIONS = st.sampled_from(
    ["30 2 * * *", "*/20 * * * *", "0,30 1-4 * * *", "15 */2 * * *", "0 3 * * 0", "59 23 L * *"]
)
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
NEAR_CHANGES = st.datetimes(datetime(2026, 3, 1), datetime(2026, 11, 30), timezones=st.just(UTC))


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, ZONES, NEAR_CHANGES, st.integers(0, 40 * 3600))
def test_times_ascend_and_a_stretch_has_the_times_of_its_parts(
    expression: str, zone: str, start: datetime, seconds: int
) -> None:
    """Law: cut a stretch anywhere, and the times in its two parts are the times in the whole."""
    middle, end = start + timedelta(seconds=seconds), start + timedelta(days=3)
    whole, first, second = (
        due_between(expression, zone, a, b) for a, b in ((start, end), (start, middle), (middle, end))
    )
    assert first[1] + second[1] == whole[1]
    assert (second[0] or first[0]) == whole[0]
    due = next_due(expression, zone, start)
    assert due is not None
    assert due > start
