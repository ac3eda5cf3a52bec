"""Entries come back to the bit; a row's hash says whether its features are the same."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.errors import AnswersUnavailable, InvalidInput
from fairway.inference.entries import (
    decode_entry,
    encode_rows,
    features_of,
    key_bytes,
    keys_of,
    layout_of,
    read_head,
)

NO_FEATURES = bytes(16)


def objects(values: list[Any], shape: tuple[int, ...] = ()) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape((-1, *shape))


def same(left: Array, right: Array) -> bool:
    """To the bit; in objects also the types."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind == "O":
        pairs = zip(left.ravel().tolist(), right.ravel().tolist(), strict=True)
        return all(type(a) is type(b) and (a == b or str(a) == str(b) == "nan") for a, b in pairs)
    return left.tobytes() == right.tobytes()


FIXED = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="<"),
    hnp.unsigned_integer_dtypes(endianness="<"),
    hnp.floating_dtypes(endianness="<", sizes=(16, 32, 64)),
    st.just(np.dtype("datetime64[us]")),
)
TEXT = st.one_of(
    st.none(), st.text(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(max_size=9)
)


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Outputs, int]:
    rows = draw(st.integers(1, 4))
    made: Outputs = {}
    for name in draw(st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True)):
        shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=3) | st.just(()))
        if draw(st.booleans()):
            made[name] = draw(hnp.arrays(draw(FIXED), (rows, *shape)))
        else:
            size = rows * int(np.prod(shape, dtype=int))
            made[name] = objects(draw(st.lists(TEXT, min_size=size, max_size=size)), shape)
    return made, rows


@given(made=outputs(), computed=st.floats(allow_nan=False), own_layout=st.booleans())
def test_every_row_comes_back_to_the_bit(
    made: tuple[Outputs, int], computed: float, own_layout: bool
) -> None:
    answers, rows = made
    layout = b"\x90" if own_layout else layout_of(answers)
    features = [bytes([row]) * 16 for row in range(rows)]
    entries = encode_rows(answers, features, computed, layout)
    assert len(entries) == rows
    for row, content in enumerate(entries):
        entry = decode_entry(content, layout)
        assert (entry.computed, entry.features) == (computed, features[row])
        assert read_head(content) == (computed, features[row])
        assert list(entry.outputs) == list(answers)
        for name, values in answers.items():
            assert same(entry.outputs[name], values[row : row + 1]), name


def test_nan_payloads_nulls_and_times_survive() -> None:
    answers = {
        "score": np.array([0x7FF8000000000123, 0x8000000000000000], np.uint64).view(np.float64),
        "at": np.array(["NaT", "2024-02-29T12:00:00.000001"], "datetime64[us]"),
        "label": objects([None, "ä\0b"]),
    }
    layout = layout_of(answers)
    for row, content in enumerate(encode_rows(answers, [NO_FEATURES] * 2, 1.5, layout)):
        for name, values in answers.items():
            assert same(decode_entry(content, layout).outputs[name], values[row : row + 1])


def test_an_entry_is_small() -> None:
    answers = {"label": objects(["yes"]), "probabilities": np.zeros((1, 2), np.float32)}
    (content,) = encode_rows(answers, [NO_FEATURES], 1.0, layout_of(answers))
    assert len(content) == 25 + 8 + 5


def test_fixed_width_text_is_text() -> None:
    answers = {"label": np.array(["a", "bcd"])}
    layout = layout_of(answers)
    found = [
        decode_entry(c, layout).outputs["label"] for c in encode_rows(answers, [NO_FEATURES] * 2, 0, layout)
    ]
    assert [values.tolist() for values in found] == [["a"], ["bcd"]]


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800", {1}, np.datetime64("2020")])
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    answers = {"label": objects([value])}
    with pytest.raises(InvalidInput, match="cannot be stored"):
        encode_rows(answers, [NO_FEATURES], 0, layout_of(answers))


