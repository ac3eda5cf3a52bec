"""Regression metrics against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.regression import METRICS, measure_regression
from fairway.monitoring.performance.values import Regressed
from tests.unit.monitoring.performance.conftest import regressed_window


def test_as_scikit_learn_has_them() -> None:
    window = regressed_window(300)
    found = {m.name: m.value for m in measure_regression(window)}
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(window.actual, window.predicted))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(window.actual, window.predicted))
    assert found["mape"] == pytest.approx(sk.mean_absolute_percentage_error(window.actual, window.predicted))
    assert found["bias"] == pytest.approx(np.mean(window.predicted - window.actual))


def test_intervals_cover_the_truth() -> None:
    truth = {m.name: m.value for m in measure_regression(regressed_window(200_000, 99))}
    held = dict.fromkeys(METRICS, 0)
    for seed in range(150):
        for m in measure_regression(regressed_window(300, seed)):
            assert m.lower is not None
            assert m.upper is not None
            held[m.name] += m.lower <= truth[m.name] <= m.upper
    assert {name: hits / 150 for name, hits in held.items() if hits / 150 < 0.89} == {}


def test_what_cannot_be_said_is_told() -> None:
    zero = Regressed(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, np.nan]))
    found = {m.name: m for m in measure_regression(zero)}
    assert (found["mape"].rows, found["mape"].note) == (1, "1 rows left out: the actual value is 0")
    assert found["mae"].rows == 2
    none = {m.name: m for m in measure_regression(Regressed(np.zeros(0), np.zeros(0)))}
    assert (none["mae"].value, none["mae"].note) == (None, "no rows")
    same = measure_regression(Regressed(np.ones(5), np.zeros(5)), ["mae"])
    assert (same[0].value, same[0].lower) == (1.0, None)
    with pytest.raises(InvalidInput, match="there is no metric r2"):
        measure_regression(zero, ["r2"])
