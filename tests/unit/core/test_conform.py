"""Types only: what is accepted is what numpy and pandas would have read, everything else is a problem with its row."""

import json
import sys
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.conform import canonical_dtype, conform, frame_arrays, gather, nulls_of, to_columns
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import ContractViolation
from tests.strategies import fields, json_value

HUGE = sys.maxsize << 20_000  # more digits than Python writes out
INTEGERS = [d for d in DType if d.is_integer]
FLOATS = [d for d in DType if d.is_float]


def field(dtype: str, **options: object) -> Field:
    return Field(name="x", dtype=DType(dtype), **options)  # type: ignore[arg-type]


def contract(*inputs: Field) -> Contract:
    return Contract(inputs=inputs, outputs=())


@pytest.mark.parametrize("dtype", FLOATS)
@given(
    values=st.lists(st.none() | st.floats(width=16, allow_nan=False) | st.integers(-1000, 1000), min_size=1)
)
def test_json_floats_are_what_numpy_reads(dtype: DType, values: list[float | None]) -> None:
    read, problems = conform(Field(name="x", dtype=dtype), values)
    assert problems == []
    expected = np.array(values, dtype=dtype.value)
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("dtype", INTEGERS)
@given(values=st.lists(st.integers(-(2**65), 2**65), min_size=1))
def test_json_integers_are_exact_or_refused(dtype: DType, values: list[int]) -> None:
    limits = np.iinfo(dtype.value)
    wrong = [row for row, value in enumerate(values) if not limits.min <= value <= limits.max]
    read, problems = conform(Field(name="x", dtype=dtype), values)
    assert [problem.row for problem in problems] == wrong
    if not wrong:
        assert read.tolist() == values
        assert read.dtype == dtype.value


@given(data=st.data())
def test_arrays_and_lists_of_the_same_numbers_read_alike(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["int8", "uint16", "int64", "uint64"]))
    source = np.dtype(
        data.draw(st.sampled_from(["int8", "uint8", "uint32", "int64", "uint64", "float32", "float64"]))
    )
    most = np.iinfo(source).max if source.kind in "iu" else 2.0**53
    numbers = [n for n in (0, 1, 100, 127, 128, 255, 256, 2**15, 2**31, 2**53) if n <= most]
    array = np.array(data.draw(st.lists(st.sampled_from(numbers), min_size=1)), dtype=source)
    nullable = data.draw(st.booleans())
    whole, found = conform(field(dtype, nullable=nullable), array)
    each, expected = conform(field(dtype, nullable=nullable), array.tolist())
    assert [p.row for p in found] == [p.row for p in expected]
    if not found:
        assert whole.dtype == each.dtype
        assert whole.tolist() == each.tolist()


@given(data=st.data())
def test_whatever_is_sent_is_an_array_of_the_canonical_dtype_or_a_problem(data: st.DataObject) -> None:
    drawn = data.draw(fields("x"))
    values = data.draw(st.lists(json_value(drawn), min_size=1, max_size=6))
    read, problems = conform(drawn, values)
    if problems:
        assert all(p.field == "x" and p.row is not None and p.reason for p in problems)
        return
    assert len(read) == len(values)
    assert nulls_of(read).tolist() == [value is None for value in values]
    if not nulls_of(read).any():
        assert read.dtype == canonical_dtype(drawn)


