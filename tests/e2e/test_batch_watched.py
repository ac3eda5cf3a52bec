"""Nightly runs under the monitor: their drift, and how good they turned out to be."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairway.app.batch import resume, run_batch
from fairway.app.feedback import store_labels
from fairway.app.home import Home
from fairway.app.log import ask
from fairway.app.settings import read_settings
from fairway.app.shards import run_shard
from fairway.app.watch import look_now
from fairway.batch.plan import Options
from fairway.batch.run import Run
from fairway.batch.shards import Shard
from fairway.core.errors import InvalidInput, NotSupported
from fairway.core.settings import Settings
from fairway.monitoring.watch.values import Report
from tests.e2e.servers import numeric_data

pytestmark = pytest.mark.e2e


def night(rows: int = 600, shift: float = 0.0) -> pd.DataFrame:
    frame = numeric_data(rows)[["a", "b", "c"]]
    frame["a"] += shift
    frame.insert(0, "id", [f"c{n}" for n in range(rows)])
    return frame


def settings_of(home: Path) -> Settings:
    """Windows of a second: nobody waits an hour."""
    (home / "fairway.toml").write_text(
        "[monitoring]\nwindow_seconds = 1\ngrace_seconds = 0\nmin_rows = 300\n"
    )
    return read_settings(home)


def look(settings: Settings) -> Report:
    """At the windows that are over, once the last is."""
    time.sleep(2.1)
    return max((report for report in look_now(settings, model="line")), key=lambda report: report.rows)


def logged(settings: Settings, sql: str) -> list[dict[str, Any]]:
    with ask(settings, sql, model="line") as rows:
        found: list[dict[str, Any]] = rows.read_all().to_pylist()
    return found


def test_a_run_that_is_logged_is_watched_as_a_servers_predictions_are(
    home_copy: Path, tmp_path: Path
) -> None:
    settings = settings_of(home_copy)
    night().to_parquet(tmp_path / "1.parquet")
    report = run_batch("line", tmp_path / "1.parquet", tmp_path / "1", keep=("id",), log="id", home=home_copy)
    assert (report.scored, report.logged, report.notes) == (600, 600, ())
    rows = logged(settings, "select key, source, protocol, seconds, arm from predictions")
    assert sorted(row["key"] for row in rows) == sorted(f"c{n}" for n in range(600))
    assert {(row["source"], row["protocol"], row["arm"]) for row in rows} == {("batch", "batch", None)}
    seen = look(settings)
    assert seen.rows > 0
    assert not seen.drifted
    assert (seen.traffic.requests, list(seen.traffic.sources)) == (0, ["batch"])  # rows, but no traffic

    night(shift=100.0).to_parquet(tmp_path / "2.parquet")
    run_batch("line", tmp_path / "2.parquet", tmp_path / "2", keep=("id",), log="id", home=home_copy)
    truth = pd.read_parquet(tmp_path / "2").rename(columns={"id": "key", "prediction": "label"})
    truth.to_csv(tmp_path / "labels.csv", index=False)
    with Home(settings) as place:
        assert store_labels(place, tmp_path / "labels.csv", model="line").accepted == 600
    seen = look(settings)
    assert "a" in {
        column.name for column in seen.columns if column.drift is not None and column.drift.drifted
    }
    assert seen.labels == seen.rows == 600
    assert {metric.measured.name: metric.measured.value for metric in seen.performance}[
        "rmse"
    ] == pytest.approx(0, abs=1e-4)


def test_a_run_that_is_stopped_and_gone_on_with_logs_no_row_twice(home_copy: Path, tmp_path: Path) -> None:
    settings = settings_of(home_copy)
    (home_copy / "fairway.toml").write_text("[log]\nsample = 0.5\n")
    night(3000).to_csv(tmp_path / "in.csv", index=False)
    options: dict[str, Any] = {"keep": ("id",), "log": "id", "rows_per_file": 500, "home": home_copy}

    def stop(run: Run) -> None:
        run.stop.set()

    stopped = run_batch("line", tmp_path / "in.csv", tmp_path / "out", started=stop, **options)
    assert stopped.state == "stopped"
    report = resume(stopped.run, home=home_copy)
    rows = logged(settings, "select key from predictions")
    assert report.scored == 3000
    assert (
        1200 < len(rows) == len({row["key"] for row in rows}) == report.logged < 1800
    )  # half of the customers


def test_what_cannot_be_logged_is_said_before_anything_is_written(home_copy: Path, tmp_path: Path) -> None:
    night().to_csv(tmp_path / "in.csv", index=False)
    places = ("line", tmp_path / "in.csv", tmp_path / "out")
    with pytest.raises(InvalidInput, match="Add --keep id"):
        run_batch(*places, log="id", home=home_copy)
    with pytest.raises(NotSupported, match="--engine local"):
        run_batch(*places, log="id", keep=("id",), engine="ray", home=home_copy)
    options = Options(input=str(places[1]), output=str(places[2]), keep=("id",), log="id")
    with pytest.raises(NotSupported, match="--shard"):
        run_shard("line", Shard(0, 2), options, home=home_copy)
    (home_copy / "fairway.toml").write_text("[log]\nenabled = false\n")
    with pytest.raises(InvalidInput, match="switched off"):
        run_batch(*places, log="id", keep=("id",), home=home_copy)
    assert not places[2].exists()
    (home_copy / "fairway.toml").unlink()
    (home_copy / "log").write_text("no folder")
    report = run_batch(*places, log="id", keep=("id",), home=home_copy)
    assert (report.state, report.scored) == ("finished", 600)
    assert report.notes == ("600 predictions could not be recorded in the log; it is full, or away",)
