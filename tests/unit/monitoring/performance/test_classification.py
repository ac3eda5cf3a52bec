"""Metrics against scikit-learn, their errors against DeLong's formula and the jackknife, their intervals against the truth."""

import numpy as np
import pytest
from sklearn import metrics as sk

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import influence
from fairway.monitoring.performance.classification import (
    FUNCTIONALS,
    METRICS,
    answers_of,
    measure_classification,
    one_hot,
)
from fairway.monitoring.performance.values import Classified
from fairway.monitoring.told import Measured
from tests.unit.monitoring.performance.conftest import binary_window, many_window

VALUE = np.array([[0.0, -1.0], [-5.0, 2.0]])


def by_name(window: Classified, value: Array | None = None) -> dict[str, float | None]:
    names = METRICS if value is not None else tuple(name for name in METRICS if name != "business_value")
    return {m.name: m.value for m in measure_classification(window, names, value=value)}


def tied(window: Classified) -> Classified:
    """With probabilities that many rows share."""
    p = window.probabilities.round(1)
    p = p / p.sum(axis=1, keepdims=True)
    return Classified(window.classes, p, p.argmax(axis=1), window.actual)


@pytest.mark.parametrize("window", [binary_window(400), tied(binary_window(400, 2))], ids=["plain", "tied"])
def test_two_classes_as_scikit_learn_has_them(window: Classified) -> None:
    found = by_name(window, VALUE)
    y, p, said = window.actual, window.probabilities[:, 1], window.predicted
    worth = VALUE[y, said].mean()
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p))
    assert found["pr_auc"] == pytest.approx(sk.average_precision_score(y, p))
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, window.probabilities))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, said))
    assert found["precision"] == pytest.approx(sk.precision_score(y, said))
    assert found["recall"] == pytest.approx(sk.recall_score(y, said))
    assert found["f1"] == pytest.approx(sk.f1_score(y, said))
    assert found["business_value"] == pytest.approx(worth)


@pytest.mark.parametrize("window", [many_window(500), tied(many_window(500, 3))], ids=["plain", "tied"])
def test_four_classes_as_scikit_learn_has_them(window: Classified) -> None:
    found = by_name(window)
    y, p, said = window.actual, window.probabilities, window.predicted
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"))
    assert found["pr_auc"] == pytest.approx(sk.average_precision_score(one_hot(y, 4), p))
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, p))
    assert found["brier"] == pytest.approx(np.mean(np.sum((p - one_hot(y, 4)) ** 2, axis=1)))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, said))
    assert found["precision"] == pytest.approx(sk.precision_score(y, said, average="macro"))
    assert found["recall"] == pytest.approx(sk.recall_score(y, said, average="macro"))
    assert found["f1"] == pytest.approx(sk.f1_score(y, said, average="macro"))


def test_the_error_of_the_rank_area_is_delongs() -> None:
    window = tied(binary_window(150, 4))
    p, y = window.probabilities[:, 1], window.actual
    positive, negative = p[y == 1], p[y == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    of_positive, of_negative = wins.mean(axis=1), wins.mean(axis=0)  # DeLong's V10 and V01
    delong = np.sqrt(of_positive.var(ddof=1) / len(positive) + of_negative.var(ddof=1) / len(negative))
    (found,) = measure_classification(window, ["roc_auc"])
    assert found.error == pytest.approx(delong, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in FUNCTIONALS if name != "business_value"])
