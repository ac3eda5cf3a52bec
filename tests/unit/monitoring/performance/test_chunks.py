"""Cutting by rows and by time."""

import numpy as np
import pytest

from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.chunks import Cut, cut_rows, cut_time, parse_cut


def test_what_is_said_is_understood() -> None:
    assert parse_cut(5_000) == parse_cut("5,000") == Cut(rows=5_000)
    assert parse_cut("6h") == Cut(seconds=21_600)
    assert parse_cut("Day") == Cut(seconds=86_400)
    assert parse_cut("month") == Cut(month=True)
    for wrong in ("0", "-3", "abc", "0d", "5y", ""):
        with pytest.raises(InvalidInput, match="chunks cannot be"):
            parse_cut(wrong)


def test_the_last_chunk_holds_what_is_left() -> None:
    assert [(c.start, c.end) for c in cut_rows(12, 5)] == [(0, 5), (5, 10), (10, 12)]
    assert cut_rows(0, 5) == []
    with pytest.raises(InvalidInput, match="makes 20,000 chunks"):
        cut_rows(20_000, 1)


def test_periods_begin_at_whole_ones_and_empty_ones_are_left_out() -> None:
    times = np.array(["2024-02-28T23:30", "2024-02-29T00:10", "2024-03-04T12:00"], dtype="datetime64[us]")
    days = cut_time(times, parse_cut("day"))
    assert [(c.start, c.end, c.rows) for c in days] == [
        ("2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z", slice(0, 1)),
        ("2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z", slice(1, 2)),
        ("2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z", slice(2, 3)),
    ]
    assert [c.start for c in cut_time(times, parse_cut("week"))] == [
        "2024-02-26T00:00:00Z",
        "2024-03-04T00:00:00Z",
    ]
    assert [c.end for c in cut_time(times, parse_cut("month"))] == [
        "2024-03-01T00:00:00Z",
        "2024-04-01T00:00:00Z",
    ]
    assert cut_time(times[:0], parse_cut("day")) == []


def test_times_before_1970() -> None:
    times = np.array(["1969-12-31T23:00"], dtype="datetime64[us]")
    assert [c.start for c in cut_time(times, parse_cut("month"))] == ["1969-12-01T00:00:00Z"]
    assert [c.start for c in cut_time(times, parse_cut("day"))] == ["1969-12-31T00:00:00Z"]
