"""Files of every kind, in chunks from any position on; and what damaged ones say."""

import errno
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fairway.batch.score import score
from fairway.batch.sink import FilePart
from fairway.batch.source import (
    Position,
    Reading,
    SourceFile,
    find_files,
    format_of,
    kept_schema,
    parse,
    pieces,
    zstd,
)
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import InvalidInput, MalformedInput, NotFound, UnsupportedContent
from tests.batches import LOCAL
from tests.planes import TWO_NUMBERS, live_version

ROWS = 23
START = Position()
READING = Reading(chunk_rows=4, chunk_bytes=40, kept=("id",))


def data() -> pa.Table:
    return pa.table({"id": range(ROWS), "a": np.arange(ROWS) / 2, "b": np.arange(ROWS) % 10 * 1.0})


def write(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, packed = format_of(name)
    if kind == "parquet":
        pq.write_table(data(), path, row_group_size=10)
        return path
    plain = folder / "plain"
    writer = FilePart(plain, kind, "", data().schema, str)
    writer.write(data())
    writer.commit()
    content = plain.read_bytes()
    plain.unlink()
    pack = {"gz": gzip.compress, "zst": zstd.compress}.get(packed, lambda raw: raw)
    path.write_bytes(pack(content))
    return path


def scored(path: Path, start: Position = START, reading: Reading = READING) -> list[tuple[Position, Any]]:
    """Position behind each chunk, and its rows."""
    (file,) = find_files(LOCAL, str(path))
    kept = kept_schema(LOCAL, file, reading, TWO_NUMBERS)
    live = live_version(1)
    row, found = start.row, []
    for piece in pieces(LOCAL, file, start, reading, TWO_NUMBERS):
        result = score(live, parse(piece, file, TWO_NUMBERS, kept))
        row += result.total
        found.append((Position(piece.offset, row, piece.key), result.table.to_pylist()))
    return found


NAMES = ["x.csv", "x.jsonl", "x.parquet", "x.arrow", "x.csv.gz", "x.jsonl.zst"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_every_row_and_the_same_chunks_from_any_position_on(
    name: str, tmp_path: Path
) -> None:
    path = write(tmp_path, name)
    chunks = scored(path)
    assert len(chunks) > 2
    rows = [row for _, part in chunks for row in part]
    assert [int(row["id"]) for row in rows] == list(range(ROWS))
    assert [row["sum"] for row in rows] == [i / 2 + i % 10 for i in range(ROWS)]
    for i, (position, _) in enumerate(chunks):
        assert scored(path, position) == chunks[i + 1 :]


def test_an_arrow_stream_is_read_too(tmp_path: Path) -> None:
    with pa.ipc.new_stream(tmp_path / "x.arrow", data().schema) as writer:
        writer.write_table(data())
    assert sum(len(part) for _, part in scored(tmp_path / "x.arrow")) == ROWS


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_short_says_so_after_the_chunks_before(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-9])
    if format_of(name) in (("csv", ""), ("jsonl", "")):
        assert sum(len(part) for _, part in scored(path)) <= ROWS
        return
    with pytest.raises(MalformedInput, match=r"cut short|cannot be read as|is empty"):
        scored(path)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.csv").touch()
    with pytest.raises(MalformedInput, match="the file is empty"):
        scored(tmp_path / "x.csv")
    (tmp_path / "x.jsonl").touch()
    assert scored(tmp_path / "x.jsonl", reading=Reading(chunk_rows=4, chunk_bytes=40)) == []


def test_files_are_found_by_folder_and_glob_with_their_partition(tmp_path: Path) -> None:
    for name in ("day=1/x.csv", "day=2/c=a%2Fb/y.parquet", "_done/z.csv", ".hidden.csv", "day=2/notes.md"):
        write(tmp_path, name) if not name.endswith("md") else (tmp_path / name).touch()
    found = find_files(LOCAL, str(tmp_path))
    assert [(Path(f.path).name, f.format, f.partition) for f in found] == [
        ("x.csv", "csv", (("day", "1"),)),
        ("y.parquet", "parquet", (("day", "2"), ("c", "a/b"))),
    ]
    assert found[1].folder == "day=2/c=a%2Fb/"
    assert find_files(LOCAL, f"{tmp_path}/day=*/**") == found
    assert find_files(LOCAL, f"{tmp_path}/day=*/**.parquet") == found[1:]
    assert find_files(LOCAL, f"{tmp_path}/day=1/*.csv")[0].stamp == found[0].stamp


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        find_files(LOCAL, str(tmp_path))
    with pytest.raises(NotFound):
        find_files(LOCAL, str(tmp_path / "x.csv"))
    (tmp_path / "x.xlsx").touch()
    with pytest.raises(UnsupportedContent, match="--input-format"):
        find_files(LOCAL, str(tmp_path / "x.xlsx"))
    assert find_files(LOCAL, str(tmp_path / "x.xlsx"), format="csv")[0].format == "csv"


def test_partition_folders_are_columns(tmp_path: Path) -> None:
    contract = Contract(
        inputs=(Field(name="a", dtype=DType.float64), Field(name="day", dtype=DType.int64)), outputs=()
    )
    write(tmp_path, "day=3/x.parquet")
    (file,) = find_files(LOCAL, str(tmp_path))
    reading = Reading(chunk_rows=100, chunk_bytes=100, kept=("day", "id"))
    kept = kept_schema(LOCAL, file, reading, contract)
    (piece,) = list(pieces(LOCAL, file, Position(), reading, contract))[:1]
    parsed = parse(piece, file, contract, kept)
    assert parsed.inputs["day"] == [3] * 10
    assert parsed.kept.column_names == ["day", "id"]
    assert parsed.kept.column("day").to_pylist() == ["3"] * 10


def test_columns_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1.0], "z": [1]}), tmp_path / "x.parquet")
    with pytest.raises(MalformedInput, match=r"b: missing; id: missing, and it is to be kept"):
        scored_columns(tmp_path / "x.parquet", TWO_NUMBERS)
    strict = Contract(inputs=(Field(name="a", dtype=DType.float64),), outputs=(), extra_fields="reject")
    with pytest.raises(MalformedInput, match="z: is not a field"):
        scored_columns(tmp_path / "x.parquet", strict, kept=())