@pytest.mark.parametrize("window", [binary_window(150, 5), many_window(150, 6)], ids=["two", "four"])
def test_derivatives_are_those_of_the_metric(window: Classified, name: str) -> None:
    answers = answers_of(window)
    labels = 0.9 * one_hot(window.actual, len(window.classes)) + 0.1 / len(window.classes)
    here = FUNCTIONALS[name](answers, labels)
    assert here.derivative is not None
    assert here.value is not None
    step = 1e-6
    for row in (0, 70, 149):
        moved = labels.copy()
        moved[row, 0] += step
        moved[row, 1] -= step
        there = FUNCTIONALS[name](answers, moved).value
        assert there is not None
        expected = here.derivative[row, 0] - here.derivative[row, 1]
        assert (there - here.value) / step == pytest.approx(expected, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc", "f1", "precision", "recall"])
def test_errors_are_near_the_jackknife(name: str) -> None:
    window = many_window(300, 7)
    labels = one_hot(window.actual, 4)
    statistic = FUNCTIONALS[name](answers_of(window), labels)
    left = []
    for row in range(window.rows):
        part = window.take(np.arange(window.rows) != row)
        value = FUNCTIONALS[name](answers_of(part), one_hot(part.actual, 4)).value
        assert value is not None
        left.append(value)
    jackknife = np.sqrt((window.rows - 1) * np.var(left))
    assert influence.sampling_error(statistic, labels)[0] == pytest.approx(jackknife, rel=0.06)


@pytest.mark.parametrize(("draw", "rows"), [(binary_window, 60), (many_window, 200)], ids=["two", "four"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(draw: object, rows: int) -> None:
    assert callable(draw)
    names = [name for name in METRICS if name not in ("business_value", "calibration_error")]
    truth = {m.name: m.value for m in measure_classification(draw(200_000, 99), names)}
    held = dict.fromkeys(names, 0)
    windows = 150
    for seed in range(windows):
        for m in measure_classification(draw(rows, seed), names):
            assert m.lower is not None
            assert m.upper is not None
            held[m.name] += m.lower <= truth[m.name] <= m.upper
    # Of 150 windows 95% has a standard error of 1.8%; benchmarks/estimate counts thousands.
    assert {name: hits / windows for name, hits in held.items() if hits / windows < 0.89} == {}


def test_a_window_of_one_class_says_what_it_cannot() -> None:
    window = binary_window(100)
    window = window.take(window.actual == 0)
    found = {m.name: m for m in measure_classification(window)}
    assert found["roc_auc"].value is None
    assert found["roc_auc"].note == "all rows are of one class"
    assert found["recall"].value is None
    assert found["accuracy"].value is not None


def test_of_a_few_positives_no_interval_is_said() -> None:
    window = binary_window(400)
    positives = np.flatnonzero(window.actual == 1)[:3]
    few = window.take(np.sort(np.concatenate([positives, np.flatnonzero(window.actual == 0)])))
    found = {m.name: m for m in measure_classification(few)}
    for name in ("roc_auc", "pr_auc", "recall", "f1", "log_loss", "brier"):
        assert found[name].value is not None
        assert (found[name].lower, found[name].upper) == (None, None)
        assert found[name].note == "no interval: only 3 positive"
    assert found["accuracy"].lower is not None


def test_the_area_under_precision_asks_for_ten_of_each_class() -> None:
    window = binary_window(400)
    positives = np.flatnonzero(window.actual == 1)
    negatives = np.flatnonzero(window.actual == 0)

    def with_positives(count: int) -> dict[str, Measured]:
        rows = np.sort(np.concatenate([positives[:count], negatives]))
        return {m.name: m for m in measure_classification(window.take(rows))}

    nine, ten = with_positives(9), with_positives(10)
    assert nine["pr_auc"].note == "no interval: only 9 positive"
    assert nine["pr_auc"].lower is None
    assert nine["roc_auc"].lower is not None
    assert ten["pr_auc"].lower is not None


def test_calibration_error_of_fewer_than_a_hundred_rows_has_no_interval() -> None:
    for rows, said in ((99, False), (100, True)):
        (found,) = measure_classification(binary_window(rows), ["calibration_error"])
        assert found.value is not None
        assert (found.lower is not None, found.upper is not None) == (said, said)
        assert found.note == ("" if said else "no interval: fewer than 100 rows")


def test_perfect_answers_are_not_certain() -> None:
    actual = np.array([0, 1] * 20)
    p = np.column_stack([1 - actual, actual]).astype(np.float64)
    found = {m.name: m for m in measure_classification(Classified(("0", "1"), p, actual, actual))}
    for name in ("roc_auc", "pr_auc", "accuracy", "f1", "precision", "recall"):
        assert (found[name].value, found[name].upper) == (1.0, 1.0)
        assert 0.7 < (found[name].lower or 0) < 0.95, name
    assert found["brier"].lower is None
    assert found["brier"].note == "no interval: every row is alike"


def test_rows_without_labels_or_probabilities_do_not_count() -> None:
    window = binary_window(100)
    actual = window.actual.copy()
    actual[:30] = -1
    probabilities = window.probabilities.copy()
    probabilities[40] = np.nan
    found = measure_classification(Classified(("0", "1"), probabilities, window.predicted, actual))
    assert {m.rows for m in found} == {69}


def test_no_rows_have_no_metrics() -> None:
    empty = binary_window(10).take(slice(0, 0))
    assert {m.value for m in measure_classification(empty)} == {None}


def test_a_class_that_never_comes_is_left_out_and_told() -> None:
    window = many_window(200)
    rare = Classified(window.classes, window.probabilities, window.predicted, np.minimum(window.actual, 2))
    found = {m.name: m for m in measure_classification(rare, ["roc_auc", "recall"])}
    assert found["recall"].note == "1 of 4 classes left out: no row is of the class"
    assert found["roc_auc"].value is not None


def test_what_is_asked_wrongly_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"there is no metric auc; there are: accuracy, precision"):
        measure_classification(binary_window(10), ["auc"])
    with pytest.raises(InvalidInput, match=r"must be 2 x 2"):
        measure_classification(binary_window(10), ["business_value"], value=np.zeros((3, 3)))
    with pytest.raises(InvalidInput, match=r"columns of other lengths: actual 3"):
        Classified(("0", "1"), np.zeros((2, 2)), np.zeros(2), np.zeros(3))
