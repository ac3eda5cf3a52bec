"""Numbers and names as sentences say them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.monitoring import words


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "0%"), (1.0, "100%"), (0.234, "23%"), (0.0502, "5.0%"), (0.006, "0.60%"), (0.00001, "under 0.01%"),
        (0.997, "99.7%"), (0.99999, "99.9%"), (0.0999, "10%"),
    ],
)  # fmt: skip
def test_shares(share: float, said: str) -> None:
    assert words.percent(share) == said


@given(st.floats(0.00001, 0.99999))
def test_what_is_neither_none_nor_all_is_not_called_so(share: float) -> None:
    assert words.percent(share) not in ("0%", "100%", "0.0%", "100.0%", "0.00%")


@pytest.mark.parametrize(
    ("value", "said"), [(3.0, "3"), (1954.46, "1,954"), (0.07433, "0.0743"), (-12.345, "-12.3"), (2e12 + 0.5, "2e+12")]
)  # fmt: skip
def test_numbers(value: float, said: str) -> None:
    assert words.number(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0042, "4.2 ms"), (45.0, "45 s"), (719.0, "12 min"), (12_600.0, "3.5 h"), (200_000.0, "2 days")],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_p_values_and_rows() -> None:
    assert words.probability(3.9e-104) == "p < 0.0001"
    assert words.probability(0.0123) == "p = 0.012"
    assert (words.rows(1), words.rows(1500)) == ("1 row", "1,500 rows")


@pytest.mark.parametrize(
    ("kind", "field", "said"),
    [
        ("performance", "roc_auc", "ROC AUC"), ("estimate", "log_loss", "log loss"), ("estimate", "f1", "F1"), ("estimate", "brier", "Brier score"),
        ("performance", "calibration_error", "calibration error"), ("performance", "worst slice", "groups of rows"),
        ("performance", "r2", "R²"), ("drift", "amount", "amount"), ("drift", "label", "the predicted label"),
        ("drift", "probabilities[True]", "the predicted probability of True"), ("drift", "(together)", "columns together"),
        ("operations", "latency_p99", "slowest requests (p99)"), ("operations", "traffic", "traffic"),
    ],
)  # fmt: skip
def test_what_a_finding_is_about(kind: str, field: str, said: str) -> None:
    assert words.subject_of(kind, field) == said


def test_predictions() -> None:
    assert words.prediction("label") == "the predicted label"
    assert words.prediction("probabilities[a\nb]") == "the predicted probability of a\nb"
    assert words.prediction("value") == "the predicted value"
    assert words.prediction("prediction") == "the prediction"
    assert words.subject_of("drift", "prediction") == "the prediction"


def test_lists_of_values_end_somewhere() -> None:
    assert words.quoted([]) == ""
    assert words.quoted(["a"]) == "'a'"
    assert words.quoted(["a", "b"]) == "'a' and 'b'"
    assert words.quoted(["a", "b", "c"]) == "'a', 'b' and 'c'"
    assert words.quoted([*"abcdef"]) == "'a', 'b', 'c' and 3 more"
    assert len(words.quoted(["x" * 1000])) < 50


@pytest.mark.parametrize(
    ("value", "other", "said"),
    [
        (0.7, 0.5, ("0.7", "0.5")),
        (0.74412, 0.74431, ("0.7441", "0.7443")),
        (1234.5, 1234.4, ("1,234.5", "1,234.4")),
        (0.1, 0.1 + 1e-12, ("0.1", "0.1")),
    ],
)
def test_numbers_that_are_near_each_other_are_told_apart(
    value: float, other: float, said: tuple[str, str]
) -> None:
    assert words.apart(value, other) == said
