"""Tables a column at a time, from every kind of file and frame."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from fairway.core.errors import MalformedInput, NotFound
from fairway.monitoring import tables
from fairway.monitoring.tables import HeldTable, ParquetTable, open_table

ROWS = {"x": [1.0, 2.5, None], "c": ["a", None, "b"]}


def check(table: tables.Table) -> None:
    assert table.names == ("x", "c")
    assert table.rows == 3
    assert table.column("x").to_pylist() == [1.0, 2.5, None]
    assert table.take("c", np.array([2, 0])).to_pylist() == ["b", "a"]
    assert table.type_of("x") == pa.float64()


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "jsonl"])
def test_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    table = pa.table(ROWS)
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        pa.feather.write_feather(table, path)
    elif kind == "csv":
        path.write_text("x,c\n1.0,a\n2.5,\n,b\n")
    else:
        path.write_text('{"x": 1.0, "c": "a"}\n{"x": 2.5, "c": null}\n{"x": null, "c": "b"}\n')
    found = open_table(str(path))
    check(found)
    assert isinstance(found, ParquetTable if kind == "parquet" else HeldTable)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, dict])
def test_frames(make) -> None:
    check(open_table(make(ROWS)))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_too_large_to_hold_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(tables, "HELD_BYTES", 100)
    monkeypatch.setattr(tables.tempfile, "tempdir", str(tmp_path))
    path = tmp_path / f"rows.{kind}"
    lines = ["x;c", *(f"{i}.5;v{i % 3}" for i in range(500))]
    if kind == "jsonl":
        lines = [f'{{"x": {i}.5, "c": "v{i % 3}"}}' for i in range(500)]
    path.write_text("\n".join(lines) + "\n")
    found = open_table(path)
    assert found.names == ("x", "c")
    assert found.rows == 500
    assert found.column("x").to_pylist() == [i + 0.5 for i in range(500)]
    assert [p.name for p in tmp_path.glob("fairway-drift-*")]
    del found
    assert not list(tmp_path.glob("fairway-drift-*"))


def test_a_later_row_of_another_type_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "HELD_BYTES", 100)
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 200)
    path = tmp_path / "rows.csv"
    path.write_text("x\n" + "1\n" * 500 + "text\n")
    with pytest.raises(MalformedInput, match="told from the first rows"):
        open_table(path)


def test_row_labels_of_pandas_are_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index(["p", "q"], name="label"))
    frame.to_parquet(tmp_path / "rows.parquet")
    assert open_table(tmp_path / "rows.parquet").names == ("x",)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_table(tmp_path / "nope.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1junkjunkPAR1")
    with pytest.raises(MalformedInput, match="cannot be read as parquet"):
        open_table(tmp_path / "bad.parquet")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(MalformedInput, match="is empty"):
        open_table(tmp_path / "empty.csv")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "frame"])
def test_names_that_are_there_twice_are_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    table = pa.table([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text("a,a\n1,2\n")
    with pytest.raises(MalformedInput, match="must be unique; repeated: a"):
        open_table(table if kind == "frame" else path)
