"""The calibration error without its bias."""

import numpy as np
import pytest

from fairway.monitoring.performance.calibration_error import calibration_error, equal_bins
from tests.unit.monitoring.performance.conftest import binary_window


def test_the_plain_error_is_the_textbooks() -> None:
    probability = np.repeat([0.1, 0.4, 0.8], [10, 20, 10])
    hit = np.concatenate([np.repeat([1, 0], [2, 8]), np.repeat([1, 0], [6, 14]), np.repeat([1, 0], [7, 3])])
    found = calibration_error(probability, hit.astype(np.float64))
    assert found is not None
    assert found.plain == pytest.approx((10 * 0.1 + 20 * 0.1 + 10 * 0.1) / 40)


def test_chance_is_taken_off() -> None:
    plain, value = [], []
    for seed in range(40):
        window = binary_window(500, seed)
        found = calibration_error(window.probabilities[:, 1], window.actual.astype(np.float64))
        assert found is not None
        assert 0 <= found.lower <= found.value <= found.upper <= 1
        plain.append(found.plain)
        value.append(found.value)
    assert np.mean(plain) > 0.03  # the model is calibrated: all of this is chance
    assert (
        np.median(value) < np.mean(plain) / 3
    )  # the value is that truth for which what was seen is the median


def test_intervals_cover_the_truth() -> None:
    big = binary_window(500_000, 99, sure=1.6)
    whole = calibration_error(big.probabilities[:, 1], big.actual.astype(np.float64))
    assert whole is not None
    held = 0
    for seed in range(60):
        window = binary_window(1_000, seed, sure=1.6)
        found = calibration_error(window.probabilities[:, 1], window.actual.astype(np.float64))
        assert found is not None
        held += found.lower <= whole.plain <= found.upper
    assert held / 60 >= 0.87


def test_few_rows_and_equal_probabilities() -> None:
    assert calibration_error(np.array([0.5]), np.array([1.0])) is None
    assert set(equal_bins(np.full(100, 0.3)).tolist()) == {0}
    found = calibration_error(np.full(100, 0.3), np.zeros(100))
    assert found is not None
    assert found.lower > 0.2


def test_rare_hits_are_covered() -> None:
    """One row in fifty is a hit, half of what the model says: chance is far from normal in nine bins of ten."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        probability = np.sort(rng.beta(0.4, 9.6, 500))
        hit = (rng.random(500) < probability / 2).astype(np.float64)
        found = calibration_error(probability, hit)
        assert found is not None
        held += found.lower <= 0.02 <= found.upper  # the mean of probability / 2
    assert held / 200 >= 0.92
