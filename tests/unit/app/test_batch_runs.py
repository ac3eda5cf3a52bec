"""Runs that are remembered: so many, the damaged ones said, the others shown."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.app.batch import run_batch
from fairway.app.batch_runs import list_runs


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
