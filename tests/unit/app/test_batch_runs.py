"""Runs that are remembered: so many, the damaged ones said, the others shown."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.app import batch_runs
from fairway.app.batch import resume, run_batch
from fairway.app.batch_runs import cancel_run, list_runs
from fairway.app.home import open_home
from fairway.batch.ledger import Ledger


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("runs") / "home"
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=200), "y": random.normal(size=200)})
    model = LogisticRegression().fit(frame, frame.x + frame.y > 0)
    fairway.deploy(model, data=frame, name="sums", home=home)
    (home / "fairway.toml").write_text("[batch]\nkeep_runs = 3\n")
    frame.to_csv(home / "rows.csv", index=False)
    return home


def test_the_oldest_runs_go_and_what_they_wrote_stays(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(f"2026-01-01T00:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr("fairway.app.batch.now_text", lambda: next(moments))
    runs = []
    for number in range(5):
        out = home / f"out{number}.csv"
        run_batch("sums", home / "rows.csv", out, home=home)
        runs.append(list_runs(home)[0].run)
    assert len(set(runs)) == 5
    assert [line.run for line in list_runs(home)] == runs[:1:-1]
    assert all((home / f"out{number}.csv").exists() for number in range(5))
    damaged = home / "batch" / runs[-1] / "ledger.db"
    for path in damaged.parent.glob("ledger.db-*"):
        path.unlink()
    damaged.write_bytes(b"not a database" * 1000)
    assert [line.run for line in list_runs(home)] == runs[3:1:-1]
    assert "cannot be read" in caplog.text


def begun(home: Path, name: str) -> str:
    """A run that has ended at its first bad row."""
    (home / f"{name}.csv").write_text("x,y\nno,number\n" + "1,2\n" * 50)
    report = run_batch("sums", home / f"{name}.csv", home / f"{name}-out.csv", max_errors="0", home=home)
    assert report.state == "stopped"
    return report.run


def test_a_run_that_is_gone_on_with_in_this_moment_is_not_forgotten(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(home, "goes-on")
    folder = home / "batch" / run
    with open_home(home) as place, closing(Ledger(folder)) as ledger:
        lines = list(batch_runs._lines(place))
        with ledger.lock():
            batch_runs._forget(folder)  # seen as stopped before it was gone on with
            assert ledger.state[0] == "stopped"
            assert {line.run for line in lines} == {line.run for line in list_runs(home)}
        batch_runs._forget(folder)
    assert not folder.exists()


def test_what_is_cancelled_while_it_is_gone_on_with_is_cancelled(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the lock and the first row there may be a cluster to wait for."""
    run = begun(home, "cancelled")
    monkeypatch.setattr(
        "fairway.app.batch.check_unchanged", lambda place, ledger, plan: told.append(cancel_run(run, home))
    )
    told: list[bool] = []
    resume(run, home=home)
    assert told == [True]
    with closing(Ledger(home / "batch" / run)) as ledger:
        assert ledger.is_cancelled
        ledger.heed()
        with ledger.lock():
            assert cancel_run(run, home)
            assert ledger.is_cancelled
            assert ledger.state[0] == "stopped"  # what works on it says how it ends
