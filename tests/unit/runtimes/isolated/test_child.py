"""The program of the child: arrays laid out in shared memory come back as they were; nothing else is read."""

from __future__ import annotations

import ast
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.core.columns import Columns
from fairway.runtimes import estimator, python
from fairway.runtimes.isolated import child
from fairway.runtimes.isolated.channel import Tail, open_shared

NUMBERS = st.sampled_from(
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        "datetime64[us]",
        ">f8",
    ]
)
ARRAYS = NUMBERS.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=3, min_side=0, max_side=5))
)
TEXTS = hnp.array_shapes(max_dims=2, min_side=0, max_side=6).flatmap(
    lambda shape: hnp.arrays(
        object, shape, elements=st.none() | st.text(st.characters(), max_size=8), fill=st.nothing()
    )
)


def carried(arrays: dict[str, Any]) -> dict[str, Any]:
    descriptions, blocks, size = child.lay_out(arrays)
    memory = mmap.mmap(-1, max(size, 1))
    child.write(blocks, memory)
    return child.read(descriptions, memory)


@given(st.dictionaries(st.text(max_size=4), ARRAYS | TEXTS, max_size=4))
def test_arrays_come_back_bit_for_bit(arrays: dict[str, Any]) -> None:
    back = carried(arrays)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].shape == array.shape
        if array.dtype == object:
            assert back[name].tolist() == array.tolist()
        else:
            assert back[name].dtype == array.dtype.newbyteorder("=")
            assert back[name].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_lone_surrogates_and_views() -> None:
    matrix = np.arange(12.0).reshape(4, 3)
    back = carried(
        {"view": matrix[::2, 1], "odd": np.array(["\ud800", ""], dtype=object), "wide": np.array(["a", "bc"])}
    )
    assert back["view"].tolist() == [1.0, 7.0]
    assert back["odd"].tolist() == ["\ud800", ""]
    assert back["wide"].tolist() == ["a", "bc"]


@pytest.mark.parametrize(
    "array",
    [np.array([1j]), np.array([b"x"]), np.array([{}], dtype=object), np.array([1.5, "a"], dtype=object)],
)
def test_what_cannot_be_carried_is_named(array: Any) -> None:
    with pytest.raises(child.NotAnAnswer, match="'x' holds"):
        child.lay_out({"x": array})


@pytest.mark.parametrize(
    "described",
    [
        ["x", "<f8", [10**9], 0],
        ["x", "<f8", [2], -8],
        ["x", "<f8", [-2], 0],
        ["x", "|O", [1], 0],
        ["x", "<f8", ["2"], 0],
        ["x", "<f8", [2]],
        ["x", "text", [2], 0, 0, 0, 10**9],
        ["x", "text", [3], 0, 0, 0, 4],
        [7, "<f8", [1], 0],
        None,
    ],
)
def test_descriptions_of_what_is_not_there_are_refused(described: Any) -> None:
    memory = mmap.mmap(-1, 64)
    memory[:] = bytes(range(64))
    with pytest.raises((ValueError, TypeError)):
        child.read([described], memory)


def test_shared_memory_grows_to_its_limit() -> None:
    shared = open_shared(1 << 20)
    assert len(shared.memory) == child.LEAST_BYTES
    shared.grow(100_000)
    assert len(shared.memory) == 131_072
    other = child.Shared(shared.descriptor, 1 << 20)
    other.grow(1 << 20)
    other.memory[1 << 19] = 7
    shared.map()
    assert shared.memory[1 << 19] == 7
    with pytest.raises(child.BufferFull):
        shared.grow((1 << 20) + 1)
    other.memory.close()
    shared.close()


def test_the_program_is_one_file_for_old_pythons() -> None:
    tree = ast.parse(Path(child.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imported if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith("fairway")]


FRAME = {
    "n": (np.array([1.0, np.nan]), "float64"),
    "i": (np.array([1.0, np.nan]), "Int64"),
    "t": (np.array(["a", None], dtype=object), "object"),
    "u": (np.array(["a", None], dtype=object), "object-none"),
    "s": (np.array(["a", None], dtype=object), "string"),
    "p": (np.array(["a", None], dtype=object), "str"),
    "c": (np.array(["x", "z"], dtype=object), 'category:["x", "y"]'),
    "k": (np.array([2.0, np.nan]), "category:[1, 2]"),
    "d": (np.array(["2024-01-01", "NaT"], dtype="datetime64[us]"), "datetime64[ns]"),
    "z": (np.array(["2024-01-01", "NaT"], dtype="datetime64[us]"), "datetime64[ns, UTC]"),
}


@pytest.mark.parametrize("name", FRAME)
def test_frames_are_those_of_the_in_process_engine(name: str) -> None:
    values, dtype = FRAME[name]
    if dtype == "str" and int(pd.__version__.split(".")[0]) < 3:
        assert child.to_frame({name: values}, {name: dtype})[name].isna().tolist() == [False, True]
        return
    expected = estimator.to_frame(Columns((name,), 2, arrays=[values]), [name], {name: dtype})
    pd.testing.assert_frame_equal(child.to_frame({name: values.copy()}, {name: dtype}), expected)


@pytest.mark.parametrize(
    "answer",
    [
        [1.0, 2.0],
        {"a": [1, 2], "b": ["x", "y"]},
        pd.DataFrame({"a": [1, 2], "b": [0.5, None]}),
        pd.Series([True, False]),
        np.array([1, 2], dtype=object),
    ],
)
def test_answers_are_named_as_by_the_in_process_engine(answer: Any) -> None:
    expected = python.named_outputs(answer)
    given = carried(child.named_outputs(answer))
    assert list(given) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(given[name], values)


def test_a_dict_is_asked_for_by_annotation() -> None:
    def plain(rows): ...  # type: ignore[no-untyped-def]
    def bare(rows: dict): ...  # type: ignore[no-untyped-def, type-arg]
    def typed(rows: dict[str, Any]): ...  # type: ignore[no-untyped-def]
    def mapping(rows: Mapping[str, Any]): ...  # type: ignore[no-untyped-def]

    for function in (plain, bare, typed, mapping):
        assert child.takes_dict(function) == python.takes_dict(function), function


def test_the_tail_keeps_the_end_and_logs_a_bounded_share() -> None:
    tail = Tail(per_minute=3)
    assert tail.lines(b"one\ntwo\nthr", 0.0) == ["one", "two"]
    assert tail.lines(b"ee\nfour\nfive\n", 1.0) == ["three"]
    assert tail.words() == "one\ntwo\nthree\nfour\nfive"
    assert tail.lines(b"six\n", 61.0) == ["(2 more lines were left out)", "six"]
    tail.lines(b"x" * 1_000_000, 62.0)
    tail.lines(b"\x00\xff\x1b[31mred\n", 63.0)
    assert len(tail.words()) < Tail.LINE_CHARACTERS * Tail.KEPT_LINES
    assert tail.words().endswith("\ufffd [31mred")
