"""Sample data of every kind comes out as one plain frame, tensors beside it and the target apart."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.conform import frame_arrays
from fairway.core.contract import DType
from fairway.core.errors import MalformedInput, NotFound, PayloadTooLarge, UnsupportedContent
from fairway.packaging import tables
from fairway.packaging.sample import read_sample

CSV = """id,amount,flag,when,city,label
1,2.5,true,2024-01-02T03:04:05Z,Berlin,0
,,,,,1
3,-1e3,False,2024-06-01 00:00:00+02:00,"a, b",0
"""


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def kinds(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def text_dtype() -> str:
    return str(pd.Series(["x"]).dtype)


def texts(series: pd.Series[Any]) -> list[str | None]:
    return [None if value is pd.NA or value != value else value for value in series]  # noqa: PLR0124


class TestCsv:
    def test_every_type_with_gaps(self, tmp_path: Path) -> None:
        sample = read_sample(written(tmp_path / "a.csv", CSV), target="label")
        assert kinds(sample.frame) == {
            "id": "float64",
            "amount": "float64",
            "flag": "object",
            "when": "datetime64[us]",
            "city": text_dtype(),
        }
        assert sample.dtypes == {"id": DType.int64, "flag": DType.bool}
        assert texts(sample.frame["city"]) == ["Berlin", None, "a, b"]
        assert sample.frame["when"][2] == pd.Timestamp("2024-05-31 22:00:00")
        assert sample.target is not None
        assert sample.target.tolist() == [0, 1, 0]
        assert len(sample) == 3

    def test_without_gaps_numbers_stay_plain(self, tmp_path: Path) -> None:
        sample = read_sample(written(tmp_path / "a.csv", "a,b\n1,true\n2,false\n"))
        assert kinds(sample.frame) == {"a": "int64", "b": "bool"}

    @pytest.mark.parametrize(
        "text",
        ["t\n2024-01-02\nsoon\n", "t\n2024-01-02T00:00:00Z\n2024-01-02 00:00:00\n", "t\n12:30\n9:05\n"],
    )
    def test_a_column_that_is_not_all_timestamps_stays_text(self, tmp_path: Path, text: str) -> None:
        sample = read_sample(written(tmp_path / "a.csv", text))
        assert sample.frame["t"].tolist() == text.splitlines()[1:]

    def test_type_is_inferred_from_every_row(self, tmp_path: Path) -> None:
        text = "a\n" + "1\n" * 400_000 + "x\n"
        sample = read_sample(written(tmp_path / "a.csv", text), rows=1_000_000)
        assert sample.frame["a"].iloc[-1] == "x"
        assert sample.frame["a"].iloc[0] == "1"

    def test_other_separators_and_encodings(self, tmp_path: Path) -> None:
        semicolons = read_sample(written(tmp_path / "a.csv", "a;b\n1;2\n"))
        assert list(semicolons.frame) == ["a", "b"]
        utf16 = read_sample(written(tmp_path / "b.csv", "a,b\nä,2\n".encode("utf-16")))
        assert utf16.frame["a"].tolist() == ["ä"]
        marked = read_sample(written(tmp_path / "c.csv", b"\xef\xbb\xbfa,b\n1,2\n"))
        assert list(marked.frame) == ["a", "b"]

    def test_a_written_index_is_named_as_pandas_does(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        pd.DataFrame({"a": [1.5, 2.5]}).to_csv(path)
        assert list(read_sample(path).frame) == list(pd.read_csv(path))

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("", "empty"),
            ("a,b\n", "no rows"),
            ("a,b\n1,2\n3\n", "Expected 2 columns"),
            ("a,a\n1,2\n", "repeated: a"),
            (b"a,b\nx,1\ncaf\xe9,2\n", "column 'a', row 1"),
            (b"caf\xe9,b\nx,1\n", "header"),
            ('a,b\n"x,1\n', "cannot be read as csv"),
            (b"\x00\x01\x02", "header"),
        ],
    )
    def test_bad_files_say_what_is_wrong(self, tmp_path: Path, content: str | bytes, told: str) -> None:
        with pytest.raises(MalformedInput, match=told):
            read_sample(written(tmp_path / "a.csv", content))

    @given(
        rows=st.lists(
            st.tuples(
                st.integers(-(2**53), 2**53),
                st.floats(allow_nan=False, allow_infinity=False),
                st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00\r\n"), min_size=1),
            ),
            min_size=1,
            max_size=20,
        )
    )
    def test_numbers_and_text_are_what_pandas_reads(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float, str]]
    ) -> None:
        path = tmp_path_factory.mktemp("csv") / "a.csv"
        # A leading letter keeps pandas and us from taking the text for anything else.
        frame = pd.DataFrame([(i, f, "t" + s) for i, f, s in rows], columns=["i", "f", "s"])
        frame.to_csv(path, index=False)
        read = read_sample(path).frame
        expected = pd.read_csv(path)
        np.testing.assert_array_equal(read["i"], expected["i"])
        np.testing.assert_array_equal(read["f"].astype(float), expected["f"].astype(float))
        assert read["s"].tolist() == expected["s"].tolist()


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "i": pa.array([1, None, 3], pa.int32()),
            "f": pa.array([1.5, 2.5, None], pa.float32()),
            "b": [True, False, True],
            "s": ["a", None, "c"],
            "c": pa.array(["x", "y", None]).dictionary_encode(),
            "d": [date(2024, 1, 1), None, date(2024, 1, 3)],
            "v": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
        }
    )


def same(sample: Any) -> None:
    assert sample.frame["i"].dtype == np.float64
    assert sample.dtypes == {"i": DType.int32}
    assert sample.frame["f"].dtype == np.float32
    assert sample.frame["b"].dtype == bool
    assert texts(sample.frame["s"]) == ["a", None, "c"]
    assert isinstance(sample.frame["c"].dtype, pd.CategoricalDtype)
    assert sample.frame["d"].dtype == "datetime64[us]"
    assert sample.tensors["v"].shape == (3, 2)
    assert sample.tensors["v"].dtype == np.float32
    assert "v" not in sample.frame


class TestFiles:
    def test_parquet(self, tmp_path: Path, table: pa.Table) -> None:
        pa.parquet.write_table(table, tmp_path / "a.bin")  # told by its first bytes
        same(read_sample(tmp_path / "a.bin"))

    def test_arrow_file_stream_and_feather(self, tmp_path: Path, table: pa.Table) -> None:
        with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
            file.write_table(table)
        with pa.ipc.new_stream(tmp_path / "a.arrows", table.schema) as stream:
            stream.write_table(table)
        pa.feather.write_feather(table, tmp_path / "a.feather")
        for name in ("a.arrow", "a.arrows", "a.feather"):
            same(read_sample(tmp_path / name))

    def test_a_stored_pandas_index_is_no_feature(self, tmp_path: Path) -> None:
        pd.DataFrame({"a": [1, 2]}, index=pd.Index([7, 8], name="key")).to_parquet(tmp_path / "a.parquet")
        assert list(read_sample(tmp_path / "a.parquet").frame) == ["a"]

    def test_a_parquet_file_of_pandas_keeps_its_dtypes(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            {
                "i": pd.array([1, None], dtype="Int16"),
                "c": pd.Categorical(["b", "a"], categories=["b", "a"]),
                "s": pd.array(["x", None], dtype="string"),
            }
        )
        frame.to_parquet(tmp_path / "a.parquet")
        assert kinds(read_sample(tmp_path / "a.parquet").frame) == kinds(frame)

    def test_json_lines_and_records(self, tmp_path: Path) -> None:
        lines = '{"a": 1, "s": "x", "v": [1, 2]}\n{"a": null, "s": null, "v": [3, 4]}\n'
        sample = read_sample(written(tmp_path / "a.jsonl", lines))
        assert kinds(sample.frame) == {"a": "float64", "s": text_dtype()}
        assert sample.dtypes == {"a": DType.int64}
        assert sample.tensors["v"].tolist() == [[1, 2], [3, 4]]
        records = read_sample(written(tmp_path / "b.json", '[{"a": 1}, {"b": "x"}]'))
        assert texts(records.frame["b"]) == [None, "x"]

    @pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl", "a.json"])
    def test_unreadable_files_are_named(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(MalformedInput, match=name):
            read_sample(written(tmp_path / name, b"[{]not data"))

    def test_missing_unknown_and_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(NotFound):
            read_sample(tmp_path / "none.csv")
        with pytest.raises(UnsupportedContent, match=r"\.xlsx"):
            read_sample(written(tmp_path / "a.xlsx", b"PK.."))
        with pytest.raises(UnsupportedContent, match="directory"):
            read_sample(tmp_path)
        monkeypatch.setattr(tables, "FILE_BYTES", 3)
        with pytest.raises(PayloadTooLarge, match="ten thousand rows"):
            read_sample(written(tmp_path / "a.csv", "a\n1\n2\n"))


class TestFrames:
    def test_arrow_and_polars(self, table: pa.Table) -> None:
        same(read_sample(table))
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        same(read_sample(frame))

    def test_pandas(self) -> None:
        zone = timezone(timedelta(hours=2))
        frame = pd.DataFrame(
            {
                "o": pd.Series([1, None], dtype=object),
                "n": pd.array([1, None], dtype="Int8"),
                "c": pd.Categorical(["b", None], categories=["b", "a"], ordered=True),
                "k": pd.Categorical([3, 4]),
                "t": [datetime(2024, 1, 1, 2, tzinfo=zone), None],
                "s": pd.Series(["x", None], dtype="str"),
                "x": pd.Series(["x", None], dtype=object),
                "v": [np.array([1, 2]), np.array([3, 4])],
            }
        ).set_axis([5, 9])
        sample = read_sample(frame)
        assert kinds(sample.frame) == {
            "o": "float64",
            "n": "Int8",
            "c": "category",
            "k": "category",
            "t": "datetime64[us, UTC+02:00]",
            "s": "str",
            "x": "object",
        }
        assert sample.dtypes == {"o": DType.int64}
        assert list(sample.frame["c"].cat.categories) == ["b", "a"]
        assert sample.frame["c"].cat.ordered
        assert frame_arrays(sample.frame)["t"][0] == np.datetime64("2024-01-01")
        assert sample.tensors["v"].tolist() == [[1, 2], [3, 4]]

    def test_a_bare_array_names_its_columns(self) -> None:
        sample = read_sample(np.arange(6, dtype=np.float32).reshape(3, 2))
        assert (list(sample.frame), sample.as_frame) == (["x0", "x1"], False)
        assert set(kinds(sample.frame).values()) == {"float32"}
        numbered = read_sample(pd.DataFrame(np.zeros((2, 3))), target="x2")
        assert (list(numbered.frame), numbered.as_frame) == (["x0", "x1"], False)

    def test_texts_and_tensors_and_records(self) -> None:
        assert read_sample(np.array(["one", "two"])).frame["x0"].tolist() == ["one", "two"]
        assert read_sample(np.zeros((4, 3, 2))).tensors["x"].shape == (4, 3, 2)
        sample = read_sample({"a": [1, 2], "image": np.zeros((2, 3, 3), dtype=np.uint8)})
        assert sample.tensors["image"].dtype == np.uint8
        assert len(sample) == 2

    def test_labels_may_be_given_as_values(self) -> None:
        sample = read_sample(np.zeros((3, 2)), target=["a", "b", "a"])
        assert sample.target is not None
        assert sample.target.tolist() == ["a", "b", "a"]
        with pytest.raises(MalformedInput, match="2 target values for 3 rows"):
            read_sample(np.zeros((3, 2)), target=[1, 2])

    @pytest.mark.parametrize(
        ("data", "error", "told"),
        [
            (pd.DataFrame({"a": [1, "x"]}), MalformedInput, "'a' holds values of several kinds"),
            (pd.DataFrame({"a": [1j]}), MalformedInput, "'a'"),
            (pd.DataFrame(), MalformedInput, "no columns"),
            (pd.DataFrame({"a": []}), MalformedInput, "no rows"),
            (pd.DataFrame([[1, 2]], columns=["a", "a"]), MalformedInput, "repeated: a"),
            (pd.DataFrame([[1, 2]], columns=["a", 2]), UnsupportedContent, "mixes text"),
            ({"a": [1, 2], "b": [1]}, MalformedInput, "a 2, b 1"),
            ({"a": [[1], [1, 2]]}, UnsupportedContent, "lists of 1 to 2"),
            ({"a": [{"b": 1}]}, UnsupportedContent, "struct"),
            ({"a": [timedelta(1)]}, UnsupportedContent, "duration"),
            (np.float64(3), UnsupportedContent, "float64"),
            (17, UnsupportedContent, "int"),
        ],
    )
    def test_bad_data_says_what_is_wrong(self, data: Any, error: type[Exception], told: str) -> None:
        with pytest.raises(error, match=told):
            read_sample(data)

    def test_a_missing_target_names_the_columns(self) -> None:
        with pytest.raises(MalformedInput, match=r"no column 'y'.*there are: a, b"):
            read_sample({"a": [1], "b": [2]}, target="y")
        with pytest.raises(MalformedInput, match="besides the target"):
            read_sample({"a": [1]}, target="a")


def test_more_rows_than_wanted_are_a_seeded_sample() -> None:
    data = {"a": np.arange(1000), "y": np.arange(1000) * 2}
    first, again = read_sample(data, target="y", rows=50), read_sample(data, target="y", rows=50)
    assert len(first) == 50
    assert first.frame.equals(again.frame)
    assert first.target is not None
    np.testing.assert_array_equal(first.target, first.frame["a"] * 2)
    assert first.frame["a"].is_monotonic_increasing


def test_the_frame_is_in_canonical_reach() -> None:
    """Every dtype `read_sample` produces has a canonical array."""
    sample = read_sample(
        {"i": [1, None], "b": [True, None], "s": ["x", None], "t": [datetime(2024, 1, 1), None]}
    )
    arrays = frame_arrays(sample.frame)
    assert {name: array.dtype.kind for name, array in arrays.items()} == {
        "i": "f",
        "b": "O",
        "s": "O",
        "t": "M",
    }