@pytest.mark.parametrize(
    ("dtype", "value", "reason"),
    [
        ("float64", "1.5", "expected a number, got '1.5'"),
        ("float64", True, "expected a number, got True"),
        ("float64", [1.0], "expected a number, got [1.0]"),
        ("float32", 1e39, "1e+39 is too large for float32"),
        ("float16", 65520, "65520 is too large for float16"),
        ("float64", 10**400, "which no float64 can hold"),
        pytest.param("float64", HUGE, "a number of thousands of digits", id="huge float"),
        ("int64", 1.5, "expected a whole number, got 1.5"),
        pytest.param("int64", HUGE, "a number of thousands of digits does not fit int64", id="huge integer"),
        ("int8", 128, "128 does not fit int8 (-128 to 127)"),
        ("uint8", -1, "-1 does not fit uint8 (0 to 255)"),
        ("int64", float("inf"), "expected a whole number, got inf"),
        ("bool", 2, "expected true or false, got 2"),
        ("bool", "true", "expected true or false, got 'true'"),
        ("string", 5, "expected text, got 5"),
        ("string", b"\xff", "not UTF-8"),
        ("string", "x" * 100, None),
        ("timestamp", "yesterday", "expected an ISO 8601 date and time, got 'yesterday'"),
        ("timestamp", 1_600_000_000, "send text such as"),
        ("timestamp", "0001-01-01T00:00:00+14:00", "out of range once moved to UTC"),
        ("timestamp", np.datetime64(2**62, "s"), "outside the years 1 to 9999"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(dtype: str, value: object, reason: str | None) -> None:
    _, problems = conform(field(dtype), [None, value])
    if reason is None:
        assert problems == []
        return
    [problem] = problems
    assert reason in problem.reason
    assert (problem.field, problem.row) == ("x", 1)
    assert len(problem.reason) < 200


def test_a_nullable_integer_is_exact_or_refused() -> None:
    assert conform(field("int64", nullable=True), [2**53, None])[0].tolist()[0] == 2**53
    for values in ([2**53 + 1, None], np.array([2**53 + 1])):
        [problem] = conform(field("int64", nullable=True), values)[1]
        assert "2**53" in problem.reason


@pytest.mark.parametrize(
    "null", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT", "ns")]
)
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "string", "timestamp"])
def test_every_kind_of_null_is_null(dtype: str, null: object) -> None:
    if isinstance(null, np.datetime64) and dtype != "timestamp":
        return
    read, problems = conform(field(dtype, nullable=True), [null])
    assert problems == []
    assert nulls_of(read).tolist() == [True]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00"),
        ("2026-01-31T12:00:00.000001+02:00", "2026-01-31T10:00:00.000001"),
        ("2026-01-31", "2026-01-31"),
        (" 2026-01-31 12:00 ", "2026-01-31T12:00"),
    ],
)
def test_timestamps_are_utc_microseconds(text: str, utc: str) -> None:
    read, problems = conform(field("timestamp"), [text])
    assert problems == []
    assert read.dtype == np.dtype("datetime64[us]")
    assert read[0] == np.datetime64(utc, "us")


@given(
    st.lists(
        st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-5)))), min_size=1
    )
)
def test_datetimes_read_as_pandas_does(moments: list[datetime]) -> None:
    try:
        expected = [pd.Timestamp(m).tz_convert(None) if m.tzinfo else pd.Timestamp(m) for m in moments]
    except (OverflowError, ValueError):
        return
    read, problems = conform(field("timestamp"), [m.isoformat() for m in moments])
    if not problems:
        assert [pd.Timestamp(v) for v in read] == expected


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_timestamps_of_every_unit(unit: str) -> None:
    array = np.array(["2026-01-31", "NaT"], dtype=f"datetime64[{unit}]")
    read, problems = conform(field("timestamp", nullable=True), array)
    assert problems == []
    assert read.dtype == np.dtype("datetime64[us]")
    assert read[0] == array[0]


@pytest.mark.parametrize("unit", ["s", "ms", "D"])
def test_a_moment_no_calendar_holds_does_not_wrap_around(unit: str) -> None:
    [problem] = conform(field("timestamp"), np.array([2**62], dtype=f"datetime64[{unit}]"))[1]
    assert "outside the years" in problem.reason


@pytest.mark.parametrize("kind", ["datetime64[ns]", "timedelta64[ns]", "datetime64[s]"])
def test_moments_are_not_numbers(kind: str) -> None:
    [problem] = conform(field("int64"), np.array([5], dtype=kind))[1]
    assert "expected a whole number" in problem.reason


# Tensors


def test_a_tensor_has_its_shape_in_every_row() -> None:
    wanted = field("float32", shape=(2, 2))
    read, problems = conform(wanted, [[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    assert problems == []
    assert (read.shape, read.dtype) == ((2, 2, 2), np.float32)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[1.0, 2.0], [1.0]], "expected shape [2], got [1]"),
        ([[1.0, 2.0], [[1.0], [2.0, 3.0]]], "ragged"),
        ([[], []], "expected shape [n, 2], got [n, 0]"),
        (np.zeros((2, 3)), "expected shape [n, 2], got [n, 3]"),
        (np.zeros((2, 0)), "expected shape [n, 2], got [n, 0]"),
        ([1.0, 2.0], "expected shape [n, 2]"),
        (["ab", "cd"], "expected shape [n, 2]"),
        ([{}, {}], "expected shape [n, 2]"),
        ([[1.0, "x"], [1.0, 2.0]], "expected a number"),
        ([[1.0, 10**400], [1.0, 2.0]], "no float64 can hold"),
    ],
)
def test_what_is_not_such_a_tensor(values: object, reason: str) -> None:
    _, problems = conform(field("float64", shape=(2,)), values)  # type: ignore[arg-type]
    assert reason in problems[0].reason
    assert problems[0].field == "x"


def test_a_wrong_element_is_named_by_its_row() -> None:
    _, [problem] = conform(field("uint8", shape=(2,)), [[1, 2], [3, 256]])
    assert problem.row == 1


