"""Databases as source and sink: what their URLs mean, and what cannot be done."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from fairway.batch.source import Position
from fairway.batch.sql import SqlSink, SqlSource, is_sql, read_place
from fairway.core.errors import AlreadyExists, InvalidInput, NotSupported, Unavailable


def fill(path: Path, statements: str) -> str:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for statement in statements.split(";"):
            connection.execute(sa.text(statement))
    engine.dispose()
    return f"sqlite:///{path}"


def chunks(url: str, rows: int = 2, start: Position = Position()) -> list[Any]:  # noqa: B008 - frozen
    source = SqlSource(read_place(url))
    try:
        return [(piece.key, piece.raw) for piece in source.pieces(start, rows)]
    finally:
        source.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fill(
        tmp_path / "x.db",
        "create table t (id integer, word text, x real); insert into t values (3, 'c', 1), (1, 'a', 2), (7, 'b', null)",
    )


def test_rows_come_in_key_order_from_any_key_on(url: str) -> None:
    found = chunks(f"{url}?table=t&key=id")
    assert found == [
        (3, {"id": [1, 3], "word": ["a", "c"], "x": [2.0, 1.0]}),
        (7, {"id": [7], "word": ["b"], "x": [None]}),
    ]
    assert chunks(f"{url}?table=t&key=id", start=Position(key=3)) == found[1:]
    by_word = chunks(f"{url}?query=select word, id from t where id < 5&key=word", rows=1)
    assert [key for key, _ in by_word] == ["a", "c"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("(1), (1)", "not unique: 1"),
        ("(1), (2), (2)", "not unique: 2"),
        ("(1), (null)", "is null"),
        ("(1.5)", "whole numbers or text"),
    ],
)
def test_keys_that_rows_cannot_be_read_by(tmp_path: Path, values: str, why: str) -> None:
    url = fill(tmp_path / "y.db", f"create table t (id); insert into t values {values}")
    with pytest.raises(InvalidInput, match=why):
        chunks(f"{url}?table=t&key=id")


def test_urls() -> None:
    assert is_sql("postgresql+psycopg://u@h/d")
    assert is_sql("sqlite:///x.db")
    assert not is_sql("s3://bucket/x")
    assert not is_sql("sqlite.csv")
    place = read_place("postgresql://u:secret@h/d/scores?key=id")
    assert (place.table, place.key) == ("scores", "id")
    assert "secret" in place.url
    assert "secret" not in place.shown
    assert place.url.startswith("postgresql+psycopg://u:secret@h/d")
    for wrong in ("sqlite:///x.db", "sqlite:///x.db?table=t&query=select 1", "://"):
        with pytest.raises(InvalidInput):
            read_place(wrong)


def test_a_source_needs_a_key_and_a_database(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidInput, match="unique key"):
        SqlSource(read_place(f"{url}?table=t"))
    with pytest.raises(Unavailable, match="unable to open"):
        chunks(f"sqlite:///{tmp_path}/nowhere/x.db?table=t&key=id")
    with pytest.raises(InvalidInput, match="no such table"):
        chunks(f"{url}?table=nope&key=id")


SCHEMA = pa.schema([("id", pa.int64()), ("both", pa.list_(pa.float64(), 2))])


def write(url: str, run: str, part: str, rows: list[dict[str, Any]], folder: Path) -> None:
    sink = SqlSink(read_place(url), run, folder)
    try:
        writer = sink.begin("", part, SCHEMA)
        writer.write(pa.Table.from_pylist(rows, schema=SCHEMA))
        writer.commit()
    finally:
        sink.close()


def held(url: str) -> list[Any]:
    engine = sa.create_engine(url.partition("?")[0])
    with engine.connect() as connection:
        found = connection.execute(sa.text("select id, both_0, both_1 from s order by id")).fetchall()
    engine.dispose()
    return [tuple(row) for row in found]


def test_a_part_is_written_once_and_keys_are_replaced(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db?table=s&key=id"
    rows = [
        {"id": 1, "both": [1.0, 2.0]},
        {"id": 2, "both": [3.0, float("nan")]},
        {"id": 1, "both": [9.0, 9.0]},
    ]
    write(url, "r", "p0", rows, tmp_path)
    assert held(url) == [(1, 9.0, 9.0), (2, 3.0, None)]
    write(url, "r", "p0", [{"id": 1, "both": [0.0, 0.0]}], tmp_path)
    assert held(url) == [(1, 9.0, 9.0), (2, 3.0, None)]
    write(url, "r2", "p0", [{"id": 2, "both": [0.0, 0.0]}], tmp_path)
    assert held(url) == [(1, 9.0, 9.0), (2, 0.0, 0.0)]


def test_a_table_with_rows_is_refused_without_a_key(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db?table=s"
    write(url, "r", "p0", [{"id": 1, "both": [1.0, 2.0]}], tmp_path)
    sink = SqlSink(read_place(url), "r2", tmp_path)
    with pytest.raises(AlreadyExists, match="--overwrite"):
        sink.check(overwrite=False)
    assert held(url)
    sink.check(overwrite=True)
    assert not held(url)
    sink.close()
    with_key = SqlSink(read_place(url + "&key=id"), "r2", tmp_path)
    with_key.check(overwrite=False)
    with_key.close()


def test_what_a_sink_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a table, not a query"):
        SqlSink(read_place(f"sqlite:///{tmp_path}/s.db?query=select 1"), "r", tmp_path)
    with pytest.raises(InvalidInput, match="--keep other"):
        write(f"sqlite:///{tmp_path}/s.db?table=s&key=other", "r", "p", [], tmp_path)
    fill(tmp_path / "t.db", "create table s (id integer primary key)")
    with pytest.raises(InvalidInput, match="has no column both_0, both_1"):
        write(f"sqlite:///{tmp_path}/t.db?table=s&key=id", "r", "p", [], tmp_path)


def test_upserts_are_of_sqlite_and_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.batch.sql._UPSERTS", {})
    with pytest.raises(NotSupported, match="upserts"):
        SqlSink(read_place(f"sqlite:///{tmp_path}/s.db?table=s&key=id"), "r", tmp_path)
