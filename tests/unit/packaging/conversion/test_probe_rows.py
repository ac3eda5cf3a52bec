from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.columns import Array, Columns
from fairway.core.conform import gather, nulls_of
from fairway.core.contract import Category, Contract, DType, Field
from fairway.packaging.conversion.probe_rows import (
    UNSEEN_TEXT,
    Crossing,
    concatenate,
    edge_rows,
    edge_values,
    null_rows,
    text_rows,
    unseen_rows,
)

CONTRACT = Contract(
    inputs=(
        Field(name="a", dtype=DType.float64),
        Field(name="n", dtype=DType.int64),
        Field(
            name="c", dtype=DType.string, nullable=True, categories=(Category("x", 0.5), Category("y", 0.5))
        ),
    ),
    outputs=(),
)


def sample(rows: int = 30) -> Columns:
    rng = np.random.default_rng(0)
    texts = np.array(rng.choice(["x", "y"], rows), dtype=object)
    return gather(CONTRACT, [rng.normal(size=rows) * 10, rng.integers(0, 100, rows), texts])


@given(st.floats(-1e30, 1e30))
def test_edges_hold_the_threshold_and_its_neighbours_in_both_precisions(threshold: float) -> None:
    crossing = Crossing([np.array([threshold]), np.array([threshold])], direct=("a", "n"))
    edges = edge_values(CONTRACT, crossing, sample(), seed=0, limit=10)
    near = np.float32(threshold)
    wanted = {
        threshold,
        np.nextafter(threshold, np.inf),
        np.nextafter(threshold, -np.inf),
        float(near),
        float(np.nextafter(near, np.float32(np.inf))),
        float(np.nextafter(near, np.float32(-np.inf))),
    }
    assert wanted <= set(edges["a"].tolist())
    assert all(value == int(value) for value in edges.get("n", np.zeros(0)).tolist())


def test_every_threshold_of_every_column_is_covered_when_the_rows_allow_it() -> None:
    thresholds = [np.linspace(-5, 5, 40), np.arange(20) + 0.5]
    edges = edge_values(CONTRACT, Crossing(thresholds, direct=("a", "n")), sample(), seed=0, limit=1000)
    rows = edge_rows(CONTRACT, sample(), edges, seed=0, max_rows=2000)
    assert rows is not None
    assert set(thresholds[0].tolist()) <= set(rows["a"].tolist())
    assert set(range(20)) <= set(rows["n"].tolist())
    assert rows["n"].dtype == np.int64


def test_rows_are_capped_and_repeat_with_the_seed() -> None:
    crossing = Crossing([np.linspace(-5, 5, 1000), np.zeros(0)], direct=("a", "n"))
    edges = edge_values(CONTRACT, crossing, sample(), seed=3, limit=100)
    first, again, other = (edge_rows(CONTRACT, sample(), edges, seed=seed, max_rows=50) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.rows <= 50
    assert np.array_equal(first["a"], again["a"])
    assert not np.array_equal(first["a"], other["a"])


@pytest.mark.parametrize("compares", ["float32", "float64"])
def test_thresholds_behind_a_preparation_are_found_to_the_last_bit(compares: str) -> None:
    def scaled(columns: Columns) -> Array:
        return np.stack([(columns["a"] - 3.7) / 1.3, np.log1p(columns["n"])], axis=1)

    thresholds = [np.array([0.25]), np.array([2.0])]
    crossing = Crossing(thresholds, transform=scaled, compares=compares)
    edges = edge_values(CONTRACT, crossing, sample(), seed=0, limit=100)

    reached = (edges["a"] - 3.7) / 1.3
    if compares == "float32":
        reached = reached.astype(np.float32)
    below = edges["a"][reached <= 0.25]
    above = edges["a"][reached > 0.25]
    assert np.nextafter(below.max(), np.inf) == above.min()
    assert {6, 7} <= set(edges["n"].tolist())  # log1p(6) = 1.95, log1p(7) = 2.08


def test_columns_that_reach_no_threshold_get_no_edges() -> None:
    crossing = Crossing([np.array([0.5])], transform=lambda columns: np.zeros((columns.rows, 1)))
    assert edge_values(CONTRACT, crossing, sample(), seed=0, limit=10) == {}
    assert edge_rows(CONTRACT, sample(), {}, seed=0, max_rows=10) is None


def test_nulls_and_unseen_categories_go_into_their_column_alone() -> None:
    field = CONTRACT.inputs[2]
    nulls = null_rows(CONTRACT, sample(), field, seed=0)
    assert nulls_of(nulls["c"]).all()
    assert not nulls_of(nulls["a"]).any()
    unseen = unseen_rows(CONTRACT, sample(), field, seed=0)
    assert unseen is not None
    assert set(unseen["c"].tolist()) == {UNSEEN_TEXT}


def test_an_unseen_whole_number_is_one_above_the_seen_ones() -> None:
    field = Field(name="k", dtype=DType.int8, categories=(Category(3, 0.5), Category(7, 0.5)))
    contract = Contract(inputs=(field,), outputs=())
    rows = unseen_rows(contract, gather(contract, [np.array([3, 7], np.int8)]), field, seed=0)
    assert rows is not None
    assert set(rows["k"].tolist()) == {8}
    full = Field(name="k", dtype=DType.int8, categories=(Category(127, 1.0),))
    contract = Contract(inputs=(full,), outputs=())
    assert unseen_rows(contract, gather(contract, [np.array([127], np.int8)]), full, seed=0) is None


def test_texts_vary_case_punctuation_and_alphabet() -> None:
    contract = Contract(inputs=(Field(name="t", dtype=DType.string),), outputs=())
    given_texts = gather(contract, [np.array(["Good film", "bad café"], dtype=object)])
    texts = text_rows(contract, given_texts, contract.inputs[0], seed=0)["t"].tolist()
    assert "" in texts
    assert "BAD CAFÉ" in texts
    assert any("漢" in text for text in texts)


def test_parts_are_put_together_in_order() -> None:
    parts = [sample(3), sample(5)]
    joined = concatenate(CONTRACT, parts)
    assert joined.rows == 8
    assert joined["a"][:3].tolist() == parts[0]["a"].tolist()
