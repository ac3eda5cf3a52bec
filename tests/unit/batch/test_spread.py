"""The driver of a cluster: nothing twice, nothing missing, whatever happens to machines, storage and itself."""

import json
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.batch.ledger import Ledger
from fairway.batch.spread import Spread
from fairway.batch.worker import Refused, Task, raised, refused
from fairway.core.errors import Conflict, EnvironmentMismatch, ModelFailed, Unavailable
from tests.batches import csv_rows, go
from tests.spread import Direct, spread
from tests.unit.batch.test_run import Killed, killer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for day, rows in (("1", 7), ("2", 70)):
        (folder / f"day={day}").mkdir(parents=True)
        (folder / f"day={day}" / "x.csv").write_text(csv_rows(rows, bad=(2, 6, 40), first=100 * int(day)))
    return folder


def parts(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("part-*.parquet"))}


def test_killed_anywhere_it_ends_as_the_local_engine_does(source: Path, tmp_path: Path) -> None:
    local = go(tmp_path / "local", source, tmp_path / "one")
    expected = parts(tmp_path / "one")
    step, passed = killer(10**9)
    spread(tmp_path / "count", source, tmp_path / "zero", step=step)
    assert len(passed) > 15
    for at in range(0, len(passed), 3):
        folder, output = tmp_path / f"run{at}", tmp_path / f"out{at}"
        with pytest.raises(Killed):
            spread(folder, source, output, step=killer(at)[0])
        report = spread(folder, source, output)
        assert (report.checksum, report.rows, report.rejected) == (local.checksum, local.rows, local.rejected)
        assert parts(output) == expected
        assert (output / "_rejects.jsonl").read_bytes() == (tmp_path / "one" / "_rejects.jsonl").read_bytes()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sets(st.integers(0, 12), max_size=4), st.integers(1, 4), st.booleans())