def test_a_damaged_entry_is_told() -> None:
    answers = {"label": objects(["yes"]), "score": np.zeros(1)}
    layout = layout_of(answers)
    (whole,) = encode_rows(answers, [NO_FEATURES], 0, layout)
    (own,) = encode_rows(answers, [NO_FEATURES], 0, b"")
    (numbers,) = encode_rows({"score": np.zeros(1)}, [NO_FEATURES], 0, layout_of({"score": np.zeros(1)}))
    for damaged in [b"", whole[:10], whole[:26], whole[:-1], own[:28], b"\x07" + whole[1:]]:
        with pytest.raises(AnswersUnavailable):
            decode_entry(damaged, layout)
    with pytest.raises(AnswersUnavailable, match="longer"):
        decode_entry(numbers + b"x", layout_of({"score": np.zeros(1)}))


def matrix(*rows: list[float], dtype: str = "float64") -> Columns:
    packed = np.array(rows, dtype=dtype)
    return Columns(tuple(f"f{i}" for i in range(packed.shape[1])), len(packed), packed=packed)


def mixed(numbers: list[float], texts: list[str | None]) -> Columns:
    arrays = [np.array(numbers), objects(texts), np.arange(len(numbers) * 2.0).reshape(-1, 2) * 0]
    return Columns(("n", "t", "v"), len(numbers), arrays=arrays)


VALUES = st.floats(allow_nan=True)


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_hash_depends_on_the_row_alone(rows: list[list[float]]) -> None:
    together = features_of(matrix(*rows))
    assert together == [features_of(matrix(row))[0] for row in rows]
    assert together == [features_of(matrix(*rows).take(np.array([i])))[0] for i in range(len(rows))]


@given(st.lists(st.tuples(VALUES, st.none() | st.text()), min_size=1, max_size=5))
def test_a_hash_of_mixed_columns_depends_on_the_row_alone(rows: list[tuple[float, str | None]]) -> None:
    together = features_of(mixed([n for n, _ in rows], [t for _, t in rows]))
    assert together == [features_of(mixed([n], [t]))[0] for n, t in rows]


@given(VALUES, VALUES)
def test_hashes_agree_when_the_bits_do(left: float, right: float) -> None:
    alike = np.float64(left).tobytes() == np.float64(right).tobytes() or str(left) == str(right) == "nan"
    assert (features_of(matrix([left])) == features_of(matrix([right]))) == alike


def test_every_nan_is_the_same_null() -> None:
    other = np.array([0xFFF8000000000001], np.uint64).view(np.float64)
    assert features_of(matrix([float(other[0]), 1.0])) == features_of(matrix([np.nan, 1.0]))


def test_text_does_not_run_into_its_neighbour() -> None:
    def pair(left: str | None, right: str | None) -> Columns:
        return Columns(("a", "b"), 1, arrays=[objects([left]), objects([right])])

    seen = [
        features_of(pair(*texts))[0]
        for texts in [("ab", "c"), ("a", "bc"), (None, "abc"), ("", None), (None, "")]
    ]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("42", b"42"),
        (42, b"42"),
        (np.int64(42), b"42"),
        (42.0, b"42"),
        (-1, b"-1"),
        ("é", "é".encode()),
        (2**70, str(2**70).encode()),
    ],
)
def test_a_key_is_text_or_a_whole_number(value: Any, key: bytes) -> None:
    assert key_bytes(value) == key


@pytest.mark.parametrize(
    "value", [None, "", True, 1.5, float("nan"), float("inf"), b"x", [1], "x" * 481, "\ud800"]
)
def test_anything_else_is_no_key(value: Any) -> None:
    with pytest.raises(InvalidInput, match="key"):
        key_bytes(value)


@pytest.mark.parametrize(
    ("value", "keys"),
    [("a", [b"a"]), (7, [b"7"]), (["a", 7], [b"a", b"7"]), (np.array([[1], [2]]), [b"1", b"2"]), ([], [])],
)
def test_a_request_gives_one_key_or_one_a_row(value: Any, keys: list[bytes]) -> None:
    assert keys_of(value) == keys


def test_a_key_that_is_none_is_named_with_its_row() -> None:
    with pytest.raises(InvalidInput, match="row 1") as caught:
        keys_of(["a", None])
    assert caught.value.problems[0].row == 1
