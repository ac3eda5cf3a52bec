"""Rows in the forms people send them; what is accepted is what pandas would have read."""

import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.contract import Action as A
from fairway.core.contract import Contract, DType, Field, Rules
from fairway.core.errors import ContractViolation, FairwayError, InvalidInput, MalformedInput
from fairway.inference.rows import (
    NULL_TEXTS,
    SplitFrame,
    from_cells,
    from_csv,
    from_instances,
    from_records,
    from_split,
)
from fairway.inference.validate import Validator

LET_THROUGH = Rules(on_null=A.warn, on_infinite=A.warn)


def field(name: str, dtype: DType) -> Field:
    return Field(name=name, dtype=dtype, nullable=True, rules=LET_THROUGH)


WIDE = Contract(
    inputs=(
        field("number", DType.float64),
        field("count", DType.int64),
        field("text", DType.string),
        field("flag", DType.bool),
        field("time", DType.timestamp),
    ),
    outputs=(),
)
ONE = Contract(inputs=(Field(name="x", dtype=DType.float64),), outputs=())
TWO = Contract(inputs=(Field(name="a", dtype=DType.float64), Field(name="b", dtype=DType.string)), outputs=())


def columns(inputs: Any, contract: Contract) -> dict[str, list[Any]]:
    read = Validator(contract).check(inputs, lambda *told: None)
    return {name: values.tolist() for name, values in read.items()}


# CSV


FRAMES = st.lists(
    st.fixed_dictionaries(
        {
            "number": st.none() | st.floats(allow_nan=False),
            "count": st.none() | st.integers(-(2**53), 2**53),
            "text": st.none()
            | st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1).filter(
                lambda t: t not in NULL_TEXTS
            ),
            "flag": st.none() | st.booleans(),
            "time": st.none()
            | st.datetimes(
                min_value=pd.Timestamp("1700-01-01").to_pydatetime(),
                max_value=pd.Timestamp("2200-01-01").to_pydatetime(),
            ),
        }
    ),
    min_size=1,
    max_size=8,
)


@given(rows=FRAMES)
def test_a_frame_written_by_pandas_reads_as_pandas_reads_it(rows: list[dict[str, Any]]) -> None:
    types = {
        "number": "float64",
        "count": "Int64",
        "text": "object",
        "flag": "boolean",
        "time": "datetime64[us]",
    }
    frame = pd.DataFrame(
        {name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in types.items()}
    )
    text = frame.to_csv(index=False, lineterminator="\n")
    dtypes = {"number": "float64", "count": "Int64", "text": "object", "flag": "boolean"}
    again = pd.read_csv(io.StringIO(text), dtype=dtypes, parse_dates=["time"])
    read = columns(from_csv(text.encode(), WIDE), WIDE)
    for name in ("number", "count", "flag"):
        np.testing.assert_allclose(read[name], again[name].to_numpy(dtype=float, na_value=np.nan), rtol=1e-15)
    assert read["text"] == [None if pd.isna(v) else v for v in again["text"]]
    assert [None if pd.isna(v) else pd.Timestamp(v) for v in read["time"]] == [
        None if pd.isna(v) else v for v in pd.to_datetime(again["time"])
    ]


NUMERIC_CELLS = st.sampled_from(
    [
        " 1",
        "1 ",
        "+1",
        "-0",
        "1.",
        ".5",
        "1e3",
        "1E-3",
        "inf",
        "-inf",
        "Infinity",
        "nan",
        "NA",
        "",
        "null",
        "1e999",
        "0x10",
        "1_000",
        "1,0",
        "a",
        "١",
        "--1",
        "1e",
        "True",
        "1d",
        "1f",
    ]
)


@given(cells=st.lists(NUMERIC_CELLS | st.text("0123456789.eE+- ", max_size=6), min_size=1, max_size=6))
def test_number_cells_are_what_pandas_reads_or_refused(cells: list[str]) -> None:
    text = pd.DataFrame({"x": cells, "other": "1"}).to_csv(index=False, lineterminator="\n")
    only = Contract(inputs=(field("x", DType.float64),), outputs=())
    try:
        read = columns(from_csv(text.encode(), only), only)["x"]
    except InvalidInput:
        return
    expected = pd.read_csv(io.StringIO(text), dtype={"x": "float64"})["x"]
    np.testing.assert_allclose(read, expected, rtol=1e-15)  # older pandas are a last digit off


