"""Arrow columns as a request's values."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fairway.batch.columns import flat_table, to_inputs, without_nan
from fairway.core.contract import Action, Contract, DType, Field, Rules
from fairway.core.errors import MalformedInput
from fairway.inference.validate import Validator

_LENIENT = Rules(on_null=Action.warn)


def read(array: Any, dtype: DType, shape: tuple[int, ...] = ()) -> Any:
    field = Field(
        name="x", dtype=dtype, shape=shape, nullable=not shape, rules=_LENIENT if not shape else Rules()
    )
    contract = Contract(inputs=(field,), outputs=())
    inputs = to_inputs(pa.table({"x": array, "other": [None] * len(array)}), contract)
    columns = Validator(contract).check(inputs, lambda *_: None)
    return columns["x"].tolist()


MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("array", "dtype", "expected"),
    [
        (pa.array([1, 2], pa.uint8()), DType.float64, [1.0, 2.0]),
        (pa.array([1.5, 2.0], pa.float32()), DType.float64, [1.5, 2.0]),
        (pa.array([Decimal("1.25"), Decimal("2.50")]), DType.float64, [1.25, 2.5]),
        (pa.array([True, False]), DType.bool, [1.0, 0.0]),
        (pa.array(["a", "b"]).dictionary_encode(), DType.string, ["a", "b"]),
        (pa.array(["a", None], pa.large_string()), DType.string, ["a", None]),
        (pa.array([MOMENT], pa.timestamp("ns", "UTC")), DType.timestamp, [MOMENT.replace(tzinfo=None)]),
        (pa.array([MOMENT.date()]), DType.timestamp, [datetime(2026, 1, 31)]),
        (pa.array([2**53, 1]), DType.int64, [2.0**53, 1.0]),
    ],
)
def test_every_kind_of_column(array: Any, dtype: DType, expected: Any) -> None:
    assert read(array, dtype) == expected


def test_nulls_among_numbers() -> None:
    assert np.isnan(read(pa.array([1, None]), DType.int64)[1])
    assert np.isnan(read(pa.array([1.0, None]), DType.float64)[1])


def test_tensors() -> None:
    values = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
    fixed = pa.array(values, pa.list_(pa.list_(pa.float32(), 2), 2))
    assert read(fixed, DType.float32, (2, 2)) == values
    assert read(fixed.slice(1), DType.float32, (2, 2)) == values[1:]
    assert read(pa.array(values), DType.float32, (2, 2)) == values


@pytest.mark.parametrize("array", [pa.array([{"a": 1}]), pa.array([[1.0]])])
def test_columns_of_kinds_that_no_field_has(array: Any) -> None:
    with pytest.raises(MalformedInput, match="no field has"):
        read(array, DType.float64)


def test_moments_that_no_microseconds_hold() -> None:
    with pytest.raises(MalformedInput, match="cannot be read"):
        read(pa.array([2**62], pa.timestamp("s")), DType.timestamp)


def test_lists_are_laid_flat_for_text() -> None:
    table = pa.table(
        {"x": pa.array([[[1.0, 2.0]], None], pa.list_(pa.list_(pa.float64(), 2), 1)), "y": [1, 2]}
    )
    flat = flat_table(table)
    assert flat.column_names == ["x_0", "x_1", "y"]
    assert flat.num_rows == 2
    assert without_nan(pa.table({"x": [1.0, float("nan")]})).column("x").to_pylist() == [1.0, None]
