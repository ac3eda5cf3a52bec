"""Golden rows are diverse, survive JSON, and any change of an answer is named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.bundle import GoldenRows
from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import GoldenMismatch, ModelFailed
from fairway.packaging import golden as module
from fairway.packaging.contract import infer_contract, sample_columns
from fairway.packaging.golden import check_golden, make_golden, pick_rows, wire_values
from fairway.packaging.sample import read_sample


class Fixed:
    """Gives the same outputs whatever it is asked, and remembers what that was."""

    def __init__(self, outputs: Outputs | Exception) -> None:
        self.outputs = outputs
        self.seen: Columns | None = None

    def predict(self, columns: Columns) -> Outputs:
        self.seen = columns
        if isinstance(self.outputs, Exception):
            raise self.outputs
        return self.outputs


def ready(data: Any) -> tuple[Contract, Columns]:
    sample = read_sample(data)
    contract = infer_contract(sample)
    return contract, sample_columns(contract, sample)


def test_rows_show_extremes_nulls_and_categories() -> None:
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {
        "a": rng.normal(size=500),
        "c": rng.choice(["x", "y", "z"], p=[0.98, 0.01, 0.01], size=500).tolist(),
        "t": [f"text {i}" for i in range(499)] + ["the longest text of them all"],
    }
    data["a"][77] = np.nan
    contract, columns = ready(data)
    rows = pick_rows(contract, columns)
    assert len(rows) == module.ROWS
    assert list(rows) == sorted(set(rows.tolist()))
    assert {77, 499, int(np.nanargmin(data["a"])), int(np.nanargmax(data["a"]))} <= set(rows.tolist())
    assert {data["c"][row] for row in rows} == {"x", "y", "z"}
    np.testing.assert_array_equal(rows, pick_rows(contract, columns))


def test_few_rows_infinities_and_images() -> None:
    contract, columns = ready({"a": [1.0, np.inf, 2.0]})
    assert pick_rows(contract, columns).tolist() == [0, 2]
    only, hopeless = ready({"a": [np.inf, np.inf]})
    assert len(pick_rows(only, hopeless)) == 2
    large, images = ready({"x": np.zeros((20, 300, 200), dtype=np.float32)})
    assert len(pick_rows(large, images)) == 3
    wide, matrix = ready(np.zeros((40, 3000)))
    assert len(pick_rows(wide, matrix)) == 16


def test_answers_are_given_to_what_the_wire_carries() -> None:
    contract, columns = ready(
        {
            "i": [1, None],
            "b": [True, None],
            "s": ["x", None],
            "t": [datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC), None],
            "v": np.array([[1.5, np.nan], [2.0, 3.0]], dtype=np.float32),
        }
    )
    engine = Fixed({"score": np.array([np.nan, np.inf]), "label": np.array(["a", "b"], dtype=object)})
    golden = make_golden(engine, contract, columns)
    assert golden.inputs == {
        "i": [1, None],
        "b": [True, None],
        "s": ["x", None],
        "t": ["2024-01-02T03:04:05.000678Z", None],
        "v": [[1.5, None], [2.0, 3.0]],
    }
    assert golden.outputs == {"score": ["NaN", "Infinity"], "label": ["a", "b"]}
    assert engine.seen is not None
    for name in columns:
        np.testing.assert_array_equal(engine.seen[name], columns[name])
    again = msgspec.json.decode(msgspec.json.encode(golden), type=GoldenRows)
    check_golden(engine, contract, again)


def test_infinities_that_cannot_be_avoided_become_limits() -> None:
    field = Field(name="a", dtype=DType.float64, minimum=-2.0, maximum=7.0)
    assert wire_values(field, np.array([np.inf, -np.inf, 1.0])) == [7.0, -2.0, 1.0]


CONTRACT = Contract(inputs=(Field(name="a", dtype=DType.float64),), outputs=())
GOLDEN = GoldenRows(
    inputs={"a": [1.0, 2.0]},
    outputs={"label": ["no", "yes"], "probabilities": [[0.9, 0.1], [0.2, 0.8]], "count": [1, 2]},
)
RIGHT: Outputs = {
    "label": np.array(["no", "yes"], dtype=object),
    "probabilities": np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32),
    "count": np.array([1, 2]),
}


def test_the_same_answers_pass() -> None:
    check_golden(Fixed(RIGHT), CONTRACT, GOLDEN)
    whole = GoldenRows(inputs={"a": [1.0]}, outputs={"p": [1]})
    check_golden(Fixed({"p": np.array([1.0])}), CONTRACT, whole)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"label": np.array(["no", "no"], dtype=object)},
            "golden row 1, output 'label': expected 'yes', got 'no'",
        ),
        (
            {"probabilities": np.array([[0.9, 0.1], [0.2, 0.801]])},
            r"row 1, output 'probabilities': expected \[0.2, 0.8\]",
        ),
        ({"probabilities": np.array([[np.nan, 0.1], [0.2, 0.8]])}, "row 0"),
        ({"probabilities": np.array([0.9, 0.2])}, "row 0"),
        ({"count": np.array([1.0, 2.0, 3.0])}, "has 3 rows for 2 golden rows"),
        ({"count": np.array([1, 3])}, "row 1, output 'count'"),
        ({"count": np.array([True, False])}, "row 0, output 'count'"),
    ],
)
def test_other_answers_are_named(change: Outputs, told: str) -> None:
    with pytest.raises(GoldenMismatch, match=told):
        check_golden(Fixed(RIGHT | change), CONTRACT, GOLDEN)


def test_missing_outputs_and_failures_are_named() -> None:
    with pytest.raises(GoldenMismatch, match="no longer gives the output 'count'"):
        check_golden(Fixed({name: RIGHT[name] for name in ("label", "probabilities")}), CONTRACT, GOLDEN)
    with pytest.raises(GoldenMismatch, match="fails on its golden rows: no memory"):
        check_golden(Fixed(ModelFailed("no memory")), CONTRACT, GOLDEN)
    other = Contract(inputs=(Field(name="b", dtype=DType.float64),), outputs=())
    with pytest.raises(GoldenMismatch, match="does not fit"):
        check_golden(Fixed(RIGHT), other, GOLDEN)


@given(st.lists(st.floats(width=32), min_size=1, max_size=10))
def test_any_answers_agree_with_themselves(values: list[float]) -> None:
    contract, columns = ready({"a": [0.0] * len(values)})
    rows = len(pick_rows(contract, columns))
    engine = Fixed({"p": np.array(values[:rows], dtype=np.float32)})
    golden = make_golden(engine, contract, columns)
    check_golden(engine, contract, msgspec.json.decode(msgspec.json.encode(golden), type=GoldenRows))