@pytest.mark.parametrize("null", sorted(NULL_TEXTS))
def test_the_nulls_of_pandas_are_nulls(null: str) -> None:
    assert pd.read_csv(io.StringIO(f"a,b\n{null},1\n"))["a"].isna().all()
    assert from_csv(f"a,b\n{null},x\n".encode(), TWO)["a"] == [None]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"a,b\n\xff,1\n", "not UTF-8: byte 4 is 0xff"),
        (b"a,a\n1,2\n", "repeat: a"),
        (b"a;b\n1;x\n", "one column, whose name holds .;.. Separate columns by commas"),
        (b"a,b\n1\n2,3\n", "1 rows do not have 2 values"),
        (b'a,b\n"1,2\n', "cannot be read"),
        (b"a,b\n1,x\n" + b"1," + b"y" * 200_000 + b"\n", "cannot be read"),
    ],
)
def test_what_is_not_csv(body: bytes, why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        from_csv(body, TWO)


def test_ragged_rows_are_named() -> None:
    with pytest.raises(MalformedInput) as refused:
        from_csv(b"a,b\n1,x\n2\n3,y,z\n", TWO)
    assert [(p.row, p.reason) for p in refused.value.problems] == [
        (1, "has 1 values, expected 2"),
        (2, "has 3 values, expected 2"),
    ]


def test_a_byte_order_mark_blank_lines_and_quotes() -> None:
    assert from_csv('\ufeffa,b\r\n\r\n1,"x,""y""\nz"\r\n'.encode(), TWO) == {"a": [1.0], "b": ['x,"y"\nz']}


def test_cells_that_do_not_fit_stay_text_for_validation_to_name() -> None:
    wanted = Contract(inputs=(field("count", DType.int64), field("flag", DType.bool)), outputs=())
    read = from_cells(
        {"count": ["1", "1.0", "1.5", "x", "9" * 5000], "flag": ["true", "0", "yes", "TRUE", " 1 "]}, wanted
    )
    assert read["count"][:4] == [1, 1.0, 1.5, "x"]
    assert math.isinf(read["count"][4])  # type: ignore[arg-type]
    assert read["flag"] == [True, False, "yes", True, True]
    with pytest.raises(ContractViolation) as refused:
        columns(read, wanted)
    assert [(p.field, p.row) for p in refused.value.problems] == [
        ("count", 2),
        ("count", 3),
        ("count", 4),
        ("flag", 2),
    ]


@given(st.binary(max_size=60) | st.text(',"\n\rab1 \x00', max_size=40).map(str.encode))
def test_any_bytes_are_csv_or_refused(body: bytes) -> None:
    try:
        columns(from_csv(body, TWO), TWO)
    except FairwayError:
        pass


# JSON rows


@given(
    rows=st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)),
        min_size=1,
        max_size=6,
    )
)
def test_every_form_of_the_same_rows_reads_alike(rows: list[tuple[float, str]]) -> None:
    frame = pd.DataFrame(rows, columns=["a", "b"]).astype({"b": object})
    records = [{"a": a, "b": b} for a, b in rows]
    assert frame.to_dict(orient="records") == records
    forms = [
        from_records(records, TWO),
        from_split(SplitFrame(columns=["b", "a"], data=[[b, a] for a, b in rows])),
        from_instances(records, TWO),
        from_instances([list(row) for row in rows], TWO),
    ]
    expected = {"a": frame["a"].tolist(), "b": frame["b"].tolist()}
    for form in forms:
        assert columns(form, TWO) == expected


def test_a_key_that_only_some_records_have_is_missing_not_null() -> None:
    with pytest.raises(ContractViolation) as refused:
        from_records([{"a": 1.0, "b": "x"}, {"b": "x"}, {"a": 1.0, "other": 1}], TWO)
    assert [(p.field, p.row) for p in refused.value.problems] == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    "read", [lambda: from_records([], TWO), lambda: from_instances([], TWO), lambda: from_instances([], ONE)]
)
def test_no_rows(read: Any) -> None:
    with pytest.raises(MalformedInput, match="no rows"):
        read()


def test_split_frames_are_rectangles_with_names() -> None:
    with pytest.raises(MalformedInput, match="repeat"):
        from_split(SplitFrame(columns=["a", "a"], data=[[1, 2]]))
    with pytest.raises(MalformedInput, match="1 rows do not have 2 values"):
        from_split(SplitFrame(columns=["a", "b"], data=[[1, 2], [1]]))
    assert from_split(SplitFrame(columns=["a", "b"], data=[])) == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("instances", "why"),
    [
        ([[1.0, "x"], 5], "all objects by field name, or all lists"),
        ([[1.0, "x"], {"a": 1}], "all objects"),
        ([[1.0]], "do not have 2"),
    ],
)
def test_instances_that_are_neither(instances: list[Any], why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        from_instances(instances, TWO)


def test_one_field_takes_bare_values_or_lists_of_one() -> None:
    assert from_instances([1.0, 2.0], ONE) == {"x": [1.0, 2.0]}
    assert from_instances([[1.0], [2.0]], ONE) == {"x": [1.0, 2.0]}
    tensor = Contract(inputs=(Field(name="x", dtype=DType.float64, shape=(1,)),), outputs=())
    assert from_instances([[1.0], [2.0]], tensor) == {"x": [[1.0], [2.0]]}


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3), max_leaves=12)  # fmt: skip


@given(st.lists(JSON, max_size=4), st.sampled_from([ONE, TWO, WIDE]))
def test_any_instances_are_read_or_refused(instances: list[Any], contract: Contract) -> None:
    assert json.dumps(instances)
    try:
        columns(from_instances(instances, contract), contract)
    except FairwayError:
        pass
