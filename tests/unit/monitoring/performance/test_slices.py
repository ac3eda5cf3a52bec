"""Metrics by slice, and the search for the worst."""

import numpy as np
import pytest

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.slices import find_worst_slices, losses_of, measure_slices
from fairway.monitoring.performance.values import Classified
from tests.unit.monitoring.performance.conftest import binary_window, regressed_window


def features(rows: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "age": rng.normal(40, 10, rows),
        "region": np.array(list("nsew"), dtype=object)[rng.integers(0, 4, rows)],
        "children": rng.integers(0, 4, rows).astype(np.float64),
        "income": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(size=rows)),
    }


def test_the_slice_that_was_put_there_is_found_and_only_it() -> None:
    known = features(8_000, 1)
    bad = (known["region"] == "n") & (known["age"] < 33)
    losses = (np.random.default_rng(2).random(8_000) < np.where(bad, 0.35, 0.1)).astype(np.float64)
    found = find_worst_slices(known, losses)
    assert [{c.feature for c in one.conditions} for one in found.found] == [{"age", "region"}]
    worst = found.found[0]
    assert "region = n" in worst.name
    assert worst.lower < 0.25 * 1.1
    assert worst.excess == pytest.approx(worst.loss - worst.elsewhere)
    assert worst.p_value < 0.001
    assert found.tested > 100


def test_of_slices_no_worse_than_others_hardly_any_is_named() -> None:
    named = 0
    for seed in range(30):
        losses = np.random.default_rng(seed + 1_000).exponential(size=1_000)
        named += bool(find_worst_slices(features(1_000, seed), losses).found)
    assert named <= 4


def test_one_feature_alone_and_nulls() -> None:
    known = features(4_000, 3)
    losses = np.random.default_rng(4).random(4_000) + np.isnan(known["income"])
    (found,) = find_worst_slices(known, losses, pairs=False).found
    assert found.name == "income is null"


def test_losses_of_windows() -> None:
    window = binary_window(200)
    own, losses = losses_of(window)
    assert set(own) == {"x", "noise"}
    assert losses == pytest.approx((window.probabilities[:, 1] - window.actual) ** 2)
    assert set(losses_of(window, "error")[1].tolist()) == {0.0, 1.0}
    assert losses_of(regressed_window(100))[1].min() >= 0
    with pytest.raises(InvalidInput, match="no loss 'hinge' of a classifier"):
        losses_of(window, "hinge")
    with pytest.raises(InvalidInput, match="no loss 'brier' of a regression"):
        losses_of(regressed_window(100), "brier")


def test_metrics_by_slice() -> None:
    window = binary_window(1_000)
    groups = np.array(["a", "b", None], dtype=object)[np.arange(1_000) % 3]
    window = Classified(
        window.classes,
        window.probabilities,
        window.predicted,
        window.actual,
        {"g": groups, "x": window.features["x"]},
    )
    found = measure_slices(window, ["g", "x"], ["accuracy"])
    assert [s.conditions[0].text for s in found[:3]] == ["g = a", "g = b", "g is null"]
    assert sum(s.rows for s in found[:3]) == 1_000
    assert len(found) == 3 + 4
    own = window.take(groups == "b")
    assert found[1].metrics[0].value == pytest.approx((own.predicted == own.actual).mean())
    with pytest.raises(InvalidInput, match="no feature 'h'; there are: g, x"):
        measure_slices(window, ["h"])


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"constant": np.ones(500)},
        {"gone": np.full(500, np.nan)},
        {"infinite": np.full(500, np.inf)},
        {"texts": np.array([f"t{i}" for i in range(500)], dtype=object)},
        {"time": np.arange(500).astype("datetime64[h]").astype("datetime64[us]")},
        {"tensor": np.zeros((500, 3))},
    ],
    ids=lambda columns: next(iter(columns), "none"),
)
def test_columns_of_every_kind(columns: dict[str, Array]) -> None:
    losses = np.random.default_rng(0).random(500)
    losses[3] = np.nan
    assert find_worst_slices(columns, losses).found == ()


def test_too_few_rows() -> None:
    assert find_worst_slices({"a": np.arange(20.0)}, np.ones(20)).notes == ("too few rows to compare slices",)