def test_machines_that_die_after_writing_leave_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, dying: set[int], slots: int, to_table: bool
) -> None:
    """The cluster does a lost task again, which may have committed its rows."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "in.csv").write_text(csv_rows(60, bad=(3,)))
    number = iter(range(1000))
    url = f"sqlite:///{folder}/x.db?table=t" if to_table else ""

    class Dying(Direct):
        def do(self, job: bytes, tasks: Any) -> list[bytes]:
            outcomes = []
            for task in tasks:
                if next(number) in dying:
                    super().do(job, [task])  # whose answer is lost
                outcomes += super().do(job, [task])
            return outcomes

    report = spread(folder / "run", folder / "in.csv", folder / "out", table=url, cluster=Dying(slots=slots))
    assert (report.rows, report.scored) == (60, 59)
    if to_table:
        engine = sa.create_engine(f"sqlite:///{folder}/x.db")
        with engine.connect() as connection:
            ids = [int(row[0]) for row in connection.execute(sa.text("select id from t"))]
        engine.dispose()
    else:
        ids = [
            int(i) for p in (folder / "out").rglob("*.parquet") for i in pq.read_table(p)["id"].to_pylist()
        ]
    assert sorted(ids) == [i for i in range(60) if i != 3]


def test_storage_that_was_away_is_tried_again_and_then_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.batch.spread._RETRY_SECONDS", 0.0)
    count = 0

    def sometimes(task: Task) -> None:
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise Unavailable("the store is away.")

    class Away(Direct):
        def do(self, job: bytes, tasks: Any) -> list[bytes]:
            import msgspec

            from fairway.batch.worker import Outcome, decode_task, refused

            outcomes = []
            for task in tasks:
                try:
                    outcomes += super().do(job, [task])
                except Unavailable as error:
                    lost = Outcome(stretch=decode_task(task).stretch, refused=refused(error))
                    outcomes.append(msgspec.json.encode(lost))
            return outcomes

    report = spread(tmp_path / "run", source, tmp_path / "out", cluster=Away(before=sometimes))
    assert (report.state, report.rows) == ("finished", 77)

    def always(task: Task) -> None:
        raise Unavailable("the store is away.")

    cluster = Away(before=always)
    with pytest.raises(Unavailable, match=r"the store is away.*direct"):
        spread(tmp_path / "run2", source, tmp_path / "out2", cluster=cluster)
    assert cluster.is_cancelled
    ledger = Ledger(tmp_path / "run2")
    assert ledger.state[0] == "failed"
    ledger.close()
    assert spread(tmp_path / "run2", source, tmp_path / "out2").rows == 77


def test_a_damaged_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(csv_rows(40))
    (tmp_path / "in" / "b.csv").write_text("id,a\n1,2\n")
    report = spread(tmp_path / "run", tmp_path / "in", tmp_path / "out")
    ((path, reason),) = report.failed_files
    assert (report.state, report.scored, Path(path).name) == ("finished", 40, "b.csv")
    assert "b: missing" in reason
    (tmp_path / "in" / "b.csv").write_text(csv_rows(2))
    assert spread(tmp_path / "run", tmp_path / "in", tmp_path / "out").scored == 42


def test_a_stretch_whose_rows_have_changed_is_not_scored(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_rows(60))
    changed = False

    def change(task: Task) -> None:
        nonlocal changed
        if task.stretch.part == 2 and not changed:
            changed = True
            content = (tmp_path / "in.csv").read_bytes()
            begin, end = task.stretch.start.offset, (task.stretch.stop or task.stretch.start).offset
            lost = b"\n" * content[begin:end].count(b"\n")
            fill = content[begin:end].replace(b"\n", b";")
            (tmp_path / "new").write_bytes(
                content[:begin] + fill[: len(fill) - len(lost)] + lost + content[end:]
            )
            (tmp_path / "new").replace(tmp_path / "in.csv")  # whole, as the other slot may be reading it

    report = spread(tmp_path / "run", tmp_path / "in.csv", tmp_path / "out", cluster=Direct(before=change))
    ((_, reason),) = report.failed_files
    assert "the file has changed since the run began" in reason
    assert report.scored < 60
    assert not list((tmp_path / "out").rglob("part-00000-00002.parquet"))


def test_too_many_rejects_and_a_wish_to_stop_keep_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_rows(120, bad=tuple(range(50, 60))))
    report = spread(tmp_path / "run", tmp_path / "in.csv", tmp_path / "out", max_errors="3")
    assert report.state == "stopped"
    assert 0 < report.rows < 120
    assert len(parts(tmp_path / "out")) == report.parts
    calls: list[Spread] = []

    def stop(task: Task) -> None:
        calls[0].stop.set()

    run = spread(
        tmp_path / "run2", tmp_path / "in.csv", tmp_path / "out2", cluster=Direct(before=stop), on_start=calls.append
    )  # fmt: skip
    assert (run.state, run.reason) == ("stopped", "interrupted")
    whole = spread(tmp_path / "run2", tmp_path / "in.csv", tmp_path / "out2")
    assert (whole.state, whole.rows) == ("finished", 120)


def test_cancelled_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.batch.spread._LOOK_SECONDS", 0.0)
    (tmp_path / "in.csv").write_text(csv_rows(400))

    def cancel(task: Task) -> None:
        ledger = Ledger(tmp_path / "run")
        ledger.cancel()
        ledger.close()

    report = spread(tmp_path / "run", tmp_path / "in.csv", tmp_path / "out", cluster=Direct(before=cancel))
    assert report.state == "cancelled"
    assert report.rows < 400


def test_one_file_is_gathered_from_where_all_can_write(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_rows(60, bad=(7,)))
    for name in ("out.parquet", "out.csv.gz"):
        go(tmp_path / f"l-{name}", tmp_path / "in.csv", tmp_path / "local" / name)
        report = spread(tmp_path / f"s-{name}", tmp_path / "in.csv", tmp_path / "away" / name)
        assert report.scored == 59
        content = [(tmp_path / where / name).read_bytes() for where in ("local", "away")]
        assert content[0] == content[1]
        reject = json.loads((tmp_path / "away" / f"{name}.rejects.jsonl").read_text())
        assert (reject["row"], reject["field"]) == (7, "a")


def test_workers_of_another_version_are_refused(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import fairway

    version = fairway.__version__
    monkeypatch.setattr("tests.spread.fairway.__version__", "0.0.1")
    cluster = Direct()

    def do(job: bytes, tasks: Any) -> list[bytes]:
        monkeypatch.setattr(fairway, "__version__", version)
        return Direct.do(cluster, job, tasks)

    monkeypatch.setattr(cluster, "do", do)
    with pytest.raises(EnvironmentMismatch, match=r"the run was begun with 0\.0\.1"):
        spread(tmp_path / "run", source, tmp_path / "out", cluster=cluster)


def test_a_run_of_the_local_engine_goes_on_on_a_cluster(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path / "run", source, tmp_path / "out", step=killer(25)[0])
    go(tmp_path / "whole", source, tmp_path / "expected")
    from fairway.batch.stretches import open_stretches, save

    ledger = Ledger(tmp_path / "run")
    save(tmp_path / "run", open_stretches(ledger.files()))
    ledger.close()
    import msgspec

    from fairway.batch.plan import Plan

    # as app/spread.py does, but for the input's URL, which go() leaves out
    ledger = Ledger(tmp_path / "run")
    plan = ledger.plan(Plan)
    plan = msgspec.structs.replace(plan, options=msgspec.structs.replace(plan.options, input=str(source)))
    ledger._do("UPDATE run SET plan = ?", (msgspec.json.encode(plan),))
    ledger.close()
    spread(tmp_path / "run", source, tmp_path / "out")
    assert parts(tmp_path / "out") == parts(tmp_path / "expected")


def test_errors_come_back_as_they_were() -> None:
    error = raised(Refused("Conflict", "no.", "Do it."), "spark")
    assert isinstance(error, Conflict)
    assert (str(error), error.hint) == ("no. (spark) Do it.", "Do it.")
    assert refused(error) == Refused("Conflict", "no. (spark)", "Do it.")
    assert isinstance(raised(Refused("Problem", "x"), "ray"), ModelFailed)
    assert isinstance(raised(Refused("os", "x"), "ray"), ModelFailed)


def test_two_waves_are_at_work_at_once(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_rows(200))
    at_once = threading.Barrier(2, timeout=20)
    met = False

    def meet(task: Task) -> None:
        nonlocal met
        if not met:
            at_once.wait()
            met = True

    spread(tmp_path / "run", tmp_path / "in.csv", tmp_path / "out", cluster=Direct(slots=1, before=meet))
    assert met
