from __future__ import annotations

import numpy as np
import pytest

from fairway.core.columns import Columns, Outputs
from fairway.packaging.conversion.prove import compare, time_both


def outputs(label: list[object], probabilities: list[list[float]]) -> Outputs:
    return {"label": np.array(label), "probabilities": np.array(probabilities)}


ORIGINAL = outputs([0, 1], [[0.9, 0.1], [0.2, 0.8]])


def test_equal_answers_are_a_proof() -> None:
    result = compare(ORIGINAL, ORIGINAL, tolerance=1e-5)
    assert (result.rows, result.label_flips, result.max_abs_diff, result.mean_abs_diff) == (2, 0, 0.0, 0.0)
    assert result.problem(allow_flips=0) == ""


def test_flips_are_counted_and_named() -> None:
    served = outputs([1, 1], [[0.9, 0.1], [0.2, 0.8]])
    result = compare(ORIGINAL, served, tolerance=1e-5)
    assert result.label_flips == 1
    assert result.problem(allow_flips=0) == "1 of 2 rows got another label"
    assert result.problem(allow_flips=1) == ""


def test_differences_are_measured_over_all_elements() -> None:
    served = outputs([0, 1], [[0.9, 0.1], [0.3, 0.8]])
    result = compare(ORIGINAL, served, tolerance=1e-5)
    assert result.max_abs_diff == pytest.approx(0.1)
    assert result.mean_abs_diff == pytest.approx(0.025)
    assert "more than the tolerance" in result.problem(allow_flips=0)


def test_the_tolerance_is_absolute_plus_relative() -> None:
    original, served = {"prediction": np.array([1e6])}, {"prediction": np.array([1e6 + 5])}
    assert compare(original, served, tolerance=1e-5).problem(allow_flips=0) == ""
    assert compare(original, served, tolerance=1e-6).problem(allow_flips=0) != ""


@pytest.mark.parametrize(("value", "same"), [(np.nan, True), (np.inf, True), (1.0, False), (-np.inf, False)])
def test_nan_and_infinity_agree_with_themselves_only(value: float, same: bool) -> None:
    expected = np.nan if np.isnan(value) else np.inf
    result = compare({"score": np.array([expected])}, {"score": np.array([value])}, tolerance=1e-5)
    assert (result.problem(allow_flips=0) == "") is same


def test_text_and_integer_labels_compare_by_value() -> None:
    text = {"label": np.array(["a", "b"], dtype=object)}
    assert compare(text, {"label": np.array(["a", "c"], dtype=object)}, tolerance=1.0).label_flips == 1
    assert compare({"label": np.array([True])}, {"label": np.array([1])}, tolerance=1.0).label_flips == 0


def test_missing_outputs_and_other_shapes_cannot_be_compared() -> None:
    assert "no output 'label'" in compare(ORIGINAL, {}, tolerance=1.0).problem(allow_flips=9)
    wide = {"label": ORIGINAL["label"], "probabilities": np.zeros((2, 3))}
    assert "shape [2, 3] instead of [2, 2]" in compare(ORIGINAL, wide, tolerance=1.0).problem(allow_flips=9)


class Counting:
    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict(self, columns: Columns) -> Outputs:
        self.rows.append(columns.rows)
        return {}

    def unload(self) -> None:
        pass


def test_timing_calls_one_row_and_a_batch() -> None:
    original, served = Counting(), Counting()
    columns = Columns(("a",), 50, packed=np.zeros((50, 1)))
    timings = time_both(original, served, columns)
    assert timings.batch_rows == 50
    assert set(original.rows) == set(served.rows) == {1, 50}
    assert timings.served_row_seconds > 0
