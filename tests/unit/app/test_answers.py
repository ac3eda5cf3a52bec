"""Stored answers as the library and `fairway answers` show and delete them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.app.answers import delete_answers, look_up, stored_answers
from fairway.app.precompute import precompute
from fairway.cli.main import main
from fairway.core.errors import Conflict, InvalidInput, VersionNotFound


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`risk:1`, and rows.parquet beside the home."""
    folder = tmp_path_factory.mktemp("answers")
    chance = np.random.default_rng(3)
    train = pd.DataFrame(chance.normal(size=(100, 2)), columns=["a", "b"])
    labels = (train.a > 0).astype(int)
    data = train.assign(y=labels)
    fairway.deploy(
        LogisticRegression().fit(train, labels), data, target="y", name="risk", home=folder / "home"
    )
    rows = train.head(20).copy()
    rows.insert(0, "id", [f"c{n}" for n in range(20)])
    rows.to_parquet(folder / "rows.parquet", index=False)
    return folder / "home"


@pytest.fixture
def stored(home: Path) -> Path:
    precompute("risk", home.parent / "rows.parquet", key="id", ttl_seconds=3600.0, home=home)
    return home


def cli(home: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["answers", *arguments, "--home", str(home)])
    return int(ended.value.code or 0)


def test_nothing_is_stored_at_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = stored_answers("risk", home=home)
    assert (told.keys, told.generation, told.live_version) == (0, "", 1)
    assert look_up("risk", ["c1"], home=home)[0].standing == "missing"
    assert delete_answers("risk", ["c1"], home=home) == 0
    assert cli(home, "show", "risk") == 0
    assert "0 answers of risk" in capsys.readouterr().out


def test_what_is_stored_is_shown(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = stored_answers("risk", home=stored)
    assert (told.keys, told.version, told.key_name, told.ttl_seconds) == (20, 1, "id", 3600.0)
    found = look_up("risk", ["c3", "nobody"], home=stored)
    assert [one.standing for one in found] == ["fresh", "missing"]
    with fairway.load("risk", home=stored, record=False) as model:
        expected = model.predict(pd.read_parquet(stored.parent / "rows.parquet")[["a", "b"]])
    assert found[0].outputs["probabilities"] == expected["probabilities"][3].tolist()
    assert found[0].fresh_seconds is not None
    assert 0 < found[0].fresh_seconds <= 3600
    assert cli(stored, "show", "risk", "c3", "c4", "--json") == 0
    assert [one["key"] for one in json.loads(capsys.readouterr().out)] == ["c3", "c4"]
    assert cli(stored, "show", "risk", "c3", "nobody") == 1
    assert "missing" in capsys.readouterr().out
    assert cli(stored, "show", "risk", "--json") == 0
    assert json.loads(capsys.readouterr().out)["keys"] == 20


def test_answers_are_deleted_by_key_by_version_and_all(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(stored, "delete", "risk", "c3", "nobody") == 0
    assert capsys.readouterr().out == "1 answer of risk deleted\n"
    assert stored_answers("risk", home=stored).keys == 19
    with pytest.raises(VersionNotFound):
        delete_answers("risk", version=7, home=stored)
    assert delete_answers("risk", version=1, home=stored) == 1
    assert stored_answers("risk", home=stored).keys == 0
    precompute("risk", stored.parent / "rows.parquet", key="id", home=stored)
    assert cli(stored, "delete", "risk", "--all", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"model": "risk", "generations": 1}


def test_what_to_delete_has_to_be_said_once(stored: Path) -> None:
    with pytest.raises(InvalidInput, match="what to delete"):
        delete_answers("risk", home=stored)
    with pytest.raises(InvalidInput, match="what to delete"):
        delete_answers("risk", ["c1"], everything=True, home=stored)
    assert cli(stored, "delete", "risk") == 4
    assert stored_answers("risk", home=stored).keys == 20


def test_answers_of_another_version_are_told(stored: Path) -> None:
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    labels = pd.Series([0, 1, 0, 1])
    data = frame.assign(y=labels)
    try:
        fairway.deploy(LogisticRegression().fit(frame, labels), data, target="y", name="risk", home=stored)
        assert look_up("risk", ["c1"], home=stored)[0].standing in ("digest", "contract")
        assert stored_answers("risk", home=stored).live_version == 2
    finally:
        main_rollback(stored)


def main_rollback(home: Path) -> None:
    with pytest.raises(SystemExit):
        main(["rollback", "risk", "--home", str(home)])


def database(home: Path, rows: int = 60) -> str:
    """The URL of a database with a table of people, of whom one does not fit."""
    path = home.parent / "people.db"
    path.unlink(missing_ok=True)
    frame = pd.DataFrame(np.random.default_rng(5).normal(size=(rows, 2)), columns=["a", "b"])
    frame.insert(0, "id", [f"p{n:03}" for n in range(rows)])
    frame.loc[7, "a"] = None
    with closing(sqlite3.connect(path)) as connection:
        frame.to_sql("people", connection, index=False)
    return f"sqlite:///{path}"


def test_a_table_of_a_database_is_precomputed(home: Path) -> None:
    url = database(home)
    done = precompute("risk", f"{url}?table=people", key="id", home=home)
    assert (done.rows, done.keys, done.rejected) == (60, 59, 1)
    assert json.loads(Path(done.rejects).read_text())["row"] == 7
    found = look_up("risk", ["p000", "p007", "p059"], home=home)
    assert [one.standing for one in found] == ["fresh", "missing", "fresh"]
    done = precompute(
        "risk", f"{url}?query=select * from people where id < 'p010'&key=id", key="id", home=home
    )
    assert (done.rows, done.keys) == (10, 9)
    with pytest.raises(InvalidInput, match="no column nobody"):
        precompute("risk", f"{url}?table=people&key=id", key="nobody", home=home)
    assert stored_answers("risk", home=home).keys == 9


def test_a_run_on_a_table_that_was_stopped_goes_on_behind_its_last_key(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.batch.answered._CHUNK_ROWS", 10)
    monkeypatch.setattr("fairway.batch.precompute._WRITE_ROWS", 1)
    url = f"{database(home)}?table=people"
    told: list[str] = []

    def stop(what: str, fraction: float) -> None:
        told.append(what)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute("risk", url, key="id", home=home, tell=stop)
    rest: list[str] = []
    done = precompute("risk", url, key="id", home=home, resume=True, tell=lambda what, _: rest.append(what))
    assert (done.resumed, done.rows, done.keys, done.rejected) == (True, 60, 59, 1)
    assert rest[0].startswith("40 rows")
    told.clear()
    with pytest.raises(KeyboardInterrupt):
        precompute("risk", url, key="id", home=home, tell=stop)
    with pytest.raises(Conflict):
        precompute("risk", f"{url}&key=id,a", key="id", home=home, resume=True)
