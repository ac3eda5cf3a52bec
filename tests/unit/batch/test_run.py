"""A run, and the law that it does not matter where it was killed."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.batch.ledger import Ledger
from fairway.batch.score import LogRows
from fairway.batch.sql import SqlSink, read_place
from fairway.core.errors import Conflict, ModelFailed, StorageFull
from tests.batches import csv_rows, go, table


class Killed(BaseException):
    """As SIGKILL: nothing that catches errors catches it."""


def killer(at: int) -> Any:
    """A step that ends the run at the step number `at`, and the list of steps passed."""
    passed: list[str] = []

    def step(name: str) -> None:
        passed.append(name)
        if len(passed) - 1 == at:
            raise Killed(name)

    return step, passed


def rows_of(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table(output).to_pylist()
    return rows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for day, rows in (("1", 7), ("2", 12)):
        (folder / f"day={day}").mkdir(parents=True)
        (folder / f"day={day}" / "x.csv").write_text(csv_rows(rows, bad=(2, 6), first=100 * int(day)))
    return folder


def test_every_row_is_scored_once_in_order(source: Path, tmp_path: Path) -> None:
    report = go(tmp_path / "run", source, tmp_path / "out")
    ids = [100, 101, 103, 104, 105, 200, 201, 203, 204, 205, 207, 208, 209, 210, 211]
    rows = rows_of(tmp_path / "out" / "day=1") + rows_of(tmp_path / "out" / "day=2")
    assert [int(row["id"]) for row in rows] == ids
    assert [row["sum"] for row in rows] == [i % 100 + i % 100 % 10 for i in ids]
    assert (report.rows, report.scored, report.rejected, report.state) == (19, 15, 4, "finished")
    assert report.parts == len(list((tmp_path / "out").rglob("part-*.parquet"))) > 2
    rejects = [json.loads(line) for line in (tmp_path / "out" / "_rejects.jsonl").read_text().splitlines()]
    assert [(Path(r["file"]).parent.name, r["row"], r["field"]) for r in rejects] == [
        ("day=1", 2, "a"), ("day=1", 6, "a"), ("day=2", 2, "a"), ("day=2", 6, "a"),
    ]  # fmt: skip
    assert report.rejects_by_reason == {"a: expected a number, got ...": 4}
    assert json.loads((tmp_path / "out" / "_fairway.json").read_text())["checksum"] == report.checksum


def test_killed_at_any_step_and_gone_on_with_it_is_the_uninterrupted_run(
    source: Path, tmp_path: Path
) -> None:
    step, steps = killer(10**6)
    whole = go(tmp_path / "whole", source, tmp_path / "out", step=step)
    assert {"begin part", "write", "rejects", "commit rows", "commit ledger", "committed", "end file", "finish", "end"} == set(steps)  # fmt: skip
    expected = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in files_of(tmp_path / "out")}
    for at in range(len(steps)):
        run, out = tmp_path / f"run{at}", tmp_path / f"out{at}"
        with pytest.raises(Killed):
            go(run, source, out, step=killer(at)[0])
        again = go(run, source, out)
        assert again.checksum == whole.checksum
        assert {p.relative_to(out): p.read_bytes() for p in files_of(out)} == expected, steps[at]


class Recorded:
    """A log that keeps keys."""

    lost = 0

    def __init__(self) -> None:
        self.keys: list[str] = []

    def record(self, part: str, logged: list[LogRows]) -> None:
        self.keys += [key.decode() for rows in logged for key in rows.keys]


def test_killed_at_any_step_no_row_is_logged_twice(source: Path, tmp_path: Path) -> None:
    """Those of the part that was just committed may be missing; no others."""
    step, steps = killer(10**6)
    whole = Recorded()
    report = go(tmp_path / "whole", source, tmp_path / "out", step=step, recording=whole)
    assert report.logged == len(whole.keys) == report.scored == 15
    assert "record" in steps
    for at, name in enumerate(steps):
        log = Recorded()
        with pytest.raises(Killed):
            go(tmp_path / f"run{at}", source, tmp_path / f"out{at}", step=killer(at)[0], recording=log)
        go(tmp_path / f"run{at}", source, tmp_path / f"out{at}", recording=log)
        assert len(set(log.keys)) == len(log.keys)
        missing = set(whole.keys) - set(log.keys)
        assert set(log.keys) <= set(whole.keys)
        assert not missing or (name == "record" and len(missing) <= 6), name


def files_of(out: Path) -> list[Path]:
    return [
        p for p in sorted(out.rglob("*")) if p.is_file() and p.name not in ("_rejects.jsonl", "_fairway.json")
    ]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(kills=st.lists(st.integers(0, 40), max_size=6), part_rows=st.integers(1, 30), single=st.booleans())
def test_killed_several_times(
    source: Path, tmp_path_factory: pytest.TempPathFactory, kills: list[int], part_rows: int, single: bool
) -> None:
    tmp_path = tmp_path_factory.mktemp("killed")
    name = "out.csv" if single else "out"
    go(tmp_path / "whole", source, tmp_path / "w" / name, part_rows=part_rows)
    for at in kills:
        try:
            go(tmp_path / "run", source, tmp_path / "r" / name, part_rows=part_rows, step=killer(at)[0])
        except Killed:
            pass
    go(tmp_path / "run", source, tmp_path / "r" / name, part_rows=part_rows)
    whole = {p.relative_to(tmp_path / "w"): p.read_bytes() for p in files_of(tmp_path / "w")}
    assert {p.relative_to(tmp_path / "r"): p.read_bytes() for p in files_of(tmp_path / "r")} == whole


@pytest.mark.parametrize("key", ["", "&key=id"])
def test_killed_at_any_step_of_a_table(source: Path, tmp_path: Path, key: str) -> None:
    def into(name: str) -> Any:
        place = read_place(f"sqlite:///{tmp_path}/{name}.db?table=scores{key}")
        return lambda folder: SqlSink(place, "run", folder)

    def held(name: str) -> list[Any]:
        engine = sa.create_engine(f"sqlite:///{tmp_path}/{name}.db")
        with engine.connect() as connection:
            rows = connection.execute(sa.text("select * from scores order by id")).fetchall()
        engine.dispose()
        return list(rows)

    step, steps = killer(10**6)
    go(tmp_path / "whole", source, tmp_path, sink=into("whole"), flat=True, step=step)
    assert len(held("whole")) == 15
    for at in range(0, len(steps), 2):
        options: Any = {"sink": into(str(at)), "flat": True}
        with pytest.raises(Killed):
            go(tmp_path / f"run{at}", source, tmp_path, step=killer(at)[0], **options)
        go(tmp_path / f"run{at}", source, tmp_path, **options)
        assert held(str(at)) == held("whole"), steps[at]


def test_too_many_rejects_stop_it_and_what_was_done_is_kept(source: Path, tmp_path: Path) -> None:
    report = go(tmp_path / "run", source, tmp_path / "out", max_errors="1", part_rows=1000)
    assert report.state == "stopped"
    assert "more than --max-errors 1" in report.reason
    assert report.rows == 7
    assert [int(row["id"]) for row in rows_of(tmp_path / "out" / "day=1")] == [100, 101, 103, 104, 105]
    assert not (tmp_path / "out" / "_fairway.json").exists()


def test_a_share_of_rejects_is_judged_at_the_end_of_few_rows(source: Path, tmp_path: Path) -> None:
    assert go(tmp_path / "a", source, tmp_path / "a-out", max_errors="20%").state == "stopped"
    assert go(tmp_path / "b", source, tmp_path / "b-out", max_errors="22%").state == "finished"


def test_a_file_that_is_damaged_is_told_and_the_others_go_on(source: Path, tmp_path: Path) -> None:
    (source / "day=1" / "y.parquet").write_bytes(b"PAR1 and no more")
    (source / "day=1" / "z.csv").write_text("id,a\n1,2\n")
    told = []
    report = go(tmp_path / "run", source, tmp_path / "out", tell=told.append)
    assert report.state == "finished"
    assert report.rows == 19
    assert [(Path(p).name, "Parquet magic" in why or "missing" in why) for p, why in report.failed_files] == [
        ("y.parquet", True), ("z.csv", True),
    ]  # fmt: skip
    assert [p.event for p in told].count("file failed") == 2
    (source / "day=1" / "z.csv").write_text(csv_rows(3, first=900))
    again = go(tmp_path / "run", source, tmp_path / "out")
    assert len(again.failed_files) == 1
    assert again.rows == 22


def test_a_header_only_gives_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,a,b\n")
    report = go(tmp_path / "run", tmp_path / "in.csv", tmp_path / "out.parquet")
    assert (report.state, report.rows) == ("finished", 0)
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["id", "sum", "both"]


def test_a_run_asked_to_stop_stops_where_it_can_go_on(source: Path, tmp_path: Path) -> None:
    report = go(tmp_path / "run", source, tmp_path / "out", on_start=lambda run: run.stop.set())
    assert (report.state, report.reason) == ("stopped", "interrupted")
    assert 0 < report.rows < 19
    assert go(tmp_path / "run", source, tmp_path / "out").rows == 19


def test_a_cancelled_run_stops(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.batch.run._LOOK_SECONDS", -1.0)

    def cancel(run: object) -> None:
        other = Ledger(tmp_path / "run")
        other.cancel()
        other.close()

    assert go(tmp_path / "run", source, tmp_path / "out", on_start=cancel).state == "cancelled"


class Failing:
    def __init__(self, on: float) -> None:
        self.on = on

    def predict(self, columns: Any) -> Any:
        if (columns["a"] == self.on).any() or self.on < 0:
            raise ValueError("cannot")
        return {"sum": columns["a"], "both": np.stack([columns["a"], columns["b"]], axis=1)}

    def unload(self) -> None: ...


def test_a_row_on_which_the_model_fails_fails_alone(source: Path, tmp_path: Path) -> None:
    report = go(tmp_path / "run", source, tmp_path / "out", engine=Failing(on=4.0))
    assert report.rejected == 6
    assert any("cannot" in reason for reason in report.rejects_by_reason)


def test_a_model_that_fails_always_ends_the_run_and_it_may_go_on(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFailed):
        go(tmp_path / "run", source, tmp_path / "out", engine=Failing(on=-1.0))
    ledger = Ledger(tmp_path / "run")
    assert ledger.state[0] == "failed"
    ledger.close()
    assert go(tmp_path / "run", source, tmp_path / "out").rows == 19


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fairway.batch.sink.os.fsync", full)
        with pytest.raises(StorageFull, match="No room left"):
            go(tmp_path / "run", source, tmp_path / "out")
    assert not files_of(tmp_path / "out")
    assert go(tmp_path / "run", source, tmp_path / "out").rows == 19


def test_two_processes_do_not_work_on_one_run(source: Path, tmp_path: Path) -> None:
    go(tmp_path / "run", source, tmp_path / "out")
    ledger = Ledger(tmp_path / "run")
    with ledger.lock(), pytest.raises(Conflict, match="another process"):
        go(tmp_path / "run", source, tmp_path / "out")
    ledger.close()


def test_chunks_do_not_pile_up_in_front_of_a_slow_writer(source: Path, tmp_path: Path) -> None:
    """Reading waits for writing: at most `_AHEAD` chunks a scorer are under way."""
    (source / "day=3").mkdir()
    (source / "day=3" / "x.csv").write_text(csv_rows(400))
    scored, most = [0], [0]
    lock = threading.Lock()

    class Counting(Failing):
        def predict(self, columns: Any) -> Any:
            with lock:
                scored[0] += 1
            return super().predict(columns)

    written = [0]

    def step(name: str) -> None:
        if name == "write":
            written[0] += 1
            most[0] = max(most[0], scored[0] - written[0])

    go(tmp_path / "run", source, tmp_path / "out", engine=Counting(on=1e9), step=step, part_rows=50)
    assert scored[0] > 100
    assert most[0] <= 3 * 2


def test_a_part_ends_before_its_rejects_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_rows(100, bad=tuple(range(90))))
    report = go(tmp_path / "run", tmp_path / "in.csv", tmp_path / "out", part_rows=10**6, part_rejects=20)
    assert (report.rows, report.rejected, report.scored) == (100, 90, 10)
    assert report.parts > 4
    assert [int(row["id"]) for row in rows_of(tmp_path / "out")] == list(range(90, 100))


def test_files_of_a_size(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_rows(3000))
    report = go(
        tmp_path / "run",
        tmp_path / "in.csv",
        tmp_path / "out",
        part_rows=10**6,
        part_bytes=8000,
        chunk_bytes=300,
    )
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("part-*"))]
    assert report.scored == 3000
    assert len(sizes) > 3
    assert all(8000 <= size < 30_000 for size in sizes[:-1])  # and its footer
