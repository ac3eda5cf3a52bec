"""Losses estimated before the actual values, held against them."""

import numpy as np
import pytest

from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.dle import Dle, fit_dle
from fairway.monitoring.performance.regression import measure_regression
from fairway.monitoring.performance.values import Regressed
from tests.unit.monitoring.performance.conftest import regressed_window


@pytest.fixture(scope="module")
def fitted() -> Dle:
    return fit_dle(regressed_window(4_000, 1))


def test_estimates_follow_inputs_that_drift(fitted: Dle) -> None:
    held = dict.fromkeys(fitted.metrics, 0)
    calm = {m.name: m.value for m in fitted.estimate(regressed_window(2_000, 5))}
    wild = {m.name: m.value for m in fitted.estimate(regressed_window(2_000, 5, spread=0.8))}
    assert calm["mae"] is not None
    assert wild["mae"] is not None
    assert wild["mae"] > 1.2 * calm["mae"]
    for seed in range(100, 112):
        window = regressed_window(1_000, seed, spread=0.4 * (seed % 2))
        for estimate, label in zip(
            fitted.estimate(window), measure_regression(window, fitted.metrics), strict=True
        ):
            assert estimate.estimated
            assert estimate.lower is not None
            assert estimate.upper is not None
            assert label.value is not None
            held[estimate.name] += estimate.lower <= label.value <= estimate.upper
    assert {name: hits for name, hits in held.items() if hits < 10} == {}


def test_only_what_was_asked(fitted: Dle) -> None:
    assert [m.name for m in fitted.estimate(regressed_window(10), ["rmse"])] == ["rmse"]
    assert fit_dle(regressed_window(500), ["mae"]).metrics == ("mae",)


def test_what_cannot_be_said_is_told(fitted: Dle) -> None:
    with pytest.raises(InvalidInput, match="the reference has 60 rows"):
        fit_dle(regressed_window(60))
    assert {m.value for m in fitted.estimate(regressed_window(5).take(slice(0, 0)))} == {None}


@pytest.mark.parametrize(("share", "said"), [(0.0, True), (0.005, True), (0.3, False), (1.0, False)])
def test_mape_is_not_estimated_where_rows_would_be_left_out(share: float, said: bool) -> None:
    """What is learned of rows that count is not true of rows that will not."""
    window = regressed_window(400)
    actual = np.where(np.arange(400) < 400 * share, 0.0, window.actual)
    fitted = fit_dle(Regressed(window.predicted, actual, window.features))
    found = {m.name: m for m in fitted.estimate(regressed_window(100))}
    assert found["mae"].value is not None
    assert (found["mape"].value is not None) is said
    assert found["mape"].note == (
        "" if said else f"not estimated: in the reference, {share:.0%} of actual values are 0"
    )
    (chunk,) = fitted.estimate_reference([slice(0, 400)])
    assert [m.value is not None for m in chunk if m.name == "mape"] == [said]
