"""One chunk: what is scored is what a request would have got."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fairway.batch.score import ForLog, Parsed, Reject, plan_calls, score
from fairway.core.bundle import GoldenRows
from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import ContractViolation, ModelFailed
from tests.planes import Adding, bundle, live_version


def parsed(**columns: object) -> Parsed:
    rows = len(next(iter(columns.values())))  # type: ignore[arg-type]
    return Parsed(columns, pa.table({"id": range(rows)}), rows)  # type: ignore[arg-type]


def test_rejects_are_named_by_their_place_in_the_chunk() -> None:
    chunk = Parsed(
        {"a": [1.0, "x", 3.0], "b": [1.0, 1.0, 11.0]},
        pa.table({"id": [7, 8, 9]}),
        5,
        np.array([0, 2, 4]),
        (Reject(1, "is not JSON"),),
    )
    scored = score(live_version(1), chunk)
    assert scored.table.to_pydict() == {"id": [7, 9], "sum": [2.0, 14.0], "both": [[1.0, 1.0], [3.0, 11.0]]}
    assert [(r.row, r.field) for r in scored.rejects] == [(1, None), (2, "a")]
    assert scored.broken == (("b", "on_range", 1),)
    assert scored.total == 5


def test_no_good_rows_give_a_table_of_the_same_columns() -> None:
    scored = score(live_version(1), parsed(a=["x"], b=[1.0]))
    assert scored.table.schema == score(live_version(1), parsed(a=[1.0], b=[1.0])).table.schema
    assert len(scored.table) == 0


def test_missing_columns_are_not_a_matter_of_rows() -> None:
    with pytest.raises(ContractViolation, match="b"):
        score(live_version(1), parsed(a=[1.0]))


@pytest.mark.parametrize("call_rows", [1, 2, 3, 100])
def test_calls_of_any_size_give_the_same(call_rows: int) -> None:
    engine = Adding()
    scored = score(live_version(1, engine), parsed(a=[1.0, 2.0, 3.0], b=[1.0, 1.0, 1.0]), call_rows=call_rows)
    assert scored.table.column("sum").to_pylist() == [2.0, 3.0, 4.0]
    assert engine.calls == -(-3 // call_rows)


def test_rows_for_the_log_are_those_that_were_scored_under_their_keys() -> None:
    chunk = Parsed(
        {"a": [1.0, "x", 3.0, 4.0, 5.0], "b": [1.0] * 5},
        pa.table({"id": ["p", "q", None, "s", "t" * 481]}),
        5,
    )
    (rows,) = score(live_version(1), chunk, for_log=ForLog("id")).logged
    assert rows.keys == [b"p", b"s"]  # q breaks the contract, the others have no key that is one
    assert rows.columns["a"].tolist() == [1.0, 4.0]
    assert rows.outputs["sum"].tolist() == [2.0, 5.0]
    assert score(live_version(1), chunk).logged == ()
    many = parsed(a=np.ones(1000), b=np.ones(1000))
    halves = [score(live_version(1), many, for_log=ForLog("id", 0.5)).logged[0].keys for _ in range(2)]
    assert halves[0] == halves[1]  # by the key alone: the same every night
    assert 400 < len(halves[0]) < 600
    assert score(live_version(1), many, for_log=ForLog("id", 0.0)).logged == ()


def test_an_engine_that_gives_other_rows_than_asked_has_failed() -> None:
    class Short(Adding):
        def predict(self, columns: Columns) -> Outputs:
            return {name: values[:1] for name, values in super().predict(columns).items()}

    scored = score(live_version(1, Short()), parsed(a=[1.0, 2.0], b=[1.0, 1.0]))
    assert len(scored.table) == 2  # one by one it answers


def test_an_engine_that_never_gives_the_rows_asked_for_has_failed() -> None:
    class Empty(Adding):
        def predict(self, columns: Columns) -> Outputs:
            return {name: values[:0] for name, values in super().predict(columns).items()}

    with pytest.raises(ModelFailed, match="0 rows for 2"):
        score(live_version(1, Empty()), parsed(a=[1.0, 2.0], b=[1.0, 1.0]))


def test_outputs_of_every_type_have_one_arrow_type() -> None:
    contract = Contract(
        inputs=(Field(name="a", dtype=DType.float64),),
        outputs=(
            Output(name="label", dtype=DType.string),
            Output(name="at", dtype=DType.timestamp),
            Output(name="grid", dtype=DType.float32, shape=(2, 2)),
            Output(name="yes", dtype=DType.bool),
        ),
    )

    class Many:
        def predict(self, columns: Columns) -> Outputs:
            n = columns.rows
            return {
                "label": np.array(["x"] * n, dtype=object),
                "at": np.full(n, np.datetime64("2026-01-01")),
                "grid": np.arange(n * 4, dtype=np.float32).reshape(n, 2, 2),
                "yes": np.ones(n, bool),
            }

        def unload(self) -> None: ...

    scored = score(live_version(1, Many(), contract=contract), parsed(a=[1.0]))
    row = scored.table.to_pylist()[0]
    assert row["label"] == "x"
    assert row["at"].year == 2026
    assert row["grid"] == [[0.0, 1.0], [2.0, 3.0]]
    empty = score(live_version(1, Many(), contract=contract), parsed(a=["?"]))
    assert empty.table.schema == scored.table.schema


class _Wavering(Adding):
    """Gives other last bits in large calls."""

    def predict(self, columns: Columns) -> Outputs:
        outputs = super().predict(columns)
        if columns.rows > 1000:
            outputs["sum"] = np.nextafter(outputs["sum"], np.inf)
        return outputs


@pytest.mark.parametrize(("engine", "rows"), [(Adding(), 8192), (_Wavering(), 100)])
def test_large_calls_are_made_where_they_give_the_same_bits(engine: Adding, rows: int) -> None:
    live = live_version(1, engine, floor=1)
    golden = GoldenRows(inputs={"a": [1.0, 2.0], "b": [3.0, 4.0]}, outputs={})
    live.bundle = replace(live.bundle, golden=golden)
    assert plan_calls(live).rows == rows


def test_a_model_without_a_floor_is_told_about() -> None:
    assert "answers may differ" in plan_calls(live_version(1)).note
    assert bundle().digest == "sha256:abc"


def test_rows_of_many_slices_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.arange(50.0)
    b = [None if i % 7 == 0 else float(i) for i in range(50)]
    parsed = Parsed({"a": a, "b": b}, pa.table({"id": range(50)}), 50)
    whole = score(live_version(1), parsed)
    monkeypatch.setattr("fairway.batch.score._MOST_VALUES", 13)
    sliced = score(live_version(1), parsed)
    assert sliced.table.combine_chunks().equals(whole.table)
    assert (sliced.rejects, sliced.total) == (whole.rejects, whole.total)
    assert [reject.row for reject in whole.rejects] == list(range(0, 50, 7))


def test_of_very_many_problems_one_a_row_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = Parsed({"a": ["?"] * 9, "b": ["?"] * 9}, pa.table({"id": range(9)}), 9)
    assert len(score(live_version(1), parsed).rejects) == 18
    monkeypatch.setattr("fairway.batch.score._MOST_PROBLEMS", 10)
    few = score(live_version(1), parsed)
    assert [(reject.row, reject.field) for reject in few.rejects] == [(row, "a") for row in range(9)]
