"""`fairway monitor list|show|report` on windows that a monitor kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairway.cli.main import main
from fairway.core.settings import RegistrySettings
from fairway.stores.opening import open_windows
from tests.unit.control.report.windows import MODEL, fill


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    store = open_windows(home, RegistrySettings())
    fill(store, 6, 30)
    store.close()
    monkeypatch.setattr("fairway.app.seen._check", lambda home, model: None)  # no bundle is needed to read
    return home


def run(home: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["monitor", *arguments, "--home", str(home)])
    told = capsys.readouterr()
    assert (ended.value.code or 0) == code, told.err
    return told.out + told.err


def test_list_tells_the_last_window_of_each_version(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(home, capsys, "list")
    assert "payments:3" in text
    assert "drifted" in text
    [told] = json.loads(run(home, capsys, "list", "--json"))
    assert (told["model"], told["version"], told["state"], told["rows"]) == (MODEL, 3, "drifted", 2160)


def test_show_tells_a_window_in_full(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(home, capsys, "show", MODEL)
    for said in (
        "compared with the rows in its bundle",
        "DRIFTED",
        "ROC AUC",
        "OUTSIDE",
        "is missing",
        "note: a note",
    ):
        assert said in text, said
    first = json.loads(run(home, capsys, "show", MODEL, "--window", "2026-05-01", "--json"))
    assert first["start"].startswith("2026-05-01T00:00:00")
    assert "no window of payments that begins at" in run(
        home, capsys, "show", MODEL, "--window", "2020-01-01", code=3
    )
    assert "is not a time" in run(home, capsys, "show", MODEL, "--window", "soon", code=4)


def test_report_is_a_file_or_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = home / "report.html"
    assert "30 windows of payments:3" in run(home, capsys, "report", MODEL, "--html", str(page))
    assert page.read_text().startswith("<!doctype html>")
    told: dict[str, Any] = json.loads(
        run(
            home,
            capsys,
            "report",
            MODEL,
            "--since",
            "2026-05-01T10:00Z",
            "--until",
            "2026-05-01T20:00Z",
            "--json",
        )
    )
    assert len(told["windows"]) == 10
    assert told["report"]["columns"]
    assert "say what is to be made of it" in run(home, capsys, "report", MODEL, code=4)
    assert "is not a folder" in run(
        home, capsys, "report", MODEL, "--html", str(home / "no" / "x.html"), code=4
    )
    assert "in this time" in run(home, capsys, "report", MODEL, "--since", "2030-01-01", "--json", code=3)


def test_an_empty_home_has_no_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no window was looked at yet" in run(tmp_path, capsys, "list")
    assert "There is no model" in run(tmp_path, capsys, "show", "payments", code=3)
