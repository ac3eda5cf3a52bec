"""What an incident says to people: its name, how bad it is, what to do."""

import itertools
from typing import Any, get_args

import pytest

from fairway.core.incident import Finding, Kind
from fairway.monitoring.wording import KINDS, advice, harm, likeliest, title
from tests.unit.monitoring.messages import incident


def performance(field: str, **values: Any) -> Finding:
    return Finding(**{"kind": "performance", "field": field, "text": f"{field} fell", **values})


def test_titles_name_what_people_know_first_and_leave_out_what_is_only_good_to_know() -> None:
    found = incident(
        findings=(
            performance("calibration_error", effect=9.0),
            performance("brier", effect=8.0),
            performance("accuracy", effect=1.0),
            performance("worst slice", slice="region", severity="info"),
            Finding(kind="estimate", field="log_loss"),
            Finding(kind="drift", field="probabilities[True]", weight=0.0),
            Finding(kind="drift", field="amount", weight=1.0),
            Finding(kind="quality", field="amount", statistic="on_outlier"),
            Finding(kind="quality", field="amount", statistic="on_range"),
        )
    )
    assert title(found) == (
        "payments:3: drift in amount, the predicted probability of True; data quality of amount; "
        "estimated performance (log loss); performance (accuracy, Brier score and 1 more)"
    )


@pytest.mark.parametrize("kinds", [*itertools.combinations(get_args(Kind), 2), get_args(Kind)])
def test_findings_of_any_kinds_have_a_title_and_advice(kinds: tuple[Kind, ...]) -> None:
    found = incident(findings=tuple(Finding(kind=kind) for kind in kinds))
    assert all(KINDS[kind] in title(found) for kind in kinds)
    assert len(advice(found)) == len(kinds) - ({"performance", "estimate"} <= set(kinds))


def test_traffic_is_no_cause_of_what_a_column_explains() -> None:
    rows = Finding(
        kind="quality", statistic="volume", effect=210.0, text="The window has 340 rows; 130 are usual."
    )
    slow = Finding(kind="operations", field="latency_p99", effect=2.0, text="slow")
    amount = Finding(kind="drift", field="amount", weight=0.1, text="amount has moved")
    found = incident(findings=(rows, slow, amount))
    assert [cause.field for cause in likeliest(found.signals)] == ["amount", "", "latency_p99"]
    assert title(incident(findings=(rows,))) == "payments:3: data quality of the number of rows"


def test_how_bad_it_is_is_said_by_labels_rather_than_by_estimates() -> None:
    estimate = Finding(kind="estimate", field="accuracy", text="accuracy is estimated to fall")
    better = performance("accuracy", severity="info", text="accuracy rose")
    assert harm(incident(findings=())) == ""
    assert harm(incident(findings=(better,))) == ""
    assert harm(incident(findings=(estimate, better))) == estimate.text
    assert harm(incident(findings=(estimate, performance("brier"), performance("f1")))) == "f1 fell"


def test_advice_names_the_likeliest_cause() -> None:
    amount = Finding(kind="drift", field="amount {x}", weight=1.0)
    [said] = advice(incident(findings=(amount,)))
    assert (
        said
        == "Find out whether the change of amount {x} is here to stay. If it is, train again on newer rows."
    )
    assert advice(incident(findings=(Finding(kind="quality", text="no rows"),)))[0].startswith(
        "Ask whoever sends the data"
    )
