"""Cutting an input: where the local engine cuts, and nowhere else."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.batch import delimited
from fairway.batch.ledger import FileRecord, Part
from fairway.batch.source import Position, Reading, SourceFile, find_files
from fairway.batch.sql import SqlSource, read_place
from fairway.batch.stretches import (
    FILE,
    Stretch,
    count_records,
    estimate_rows,
    part_rows_for,
    plan_files,
    plan_keys,
    remaining,
    save,
    saved,
)
from fairway.core.errors import CorruptRegistry
from tests.batches import LOCAL, csv_rows, go
from tests.planes import TWO_NUMBERS
from tests.spread import spread

READING = Reading(chunk_rows=3, chunk_bytes=24, kept=("id",))


def planned(path: Path, part_rows: int = 5, reading: Reading = READING) -> list[Stretch]:
    return plan_files(LOCAL, find_files(LOCAL, str(path)), reading, TWO_NUMBERS, part_rows)


def write_parquet(path: Path, rows: int, group: int) -> Path:
    table = pa.table({"id": range(rows), "a": [float(i) for i in range(rows)], "b": [1.0] * rows})
    pq.write_table(table, path, row_group_size=group)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_parts_are_those_of_the_local_engine_to_the_byte(kind: str, tmp_path: Path) -> None:
    source = tmp_path / f"in.{kind}"
    if kind == "csv":
        source.write_text(csv_rows(60, bad=(7, 8, 40)) + "\n\n" + csv_rows(5, first=60).partition("\n")[2])
    elif kind == "jsonl":
        source.write_text("".join(f'{{"id": {i}, "a": {i}, "b": {i % 12}}}\n\n' for i in range(50)))
    else:
        write_parquet(source, 50, 11)
    assert len(planned(source)) > 5
    local = go(tmp_path / "local", source, tmp_path / "one")
    away = spread(tmp_path / "away", source, tmp_path / "two")
    assert (away.checksum, away.rows, away.scored, away.rejected) == (
        local.checksum,
        local.rows,
        local.scored,
        local.rejected,
    )
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).rglob("part-*")} for n in ("one", "two"))
    assert one == two
    rejects = [tmp_path / name / "_rejects.jsonl" for name in ("one", "two")]
    assert [path.exists() and path.read_bytes() for path in rejects] == [
        rejects[0].exists() and rejects[0].read_bytes()
    ] * 2


CELLS = st.lists(
    st.sampled_from(["1", "", '"a"', '"a\nb"', '"a""b"', "x y", " ", '"', 'a"b', '"a"b', "\r"]), min_size=2, max_size=3
)  # fmt: skip


@settings(deadline=None)
@example(records=[["1", "1"], ['"a"b', '"a\nb"']], end="\n", ends=False, empty=0)
@given(
    records=st.lists(CELLS, max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    ends=st.booleans(),
    empty=st.integers(0, 3),
)
def test_records_are_counted_as_they_are_read(
    records: list[list[str]], end: str, ends: bool, empty: int
) -> None:
    data = end.join([*(",".join(r) for r in records[:6]), *[""] * empty, *(",".join(r) for r in records[6:])])
    content = (data + (end if ends else "")).encode()
    header = delimited.Header(("a", "b"), ",")
    assert count_records(content, ",") == delimited.parse(content, header, TWO_NUMBERS, ("a",)).total


def test_plain_records_are_counted_without_reading_them() -> None:
    out = io.StringIO()
    csv.writer(out).writerows([[i, i] for i in range(1000)])
    assert count_records(out.getvalue().encode(), ",") == 1000
    assert count_records(b"", ",") == 0


def test_a_whole_last_part_leaves_nothing_open_behind_it(tmp_path: Path) -> None:
    found = planned(write_parquet(tmp_path / "x.parquet", 12, 6), part_rows=6)
    assert found == [Stretch(0, 0, Position(), found[0].stop), Stretch(0, 1, found[1].start)]
    assert found[1].start.row == 6


def test_what_cannot_be_cut_is_one_stretch(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(csv_rows(100).encode()))
    (tmp_path / "b.csv").write_text(csv_rows(3))  # small
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "d.csv").touch()
    assert planned(tmp_path) == [Stretch(i) for i in range(4)]
    (tmp_path / "l.csv").write_bytes(csv_rows(100).encode("utf-16"))
    other = Reading(chunk_rows=3, chunk_bytes=24, kept=(), encoding="utf-16")
    assert planned(tmp_path / "l.csv", reading=other) == [Stretch(0)]


def test_a_table_is_cut_by_its_own_order_of_the_key(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("create table t (id text collate nocase primary key, a real, b real)"))
        for i in range(25):
            key = f"{'aA'[i % 2]}{i:02}"
            connection.execute(sa.text("insert into t values (:k, :a, 1)"), {"k": key, "a": i})
    engine.dispose()
    source = SqlSource(read_place(f"{url}?table=t&key=id"))
    found = plan_keys(source, 4, 10)
    assert source.count() == 25
    assert [(s.start.row, s.part) for s in found] == [(0, 0), (12, 1), (24, 2)]
    keys = []
    for stretch in found:
        stop = None if stretch.stop is None else stretch.stop.key
        keys.append([k for piece in source.pieces(stretch.start, 4, stop) for k in piece.raw["id"]])
    source.close()
    assert [len(k) for k in keys] == [12, 12, 1]
    whole = [key for some in keys for key in some]
    assert sorted(whole, key=str.lower) == whole


def test_what_is_done_is_not_left_to_do() -> None:
    cut = [Stretch(0, 0, Position(), Position(5, 5)), Stretch(0, 1, Position(5, 5)), Stretch(1)]
    files = [FileRecord(i, SourceFile("x", "csv"), "todo") for i in range(2)]

    def part(file: int, number: int, end: Position) -> Part:
        return Part(
            file=file, part=number, first=0, end=end, scored=0, rejects=0, name="", bytes=0, sha256=""
        )

    assert remaining(cut, files, []) == cut
    done = [part(0, 1, Position(9, 9)), part(0, 2, Position(12, 12)), part(1, 0, Position(3, 3))]
    assert remaining(cut, files, done) == [
        cut[0],
        Stretch(0, 3, Position(12, 12)),
        Stretch(1, 1, Position(3, 3)),
    ]
    ended = [FileRecord(0, files[0].file, "done"), files[1]]
    assert remaining(cut, ended, []) == [cut[2]]


def test_stretches_are_written_down_once(tmp_path: Path) -> None:
    assert saved(tmp_path) is None
    cut = [Stretch(0, 0, Position(), Position(5, 5, ["a", 1])), Stretch(0, 1, Position(5, 5, ["a", 1]))]
    save(tmp_path, cut)
    assert saved(tmp_path) == cut
    (tmp_path / FILE).write_text("{")
    with pytest.raises(CorruptRegistry):
        saved(tmp_path)


def test_every_slot_has_several_parts_of_a_size_that_pays(tmp_path: Path) -> None:
    assert part_rows_for(1_000_000, 8, most=250_000, least=1_000) == 31_250
    assert part_rows_for(1_000, 8, most=250_000, least=1_000) == 1_000
    assert part_rows_for(10**9, 8, most=250_000, least=1_000) == 250_000
    write_parquet(tmp_path / "a.parquet", 50, 50)
    (tmp_path / "b.parquet").write_bytes(b"damaged")
    assert estimate_rows(LOCAL, find_files(LOCAL, str(tmp_path)), READING) == 50
