"""Batch runs under kill -9, under a database that is killed, under a disk that is full: no row twice, none missing."""

import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from fairway.app.batch import run_batch
from fairway.batch.run import Progress
from fairway.core.errors import FairwayError, StorageFull, Unavailable
from tests.batches import csv_rows, go
from tests.e2e.batching import forks, work
from tests.e2e.servers import numeric_data
from tests.services import Postgres, own_postgres

pytestmark = pytest.mark.e2e
KILLS = int(os.environ.get("FAIRWAY_TEST_KILLS", "16"))
"""Random moments for each sink of files and of SQLite; PostgreSQL gets a quarter."""


def lines(rows: int) -> pd.DataFrame:
    frame = numeric_data(rows)[["a", "b", "c"]]
    frame.insert(0, "id", range(rows))
    return frame


# A process that is killed


def killed_on(name: str, begin: Any, contents: Any, *, kills: int) -> None:
    """`begin(run)` starts a run in a process of its own, or goes on with it; it is killed at so many random moments. A
    run that has ended is compared with one that nobody disturbed, by `contents(run)`, and a fresh one is killed on."""
    began = time.monotonic()
    process = begin("whole")
    process.join()
    expected = contents("whole")
    limit = (time.monotonic() - began) / 8
    moments = random.Random(name)
    killed = ended = 0
    while killed < kills or not ended:
        process = begin(f"killed{ended}")
        process.join(moments.uniform(0, limit) if killed < kills else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
        else:
            assert process.exitcode == 0
            assert contents(f"killed{ended}") == expected
            ended += 1


def two_days(source: Path) -> Path:
    for day in ("1", "2"):
        (source / f"day={day}").mkdir(parents=True)
        (source / f"day={day}" / "x.csv").write_text(csv_rows(700, bad=(5, 500), first=1000 * int(day)))
    return source


def started(folder: Path, source: Path, output: Path, table: str = "") -> Any:
    begun = forks.Event()
    process = forks.Process(target=work, args=(folder, source, output, table, begun))
    process.start()
    assert begun.wait(60)
    return process


@pytest.mark.parametrize("sink", ["folder", "file", "table", "table with a key"])
def test_killed_at_many_moments_it_ends_as_if_it_had_not_been(sink: str, tmp_path: Path) -> None:
    source = two_days(tmp_path / "in")

    def begin(name: str) -> Any:
        key = "&key=id" if sink.endswith("key") else ""
        table = f"sqlite:///{tmp_path}/{name}.db?table=scores{key}" if sink.startswith("table") else ""
        output = tmp_path / (f"{name}.csv" if sink == "file" else name)
        return started(tmp_path / f"{name}-run", source, output, table)

    killed_on(sink, begin, lambda name: contents(tmp_path, name, sink), kills=KILLS)
    go(tmp_path / "killed0-run", source, tmp_path / "killed0", sink=Untouched) if sink == "folder" else None


@pytest.mark.postgres
@pytest.mark.parametrize("key", ["&key=id", ""])
def test_killed_while_it_writes_to_postgresql(key: str, postgres: Postgres, tmp_path: Path) -> None:
    """The server outlives the run: what a killed one had sent may be committed after it is dead."""
    source, url = two_days(tmp_path / "in"), postgres.new_database()

    def begin(name: str) -> Any:
        table = f"{url}?table={name}{key}"
        return started(tmp_path / f"{name}-run", source, tmp_path / name, table)

    def rows(name: str) -> Any:
        with connected(url) as connection:
            found = connection.execute(sa.text(f"select * from {name} order by id")).fetchall()
        assert len(found) == 1396
        return found

    killed_on(f"postgresql{key}", begin, rows, kills=max(4, KILLS // 4))


class Untouched:
    """A sink of a run that has nothing left to do."""

    def __init__(self, folder: Path) -> None:
        return None

    def check(self, *, overwrite: bool) -> None:
        raise AssertionError

    def begin(self, folder: str, name: str, schema: Any) -> Any:
        raise AssertionError(f"{name} is written again")

    def finish(self, parts: Any, rejects: Any, manifest: bytes, *, whole: bool) -> str:
        return ""

    def close(self) -> None:
        return None


def contents(folder: Path, name: str, sink: str) -> Any:
    if sink == "file":
        return (folder / f"{name}.csv").read_bytes()
    if sink == "folder":
        found = (p for p in sorted((folder / name).rglob("part-*")) if not p.name.endswith(".tmp"))
        return {str(p.relative_to(folder / name)): p.read_bytes() for p in found}
    engine = sa.create_engine(f"sqlite:///{folder}/{name}.db")
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select * from scores order by id")).fetchall()
    engine.dispose()
    assert len(rows) == 1396
    return rows


# A database that is killed


@pytest.fixture(scope="module")
def fragile() -> Iterator[Postgres]:
    """A server of its own, to be killed."""
    with own_postgres() as server:
        yield server


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize("key", ["&key=id", ""])
def test_a_database_that_is_killed_in_mid_run(home_copy: Path, fragile: Postgres, key: str) -> None:
    url = fragile.new_database()
    frame = lines(1500)
    with connected(url) as connection:
        frame.to_sql("customers", connection, index=False)
    places = (f"{url}?table=customers&key=id", f"{url}?table=scores{key}")
    moments = iter((2, 5))

    def kill_at(chunks: int) -> Any:
        seen: list[Progress] = []

        def tell(progress: Progress) -> None:
            seen.append(progress)
            if len(seen) == chunks:
                fragile.kill()

        return tell

    with pytest.raises(Unavailable, match="run the same command again"):
        run_batch(
            "line", *places, keep=("id",), rows_per_file=100, home=home_copy, tell=kill_at(next(moments))
        )
    with pytest.raises(Unavailable):  # still away
        run_batch("line", *places, keep=("id",), rows_per_file=100, home=home_copy)
    fragile.start()
    with pytest.raises(Unavailable):
        run_batch(
            "line", *places, keep=("id",), rows_per_file=100, home=home_copy, tell=kill_at(next(moments))
        )
    fragile.start()
    report = run_batch("line", *places, keep=("id",), rows_per_file=100, home=home_copy)
    assert (report.state, report.rows, report.scored) == ("finished", 1500, 1500)
    with connected(url) as connection:
        rows = connection.execute(sa.text("select id, prediction from scores order by id")).fetchall()
    assert [row[0] for row in rows] == list(range(1500))
    frame.to_parquet(home_copy / "in.parquet")
    run_batch("line", home_copy / "in.parquet", home_copy / "out.parquet", home=home_copy)
    assert [row[1] for row in rows] == pq.read_table(home_copy / "out.parquet").column(
        "prediction"
    ).to_pylist()


@pytest.mark.postgres
def test_a_source_that_changes_between(home_copy: Path, postgres: Postgres, tmp_path: Path) -> None:
    """Rows that stay are scored once; the columns may not change."""
    url = postgres.new_database()
    with connected(url) as connection:
        lines(1000).to_sql("customers", connection, index=False)

    def change(progress: Progress) -> None:
        if progress.event == "progress" and progress.rows == 300:
            with connected(url) as connection:
                connection.execute(sa.text("delete from customers where id in (5, 700)"))
                connection.execute(
                    sa.text("insert into customers select -1, a, b, c from customers where id = 1")
                )
                connection.execute(
                    sa.text("insert into customers select 5000, a, b, c from customers where id = 1")
                )

    options: dict[str, Any] = {"keep": ("id",), "rows_per_file": 100, "home": home_copy}
    source = f"{url}?table=customers&key=id"
    report = run_batch("line", source, tmp_path / "out.parquet", tell=change, **options)
    ids = pq.read_table(tmp_path / "out.parquet").column("id").to_pylist()
    assert report.state == "finished"
    assert len(set(ids)) == len(ids)
    assert {*range(1000)} - {5, 700} <= {*ids} <= {*range(1000), 5000}

    def alter(progress: Progress) -> None:
        if progress.event == "progress" and progress.rows == 300:
            with connected(url) as connection:
                connection.execute(sa.text("alter table customers drop column id, add column id bigint"))

    report = run_batch("line", source, tmp_path / "other.parquet", tell=alter, **options)
    assert "have changed since the run began" in report.failed_files[0][1]
    assert report.scored == pq.read_metadata(tmp_path / "other.parquet").num_rows >= 300


# No room


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As a full disk does: a write that does not fit fails (EFBIG), here for any file of this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("out", ["out", "out.csv", "out.parquet", "out.jsonl.gz"])
def test_a_disk_that_is_full_in_mid_run(home_copy: Path, tmp_path: Path, out: str) -> None:
    random_numbers = np.random.default_rng(0).normal(size=(20_000, 3))
    pd.DataFrame(random_numbers, columns=["a", "b", "c"]).to_parquet(tmp_path / "in.parquet")
    whole = run_batch(
        "line",
        tmp_path / "in.parquet",
        tmp_path / "whole" / out,
        join=True,
        rows_per_file=4000,
        home=home_copy,
    )
    names: dict[str, Any] = {"join": True, "rows_per_file": 4000, "home": home_copy}

    def fill(progress: Progress) -> None:
        if progress.event == "progress" and progress.rows == 8000:
            limits.enter_context(files_no_larger_than(60_000))

    with ExitStack() as limits, pytest.raises(StorageFull, match=r"[Nn]o room left"):
        run_batch("line", tmp_path / "in.parquet", tmp_path / "other" / out, tell=fill, **names)
    assert not (tmp_path / "other" / out).is_file()
    report = run_batch("line", tmp_path / "in.parquet", tmp_path / "other" / out, **names)
    assert (report.state, report.checksum) == ("finished", whole.checksum)
    pair = [tmp_path / name / out for name in ("whole", "other")]
    one, two = (
        {p.name: p.read_bytes() for p in sorted(x.rglob("part-*"))} if x.is_dir() else x.read_bytes()
        for x in pair
    )
    assert one == two


def test_a_full_disk_under_a_table(home_copy: Path, tmp_path: Path) -> None:
    lines(20_000).to_parquet(tmp_path / "in.parquet")
    url = f"sqlite:///{tmp_path}/out.db?table=s&key=id"
    options: dict[str, Any] = {"keep": ("id",), "rows_per_file": 4000, "home": home_copy}
    with files_no_larger_than(200_000), pytest.raises(FairwayError) as failed:
        run_batch("line", tmp_path / "in.parquet", url, **options)
    assert isinstance(failed.value, StorageFull | Unavailable)
    report = run_batch("line", tmp_path / "in.parquet", url, **options)
    assert report.scored == 20_000
    engine = sa.create_engine(f"sqlite:///{tmp_path}/out.db")
    with engine.connect() as connection:
        assert connection.execute(sa.text("select count(*), count(distinct id) from s")).one() == (
            20_000,
            20_000,
        )
    engine.dispose()
