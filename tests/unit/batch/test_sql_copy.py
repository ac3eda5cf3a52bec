"""PostgreSQL by COPY: what the driver gives value by value, quicker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from fairway.batch import sql_copy
from fairway.batch.source import Position
from fairway.batch.sql import SqlSink, SqlSource, read_place
from fairway.core.errors import InvalidInput, MalformedInput
from tests.services import Postgres

pytestmark = pytest.mark.postgres
ODD = """
create table odd (id bigint primary key, flag boolean, small smallint, amount numeric(20, 4), real real, double double precision,
    word text, letters char(3), code uuid, day date, moment timestamp, zoned timestamptz);
insert into odd values
    (1, true, 7, 1.25, 0.1, 1e-300, '', 'ab', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2020-02-29', '2020-01-01 01:02:03.000004', '2020-01-01 00:00+05:30'),
    (2, false, null, 'NaN', 'NaN', '-Infinity', E'"quoted", and\\nbroken', null, null, null, null, null),
    (3, null, -7, 12345678901234.5678, 3e38, 'NaN', null, 'abc', null, '1969-12-31', '1969-12-31 23:59:59', '1969-12-31 23:59:59-12'),
    (4, null, null, null, null, null, '\\N', null, null, null, null, null),
    (5, null, null, null, null, 0.30000000000000004, 'such :name {}', null, null, null, null, null)
"""


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def rows(url: str, step: int = 2, start: Position = Position()) -> list[dict[str, Any]]:  # noqa: B008 - frozen
    source = SqlSource(read_place(url))
    found: list[dict[str, Any]] = []
    try:
        for piece in source.pieces(start, step):
            table = piece.raw if isinstance(piece.raw, pa.Table) else pa.table(piece.raw)
            found += table.to_pylist()
    finally:
        source.close()
    return found


def test_values_are_those_of_the_driver(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.new_database()
    with connected(url) as connection:
        connection.exec_driver_sql(ODD)
    copied = rows(f"{url}?table=odd&key=id")
    monkeypatch.setattr(sql_copy, "column_types", lambda connection, rows: None)
    one_by_one = rows(f"{url}?table=odd&key=id")
    assert len(copied) == 5
    assert [list(map(str, row.values())) for row in copied] == [
        list(map(str, row.values())) for row in one_by_one
    ]
    assert copied[1]["word"] == '"quoted", and\nbroken'
    assert (copied[0]["word"], copied[2]["word"], copied[3]["word"]) == ("", None, "\\N")


def test_queries_are_taken_as_they_are(postgres: Postgres) -> None:
    url = postgres.new_database()
    with connected(url) as connection:
        connection.exec_driver_sql(ODD)
    query = "select id, id::text || ' :x %25s {}' as tag from odd where word like '%25s%25' or word is null;"
    assert [row["tag"] for row in rows(f"{url}?query={query}&key=id")] == ["3 :x %s {}", "5 :x %s {}"]
    assert rows(f"{url}?query=select id, 'a:b' as t from odd where id > 3&key=id")[0]["t"] == "a:b"
    with pytest.raises(InvalidInput, match="nope"):
        rows(f"{url}?query=select nope from odd&key=id")
    with pytest.raises(InvalidInput, match="other"):
        rows(f"{url}?table=odd&key=other")


def test_what_arrow_cannot_hold_is_read_by_the_driver(postgres: Postgres) -> None:
    url = postgres.new_database()
    with connected(url) as connection:
        connection.exec_driver_sql(
            "create table t (id int primary key, x double precision[]); insert into t values (1, '{1,2}'), (2, null)"
        )
    assert rows(f"{url}?table=t&key=id") == [{"id": 1, "x": [1.0, 2.0]}, {"id": 2, "x": None}]


def test_a_key_of_two_columns(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    with connected(url) as connection:
        connection.exec_driver_sql(
            "create table t (who text, day int, x float); insert into t values ('b', 1, 1), ('a', 2, 2), ('a', 1, 3), ('c', 0, 4)"
        )
    found = rows(f"{url}?table=t&key=who,day", step=1)
    assert [(row["who"], row["day"]) for row in found] == [("a", 1), ("a", 2), ("b", 1), ("c", 0)]
    assert len(rows(f"{url}?table=t&key=who,day", start=Position(key=["a", 2]))) == 2
    with pytest.raises(MalformedInput, match="not unique: 'a' is there twice"):
        rows(f"{url}?table=t&key=who")
    source = SqlSource(read_place(f"{url}?table=t&key=who,day"))
    assert (source.count(), source.every(2)) == (4, [["a", 2], ["c", 0]])
    assert [p.key for p in source.pieces(Position(key=["a", 1]), 5, ["b", 1])] == [["b", 1]]
    source.close()


SCHEMA = pa.schema([("who", pa.string()), ("day", pa.int64()), ("score", pa.float32())])


def put(url: str, run: str, part: str, records: list[dict[str, Any]], folder: Path) -> None:
    sink = SqlSink(read_place(url), run, folder)
    try:
        writer = sink.begin("", part, SCHEMA)
        for record in records:
            writer.write(pa.Table.from_pylist([record], schema=SCHEMA))
        writer.commit()
    finally:
        sink.close()


def test_rows_are_replaced_by_key_and_a_part_is_written_once(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database() + "/s?key=who,day"
    rows_of_a_part = [
        {"who": "", "day": 1, "score": 0.1},
        {"who": 'x,"\n', "day": 1, "score": float("nan")},
        {"who": "", "day": 1, "score": 0.5},
        {"who": "", "day": 2, "score": None},
    ]
    put(url, "r", "p0", rows_of_a_part, tmp_path)
    put(url, "r", "p0", [{"who": "", "day": 1, "score": 9.0}], tmp_path)
    with connected(url.rpartition("/")[0]) as connection:
        held = connection.execute(sa.text("select who, day, score from s order by who, day")).fetchall()
    assert [tuple(row) for row in held] == [("", 1, 0.5), ("", 2, None), ('x,"\n', 1, None)]
    put(url, "r2", "p0", [{"who": "", "day": 2, "score": 0.1}], tmp_path)
    with connected(url.rpartition("/")[0]) as connection:
        (score,) = connection.execute(sa.text("select score from s where day = 2")).one()
    assert score == 0.10000000149011612  # the float32, to the bit


def test_a_table_without_the_keys_constraint(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    with connected(url) as connection:
        connection.exec_driver_sql("create table s (who text, day bigint, score float)")
    with pytest.raises(InvalidInput, match="ON CONFLICT"):
        put(f"{url}/s?key=who,day", "r", "p0", [{"who": "a", "day": 1, "score": 1.0}], tmp_path)
    with connected(url) as connection:
        assert connection.execute(sa.text("select count(*) from s")).scalar() == 0
