from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from fairway.control.placeholders import fill, has_placeholder
from fairway.core.errors import InvalidInput

DUE = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("out/{date}.parquet", "out/2027-01-01.parquet"),
        ("in/day={yesterday}/*.parquet", "in/day=2026-12-31/*.parquet"),
        ("{year}/{month}/{day}/{hour}/{time}", "2027/01/01/00/0030"),
        ("{utc}{utc}", "20261231T233000Z20261231T233000Z"),
        ("plain/{a,b}/*.csv?x={}&y={1}", "plain/{a,b}/*.csv?x={}&y={1}"),
    ],
)
def test_what_is_filled_in_is_the_due_time_on_the_schedules_clocks(text: str, filled: str) -> None:
    assert fill(text, DUE, BERLIN) == filled
    assert has_placeholder(text) == (text != filled)


def test_one_that_there_is_not_is_refused_naming_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"\{dat\}.*\{date\}, \{yesterday\}"):
        fill("out/{dat}", DUE, BERLIN)


def test_of_an_hour_that_comes_twice_only_utc_tells_one_from_the_other() -> None:
    first, second = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert fill("{date}{time}", first, BERLIN) == fill("{date}{time}", second, BERLIN)
    assert fill("{utc}", first, BERLIN) != fill("{utc}", second, BERLIN)
