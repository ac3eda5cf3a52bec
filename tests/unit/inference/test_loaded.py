"""A model in this process takes rows however Python people hold them."""

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fairway.core.contract import Action, Contract, DType, Field, Rules
from fairway.core.errors import ContractViolation, MalformedInput
from fairway.inference.loaded import LoadedModel, read_inputs
from fairway.inference.validate import Validator
from fairway.stores.counters import Counters
from tests.planes import Kept, plane

LET_THROUGH = Rules(on_null=Action.warn)
ROWS = [(1.0, 2.0), (3.0, 4.0)]
FRAME = pd.DataFrame(ROWS, columns=["a", "b"])


def mixed(**options: Any) -> Contract:
    fields = [
        ("n", DType.float64),
        ("i", DType.int64),
        ("f", DType.bool),
        ("s", DType.string),
        ("t", DType.timestamp),
    ]
    return Contract(inputs=tuple(Field(name=n, dtype=d, **options) for n, d in fields), outputs=())


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME[["b", "a"]],
        FRAME.assign(other="x"),
        FRAME.astype("float32"),
        FRAME.astype("Int64"),
        FRAME.astype(object),
        pl.DataFrame({"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        pa.table({"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        {"a": [1.0, 3.0], "b": [2.0, 4.0]},
        {"a": np.array([1.0, 3.0]), "b": pd.Series([2, 4])},
        {"a": (1.0, 3.0), "b": pl.Series([2.0, 4.0])},
        [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}],
        [[1.0, 2.0], [3.0, 4.0]],
        np.array(ROWS),
        np.array(ROWS, dtype=np.int8),
        np.array(ROWS, dtype=object),
    ],
)
def test_every_form_gives_the_same_answers(data: Any) -> None:
    outputs = LoadedModel("m", None, plane).predict(data)
    assert outputs["sum"].tolist() == [3.0, 7.0]
    assert outputs["both"].tolist() == [list(row) for row in ROWS]


@pytest.mark.parametrize(
    "data", [{"a": 1.0, "b": 2}, {"a": np.float64(1), "b": np.array(2)}, {"a": [1.0], "b": np.array([2])}]
)
def test_one_row_of_bare_values(data: Any) -> None:
    assert LoadedModel("m", None, plane).predict(data)["sum"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("text", MalformedInput),
        (5, MalformedInput),
        (None, MalformedInput),
        (np.zeros((2, 3)), MalformedInput),
        (np.zeros(3), MalformedInput),
        (np.float64(1.0), MalformedInput),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), MalformedInput),
        ([], MalformedInput),
        (FRAME.iloc[:0], MalformedInput),
        (FRAME[["a"]], ContractViolation),
        ({}, ContractViolation),
        ({"a": "text", "b": 1.0}, ContractViolation),
        ({"a": np.zeros((1, 2)), "b": [1.0]}, ContractViolation),
        ({"a": [10**5000], "b": [1.0]}, ContractViolation),
    ],
    ids=range(14),
)
def test_what_cannot_be_read_is_refused(data: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        LoadedModel("m", None, plane).predict(data)


def frame(rows: int) -> pd.DataFrame:
    moments = pd.to_datetime(["2026-01-31T12:00:00.123456789", None, "1969-12-31"] * rows, format="ISO8601")[
        :rows
    ]
    return pd.DataFrame(
        {
            "n": np.array([1.5, np.nan, -0.0] * rows)[:rows],
            "i": pd.array([1, None, 2**53] * rows, dtype="Int64")[:rows],
            "f": pd.array([True, None, False] * rows, dtype="boolean")[:rows],
            "s": pd.Series(["x", None, "y"] * rows, dtype=object)[:rows],
            "t": moments,
        }
    )


@pytest.mark.parametrize("storage", ["plain", "object", "arrow", "string", "category", "zoned", "ns"])
def test_a_few_rows_of_a_frame_read_as_many_do(storage: str) -> None:
    """Two ways lead from a DataFrame to columns; both give the same for every kind of column."""
    data = frame(9)
    if storage == "object":
        data = data.astype(object)
    elif storage == "arrow":
        data = data.convert_dtypes(dtype_backend="pyarrow")
    elif storage in ("string", "category"):
        data["s"] = data["s"].astype(storage)
    elif storage == "zoned":
        data["t"] = data["t"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    elif storage == "ns":
        data["t"] = data["t"].astype("datetime64[ns]")
    contract = mixed(nullable=True)
    many = read(data, contract)
    few = {name: [] for name in many}  # type: dict[str, list[Any]]
    for start in range(0, 9, 3):
        for name, values in read(data.iloc[start : start + 3], contract).items():
            few[name] += values
    assert str(few) == str(many)
    assert many["t"][0] == datetime(2026, 1, 31, 12, 0, 0, 123456)


def test_each_frame_is_read_by_its_own_names() -> None:
    model = LoadedModel("m", None, plane)
    assert [model.predict(FRAME.iloc[i : i + 1])["sum"].tolist() for i in range(2)] == [[3.0], [7.0]]
    swapped = FRAME.rename(columns={"a": "b", "b": "a"})
    assert model.predict(swapped[["a", "b"]].iloc[:1] * [1, 0])["sum"].tolist() == [FRAME["b"].iloc[0]]
    with pytest.raises(ContractViolation):
        model.predict(FRAME.rename(columns={"a": "c"}).iloc[:1])
    assert model.predict(FRAME.iloc[:1])["sum"].tolist() == [3.0]


def read(data: pd.DataFrame, contract: Contract) -> dict[str, list[Any]]:
    relaxed = Contract(
        inputs=tuple(Field(name=f.name, dtype=f.dtype, nullable=True, rules=LET_THROUGH) for f in contract),
        outputs=(),
    )
    return {
        name: values.tolist()
        for name, values in Validator(relaxed).check(read_inputs(data, relaxed), lambda *told: None).items()
    }


def test_answers_carry_version_and_request_id_and_are_recorded() -> None:
    kept = Kept()
    with LoadedModel("m", None, lambda: plane(recorder=kept)) as model:
        answer = model.answer(FRAME, request_id="mine")
        another = model.answer(FRAME)
        assert model.contract.inputs[0].name == "a"
    assert (answer.request_id, answer.version) == ("mine", 1)
    assert another.request_id not in ("", "mine")
    assert [p.request_ids for p in kept.predictions] == [["mine"], [another.request_id]]
    assert kept.closed


def test_refusals_are_counted() -> None:
    counters = Counters()
    with pytest.raises(ContractViolation):
        LoadedModel("m", None, lambda: plane(counters=counters)).predict({"a": ["x"], "b": [1.0]})
    labels = (("model", "m"), ("version", ""), ("protocol", "python"), ("code", "contract_violation"))
    assert counters.totals()["fairway_requests_total", labels] == 1
