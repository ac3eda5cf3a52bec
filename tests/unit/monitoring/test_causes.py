"""Causes ranked by importance, drift and loss."""

import math

import pytest

from fairway.core.incident import Finding
from fairway.monitoring.causes import cause_weights, weighed


def test_what_is_heeded_and_has_moved_weighs_most() -> None:
    weights = cause_weights(
        {"a": 2.0, "b": -0.5, "c": 1.0, "d": 0.1}, {"a": 0.05, "b": 0.6, "c": 0.3, "d": 0.05}, 2.0
    )
    assert weights == pytest.approx({"a": 0.2, "b": 0.6, "c": 0.6, "d": 0.01})


def test_loss_makes_incidents_comparable() -> None:
    calm, bad = (cause_weights({"a": 1.0}, {"a": 1.0}, loss)["a"] for loss in (0.0, 3.0))
    assert 0 < calm < bad


def test_what_is_not_known_or_not_a_number() -> None:
    drift = {"new": 1.0, "old": 1.0, "odd": 1.0, "gone": math.nan, "far": math.inf, "same": 0.0}
    weights = cause_weights(drift, {"old": 0.4, "x": 0.2, "odd": math.nan}, 1.0)
    assert weights == pytest.approx({"new": 0.3, "old": 0.4, "odd": 0.3})
    assert cause_weights({}, {"a": 1.0}) == {}
    assert cause_weights({"b": 1.0}, {}, 1.0) == {"b": 1.0}


def test_findings_are_weighed() -> None:
    findings = (
        Finding(kind="drift", field="a", effect=1.0),
        Finding(kind="drift", field="b", effect=1.0),
        Finding(kind="quality", field="a", effect=9.0),
    )
    a, b, other = weighed(findings, {"a": 0.9, "b": 0.1}, 1.0)
    assert (a.weight, b.weight) == (pytest.approx(0.9), pytest.approx(0.1))
    assert other == findings[2]
