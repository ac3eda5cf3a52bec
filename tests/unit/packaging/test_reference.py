"""What is kept for monitors: rows, answers and labels under the log's names, without private fields, bounded."""

import io
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from fairway.core.columns import Columns
from fairway.core.contract import Contract, DType, Field, Output, Privacy
from fairway.packaging import reference
from fairway.packaging.amend import amend_contract
from fairway.packaging.bundle import read_bundle
from fairway.packaging.package import package
from fairway.packaging.reference import make_reference, without_private

CONTRACT = Contract(
    inputs=(
        Field(name="a", dtype=DType.float64, nullable=True),
        Field(name="who", dtype=DType.string, nullable=True, private=Privacy.hash),
        Field(name="said", dtype=DType.string, nullable=True),
        Field(name="image", dtype=DType.float32, shape=(2, 2)),
        Field(name="large", dtype=DType.float32, shape=(64, 64)),
        Field(name="at", dtype=DType.timestamp),
    ),
    outputs=(Output(name="score", dtype=DType.float32), Output(name="both", dtype=DType.float32, shape=(2,))),
)


def rows(count: int) -> Columns:
    values = {
        "a": np.where(np.arange(count) % 2, np.nan, 1.5),
        "who": np.array(["ann"] * count, dtype=object),
        "said": np.array(["x", None] * count, dtype=object)[:count],
        "image": np.arange(count * 4, dtype=np.float32).reshape(count, 2, 2),
        "large": np.zeros((count, 64, 64), np.float32),
        "at": np.full(count, np.datetime64("2026-01-01T00:00:00", "us")),
    }
    return Columns(tuple(values), count, arrays=[*values.values()])


def answers(count: int) -> dict[str, np.ndarray]:
    return {"score": np.ones(count, np.float32), "both": np.zeros((count, 2), np.float32)}


def test_rows_under_the_names_of_the_log() -> None:
    table = pq.read_table(io.BytesIO(make_reference(CONTRACT, rows(3), answers(3), np.array([0, 1, 0]))))
    assert table.column_names == [
        "input.a", "input.said", "input.image", "input.at", "output.score", "output.both", "label",
    ]  # fmt: skip
    assert table["input.said"].to_pylist() == ["x", None, "x"]
    assert table["input.image"].to_pylist()[1] == [4, 5, 6, 7]
    assert table["output.both"].to_pylist() == [[0, 0]] * 3
    assert table["label"].to_pylist() == [0, 1, 0]
    without = pq.read_table(io.BytesIO(make_reference(CONTRACT, rows(3), answers(3), None)))
    assert "label" not in without.column_names


def test_no_more_rows_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MOST_BYTES", 1000)
    table = pq.read_table(io.BytesIO(make_reference(CONTRACT, rows(500), answers(500), None)))
    assert 1 <= table.num_rows < 30


def test_what_becomes_private_leaves() -> None:
    content = make_reference(CONTRACT, rows(3), answers(3), None)
    assert without_private(content, CONTRACT) == content
    inputs = tuple(
        msgspec.structs.replace(field, private=Privacy.drop if field.name == "said" else field.private)
        for field in CONTRACT
    )
    table = pq.read_table(
        io.BytesIO(without_private(content, msgspec.structs.replace(CONTRACT, inputs=inputs)))
    )
    assert "input.said" not in table.column_names
    assert "input.a" in table.column_names


def test_a_bundle_has_it_and_keeps_it_when_its_contract_changes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=300), "y": random.normal(size=300)})
    frame["label"] = (frame.x + frame.y > 0).astype(int)
    model = LogisticRegression().fit(frame[["x", "y"]], frame["label"])
    made = package(model, frame, target="label", out=tmp_path / "one")
    kept = pq.read_table(tmp_path / "one" / reference.FILE)
    assert kept.num_rows == 300
    labels = kept["output.label"].to_numpy()
    assert (labels == model.predict(pd.DataFrame({"x": kept["input.x"], "y": kept["input.y"]}))).mean() == 1
    assert set(kept["label"].to_pylist()) == {0, 1}
    fresh = frame.iloc[:50]
    package(model, frame, target="label", reference=fresh, out=tmp_path / "two")
    assert pq.read_table(tmp_path / "two" / reference.FILE).num_rows == 50
    bundle = read_bundle(made.directory)
    inputs = tuple(
        msgspec.structs.replace(field, private=Privacy.drop if field.name == "y" else None)
        for field in bundle.contract
    )
    amend_contract(bundle, msgspec.structs.replace(bundle.contract, inputs=inputs), tmp_path / "three")
    assert "input.y" not in pq.read_table(tmp_path / "three" / reference.FILE).column_names
