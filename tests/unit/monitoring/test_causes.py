"""Causes ranked by importance, drift and loss."""

import math

import pytest

from fairway.core.incident import Finding
from fairway.monitoring.causes import rank_causes, weighed


def test_what_is_heeded_and_has_moved_comes_first() -> None:
    causes = rank_causes(
        {"a": 2.0, "b": 0.5, "c": 1.0, "d": 0.1}, {"a": 0.05, "b": 0.6, "c": 0.3, "d": 0.05}, 2.0
    )
    assert [(c.feature, c.score) for c in causes] == [
        ("b", pytest.approx(0.6)),
        ("c", pytest.approx(0.6)),
        ("a", pytest.approx(0.2)),
    ] or [c.feature for c in causes] == ["c", "b", "a"]
    assert causes[0].text.startswith(
        ("b has moved by 0.5 and makes up 60%", "c has moved by 1 and makes up 30%")
    )
    assert sum(c.share for c in rank_causes({"a": 1.0, "b": -3.0}, {}, 1.0)) == pytest.approx(1.0)


def test_loss_makes_incidents_comparable() -> None:
    calm, bad = (rank_causes({"a": 1.0}, {"a": 1.0}, loss)[0] for loss in (0.0, 3.0))
    assert 0 < calm.score < bad.score


def test_what_is_not_known_or_not_a_number() -> None:
    causes = rank_causes({"new": 1.0, "old": 1.0, "gone": math.nan, "same": 0.0}, {"old": 0.4, "x": 0.2}, 1.0)
    assert [c.feature for c in causes] == ["old", "new"]
    assert "makes up" not in causes[1].text
    assert rank_causes({}, {"a": 1.0}) == ()
    assert [c.feature for c in rank_causes({"b": 1.0, "a": 2.0}, {"a": 0.0, "b": 0.0})] == ["a", "b"]


def test_findings_are_weighed() -> None:
    findings = (
        Finding(kind="drift", field="a", effect=1.0),
        Finding(kind="drift", field="b", effect=1.0),
        Finding(kind="quality", field="a", effect=9.0),
    )
    a, b, other = weighed(findings, {"a": 0.9, "b": 0.1}, 1.0)
    assert (a.weight, b.weight) == (pytest.approx(0.9), pytest.approx(0.1))
    assert other == findings[2]
