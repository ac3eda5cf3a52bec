"""`--shard i/n`: tasks of an array job that share nothing but the place of the output, and die."""

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from fairway.app.batch import resume, run_batch
from fairway.app.shards import run_shard
from fairway.batch.plan import Options
from fairway.batch.report import Report
from fairway.batch.shards import Shard, read_shard
from fairway.core.errors import AlreadyExists, Conflict, InvalidInput
from tests.e2e.servers import FAIRWAY, numeric_data
from tests.services import S3, Postgres

pytestmark = pytest.mark.e2e


@pytest.fixture
def source(tmp_path: Path) -> Path:
    frame = numeric_data(400)[["a", "b", "c"]]
    frame.insert(0, "id", range(400))
    frame.loc[[7, 203], "b"] = None
    for day, begin in ((1, 0), (2, 100)):
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        frame[begin : begin + 100 * (2 * day - 1)].to_parquet(
            tmp_path / "in" / f"day={day}" / "x.parquet", row_group_size=50
        )
    return tmp_path / "in"


def shard_of(index: int, count: int, source: Any, output: Any, home: Path, **words: Any) -> Report:
    run = words.pop("run", "")
    options = Options(input=str(source), output=str(output), keep=("id",), rows_per_file=50, **words)
    return run_shard("line", Shard(index, count), options, run=run, home=home)


def parts(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("part-*"))}


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_shards_write_what_one_process_does(name: str, source: Path, home_copy: Path, tmp_path: Path) -> None:
    whole = run_batch("line", source, tmp_path / "one" / name, keep=("id",), rows_per_file=50, home=home_copy)
    assert whole.parts > 5
    output = tmp_path / "many" / name
    reports = [shard_of(i, 3, source, output, home_copy) for i in (2, 0)]
    assert [r.state for r in reports] == ["finished", "finished"]
    assert all("still to come" in r.reason for r in reports)
    last = shard_of(1, 3, source, output, home_copy)
    assert (last.reason, last.engine) == ("", "3 shards")
    for field in ("checksum", "rows", "scored", "rejected", "parts", "rejects_by_reason", "columns"):
        assert getattr(last, field) == getattr(whole, field), field
    assert sum(r.rows for r in reports) < last.rows == 400
    if name == "out":
        assert parts(output) == parts(tmp_path / "one" / name)
        rejects = [(tmp_path / where / name / "_rejects.jsonl").read_bytes() for where in ("one", "many")]
    else:
        assert output.read_bytes() == (tmp_path / "one" / name).read_bytes()
        rejects = [(tmp_path / where / f"{name}.rejects.jsonl").read_bytes() for where in ("one", "many")]
    assert rejects[0] == rejects[1]
    again = shard_of(2, 3, source, output, home_copy)
    assert again == last


def test_shards_that_are_killed_are_run_again(home_copy: Path, source: Path, tmp_path: Path) -> None:
    """As a Kubernetes Indexed Job runs them: the index in the environment, the same command for all."""
    run_batch("line", source, tmp_path / "one", keep=("id",), rows_per_file=50, home=home_copy)
    command = [FAIRWAY, "batch", "run", "line", str(source), str(tmp_path / "many"), "--keep", "id"]
    command += ["--rows-per-file", "50", "--shard", "3", "--json", "--home", str(home_copy)]

    def start(index: int) -> subprocess.Popen[str]:
        environment = {**os.environ, "JOB_COMPLETION_INDEX": str(index)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    moments = random.Random(4)
    shards = [start(index) for index in range(3)]
    kills = 0
    ended: dict[int, str] = {}
    while len(ended) < 3:
        for index, process in enumerate(shards):
            if index in ended:
                continue
            try:
                assert process.stdout is not None
                if kills < 3:
                    line = process.stdout.readline()  # it has begun
                    process.wait(moments.uniform(0, 0.3))
                    ended[index] = line + process.stdout.read()
                else:
                    ended[index] = process.communicate(timeout=120)[0]
                assert process.returncode == 0, ended[index]
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
                shards[index] = start(index)
    reports = [json.loads(text.splitlines()[-1]) for text in ended.values()]
    assert [r["rows"] for r in reports if r["engine"] == "3 shards"] == [400], reports
    assert parts(tmp_path / "many") == parts(tmp_path / "one")


def test_through_an_object_store(home_copy: Path, source: Path, tmp_path: Path, s3: S3) -> None:
    options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in s3.options.items())
    (home_copy / "fairway.toml").write_text(f"[batch.storage.s3]\n{options}\n")
    bucket = s3.new_bucket()
    for index in range(2):
        report = shard_of(index, 2, source, f"{bucket}/out.parquet", home_copy)
    assert (report.scored, report.engine) == (398, "2 shards")
    import s3fs

    store = s3fs.S3FileSystem(**s3.options)
    with store.open(f"{bucket}/out.parquet") as file:
        assert sorted(pq.read_table(file)["id"].to_pylist()) == [i for i in range(400) if i not in (7, 203)]


