"""Which way of calibration is taken, and what it gives."""

import numpy as np
import pytest

from fairway.monitoring.performance.calibrate import KINDS, Scores, calibrate, fit
from fairway.monitoring.performance.cbpe import scores_of
from fairway.monitoring.performance.features import make_encoding
from tests.unit.monitoring.performance.conftest import binary_window, many_window, sigmoid


def bare(probabilities: np.ndarray) -> Scores:
    return Scores(probabilities, np.zeros((len(probabilities), 0)))


def test_a_calibrated_model_is_left_alone() -> None:
    window = binary_window(2_000)
    assert calibrate(bare(window.probabilities), window.actual).kind == "none"


@pytest.mark.parametrize("kind", ["smooth", "isotonic"])
def test_a_model_too_sure_of_itself_is_put_right(kind: str) -> None:
    window = binary_window(20_000, sure=2.0)
    found = calibrate(bare(window.probabilities), window.actual, kind=kind)
    truth = sigmoid(1.5 * window.features["x"] - 0.5)
    assert np.abs(window.probabilities[:, 1] - truth).mean() > 0.07
    assert np.abs(found.whole(bare(window.probabilities))[:, 1] - truth).mean() < 0.015


def test_the_smooth_way_is_taken_where_a_curve_is_enough() -> None:
    window = binary_window(4_000, sure=2.0)
    assert calibrate(bare(window.probabilities), window.actual).kind == "smooth"


def test_steps_are_taken_where_it_is_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(5_000)
    actual = (rng.random(5_000) < np.where(p < 0.5, 0.1, 0.6)).astype(np.int64)
    found = calibrate(bare(np.column_stack([1 - p, p])), actual)
    assert found.kind == "isotonic"
    low, high = found.whole(bare(np.array([[0.8, 0.2], [0.2, 0.8]])))[:, 1]
    assert (low, high) == pytest.approx((0.1, 0.6), abs=0.03)


def test_inputs_are_taken_where_the_score_alone_misleads() -> None:
    rng = np.random.default_rng(0)
    x, missed = rng.normal(size=3_000), rng.normal(size=3_000)
    actual = (rng.random(3_000) < sigmoid(x + 1.5 * missed)).astype(np.int64)
    p = sigmoid(0.7 * x)
    scores = Scores(np.column_stack([1 - p, p]), np.column_stack([x, missed]), (False, False))
    found = calibrate(scores, actual)
    assert found.kind == "features"
    said = found.whole(scores)
    assert said.sum(axis=1) == pytest.approx(np.ones(3_000))
    assert said[missed > 1.5, 1].mean() > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_more_classes_add_up_to_1(kind: str) -> None:
    window = many_window(600)
    scores = scores_of(window, make_encoding({}))
    said = fit(kind, scores, window.actual)(scores)
    assert said.shape == (600, 4)
    assert said.sum(axis=1) == pytest.approx(np.ones(600))
    assert said.min() >= 0


def test_steps_are_not_certain_of_what_never_happened() -> None:
    p = np.linspace(0, 1, 200)
    actual = (p > 0.5).astype(np.int64)
    said = fit("isotonic", bare(np.column_stack([1 - p, p])), actual)(
        bare(np.array([[1.0, 0.0], [0.0, 1.0]]))
    )
    assert said[:, 1] == pytest.approx([1 / 102, 101 / 102], rel=0.05)


def test_no_rows_and_one_class() -> None:
    window = binary_window(300)
    nothing = fit("isotonic", bare(window.probabilities), window.actual)(bare(np.zeros((0, 2))))
    assert nothing.shape == (0, 2)
    assert calibrate(bare(window.probabilities), np.zeros(300, dtype=np.int64)).kind == "none"


def test_the_reference_is_answered_by_fits_that_have_not_seen_the_row() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(300)
    actual = (rng.random(300) < 0.5).astype(np.int64)  # nothing to learn
    scores = bare(np.column_stack([1 - p, p]))
    found = calibrate(scores, actual, kind="isotonic")
    out = found.out_of_fold(scores)[np.arange(300), actual]
    seen = found.whole(scores)[np.arange(300), actual]
    assert out.mean() < seen.mean()
