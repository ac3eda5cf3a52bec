"""Predictions behind one another: whatever the calls, the same rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.columns import Array, Columns
from fairway.core.request import Request
from fairway.inference.gathered import Gathered, likely_shape, shape_of
from fairway.inference.predictions import Logged, Predictions

ABOUT = Logged(model="m", version=1, digest="d")
NAMES = ("word", "size", "image")


def call(first: int, counts: list[int], **outputs: Array) -> Predictions:
    rows = np.arange(first, first + sum(counts))
    arrays = [
        np.array([f"w{i}" for i in rows], object),
        rows.astype(np.float32),
        np.repeat(rows, 4).reshape(-1, 2, 2).astype(np.uint8),
    ]
    return Predictions(
        about=ABOUT,
        requests=[Request(model="m", inputs={}, request_id=f"r{first}-{i}") for i in range(len(counts))],
        counts=counts,
        time=float(first),
        seconds=[0.5] * len(counts),
        columns=Columns(NAMES, len(rows), arrays=arrays),
        outputs=outputs or {"y": rows, "text": np.array([f"t{i}" for i in rows])},
    )


@given(
    st.lists(
        st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4), max_size=5
    )
)
def test_rows_are_in_order_whatever_comes_together(added: list[list[list[int]]]) -> None:
    gathered = Gathered(call(0, [1]))
    for _ in range(2):  # and again in the same memory
        total = 0
        for group in added:
            together = []
            for counts in group:
                together.append(call(total, counts))
                total += sum(counts)
            gathered.add(together, "unsafe")
        rows = list(range(total))
        assert gathered.rows == total
        assert gathered.matrix is None
        assert gathered.inputs["word"].tolist() == [f"w{i}" for i in rows]
        assert gathered.inputs["size"].tolist() == rows
        assert gathered.inputs["image"].tolist() == [[[i, i], [i, i]] for i in rows]
        assert gathered.outputs["y"].tolist() == rows
        assert gathered.outputs["text"].tolist() == [f"t{i}" for i in rows]
        calls = [counts for group in added for counts in group]
        assert gathered.counts.tolist() == [count for counts in calls for count in counts]
        assert gathered.calls.tolist() == list(map(len, calls))
        gathered.clear()


@pytest.mark.parametrize(
    "outputs",
    [{"y": np.zeros(2)}, {"y": np.zeros((2, 1), np.int64)}, {"y": np.zeros(3, np.int64)}, {"y": np.zeros(2, np.int64), "z": np.zeros(2)}],
)  # fmt: skip
def test_what_is_of_another_shape_is_refused_and_adds_nothing(outputs: dict[str, Any]) -> None:
    gathered = Gathered(call(0, [2], y=np.zeros(2, np.int64)))
    gathered.add([call(0, [2], y=np.ones(2, np.int64))])
    with pytest.raises((TypeError, ValueError)):
        gathered.add([call(2, [2], y=np.ones(2, np.int64)), call(4, [2], **outputs)])
    assert (gathered.rows, len(gathered.counts), len(gathered.calls)) == (2, 1, 1)
    assert gathered.outputs["y"].tolist() == [1, 1]
    gathered.add([call(2, [1], y=np.full(1, 7))])
    assert gathered.outputs["y"].tolist() == [1, 1, 7]


def test_shapes() -> None:
    one, same = call(0, [1]), call(5, [2, 1])
    assert shape_of(one) == shape_of(same)  # texts of any length
    assert likely_shape(one) == likely_shape(same)
    assert shape_of(one) != shape_of(call(0, [1], y=np.zeros(1), text=np.array(["a"])))
    assert likely_shape(one) != likely_shape(call(0, [1], z=np.zeros(1, np.int64)))
