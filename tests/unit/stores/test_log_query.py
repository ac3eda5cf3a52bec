"""SQL over the log: everything there is, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from fairway.core.errors import DeadlineExceeded, InvalidInput
from fairway.core.settings import LogSettings
from fairway.stores.log_compaction import compact
from fairway.stores.log_query import Limits, query
from tests.logs import NOON, label, opened, seconds, write_labels, write_predictions

T = seconds(NOON)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`m`: two rows compacted, two not, with another column; labels. `other.model-1`: one row."""
    where = tmp_path_factory.mktemp("queried") / "log"
    write_predictions(where, [("a", T), ("b", T + 1)])
    write_labels(where, [label("a", 1, T)], T)
    compact(opened(where), LogSettings(), everything=True)
    write_predictions(where, [("c", T + 2), ("d", T + 3)], extra=True, keys=["k", "l"])
    write_labels(
        where, [label("a", 0, T + 5), label("b", "text", T), label("", True, T + 10, key="k")], T + 9
    )
    write_predictions(where, [("o", T + 2)], model="other.model-1")
    return where


def ask(folder: Path, sql: str, **options: Any) -> list[tuple[Any, ...]]:
    with query(opened(folder), sql, **options) as reader:
        return [tuple(row.values()) for row in reader.read_all().to_pylist()]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select request_id from predictions where model = 'm' order by 1", [("a",), ("b",), ("c",), ("d",)]),
        ("select model, count(*) from predictions group by all order by 1", [("m", 4), ("other.model-1", 1)]),
        ('select request_id from "other.model-1".predictions', [("o",)]),
        ('select count("input.more"), count("input.amount") from predictions', [(2, 5)]),
        ("select count(*) from predictions p join predictions q using (request_id)", [(5,)]),
        (
            "select request_id, label from labels where request_id is not null order by 1",
            [("a", "0"), ("b", "text")],
        ),
        ("select label from label_history where request_id = 'a' order by time", [("1",), ("0",)]),
        ("select request_id, label from labelled order by 1", [("a", "0"), ("b", "text"), ("c", "true")]),
        ("select sum(label::int) from labelled where label in ('0', '1')", [(0,)]),
        ("select max(time) = timestamptz '2026-01-31 12:00:03+00' from predictions", [(True,)]),
    ],
)
def test_what_is_compacted_and_what_is_not_alike(folder: Path, sql: str, rows: list[tuple[Any, ...]]) -> None:
    assert ask(folder, sql) == rows


def test_one_model(folder: Path) -> None:
    assert ask(folder, "select count(*) from predictions", models=["other.model-1"]) == [(1,)]
    assert ask(folder, "select count(*) from labelled", models=["other.model-1"]) == [(0,)]


def test_a_log_without_rows_has_its_columns(tmp_path: Path) -> None:
    assert ask(tmp_path / "log", "select count(*), max(time), min(request_id) from predictions") == [
        (0, None, None)
    ]
    assert ask(tmp_path / "log", "select * from labelled") == []


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{place}'",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('{place}')",
        "select * from glob('/etc/*')",
        "select * from parquet_scan('{place}')",
        "attach '{place}' as other",
        "install httpfs",
        "load httpfs",
        "select * from read_parquet('http://127.0.0.1:1/x.parquet')",
        "set enable_external_access = true",
        "set memory_limit = '100GB'",
        "create table x as select 1",
        "drop view predictions",
        "export database '{place}'",
        "pragma database_list",
        "call pragma_version()",
        "select 1; copy (select 1) to '{place}'",
        "select 1; select 2",
        "",
        "nonsense",
        "select nothing from predictions",
        "select * from query('copy (select 1) to ''{place}''')",
    ],
)
def test_nothing_else_can_be_read_or_written(folder: Path, tmp_path: Path, sql: str) -> None:
    place = tmp_path / "written"
    with pytest.raises(InvalidInput):
        ask(folder, sql.format(place=place))
    assert not place.exists()
    assert not list(tmp_path.iterdir())


def test_limits(folder: Path) -> None:
    long = "select count(*) from range(1000000000) a, range(1000) b where a.range % 7 = b.range % 5"
    with pytest.raises(DeadlineExceeded, match=r"0\.3 s"):
        ask(folder, long, limits=Limits(seconds=0.3))
    with pytest.raises(InvalidInput, match="more than 32 MiB"):
        ask(folder, "select * from range(20000000) order by random()", limits=Limits(memory_bytes=2**25))


def test_an_explanation_may_be_asked_for(folder: Path) -> None:
    assert ask(folder, "explain select 1")