def scored_columns(path: Path, contract: Contract, kept: tuple[str, ...] = ("id",)) -> None:
    (file,) = find_files(LOCAL, str(path))
    list(pieces(LOCAL, file, Position(), Reading(chunk_rows=9, chunk_bytes=99, kept=kept), contract))


def test_kept_columns_of_another_type_than_in_the_first_file_are_named(tmp_path: Path) -> None:
    kept = pa.schema([("id", pa.int64())])
    table = pa.table({"id": ["x"], "a": [1.0], "b": [1.0]})
    pq.write_table(table, tmp_path / "x.parquet")
    (file,) = find_files(LOCAL, str(tmp_path))
    (piece,) = pieces(LOCAL, file, Position(), READING, TWO_NUMBERS)
    with pytest.raises(MalformedInput, match="other types than in the first file: id"):
        parse(piece, file, TWO_NUMBERS, kept)


def test_lines_that_are_no_rows_are_rejects(tmp_path: Path) -> None:
    text = '{"id": 1, "a": 1, "b": 2}\n\n[1]\nnope\n{"id": 2, "a": 3}\n{"id": "x", "a": 1, "b": 2}\n{"id": 3, "a": 1, "b": 1}\n'
    (tmp_path / "x.jsonl").write_text(text)
    file = SourceFile(str(tmp_path / "x.jsonl"), "jsonl")
    (piece,) = pieces(LOCAL, file, Position(), Reading(chunk_rows=9, chunk_bytes=999), TWO_NUMBERS)
    parsed = parse(piece, file, TWO_NUMBERS, pa.schema([("id", pa.int64())]))
    assert parsed.total == 6
    assert parsed.kept.to_pylist() == [{"id": 1}, {"id": 3}]
    assert {(r.row, r.field) for r in parsed.rejects} == {(1, None), (2, None), (3, "b"), (4, "id")}
    result = score(live_version(1), parsed)
    assert result.table.column("sum").to_pylist() == [3.0, 2.0]


def test_types_of_json_columns_are_those_of_the_first_rows(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"a": 1, "b": 1, "s": "x", "n": null}\n{"a": 1, "b": 2.5, "s": 3, "n": null}\n'
    )
    file = SourceFile(str(tmp_path / "x.jsonl"), "jsonl")
    reading = Reading(chunk_rows=9, chunk_bytes=999, kept=None)
    assert {f.name: str(f.type) for f in kept_schema(LOCAL, file, reading, TWO_NUMBERS)} == {
        "a": "int64", "b": "double", "s": "string", "n": "string",
    }  # fmt: skip


def test_a_column_to_keep_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv")
    (file,) = find_files(LOCAL, str(path))
    reading = Reading(chunk_rows=9, chunk_bytes=999, kept=("nope",))
    with pytest.raises(InvalidInput, match="nope"):
        kept_schema(LOCAL, file, reading, TWO_NUMBERS)


def test_a_file_that_may_not_be_read_is_that_files_own_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*words: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")  # root may read anything

    file = SourceFile(path=str(write(tmp_path, "x.csv")), format="csv")
    monkeypatch.setattr(LOCAL, "open", closed)
    with pytest.raises(MalformedInput, match="may not be read"):
        kept_schema(LOCAL, file, READING, TWO_NUMBERS)
