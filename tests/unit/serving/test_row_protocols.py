"""The law of the row protocols: the same rows in any of their forms are the same columns, and come back bit for bit."""

import csv
import io
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.contract import Action, DType, Field, Rules
from fairway.serving.json_rows import read_body
from tests.planes import plane
from tests.unit.serving.codecs import Asked
from tests.unit.serving.models import echo

GAPS = Rules(on_null=Action.warn, on_infinite=Action.warn)
Rows = list[list[Any]]


def _values(dtype: DType) -> st.SearchStrategy[Any]:
    if dtype is DType.float32:
        return st.floats(width=32, allow_nan=False, allow_infinity=False)
    if dtype is DType.float64:
        return st.floats(allow_nan=False, allow_infinity=False)
    if dtype is DType.bool:
        return st.booleans()
    if dtype is DType.string:
        return st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
    limits = np.iinfo(dtype.value)
    edge = 2**53 - 1  # a nullable integer and a matrix hold no more exactly
    return st.integers(max(limits.min, -edge), min(limits.max, edge))


KINDS = [DType.float32, DType.float64, DType.int8, DType.int64, DType.uint32, DType.bool, DType.string]


@st.composite
def tables(draw: st.DrawFn, kinds: list[DType]) -> tuple[tuple[Field, ...], Rows]:
    dtypes = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4))
    nullable = [draw(st.booleans()) for _ in dtypes]
    fields = tuple(
        Field(name=f"f{i}", dtype=dtype, nullable=gaps, rules=GAPS if gaps else Rules())
        for i, (dtype, gaps) in enumerate(zip(dtypes, nullable, strict=True))
    )
    cells = [
        st.none() | _values(dtype) if gaps else _values(dtype)
        for dtype, gaps in zip(dtypes, nullable, strict=True)
    ]
    rows = draw(st.lists(st.tuples(*cells).map(list), min_size=1, max_size=4))
    return fields, rows * draw(st.sampled_from([1, 1, 40]))  # large bodies are read another way


def bits(value: Any) -> Any:
    """A value that is equal only to itself: -0.0 is not 0.0, and the NaN that a null is is None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return struct.pack("d", value) if isinstance(value, int | float) else value


def by_row(answer: Any, names: list[str]) -> list[list[Any]]:
    """Predictions or outputs as rows."""
    if isinstance(answer, dict):
        return [[bits(value) for value in row] for row in zip(*(answer[name] for name in names), strict=True)]
    return [[bits(row[name]) for name in names] if isinstance(row, dict) else [bits(row)] for row in answer]


@settings(deadline=None, max_examples=30)
@given(tables(KINDS))
def test_rows_come_back_whatever_form_they_came_in(drawn: tuple[tuple[Field, ...], Rows]) -> None:
    fields, rows = drawn
    names = [field.name for field in fields]
    ask = Asked(plane(echo(fields)))
    expected = [[bits(value) for value in row] for row in rows]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    bodies: list[tuple[str, Any]] = [
        ("/v1/models/echo:predict", {"instances": records}),
        ("/v1/models/echo:predict", {"instances": rows}),
        ("/v1/models/echo:predict", {"inputs": columns}),
        ("/invocations", {"dataframe_records": records}),
        ("/invocations", {"dataframe_split": {"columns": names, "data": rows}}),
        ("/invocations", {"dataframe_split": {"columns": names[::-1], "data": [row[::-1] for row in rows]}}),
        ("/invocations", {"instances": records}),
        ("/invocations", {"instances": rows}),
        ("/invocations", {"inputs": columns}),
    ]
    for path, body in bodies:
        status, told = ask.json(path, body)
        assert status == 200, (path, body, told)
        assert by_row(told.get("predictions", told.get("outputs")), names) == expected, (path, body)


@settings(deadline=None, max_examples=30)
@given(tables([kind for kind in KINDS if kind is not DType.string]))
def test_numbers_come_back_from_csv(drawn: tuple[tuple[Field, ...], Rows]) -> None:
    fields, rows = drawn
    names = [field.name for field in fields]
    ask = Asked(plane(echo(fields)))
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    empty = len(fields) == 1 and any(row == [None] for row in rows)  # an empty line is no row
    expected = [[bits(value) for value in row] for row in rows]
    for header, option in ((f"{','.join(names)}\n", ""), ("", "; header=absent")):
        if empty:
            continue
        told = ask.json("/invocations", (header + file.getvalue()).encode(), content_type=f"text/csv{option}")
        assert told[0] == 200
        assert by_row(told[1]["predictions"], names) == expected


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 3), st.data(), st.sampled_from([1, 60]))
def test_tensors_come_back(depth: int, width: int, data: st.DataObject, times: int) -> None:
    shape = tuple([width] * depth)
    value: st.SearchStrategy[Any] = FLOATS
    for _ in shape:
        value = st.lists(value, min_size=width, max_size=width)
    rows = data.draw(st.lists(value, min_size=1, max_size=2)) * times
    ask = Asked(plane(echo((Field(name="t", dtype=DType.float64, shape=shape),))))
    for body in (
        {"instances": rows},
        {"instances": [{"t": row} for row in rows]},
        {"inputs": rows},
        {"inputs": {"t": rows}},
    ):
        for path in ("/v1/models/echo:predict", "/invocations"):
            status, told = ask.json(path, body)
            answer = told.get("predictions", told.get("outputs"))
            assert (status, np.array(answer).tobytes()) == (200, np.array(rows, dtype=float).tobytes())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "b64", "data"]), inner)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "instances",
        "inputs",
        "dataframe_split",
        "dataframe_records",
        "examples",
        "context",
        "signature_name",
        "params",
    ]
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(KEYS, JSON, max_size=2) | JSON)
def test_no_body_is_a_fault_of_the_server(body: Any) -> None:
    ask = Asked()
    for path in ("/v1/models/m:predict", "/v1/models/m:classify", "/v1/models/m:regress", "/invocations"):
        assert ask(path, body)[0] in (200, 400), (path, body)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_no_bytes_are_a_fault_of_the_server(body: bytes) -> None:
    ask = Asked()
    for kind in ("application/json", "text/csv", "application/jsonlines", "application/x-npy"):
        assert ask("/invocations", body, content_type=kind)[0] in (200, 400)
    assert ask("/v1/models/m:predict", body)[0] in (200, 400)


@settings(deadline=None, max_examples=60)
@given(JSON, st.booleans())
def test_bodies_are_read_as_python_would(value: Any, large: bool) -> None:
    """Numbers may come as arrays; the values are the same."""
    rows = [value] * (500 if large else 1)
    text = json.dumps({"rows": rows, "other": 1})
    read = read_body(text.encode(), ("rows",))
    found = read["rows"]
    if isinstance(found, np.ndarray):
        assert np.array_equal(found, np.array(rows, dtype=float), equal_nan=True)
    else:
        assert json.dumps(found) == json.dumps(rows)


@pytest.mark.parametrize(
    "rows",
    [
        "[1,[2]]",
        "[[1,2],[3,[4]]]",
        "[[1,2],[3,4,5],[6]]",
        "[[1],2]",
        "[[[1],[2]],[[3,4]]]",
        "[[],[]]",
        "[true]",
    ],
)
def test_what_is_not_rectangular_numbers_stays_lists(rows: str) -> None:
    for padding in ("", " " * 4000):
        read = read_body(f'{{"rows": {rows}{padding}}}'.encode(), ("rows",))
        assert read["rows"] == json.loads(rows)