def test_text_and_numbers_do_not_mix_into_text() -> None:
    wanted = field("string", shape=(2,))
    assert conform(wanted, [["a", "b"]])[0].tolist() == [["a", "b"]]
    assert "expected text, got 1" in conform(wanted, [["a", 1]])[1][0].reason


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20)
)
def test_any_json_for_a_tensor_is_read_or_refused(value: object) -> None:
    rows = value if isinstance(value, list) else [value]
    read, problems = conform(field("float32", shape=(2,)), rows)
    assert problems or read.shape == (len(rows), 2)


def test_nesting_beyond_what_numpy_holds_is_a_problem() -> None:
    deep: object = 1.0
    for _ in range(500):
        deep = [deep]
    assert conform(field("float64", shape=(1,)), deep)[1]  # type: ignore[arg-type]


# Columns of a whole contract


def test_to_columns_names_everything_at_once() -> None:
    wanted = contract(
        field("float64"), Field(name="y", dtype=DType.int8), Field(name="z", dtype=DType.string)
    )
    with pytest.raises(ContractViolation) as missing:
        to_columns(wanted, {"x": [1.0]})
    assert [(p.field, p.reason) for p in missing.value.problems] == [("y", "missing"), ("z", "missing")]
    with pytest.raises(ContractViolation) as wrong:
        to_columns(wanted, {"x": [1.0, None], "y": [1, 300], "z": ["a", "b"]})
    assert [(p.field, p.row) for p in wrong.value.problems] == [("x", 1), ("y", 1)]
    with pytest.raises(ContractViolation, match="does not fit") as lengths:
        to_columns(wanted, {"x": [1.0], "y": [1, 3], "z": ["a"]})
    assert "x 1, y 2, z 1" in lengths.value.problems[0].reason


def test_a_numeric_contract_is_packed_and_a_mixed_one_is_not() -> None:
    numeric = contract(Field(name="a", dtype=DType.float32), Field(name="b", dtype=DType.float16))
    packed = to_columns(numeric, {"a": [0.1], "b": [1]})
    assert packed.packed is not None
    assert packed.packed.dtype == np.float32
    mixed = contract(Field(name="a", dtype=DType.float32), Field(name="b", dtype=DType.string))
    assert to_columns(mixed, {"a": [0.1], "b": ["x"]}).packed is None
    assert gather(contract(), []).rows == 0


FRAME = pd.DataFrame(
    {
        "float": [1.5, np.nan],
        "int": [1, 2],
        "nullable_int": pd.array([1, None], dtype="Int64"),
        "bool": [True, False],
        "nullable_bool": pd.array([True, None], dtype="boolean"),
        "object_bool": [True, None],
        "text": ["a", None],
        "string": pd.array(["a", None], dtype="string"),
        "category": pd.Categorical(["a", None]),
        "time": pd.to_datetime(["2026-01-31 12:00", None]),
        "zoned": pd.to_datetime(["2026-01-31 12:00+02:00", None]).tz_convert("Europe/Berlin"),
        "arrow": pd.Series([1, None], dtype="int64[pyarrow]"),
    }
)


def test_frames_of_every_dtype_become_canonical() -> None:
    arrays = frame_arrays(FRAME)
    shown = {
        name: (
            values.dtype.kind,
            [None if null else v for v, null in zip(values.tolist(), nulls_of(values), strict=True)],
        )
        for name, values in arrays.items()
    }
    noon, ten = datetime(2026, 1, 31, 12), datetime(2026, 1, 31, 11 - 1)
    assert shown == {
        "float": ("f", [1.5, None]),
        "int": ("i", [1, 2]),
        "nullable_int": ("f", [1.0, None]),
        "bool": ("b", [True, False]),
        "nullable_bool": ("f", [1.0, None]),
        "object_bool": ("O", [True, None]),
        "text": ("O", ["a", None]),
        "string": ("O", ["a", None]),
        "category": ("O", ["a", None]),
        "time": ("M", [noon, None]),
        "zoned": ("M", [ten, None]),
        "arrow": ("f", [1.0, None]),
    }


def test_a_polars_frame_reads_as_pandas_does() -> None:
    frame = pl.DataFrame(
        {"a": [1.5, None], "b": ["x", None], "c": [True, False], "t": [datetime(2026, 1, 31), None]}
    )
    arrays = frame_arrays(frame)
    assert arrays["b"].tolist() == ["x", None]
    assert arrays["c"].tolist() == [True, False]
    assert nulls_of(arrays["a"]).tolist() == [False, True]
    assert arrays["t"][0] == np.datetime64("2026-01-31")


def test_dates_of_python_are_told_apart_from_moments() -> None:
    [problem] = conform(field("timestamp"), [date(2026, 1, 31)])[1]
    assert "ISO 8601" in problem.reason
    assert json.dumps(problem.reason)