@pytest.mark.postgres
def test_from_and_to_a_database(home_copy: Path, postgres: Postgres) -> None:
    url = postgres.new_database()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    frame = numeric_data(300)[["a", "b", "c"]]
    frame.insert(0, "id", range(300))
    frame.to_sql("customers", engine, index=False)
    places = (f"{url}?table=customers&key=id", f"{url}/scores?key=id")
    with pytest.raises(InvalidInput, match="--run NAME"):
        shard_of(0, 2, *places, home_copy)
    first = shard_of(1, 2, *places, home_copy, run="night")
    assert 0 < first.rows < 300
    last = shard_of(0, 2, *places, home_copy, run="night")
    assert (last.rows, last.engine) == (300, "2 shards")
    with engine.connect() as connection:
        ids = connection.execute(sa.text("select id from scores order by id")).scalars().all()
        notes = connection.execute(sa.text("select content from fairway_batch_notes")).scalars().all()
    engine.dispose()
    assert ids == list(range(300))
    password = sa.make_url(url).password
    assert not password or not any(password.encode() in bytes(note) for note in notes)


def test_shards_of_different_runs_are_kept_apart(home_copy: Path, source: Path, tmp_path: Path) -> None:
    shard_of(0, 2, source, tmp_path / "out", home_copy, run="night")
    with pytest.raises(Conflict, match="number of shards"):
        shard_of(1, 3, source, tmp_path / "out", home_copy, run="night")
    with pytest.raises(Conflict, match="max_errors"):
        shard_of(1, 2, source, tmp_path / "out", home_copy, run="night", max_errors="1%")
    with pytest.raises(AlreadyExists):
        shard_of(1, 2, source, tmp_path / "out", home_copy, run="another")
    with pytest.raises(InvalidInput, match="one shard of a run"):
        resume("night.0-of-2", home=home_copy)
    frame = pd.read_parquet(source / "day=1" / "x.parquet")
    frame.to_parquet(source / "day=1" / "x.parquet", compression=None)
    with pytest.raises(Conflict, match="has changed since the run began"):
        shard_of(1, 2, source, tmp_path / "out", home_copy, run="night")


def test_a_damaged_file_fails_its_shard_until_it_can_be_read(
    home_copy: Path, source: Path, tmp_path: Path
) -> None:
    (source / "z.parquet").write_bytes(b"PAR1 and nothing")
    reports = [shard_of(i, 2, source, tmp_path / "out", home_copy) for i in (0, 1)]
    assert reports[1].engine == "2 shards"
    assert [Path(path).name for path, _ in reports[1].failed_files] == ["z.parquet"]
    assert reports[1].scored == 398


@pytest.mark.parametrize(
    ("text", "index", "expected"),
    [("0/4", "", Shard(0, 4)), ("4", "3", Shard(3, 4)), ("2/3", "0", Shard(2, 3))],
)
def test_which_shard_this_is(text: str, index: str, expected: Shard) -> None:
    assert read_shard(text, index) == expected


@pytest.mark.parametrize("text", ["4", "4/4", "a/b", "-1/4", "1/0", "1/99999", "/4"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_shard(text, "")
