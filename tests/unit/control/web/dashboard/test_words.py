"""Numbers and times as people read them."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.control.web.dashboard import words
from fairway.core.clock import utc_text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (math.inf, "∞"), (0, "0"), (12_345.6, "12,346"), (1_000_000, "1,000,000"), (42.25, "42.2"),
     (2.345, "2.35"), (0.1234, "0.123"), (0.00001234, "1.2e-05"), (-3.0, "-3")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0 s"), (0.00083, "830 µs"), (0.000999, "1 ms"), (0.0042, "4.2 ms"), (1.3, "1.3 s"), (300, "5 min"), (10_800, "3 h"), (12 * 86_400, "12 d")],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(80.0, "80 / s"), (0.5, "30 / min"), (0.001, "3.60 / h"), (0.0, "none"), (None, "–")],
)
def test_rates(per_second: float | None, text: str) -> None:
    assert words.rate(per_second) == text


def test_shares_and_p_values() -> None:
    assert [words.share(v) for v in (0, 0.013, 0.5, 1, None, math.nan)] == [
        "0%",
        "1.3%",
        "50%",
        "100%",
        "–",
        "–",
    ]
    assert [words.probability(v) for v in (1e-9, 0.002, 0.5, None)] == [
        "p < 0.0001",
        "p = 0.002",
        "p = 0.50",
        "–",
    ]


def test_times() -> None:
    now = datetime.now(UTC)
    assert words.ago(utc_text(now - timedelta(hours=5))) == "5 h ago"
    assert words.when("2001-02-03T04:05:06Z") == "3 Feb 2001 04:05"
    assert words.exact("2001-02-03T04:05:06Z") == "2001-02-03 04:05:06 UTC"
    assert words.clock(0.0) == "1 Jan 1970 00:00:00"
    assert (words.when(""), words.when("nonsense"), words.ago("nonsense")) == ("–", "nonsense", "–")
    assert words.metric("roc_auc") == "ROC AUC"
    assert words.metric("balanced_accuracy") == "Balanced accuracy"


@given(st.floats())
def test_any_number_can_be_told(value: float) -> None:
    for tell in (words.number, words.share, words.seconds, words.probability, words.rate):
        assert tell(value)
