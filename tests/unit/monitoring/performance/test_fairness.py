"""Parity between groups, against Fairlearn's values for the same rows."""

import numpy as np
import pytest

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.fairness import measure_fairness
from fairway.monitoring.performance.values import Classified
from tests.unit.monitoring.performance.conftest import many_window

# Fairlearn 0.15.0 on the rows of `rows_of_three_groups`.
FAIRLEARN = {
    "demographic_parity_difference": 0.12403322148449586,
    "demographic_parity_ratio": 0.7037794828076157,
    "equalized_odds_difference": 0.2243421052631579,
    "equalized_odds_ratio": 0.5928721174004192,
    "equal_opportunity_difference": 0.2243421052631579,
}


def rows_of_three_groups() -> tuple[Classified, Array]:
    rng = np.random.default_rng(42)
    groups = np.array(list("abc"))[rng.integers(0, 3, 600)]
    actual = (rng.random(600) < np.where(groups == "a", 0.3, 0.5)).astype(int)
    said = (rng.random(600) < np.where(groups == "c", 0.6, 0.4) * 0.5 + 0.3 * actual).astype(int)
    return window_of(said, actual), groups


def window_of(said: Array, actual: Array) -> Classified:
    return Classified(("0", "1"), np.column_stack([1 - said, said]).astype(np.float64), said, actual)


def test_as_fairlearn_has_it() -> None:
    window, groups = rows_of_three_groups()
    found = measure_fairness(window, groups)
    assert {name: m.value for name, m in found.measures.items()} == pytest.approx(FAIRLEARN)
    for measure in found.measures.values():
        assert measure.lower is not None
        assert measure.upper is not None
        assert measure.value is not None
        assert 0 <= measure.lower <= measure.value <= measure.upper <= 1
    assert [group.name for group in found.groups] == ["a", "b", "c"]


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.3), (0.1, 0.5)])
def test_intervals_cover_the_truth(a: float, b: float) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b"], [150, 200])
    held = [0, 0]
    for _ in range(100):
        said = (rng.random(350) < np.where(groups == "a", a, b)).astype(int)
        found = measure_fairness(window_of(said, np.full(350, -1)), groups).measures
        for i, (name, truth) in enumerate(
            [("demographic_parity_difference", abs(a - b)), ("demographic_parity_ratio", a / b)]
        ):
            measure = found[name]
            assert measure.lower is not None
            assert measure.upper is not None
            held[i] += measure.lower <= truth <= measure.upper
    assert min(held) >= 89


def test_without_labels_only_parity_is_said() -> None:
    window, groups = rows_of_three_groups()
    blind = window_of(window.predicted, np.full(600, -1))
    found = measure_fairness(blind, groups).measures
    assert found["demographic_parity_difference"].value == pytest.approx(0.12403322148449586)
    assert found["equalized_odds_difference"].value is None
    assert found["equalized_odds_difference"].note == "fewer than two groups with such rows"


def test_small_groups_and_edges() -> None:
    window, groups = rows_of_three_groups()
    groups = groups.astype(object)
    groups[:10] = "few"
    found = measure_fairness(window, groups)
    assert found.notes == ("fewer than 30 rows, left out: few",)
    nobody = measure_fairness(
        window_of(np.zeros(100, dtype=int), np.full(100, -1)), np.repeat(["a", "b"], 50)
    )
    measure = nobody.measures["demographic_parity_ratio"]
    assert (measure.value, measure.upper) == (1.0, 1.0)
    one = measure_fairness(window, np.full(600, "all"))
    assert one.measures["demographic_parity_difference"].value is None


def test_which_class_is_wished_for() -> None:
    window, groups = rows_of_three_groups()
    assert measure_fairness(window, groups, positive="0").groups[0].selection_rate.value == pytest.approx(
        1 - (measure_fairness(window, groups).groups[0].selection_rate.value or 0)
    )
    with pytest.raises(InvalidInput, match="there is no class 'yes'"):
        measure_fairness(window, groups, positive="yes")
    with pytest.raises(InvalidInput, match="is wished for"):
        measure_fairness(many_window(10), np.full(10, "a"))
    with pytest.raises(InvalidInput, match="has 3 groups"):
        measure_fairness(window, np.full(3, "a"))
