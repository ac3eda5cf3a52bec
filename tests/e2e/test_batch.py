"""`fairway batch` as users run it: real models, real servers to compare with, real stores, and kill -9."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from fairway.app.batch import resume, run_batch
from fairway.app.batch_runs import cancel_run, list_runs, show_run
from fairway.app.settings import read_settings
from fairway.core.errors import AlreadyExists, Conflict, FairwayError, InvalidInput, NotFound, RunNotFound
from tests.e2e.servers import FAIRWAY, MIXED, numeric_data, records, serving, visits
from tests.services import S3, Postgres

pytestmark = pytest.mark.e2e


def lines(rows: int = 200) -> pd.DataFrame:
    frame = numeric_data(rows)[["a", "b", "c"]]
    frame.insert(0, "id", range(rows))
    return frame


# The same path as online


def test_the_answers_are_the_servers_to_the_last_bit(home_copy: Path, tmp_path: Path) -> None:
    frame = visits(150, seed=11)[MIXED]
    frame.insert(0, "id", range(len(frame)))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=37)
    frame.to_csv(tmp_path / "in.csv", index=False)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records(frame)))
    with serving(home_copy) as server:
        online = []
        for begin in (*range(20), *range(20, 150, 65)):
            rows = {"dataframe_records": records(frame[MIXED][begin : begin + (1 if begin < 20 else 65)])}
            status, _, answer = server.post(rows, "/v2/models/shop/infer")
            assert status == 200, answer
            outputs = {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in answer["outputs"]}
            online.append(outputs)
    expected = {name: np.concatenate([part[name] for part in online]) for name in online[0]}
    for kind in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"out-{kind}.parquet"
        report = run_batch("shop", tmp_path / f"in.{kind}", out, keep=("id",), home=home_copy)
        assert (report.scored, report.version) == (150, 2), report
        scored = pq.read_table(out)
        assert [int(i) for i in scored.column("id").to_pylist()] == list(range(150))
        for name, values in expected.items():
            given = np.array(scored.column(name).to_pylist(), dtype=scored_dtype(scored, name))
            assert given.tolist() == values.astype(given.dtype).tolist(), (kind, name)


def scored_dtype(table: pa.Table, name: str) -> Any:
    kind = table.schema.field(name).type
    return (kind.value_type if pa.types.is_fixed_size_list(kind) else kind).to_pandas_dtype()


# Stores and databases


def test_from_and_to_an_object_store(home_copy: Path, tmp_path: Path, s3: S3) -> None:
    bucket = s3.new_bucket()
    options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in s3.options.items())
    (home_copy / "fairway.toml").write_text(f"[batch.storage.s3]\n{options}\n")
    import s3fs

    store = s3fs.S3FileSystem(**s3.options)
    for day in (1, 2):
        lines().to_parquet(tmp_path / "x.parquet")
        store.put_file(str(tmp_path / "x.parquet"), f"{bucket}/in/day={day}/x.parquet")
    report = run_batch(
        "line", f"{bucket}/in/day=*/**.parquet", f"{bucket}/out/", keep=("id", "day"), home=home_copy
    )
    assert (report.state, report.scored) == ("finished", 400)
    found = [name for name in store.find(f"{bucket}/out") if "part-" in name]
    assert [name.split("/")[2] for name in found] == ["day=1", "day=2"]
    with store.open(found[1]) as file:
        table = pq.read_table(file)
    assert table.column("id").to_pylist() == list(range(200))
    assert set(table.column("day").to_pylist()) == {"2"}
    single = run_batch("line", f"{bucket}/in/day=1/x.parquet", f"{bucket}/one.csv.gz", home=home_copy)
    assert single.scored == 200
    with store.open(f"{bucket}/one.csv.gz", compression="gzip") as file:
        assert len(file.read().splitlines()) == 201
    with pytest.raises(AlreadyExists, match="already holds"):
        run_batch("line", f"{bucket}/in/day=1/x.parquet", f"{bucket}/out/", home=home_copy)


@pytest.mark.postgres
def test_from_and_to_postgresql(home_copy: Path, postgres: Postgres) -> None:
    url = postgres.new_database()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    frame = lines()
    frame.loc[7, "b"] = None
    frame.sample(frac=1, random_state=1).to_sql("customers", engine, index=False)
    query = f"{url}?query=select id, a, b, c from customers where id < 150&key=id"
    report = run_batch("line", query, f"{url}/scores?key=id", keep=("id",), home=home_copy)
    assert (report.state, report.scored, report.rejected) == ("finished", 149, 1)
    assert report.output.endswith("/scores?key=id")
    frame["b"] = frame["b"].fillna(0.0)
    with engine.begin() as connection:
        connection.execute(sa.text("update customers set b = 0 where b is null"))
    again = run_batch("line", query, f"{url}/scores?key=id", keep=("id",), home=home_copy)
    assert again.run != report.run
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select id, prediction from scores order by id")).fetchall()
    engine.dispose()
    assert [row[0] for row in rows] == list(range(150))
    expected = batch_of(frame[:150], home_copy)
    assert [row[1] for row in rows] == expected


def batch_of(frame: pd.DataFrame, home: Path) -> list[float]:
    frame.to_parquet(home / "in.parquet")
    run_batch("line", home / "in.parquet", home / "out.parquet", home=home)
    predictions: list[float] = pq.read_table(home / "out.parquet").column("prediction").to_pylist()
    return predictions


# Commands


def fairway(home: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    command = [FAIRWAY, "batch", *map(str, arguments), "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout, done.stderr


def test_a_run_is_shown_listed_and_not_done_twice(home_copy: Path, tmp_path: Path) -> None:
    frame = lines()
    frame["c"] = frame["c"].astype(object)
    frame.loc[3, "c"] = "?"
    frame.to_csv(tmp_path / "in.csv", index=False)
    out, _ = fairway(home_copy, "run", "line", tmp_path / "in.csv", tmp_path / "out.csv", "--join", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["begin", "progress", "end", "report"]
    run = events[-1]["run"]
    written = (tmp_path / "out.csv").stat().st_mtime_ns
    shown, _ = fairway(home_copy, "run", "line", tmp_path / "in.csv", tmp_path / "out.csv", "--join")
    assert "200: 199 scored, 1 rejected" in shown
    assert (tmp_path / "out.csv").stat().st_mtime_ns == written
    assert "1 x c: expected a number" in shown
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "id,a,b,c,prediction"
    assert json.loads((tmp_path / "out.csv.rejects.jsonl").read_text())["row"] == 3
    listed, _ = fairway(home_copy, "list")
    assert run in listed
    assert "finished" in listed
    assert run in fairway(home_copy, "show", run)[0]
    assert "nothing works on" in fairway(home_copy, "cancel", run)[0]
    assert (
        "--overwrite"
        in fairway(home_copy, "run", "line", tmp_path / "in.csv", tmp_path / "out.csv", code=6)[1]
    )
    fairway(home_copy, "run", "line", tmp_path / "in.csv", tmp_path / "out.csv", "--overwrite")
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "prediction"
    fairway(home_copy, "run", "line", tmp_path / "in.csv", tmp_path / "o.csv", "--max-errors", "0", code=1)
    fairway(home_copy, "show", "nope", code=3)


# Bad input


def test_what_cannot_be_done_is_said_before_anything_is_written(home_copy: Path, tmp_path: Path) -> None:
    frame = lines()
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame[["id", "a"]].to_csv(tmp_path / "few.csv", index=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "mine.txt").write_text("mine")
    cases: list[tuple[Any, Any, dict[str, Any], type[FairwayError], str]] = [
        ("nope.csv", "o.csv", {}, NotFound, "there is no file"),
        ("empty", "o", {}, NotFound, "there is no file"),
        ("in.csv", "held", {}, AlreadyExists, "already holds 1 file"),
        ("in.csv", "in.csv", {}, InvalidInput, "input and output at once"),
        ("in.csv", "o", {"keep": ("nope",)}, InvalidInput, "nope"),
        ("in.csv", "o", {"max_errors": "many"}, InvalidInput, "neither a share"),
        ("in.csv", "o.parquet.gz", {}, InvalidInput, "packed by itself"),
        ("in.csv", "o", {"format": "xlsx"}, InvalidInput, "not written here"),
        ("in.csv", "o", {"encoding": "klingon"}, InvalidInput, "no encoding"),
        ("empty.csv", "o", {}, InvalidInput, "empty"),
    ]
    before = sorted(p.name for p in tmp_path.iterdir())
    for source, out, options, kind, why in cases:
        with pytest.raises(kind, match=why):
            run_batch("line", tmp_path / source, tmp_path / out, home=home_copy, **options)
        assert sorted(p.name for p in tmp_path.iterdir()) == before, source
    assert list_runs(home_copy) == []
    with pytest.raises(RunNotFound):
        resume("nope", home=home_copy)
    report = run_batch("line", tmp_path / "in.csv", tmp_path / "held", overwrite=True, home=home_copy)
    assert report.state == "finished"
    assert (tmp_path / "held" / "mine.txt").read_text() == "mine"


def test_a_file_that_changed_is_not_gone_on_with(home_copy: Path, tmp_path: Path) -> None:
    lines().to_csv(tmp_path / "in.csv", index=False)
    stopped = run_batch(
        "line", tmp_path / "in.csv", tmp_path / "out", home=home_copy, started=lambda run: run.stop.set()
    )
    assert stopped.state in ("stopped", "finished")
    assert not cancel_run(stopped.run, home_copy)
    assert show_run(stopped.run, home_copy)[0].state == (
        "cancelled" if stopped.state == "stopped" else "finished"
    )
    lines(300).to_csv(tmp_path / "in.csv", index=False)
    if stopped.state == "stopped":
        with pytest.raises(Conflict, match="has changed since the run began"):
            resume(stopped.run, home=home_copy)


def test_encodings_and_packing(home_copy: Path, tmp_path: Path) -> None:
    frame = lines()
    frame["name"] = 'Müller, "Änne"\nzwei'
    frame.to_csv(tmp_path / "in.csv.gz", index=False, sep=";", encoding="utf-16", quoting=1)
    report = run_batch(
        "line",
        tmp_path / "in.csv.gz",
        tmp_path / "o.jsonl",
        keep=("name",),
        encoding="utf-16",
        home=home_copy,
    )
    assert report.scored == 200
    first = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])
    assert first["name"] == 'Müller, "Änne"\nzwei'


def test_storage_settings_are_by_protocol(tmp_path: Path) -> None:
    (tmp_path / "fairway.toml").write_text('[batch.storage.s3]\nendpoint_url = "http://x"\n')
    assert read_settings(tmp_path).batch.storage == {"s3": {"endpoint_url": "http://x"}}


def test_processes_give_what_threads_give(
    home_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines().to_parquet(tmp_path / "in.parquet")
    threads = run_batch("line", tmp_path / "in.parquet", tmp_path / "a.parquet", home=home_copy)
    monkeypatch.setattr("fairway.app.batch.wants_processes", lambda *_: True)
    processes = run_batch("line", tmp_path / "in.parquet", tmp_path / "b.parquet", home=home_copy, workers=2)
    assert processes.engine == "local, 2 processes"
    assert processes.checksum == threads.checksum


def test_drift_of_any_kind_of_column_is_in_the_report(home_copy: Path, tmp_path: Path) -> None:
    visits(600, seed=3)[MIXED].to_parquet(tmp_path / "same.parquet")
    same = run_batch("shop", tmp_path / "same.parquet", tmp_path / "a.parquet", home=home_copy)
    assert {column.name for column in same.columns} >= set(MIXED)
    assert not [column.name for column in same.columns if column.drifted]
    frame = visits(600, seed=3)[MIXED]
    number = next(name for name in MIXED if pd.api.types.is_float_dtype(frame[name]))
    words = [name for name in MIXED if not pd.api.types.is_numeric_dtype(frame[name])]
    frame[number] = frame[number].abs() * 5 + 50
    frame[words[0]] = frame[words[0]].iloc[0]
    frame.to_parquet(tmp_path / "other.parquet")
    out, _ = fairway(home_copy, "run", "shop", tmp_path / "other.parquet", tmp_path / "b.parquet")
    assert f"drift    column {number}: PSI" in out
    assert f"drift    column {words[0]}: PSI" in out
    newest = list_runs(home_copy)[0]
    assert (newest.rows, newest.state) == (600, "finished")
    report = show_run(newest.run, home_copy)[1]
    assert report is not None
    assert report.profile is not None
    profiled = report.profile.field(number)
    assert profiled is not None
    assert profiled.rows == 600


def test_an_output_that_was_taken_away_is_made_again(home_copy: Path, tmp_path: Path) -> None:
    lines().to_csv(tmp_path / "in.csv", index=False)
    first = run_batch("line", tmp_path / "in.csv", tmp_path / "out.csv", home=home_copy)
    assert not (home_copy / "batch" / first.run / "parts").exists()
    content = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    again = run_batch("line", tmp_path / "in.csv", tmp_path / "out.csv", home=home_copy)
    assert (again.checksum, again.run != first.run) == (first.checksum, True)
    assert (tmp_path / "out.csv").read_bytes() == content


@pytest.mark.parametrize("key", ["&key=id", ""])
def test_the_same_work_from_another_home_is_work_of_its_own(
    home_copy: Path, tmp_path: Path, key: str
) -> None:
    """A container that keeps no home does the same work every night: its run has the name of last night's, whose parts
    the table knows."""
    source, table = f"sqlite:///{tmp_path}/in.db?table=t&key=id", f"sqlite:///{tmp_path}/out.db?table=s{key}"
    shutil.copytree(home_copy, tmp_path / "tomorrow")

    def night(home: Path, shift: float) -> list[float]:
        engine = sa.create_engine(f"sqlite:///{tmp_path}/in.db")
        with engine.begin() as connection:
            lines(50).assign(a=lambda f: f["a"] + shift).to_sql(
                "t", connection, index=False, if_exists="replace"
            )
        engine.dispose()
        report = run_batch("line", source, table, keep=("id",), overwrite=not key, home=home)
        assert report.scored == 50
        engine = sa.create_engine(f"sqlite:///{tmp_path}/out.db")
        with engine.connect() as connection:
            found = connection.execute(sa.text("select prediction from s order by id")).scalars().all()
        engine.dispose()
        return list(found)

    first, second = night(home_copy, 0.0), night(tmp_path / "tomorrow", 1.0)
    assert len(first) == len(second) == 50
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_table_that_was_emptied_or_dropped_is_filled_again(home_copy: Path, tmp_path: Path) -> None:
    lines(50).to_csv(tmp_path / "in.csv", index=False)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/out.db")
    for gone in ("delete from s", "drop table s"):
        run_batch("line", tmp_path / "in.csv", f"{engine.url}?table=s", home=home_copy)
        with engine.begin() as connection:
            connection.execute(sa.text(gone))
        run_batch("line", tmp_path / "in.csv", f"{engine.url}?table=s", home=home_copy)
        with engine.connect() as connection:
            assert connection.execute(sa.text("select count(*) from s")).scalar() == 50
    engine.dispose()
