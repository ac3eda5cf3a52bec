"""Estimates before labels, held against the labels."""

import numpy as np
import pytest

from fairway.core.errors import InvalidInput, MalformedInput
from fairway.monitoring.performance.cbpe import METRICS, Cbpe, fit_cbpe
from fairway.monitoring.performance.classification import measure_classification
from fairway.monitoring.performance.values import Classified
from tests.unit.monitoring.performance.conftest import binary_window, many_window

VALUE = np.array([[0.0, -1.0], [-5.0, 2.0]])
NAMES = tuple(name for name in METRICS if name != "business_value")


@pytest.fixture(scope="module")
def fitted(reference: Classified) -> Cbpe:
    return fit_cbpe(reference, value=VALUE)


def test_estimates_are_where_the_labels_will_put_them(fitted: Cbpe) -> None:
    held = dict.fromkeys(METRICS, 0)
    for seed in range(100, 120):
        window = binary_window(1_000, seed, sure=1.6, shift=0.4 * (seed % 2))
        estimates = fitted.estimate(window, METRICS)
        for estimate, label in zip(
            estimates, measure_classification(window, METRICS, value=VALUE), strict=True
        ):
            assert estimate.estimated
            assert estimate.value is not None
            assert estimate.lower is not None
            assert estimate.upper is not None
            assert estimate.lower < estimate.value < estimate.upper
            assert label.value is not None
            held[estimate.name] += estimate.lower <= label.value <= estimate.upper
    assert {name: hits for name, hits in held.items() if hits < 17} == {}


def test_labels_are_not_looked_at(fitted: Cbpe) -> None:
    window = binary_window(500, 3)
    blind = Classified(
        window.classes, window.probabilities, window.predicted, np.full(500, -1), window.features
    )
    assert fitted.estimate(window) == fitted.estimate(blind)


def test_an_input_the_model_missed_drifts() -> None:
    """The curve through the score alone goes wrong here; the estimate with inputs does not."""

    def window(rows: int, seed: int, drift: float) -> Classified:
        rng = np.random.default_rng(seed)
        x, missed = rng.normal(size=rows), rng.normal(drift, 1.0, rows)
        p = 1 / (1 + np.exp(-1.2 * x))
        actual = (rng.random(rows) < 1 / (1 + np.exp(-1.5 * x - 1.5 * missed))).astype(np.int64)
        said = (p > 0.5).astype(np.int64)
        return Classified(("0", "1"), np.column_stack([1 - p, p]), said, actual, {"x": x, "missed": missed})

    reference, current = window(3_000, 0, 0.0), window(5_000, 1, 1.2)
    truth = measure_classification(current, ["recall", "precision", "accuracy"])
    blind = fit_cbpe(reference, calibration="isotonic").estimate(current, ["recall", "precision", "accuracy"])
    knowing = fit_cbpe(reference)
    assert knowing.kind == "features"
    for real, wrong, right in zip(
        truth, blind, knowing.estimate(current, ["recall", "precision", "accuracy"]), strict=True
    ):
        assert real.value is not None
        assert wrong.value is not None
        assert right.value is not None
        assert abs(right.value - real.value) < 0.03
    wrongs = [abs((b.value or 0) - (t.value or 0)) for b, t in zip(blind, truth, strict=True)]
    assert max(wrongs) > 0.1


def test_more_classes() -> None:
    fitted = fit_cbpe(many_window(3_000, 1))
    current = many_window(3_000, 2)
    for estimate, label in zip(
        fitted.estimate(current, NAMES), measure_classification(current, NAMES), strict=True
    ):
        assert estimate.value == pytest.approx(label.value, abs=0.04), estimate.name


def test_what_cannot_be_learned_from_is_refused(reference: Classified, fitted: Cbpe) -> None:
    with pytest.raises(InvalidInput, match="the reference has 50 rows with a label"):
        fit_cbpe(reference.take(slice(0, 50)))
    with pytest.raises(InvalidInput, match="every label of the reference is '0'"):
        fit_cbpe(reference.take(reference.actual == 0))
    with pytest.raises(InvalidInput, match=r"the classes a, b, c, d, the reference 0, 1"):
        fitted.estimate(many_window(10))
    with pytest.raises(InvalidInput, match="no metric calibration_error"):
        fitted.estimate(reference, ["calibration_error"])


def test_windows_without_rows_or_columns(fitted: Cbpe, reference: Classified) -> None:
    assert {m.value for m in fitted.estimate(reference.take(slice(0, 0)))} == {None}
    with_features = fit_cbpe(reference.take(slice(0, 500)), calibration="features")
    bare = Classified(reference.classes, reference.probabilities, reference.predicted, reference.actual)
    with pytest.raises(MalformedInput, match="no column 'x'"):
        with_features.estimate(bare)
