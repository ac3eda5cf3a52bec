"""What is usual for a metric, and findings about what is not."""

import pytest

from fairway.monitoring.performance.findings import performance_findings, performance_loss
from fairway.monitoring.performance.thresholds import Usual, outside, surely_outside, usual
from fairway.monitoring.told import Measured


def test_chunks_that_differ_by_chance_only() -> None:
    found = usual("f1", [0.80, 0.81, 0.79], [0.02, 0.02, 0.02], [400, 400, 400])
    assert found is not None
    assert found.between == 0.0
    assert found.limits(400) == pytest.approx((0.74, 0.86))
    assert found.limits(100, highest=0.9) == pytest.approx((0.68, 0.9))


def test_chunks_that_differ_by_more() -> None:
    found = usual("f1", [0.7, 0.8, 0.9], [0.02, 0.02, 0.02], [400, 400, 400])
    assert found is not None
    assert found.between == pytest.approx(0.01 - 0.0004)
    assert found.limits(10**9)[0] == pytest.approx(0.8 - 3 * 0.0096**0.5)


def test_without_values_nothing_is_usual() -> None:
    assert usual("f1", [None], [None], [5]) is None
    assert not outside(0.5, None)
    assert not outside(None, (0.0, 0.1))
    assert outside(0.5, (0.0, 0.1))


def test_a_model_that_is_never_wrong_on_its_reference_may_be_wrong_a_little() -> None:
    found = usual("accuracy", [1.0, 1.0], [0.0, 0.0], [500, 500])
    assert found is not None
    low, high = found.limits(100)
    assert 0.98 < low < 0.995
    assert outside(0.97, (low, high))
    error = usual("mae", [0.0, 0.0], [0.0, 0.0], [500, 500])  # in a unit of its own
    assert error is not None
    assert error.limits(100) == (0.0, 0.0)


def test_findings() -> None:
    normal = {
        "roc_auc": usual("roc_auc", [0.8], [0.02], [400]),
        "log_loss": usual("log_loss", [0.4], [0.01], [400]),
    }
    bad = Measured(name="roc_auc", value=0.68, lower=0.6, upper=0.7, rows=400, estimated=True)
    good = Measured(name="log_loss", value=0.3, rows=400)
    normal_one = Measured(name="roc_auc", value=0.79, rows=400)
    worse, better = performance_findings([bad, good, normal_one], normal)
    assert (worse.kind, worse.field, worse.severity) == ("estimate", "roc_auc", "warning")
    assert worse.effect == pytest.approx(2.0)
    assert worse.threshold == pytest.approx(0.74)
    assert worse.text == (
        "ROC AUC is 0.68 (95% interval 0.6 to 0.7), below the usual 0.74: estimated without labels, 400 rows."
    )
    assert better.text == "Log loss is 0.3, below the usual 0.37: by the labels, 400 rows."
    assert (better.kind, better.severity) == ("performance", "info")
    assert performance_loss([bad, good], normal) == pytest.approx(2.0)
    assert performance_loss([good], normal) == 0.0
    assert performance_findings([Measured(name="f1", value=None)], normal) == ()


def test_a_metric_that_a_few_rows_weigh_most_in_is_no_alarm_by_chance() -> None:
    """MAPE where one actual value of a window comes near zero is far from the usual, and its interval is wide."""
    about = Usual(centre=0.05, per_row=0.0, between=2.5e-5)
    far = Measured(name="mape", value=0.0692, lower=0.0167, upper=0.216, rows=240)
    sure = Measured(name="mape", value=0.0692, lower=0.061, upper=0.078, rows=240)
    bare = Measured(name="mape", value=0.0692, rows=240)
    assert [surely_outside(metric, about) for metric in (far, sure, bare)] == [False, True, True]
    assert not surely_outside(sure, None)
    assert performance_findings([far], {"mape": about}) == ()
    assert len(performance_findings([sure], {"mape": about})) == 1


def test_a_calibration_error_is_outside_where_all_its_interval_is() -> None:
    about = Usual(centre=0.01, per_row=0.0, between=1e-4)
    assert not surely_outside(Measured(name="calibration_error", value=0.06, lower=0.03, upper=0.09), about)
    assert surely_outside(Measured(name="calibration_error", value=0.06, lower=0.05, upper=0.07), about)
