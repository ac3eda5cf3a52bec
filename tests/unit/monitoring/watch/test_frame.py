"""Rows of the log by the names that people know."""

import pyarrow as pa

from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.watch.frame import broken_rules, frame_kinds, frame_of, latest_time, together
from fairway.monitoring.watch.sample import Gathered
from tests.unit.monitoring.watch.rows import CONTRACT, NOON, log_table


def test_inputs_outputs_and_what_is_said_of_a_row() -> None:
    frame = frame_of(log_table(5, label="json"), CONTRACT)
    assert frame.inputs == ("amount", "country")
    assert frame.outputs == ("label", "probabilities[1]")  # of two classes the second says it all
    assert frame.table.column_names == ["amount", "country", "label", "probabilities[1]"]
    assert "seconds" in frame.about.column_names
    assert frame.actual is not None
    assert frame.actual.type == pa.float64()
    assert frame_kinds(frame, CONTRACT)["label"] is Kind.category
    assert latest_time(frame.about) == log_table(5)["time"].to_pylist()[-1]
    assert latest_time(frame_of(log_table(0), CONTRACT).about) is None


def test_labels_that_are_json_texts_booleans_or_mixed() -> None:
    def actual(*texts: str | None) -> list[object]:
        table = log_table(len(texts)).append_column("label", pa.array(texts, pa.string()))
        found = frame_of(table, CONTRACT).actual
        assert found is not None
        return found.to_pylist()

    assert actual("1", None, "0.5") == [1.0, None, 0.5]
    assert actual('"cat"', "true", "3") == ["cat", "true", "3"]
    assert actual("plain text") == ["plain text"]


def test_an_output_called_like_an_input_and_several_classes() -> None:
    contract = Contract(
        inputs=(Field(name="label", dtype=DType.float64),),
        outputs=(
            Output(name="label", dtype=DType.int64),
            Output(name="probabilities", dtype=DType.float32, shape=(3,), labels=("a", "b", "c")),
        ),
        task=Task.classification,
    )
    numbers = pa.FixedSizeListArray.from_arrays(pa.array([0.1, 0.2, 0.7]), 3)
    table = pa.table({"input.label": [1.0], "output.label": [2], "output.probabilities": numbers})
    frame = frame_of(table, contract)
    assert frame.outputs == ("output.label", *(f"probabilities[{name}]" for name in "abc"))
    assert frame_kinds(frame, contract) == {
        "label": Kind.number,
        "output.label": Kind.category,
        **{f"probabilities[{name}]": Kind.number for name in "abc"},
    }


def test_broken_rules_are_added_up() -> None:
    told = [
        '[{"field":"a","rule":"on_range","rows":2}]',
        None,
        '[{"field":"a","rule":"on_range","rows":3},{"field":"b","rule":"on_null","rows":1}]',
    ]
    assert broken_rules(pa.table({"violations": told})) == {"a on_range": 5, "b on_null": 1}
    assert broken_rules(pa.table({"time": [NOON]})) == {}


def test_batches_keep_the_columns_that_most_rows_have_and_their_types_agree() -> None:
    one = pa.RecordBatch.from_pydict({"a": [1], "b": [1.0], "c": ["x"]})
    two = pa.RecordBatch.from_pydict({"b": [1], "a": [2], "d": [0]})
    table = together([one, two])
    assert table.to_pydict() == {"a": [1, 2], "b": [1.0, 1.0]}
    texts = pa.RecordBatch.from_pydict({"c": pa.array(["y"]).dictionary_encode(), "e": [[1]]})
    assert together([one.select(["c"]), texts]).to_pydict() == {"c": ["x", "y"]}
    assert together([one, one, texts]).to_pydict() == {"a": [1, 1], "b": [1.0, 1.0], "c": ["x", "x"]}
    assert (
        together(
            [pa.RecordBatch.from_pydict({"a": [1]}), pa.RecordBatch.from_pydict({"a": ["x"]})]
        ).num_columns
        == 0
    )


def test_a_share_of_many_rows_goes_into_the_sketches_and_all_are_counted() -> None:
    rows = log_table(4000, seed=3).combine_chunks().to_batches()
    gathered = Gathered(CONTRACT, 1000, 0.25)
    gathered.take(rows)
    assert gathered.rows == 4000
    assert 850 < gathered.profile.rows < 1150
    assert gathered.frame().rows <= 1000
