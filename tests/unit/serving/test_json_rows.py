"""Numbers out of JSON without an object for each, and what is left to the plain way."""

from typing import Any

import numpy as np
import pytest

from fairway.core.contract import Contract, DType, Field
from fairway.serving.json_rows import PerContract, columns_matrix, read_body, records_matrix
from tests.planes import TWO_NUMBERS

STRICT = Contract(inputs=TWO_NUMBERS.inputs, outputs=(), extra_fields="reject")
MIXED = Contract(inputs=(*TWO_NUMBERS.inputs, Field(name="t", dtype=DType.string)), outputs=())


def test_records_of_numbers_are_one_matrix_in_the_order_of_the_fields() -> None:
    rows = [{"b": 2, "a": 1.5, "more": "text"}, {"a": -0.0, "b": 4, "more": None}]
    matrix = records_matrix(rows, TWO_NUMBERS)
    assert matrix is not None
    assert matrix.tobytes() == np.array([[1.5, 2.0], [-0.0, 4.0]]).tobytes()
    columns = columns_matrix({"b": [2, 4], "a": [1.5, 0], "more": 3}, TWO_NUMBERS)
    assert columns is not None
    assert columns.tolist() == [[1.5, 2.0], [0.0, 4.0]]
    assert columns.flags.c_contiguous


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"a": 1}],
        [{"a": 1, "b": None}],
        [{"a": 1, "b": True}],
        [{"a": 1, "b": "2"}],
        [{"a": 1, "b": [2]}],
        [{"a": 1, "b": 2**53}],
        [{"a": 1, "b": 10**400}],
        [[1, 2]],
        [3],
        [None],
    ],
)
def test_what_is_anything_else_is_left_alone(rows: list[Any]) -> None:
    assert records_matrix(rows, TWO_NUMBERS) is None
    if rows and isinstance(rows[0], dict):
        assert columns_matrix({name: [value] for name, value in rows[0].items()}, TWO_NUMBERS) is None


def test_contracts_decide_too() -> None:
    row = {"a": 1, "b": 2}
    assert records_matrix([row], STRICT) is not None
    assert records_matrix([row | {"more": 1}], STRICT) is None
    assert columns_matrix({"a": [1], "b": [2], "more": [1]}, STRICT) is None
    assert records_matrix([row | {"t": "x"}], MIXED) is None
    assert columns_matrix({"a": [1], "b": [1, 2]}, TWO_NUMBERS) is None
    assert columns_matrix({"a": 1, "b": 2}, TWO_NUMBERS) is None


@pytest.mark.parametrize("padding", ["", " " * 4000])
def test_numbers_too_large_to_be_sure_of_stay_what_they_were(padding: str) -> None:
    for number in (2**53, -(2**53), 10**30):
        body = f'{{"rows": [[{number}, 1.5]]{padding}}}'.encode()
        assert read_body(body, ("rows",))["rows"] == [[number, 1.5]]
    assert read_body(f'{{"rows": [[16777216]]{padding}}}'.encode(), ("rows",), exact=2**24 - 1)["rows"] == [
        [2**24]
    ]


@pytest.mark.parametrize("size", [1, 300])
def test_a_split_frame_keeps_its_columns(size: int) -> None:
    rows = [[1.5, 2.0]] * size
    body = f'{{"dataframe_split": {{"columns": ["a", "b"], "index": [0], "data": {rows}}}, "other": "x"}}'
    read = read_body(body.encode(), ("dataframe_split",))
    frame = read["dataframe_split"]
    assert (frame["columns"], frame["index"], read["other"]) == (["a", "b"], [0], "x")
    assert frame["data"].tolist() == rows


@pytest.mark.parametrize("size", [1, 300, 3000])
def test_of_a_name_that_stands_twice_the_last_value_counts_however_large_the_body(size: int) -> None:
    first, last = [[1.5, 2.0]] * size, [[5.5, 6.0]] * size
    read = read_body(f'{{"rows": {first}, "rows": {last}}}'.encode(), ("rows",))
    assert np.asarray(read["rows"]).tolist() == last
    split = f'{{"columns": ["a", "b"], "data": {first}, "data": {last}}}'
    read = read_body(f'{{"dataframe_split": {split}}}'.encode(), ("dataframe_split",))
    assert np.asarray(read["dataframe_split"]["data"]).tolist() == last
    split = f'{{"columns": ["b", "a"], "columns": ["a", "b"], "data": {last}}}'
    read = read_body(f'{{"dataframe_split": {split}}}'.encode(), ("dataframe_split",))
    assert read["dataframe_split"]["columns"] == ["a", "b"]


def test_what_is_made_of_a_contract_is_made_once() -> None:
    made: list[Contract] = []
    name = PerContract(lambda contract: made.append(contract) or len(contract.inputs))  # type: ignore[func-returns-value]
    assert [name(TWO_NUMBERS), name(TWO_NUMBERS), name(MIXED), name(TWO_NUMBERS)] == [2, 2, 3, 2]
    assert len(made) == 2
    for _ in range(600):  # contracts come and go with their versions
        name(Contract(inputs=(), outputs=()))
    assert len(name._made) <= PerContract._MOST
