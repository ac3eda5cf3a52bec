"""Checking rows counts every violation and agrees with what validation would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.core.contract import Action, Category, Contract, DType, Field, Rules
from fairway.core.errors import MalformedInput
from fairway.inference.check_rows import Finding, check_rows

CONTRACT = Contract(
    inputs=(
        Field(
            name="a",
            dtype=DType.float64,
            nullable=True,
            minimum=0.0,
            maximum=10.0,
            fence=(-100.0, 100.0),
            missing_rate=0.5,
            rules=Rules(on_null=Action.warn, on_range=Action.reject),
        ),
        Field(name="i", dtype=DType.int64, minimum=0.0, quantiles=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)),
        Field(
            name="s",
            dtype=DType.string,
            nullable=True,
            categories=(Category("x", 1.0),),
            rules=Rules(on_null=Action.warn, on_category=Action.reject),
        ),
    ),
    outputs=(),
)


def found(**columns: list[Any]) -> Any:
    return check_rows(CONTRACT, {"a": [1.0] * 4, "i": [1] * 4, "s": ["x"] * 4} | columns)


def test_clean_rows() -> None:
    check = found(a=[1.0, None, 3.0, None])  # nulls were seen in training
    assert (check.rows, check.refused, check.findings, check.problems) == (4, 0, (), ())


def test_every_violation_is_counted_per_field_and_rule() -> None:
    check = found(a=[11.0, 999.0, float("inf"), 1.0], i=[None, -1, 2, 2**60], s=["x", "y", None, "x"])
    assert check.findings == (
        Finding(field="a", rule="on_infinite", action="reject", rows=1),
        Finding(field="a", rule="on_range", action="reject", rows=3),
        Finding(field="a", rule="on_outlier", action="warn", rows=2),
        Finding(field="i", rule="on_null", action="reject", rows=1),
        Finding(field="i", rule="on_range", action="warn", rows=1),
        Finding(field="s", rule="on_null", action="warn", rows=1),
        Finding(field="s", rule="on_category", action="reject", rows=1),
    )
    assert check.refused == 3
    assert {(problem.field, problem.row) for problem in check.problems} == {
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("i", 0),
        ("s", 1),
    }


def test_wrong_types_do_not_hide_other_fields() -> None:
    check = found(i=["one", 2, 3, 4], s=["x", "x", "x", "y"])
    assert [(finding.field, finding.rule, finding.rows) for finding in check.findings] == [
        ("i", "type", 1),
        ("s", "on_category", 1),
    ]
    assert check.refused == 2


def test_wrong_types_do_not_hide_the_rest_of_their_column() -> None:
    check = found(i=["one", None, -3, 4])
    assert [(finding.rule, finding.rows) for finding in check.findings] == [
        ("type", 1),
        ("on_null", 1),
        ("on_range", 1),
    ]
    assert check.refused == 2
    assert {problem.row for problem in check.problems} == {0, 1}


def test_a_missing_field_refuses_every_row() -> None:
    check = check_rows(CONTRACT, {"a": [1.0, 2.0], "i": [1, 2]})
    assert check.refused == 2
    assert check.findings == (Finding(field="s", rule="form", action="reject", rows=2),)


def test_no_rows() -> None:
    with pytest.raises(MalformedInput, match="no rows"):
        check_rows(CONTRACT, {"a": [], "i": [], "s": []})
