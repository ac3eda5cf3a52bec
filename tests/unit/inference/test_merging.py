"""Merged calls give what calls alone would have given, to the last bit."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.errors import FairwayError, ModelFailed
from fairway.inference.merging import find_floor, joined, repeated, run_together, shares

RNG = np.random.default_rng(0)


def matrix(values: Array) -> Columns:
    return Columns(tuple(f"f{i}" for i in range(values.shape[1])), len(values), packed=values)


def mixed(texts: Sequence[str | None]) -> Columns:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return Columns(("s", "x"), len(texts), arrays=[array, np.arange(len(texts), dtype=np.float64)])


class Linear:
    """A real ONNX Runtime session of one matrix product, whose one-row kernel rounds differently."""

    def __init__(self, width: int = 30) -> None:
        weights = RNG.normal(size=(width, 2)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node("Gemm", ["x", "w"], ["g"]), helper.make_node("Softmax", ["g"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def predict(self, columns: Columns) -> Outputs:
        (y,) = self._session.run(None, {"x": columns.packed})
        return {"y": y}


def test_onnx_runtime_has_a_floor_and_above_it_any_mix_is_exact() -> None:
    """The reason for the floor: alone, a row may be computed by another kernel than among others."""
    engine = Linear()
    rows = RNG.normal(size=(200, 30)).astype(np.float32)
    floor = find_floor(engine.predict, matrix(rows[:16]), budget_seconds=60.0)
    assert floor.rows in (1, 2, 4)
    assert {rows for rows, _ in floor.seconds} >= {2, 3, 5, 16, 64}
    alone = [engine.predict(repeated(matrix(rows[i : i + 1]), floor.rows))["y"][0] for i in range(200)]
    for size in (floor.rows, 6, 17, 99, 200):
        together = engine.predict(matrix(rows[:size]))["y"]
        assert together.tobytes() == np.stack(alone[:size]).tobytes()


class Batchwise:
    """Looks at its whole batch, as no model should."""

    def predict(self, columns: Columns) -> Outputs:
        assert columns.packed is not None
        return {"y": columns.packed.sum(axis=1) - columns.packed.mean()}


class Picky:
    def predict(self, columns: Columns) -> Outputs:
        if columns.rows == 3:
            raise ModelFailed("three is too many")
        return {"y": np.zeros(columns.rows)}


class Short:
    def predict(self, columns: Columns) -> Outputs:
        return {"y": np.zeros(1)}


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (Batchwise(), "depends on the rows"),
        (Picky(), "fails on some numbers of rows"),
        (Short(), "other rows"),
    ],
)
def test_models_that_cannot_be_merged_have_no_floor(engine: Batchwise, reason: str) -> None:
    floor = find_floor(engine.predict, matrix(RNG.normal(size=(8, 3))))
    assert floor.rows is None
    assert reason in floor.reason


def test_a_slow_model_is_tried_on_little_or_not_at_all() -> None:
    calls: list[int] = []

    def predict(columns: Columns) -> Outputs:
        calls.append(columns.rows)
        return {"y": np.zeros(columns.rows)}

    assert find_floor(predict, matrix(np.zeros((16, 2))), budget_seconds=0.0).rows is None
    assert calls == [1]
    assert "too long" in find_floor(predict, matrix(np.zeros((16, 2))), budget_seconds=0.0).reason


def test_text_columns_are_compared_by_value() -> None:
    def upper(columns: Columns) -> Outputs:
        return {"y": np.array([text and text.upper() for text in columns["s"]], dtype=object)}

    assert find_floor(upper, mixed(["a", None, "c"])).rows == 1


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.booleans())
def test_law_joining_and_sharing_give_each_their_own_rows(counts: list[int], packed: bool) -> None:
    start, parts = 0, []
    for count in counts:
        values = np.arange(start, start + count, dtype=np.float64)
        parts.append(
            matrix(np.stack([values, -values], axis=1)) if packed else mixed([str(v) for v in values])
        )
        start += count
    whole = joined(parts)
    assert whole.rows == sum(counts)
    outputs = {"a": np.arange(float(start)), "b": np.arange(2.0 * start).reshape(start, 2)}
    begin = 0
    for part, share in zip(parts, shares(outputs, counts), strict=True):
        assert not isinstance(share, FairwayError)
        name = part.names[0]
        assert whole[name][begin : begin + part.rows].tolist() == part[name].tolist()
        assert share["a"].tolist() == outputs["a"][begin : begin + part.rows].tolist()
        assert share["b"].shape == (part.rows, 2)
        begin += part.rows


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=10))
def test_law_one_bad_part_is_its_own(parts: list[tuple[int, bool]]) -> None:
    """A model that fails on any batch with a bad row in it: every good part is answered all the same."""

    def predict(columns: Columns) -> Outputs:
        assert columns.packed is not None
        if (columns.packed < 0).any():
            raise ModelFailed("a bad row")
        return {"y": columns.packed[:, 0] * 2}

    columns = [matrix(np.full((rows, 2), -1.0 if bad else float(i))) for i, (rows, bad) in enumerate(parts)]
    for i, ((rows, bad), answer) in enumerate(zip(parts, run_together(predict, columns), strict=True)):
        if bad:
            assert isinstance(answer, ModelFailed)
        else:
            assert not isinstance(answer, FairwayError)
            assert answer["y"].tolist() == [2.0 * i] * rows


def test_rows_that_get_lost_in_a_merged_call_are_run_alone() -> None:
    """MLServer#903, #1306, #1911: the first caller got all answers, others none."""
    calls: list[int] = []

    def first_only(columns: Columns) -> Outputs:
        calls.append(columns.rows)
        assert columns.packed is not None
        return {"y": columns.packed[:1, 0]}

    answers = run_together(first_only, [matrix(np.full((1, 2), float(i))) for i in range(3)])
    assert [answer["y"].tolist() for answer in answers if isinstance(answer, dict)] == [[0.0], [1.0], [2.0]]
    assert calls == [3, 1, 1, 1]
    (lost,) = run_together(first_only, [matrix(np.zeros((2, 2)))])
    assert isinstance(lost, ModelFailed)


def test_filling_up() -> None:
    few = matrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert repeated(few, 2) is few
    filled = repeated(few, 4).packed
    assert filled is not None
    assert filled.tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
    assert repeated(mixed(["a"]), 3)["s"].tolist() == ["a", "a", "a"]
