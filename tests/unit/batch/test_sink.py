"""Output files: every form, and what is refused."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairway.batch.sink import COMPRESSIONS, Folder, SingleFile, open_file_sink
from fairway.batch.source import Position, Reading, find_files, kept_schema, parse, pieces, zstd
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import AlreadyExists, FairwayError, InvalidInput, UnsupportedContent
from tests.batches import LOCAL

SCHEMA = pa.schema([("say", pa.string()), ("p", pa.list_(pa.float64(), 2))])
ROWS = [{"say": 'a,"b"\nc', "p": [1.0, float("nan")]}, {"say": None, "p": [0.5, 2.0]}]


def sink(tmp_path: Path, name: str, **options: Any) -> Folder | SingleFile:
    given = {"format": "", "scratch": tmp_path / "scratch", "inputs": [], **options}
    return open_file_sink(LOCAL, str(tmp_path / name) + ("/" if name.endswith("/") else ""), **given)


def written(tmp_path: Path, name: str, **options: Any) -> Any:
    target = sink(tmp_path, name, **options)
    parts = []
    for number in range(2):
        writer = target.begin("day=1/", f"part-{number}", SCHEMA)
        writer.write(pa.Table.from_pylist(ROWS[number : number + 1], schema=SCHEMA))
        parts.append(writer.commit())
    target.finish(parts, [], b"{}", whole=True)
    return parts


CSV = 'say,p_0,p_1\n"a,""b""\nc",1,\n,0.5,2\n'


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.csv.zst"])
def test_one_csv_has_one_header_and_reads_as_the_server_writes(tmp_path: Path, name: str) -> None:
    import gzip

    written(tmp_path, name)
    content = (tmp_path / name).read_bytes()
    unpack = {"gz": gzip.decompress, "zst": zstd.decompress}.get(name.rpartition(".")[2], bytes)
    assert unpack(content).decode() == CSV


def test_json_lines(tmp_path: Path) -> None:
    written(tmp_path, "o.jsonl")
    assert (tmp_path / "o.jsonl").read_text() == (
        '{"say":"a,\\"b\\"\\nc","p":[1.0,null]}\n{"say":null,"p":[0.5,2.0]}\n'
    )


@pytest.mark.parametrize("name", ["o.parquet", "o.arrow"])
def test_tables(tmp_path: Path, name: str) -> None:
    written(tmp_path, name)
    path = tmp_path / name
    table = pq.read_table(path) if name.endswith("parquet") else pa.ipc.open_file(path).read_all()
    assert table.schema == SCHEMA
    assert str(table.to_pylist()) == str(ROWS)


def test_a_folder_has_a_file_for_each_part_and_a_note_at_the_end(tmp_path: Path) -> None:
    parts = written(tmp_path, "o", format="csv")
    assert [part.name for part in parts] == ["day=1/part-0.csv", "day=1/part-1.csv"]
    found = sorted(str(p.relative_to(tmp_path / "o")) for p in (tmp_path / "o").rglob("*") if p.is_file())
    assert found == ["_fairway.json", "day=1/part-0.csv", "day=1/part-1.csv"]


@pytest.mark.parametrize("name", ["o", "o.csv"])
def test_a_part_that_is_given_up_leaves_nothing(tmp_path: Path, name: str) -> None:
    writer = sink(tmp_path, name).begin("", "part-0", SCHEMA)
    writer.write(pa.Table.from_pylist(ROWS, schema=SCHEMA))
    writer.abort()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_what_is_there_is_not_touched_unless_asked(tmp_path: Path) -> None:
    for name in ("x.csv", "x.txt", "_fairway.json"):
        (tmp_path / "o").mkdir(exist_ok=True)
        (tmp_path / "o" / name).touch()
    with pytest.raises(AlreadyExists, match="3 files"):
        sink(tmp_path, "o").check(overwrite=False)
    sink(tmp_path, "o").check(overwrite=True)
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["x.txt"]
    (tmp_path / "o.csv").touch()
    with pytest.raises(AlreadyExists, match="already there"):
        sink(tmp_path, "o.csv").check(overwrite=False)
    sink(tmp_path, "new").check(overwrite=False)


def test_an_output_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds input files"):
        sink(tmp_path, "in", inputs=[str(tmp_path / "in" / "x.csv")])
    with pytest.raises(InvalidInput, match="at once"):
        sink(tmp_path, "x.csv", inputs=[str(tmp_path / "x.csv")])


@pytest.mark.parametrize("name", ["o.parquet.gz", "o.csv.bz2"])
def test_forms_that_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedContent):
        sink(tmp_path, name)
    with pytest.raises(UnsupportedContent, match="xlsx"):
        sink(tmp_path, "o", format="xlsx")


@pytest.mark.parametrize(
    ("name", "format", "compression"),
    [(n, f, c) for f, codecs in COMPRESSIONS.items() for c in codecs for n in (f"o.{f}", "folder")],
)
def test_every_compression_reads_back(tmp_path: Path, name: str, format: str, compression: str) -> None:
    if name != "folder" and format in ("csv", "jsonl"):
        name += {"gzip": ".gz", "zstd": ".zst", "none": ""}[compression]
    output = tmp_path / name
    target = open_file_sink(
        LOCAL, str(output), format=format, scratch=tmp_path / "s", inputs=(), compression=compression
    )
    schema = pa.schema([("x", pa.float32()), ("y", pa.string())])
    parts = []
    for number in range(2):
        part = target.begin("", f"part-{number}", schema)
        part.write(pa.table({"x": [0.5, 1.5], "y": ["a", "b"]}, schema=schema))
        parts.append(part.commit())
    target.finish(parts, [], b"{}", whole=True)
    files = find_files(LOCAL, str(output))
    assert len(files) == (2 if name == "folder" else 1)
    contract = Contract(inputs=(Field(name="x", dtype=DType.float32),), outputs=())
    reading = Reading(chunk_rows=10, chunk_bytes=1000, kept=("y",))
    kept = kept_schema(LOCAL, files[0], reading, contract)
    rows = [
        text
        for file in files
        for piece in pieces(LOCAL, file, Position(), reading, contract)
        for text in parse(piece, file, contract, kept).kept.column("y").to_pylist()
    ]
    assert rows == ["a", "b", "a", "b"]


def test_compressions_that_a_format_has_not(tmp_path: Path) -> None:
    options: dict[str, Any] = {"scratch": tmp_path, "inputs": ()}
    with pytest.raises(UnsupportedContent, match="gzip, zstd, none are"):
        open_file_sink(LOCAL, str(tmp_path / "o.csv"), format="", compression="snappy", **options)
    with pytest.raises(UnsupportedContent, match="not named like"):
        open_file_sink(LOCAL, str(tmp_path / "o.csv"), format="", compression="gzip", **options)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    target = sink(tmp_path, "file/below/")
    with pytest.raises(FairwayError, match=r"[Cc]ould not write the output in .*file/below"):
        target.begin("", "part-0", SCHEMA)
