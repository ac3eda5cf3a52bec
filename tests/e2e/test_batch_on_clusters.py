"""`--engine spark` and `--engine ray` on real clusters, with machines that die in the middle of a part.

One test for each engine, so that each cluster is started once, whichever process of the test run gets it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from fairway.app.batch import run_batch
from tests.clusters import DIES_WITH_US, SPARK_ENVIRONMENT, kill_who_writes, ray_cluster, spark_cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
ROWS = 400_000
SPARK = """
[batch.spark]
"spark.driver.memory" = "512m"
"spark.executor.memory" = "512m"
"spark.driver.host" = "127.0.0.1"
"spark.ui.enabled" = "false"
"spark.sql.shuffle.partitions" = "2"
"""


class Driver:
    """`tests.e2e.spreading` at work."""

    def __init__(self, engine: str, address: str, home: Path, log: Path) -> None:
        self._log = log
        words = [sys.executable, "-m", "tests.e2e.spreading", engine, address, str(home)]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*DIES_WITH_US, *words],
                cwd=ROOT,
                env={**os.environ, **SPARK_ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def ask(self, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(arguments).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self._log.read_text(errors="replace")
        found: dict[str, Any] = json.loads(line)
        return found

    def run(self, **arguments: Any) -> dict[str, Any]:
        """An answer with the name of an error is one that the test must expect."""
        expected = arguments.pop("error", None)
        self.ask(**{name: str(v) if isinstance(v, Path) else v for name, v in arguments.items()})
        answer = self.answer()
        assert answer.get("error") == expected, answer
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Numbers in one large file, of which some rows break the contract."""
    values = np.random.default_rng(3).normal(size=(3, ROWS))
    table = pa.table({"id": np.arange(ROWS), **dict(zip("abc", values, strict=True))})
    bad = pa.array([None if i % 5000 == 7 else v for i, v in enumerate(values[1])])
    table = table.set_column(2, "b", bad)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=50_000)
    return tmp_path / "rows.parquet"


def parts(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}
    assert not list(folder.rglob("*.tmp")), "what attempts that died have left"
    return found


def go(engine: str, address: str, home: Path, rows: Path, folder: Path) -> None:
    """The same on any engine."""
    options: dict[str, Any] = {"name": "line", "keep": ("id",), "rows_per_file": 40_000}
    local = run_batch(**options, input=rows, output=folder / "local", home=home)
    assert (local.rejected, local.parts > 5) == (ROWS // 5000, True)
    driver = Driver(engine, address, home, folder / "driver.log")
    try:
        # Killed in the middle of a part: exactly once, to the byte.
        options["keep"] = ["id"]
        driver.ask(**options, input=str(rows), output=str(folder / "away"))
        assert kill_who_writes(folder / "away", driver.process, parent=engine == "spark")
        away = driver.answer()
        assert away.get("state") == "finished", away
        assert away["engine"].startswith(engine), away
        assert parts(folder / "away") == parts(folder / "local")
        for name in ("checksum", "rows", "scored", "rejected", "parts", "rejects_by_reason", "columns"):
            ours = json.loads(json.dumps(getattr(local, name), default=_plain))
            assert away[name] == ours, name
        rejects = [(folder / name / "_rejects.jsonl").read_bytes() for name in ("local", "away")]
        assert rejects[0] == rejects[1]
        # The same run again has nothing to do.
        again = driver.run(**options, input=rows, output=folder / "away")
        assert (again["run"], again["seconds"]) == (away["run"], away["seconds"])
        # One file, and one that is damaged beside one that is not.
        (folder / "in").mkdir()
        small = pq.read_table(rows).slice(0, 3000)
        pq.write_table(small, folder / "in" / "a.parquet")
        (folder / "in" / "b.parquet").write_bytes(b"PAR1 and then nothing")
        mixed = driver.run(name="line", input=folder / "in", output=folder / "one.csv", join=True)
        assert (mixed["scored"], mixed["rejected"], len(mixed["failed_files"])) == (2999, 1, 1)
        assert len((folder / "one.csv").read_text().splitlines()) == 3000
        # A share of bad rows that is too large; what was done is kept.
        stopped = driver.run(**options, input=rows, output=folder / "few", max_errors="10")
        assert stopped["state"] == "stopped", stopped
        # A table, once for each row.
        url = f"sqlite:///{folder}/scores.db"
        table = driver.run(name="line", keep=["id"], input=folder / "in" / "a.parquet", output=f"{url}?table=s&key=id", rows_per_file=1000)  # fmt: skip
        assert (table["state"], table["scored"]) == ("finished", 2999), table
        engine_ = sa.create_engine(url)
        with engine_.connect() as connection:
            found = connection.execute(sa.text("select id, prediction from s order by id")).fetchall()
        engine_.dispose()
        expected = pq.read_table(folder / "local" / "part-00000-00000.parquet").slice(0, 2999)
        assert [row[0] for row in found] == expected.column("id").to_pylist()
        assert [row[1] for row in found] == expected.column("prediction").to_pylist()
        # Somebody's own DataFrame or Dataset.
        frame = driver.run(frame=folder / "in" / "a.parquet", keep=["id"])["rows"]
        scored = sorted(frame, key=lambda row: row["id"])
        assert [row["id"] for row in scored] == list(range(3000))
        assert [row["id"] for row in scored if row["reject"]] == [7]
        assert [row["prediction"] for row in scored if not row["reject"]] == [row[1] for row in found]
        # What cannot be done is said by name.
        wrong = driver.run(
            error="InvalidInput", name="line", input=rows, output="sqlite:///scores.db?table=t"
        )
        assert "Name its whole path" in wrong["text"]
    finally:
        driver.close()


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def test_on_a_spark_cluster_whose_executor_dies(home_copy: Path, rows: Path, tmp_path: Path) -> None:
    (home_copy / "fairway.toml").write_text(SPARK)
    with spark_cluster(tmp_path) as url:
        go("spark", url, home_copy, rows, tmp_path)


def test_on_a_ray_cluster_whose_worker_dies(home_copy: Path, rows: Path, tmp_path: Path) -> None:
    with ray_cluster(tmp_path) as address:
        go("ray", address, home_copy, rows, tmp_path)


def test_over_spark_connect(home_copy: Path, tmp_path: Path) -> None:
    """A session that only Spark Connect reaches: the bundle travels as an artefact, and nothing asks for a context."""
    ids = np.arange(3000)
    columns = {name: np.where(ids == 7, np.nan, ids % (place + 2)) for place, name in enumerate("abc")}
    pq.write_table(pa.table({"id": ids, **columns}), tmp_path / "in.parquet")
    local = run_batch("line", tmp_path / "in.parquet", tmp_path / "local", keep=("id",), home=home_copy)
    assert local.rejected == 1
    driver = Driver("connect", "local[2]", home_copy, tmp_path / "driver.log")
    try:
        away = driver.run(name="line", keep=["id"], input=tmp_path / "in.parquet", output=tmp_path / "away")
        assert (away["state"], away["checksum"]) == ("finished", local.checksum)
        frame = driver.run(frame=tmp_path / "in.parquet", keep=["id"])["rows"]
    finally:
        driver.close()
    assert [row["id"] for row in frame if row["reject"]] == [7]
    expected = {row["id"]: row["prediction"] for row in pq.read_table(tmp_path / "local").to_pylist()}
    assert {row["id"]: row["prediction"] for row in frame if not row["reject"]} == expected
