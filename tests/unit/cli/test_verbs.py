"""The verbs as users type them, on one home: from a model file to traffic and back."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from fairway.cli import predict as predicting
from fairway.cli.main import main
from fairway.core.contract import Contract

RANDOM = np.random.default_rng(5)
DATA = pd.DataFrame(RANDOM.normal(size=(200, 2)), columns=["a", "b"]).assign(
    y=lambda f: np.where(f.a + f.b > 0, "yes", "no")
)
ROWS = DATA[["a", "b"]].head(7)


class Shell:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str, home: bool = True) -> tuple[int, str, str]:
        more = ["--home", str(self.folder / "home")] if home else []
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        shown = self._capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    def json(self, *arguments: str, **options: bool) -> Any:
        code, out, err = self(*arguments, "--json", **options)
        assert code == 0, err
        return json.loads(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two model files, their data, and a home where the first is `m:1`, live."""
    folder = tmp_path_factory.mktemp("cli")
    for name, strength in (("one", 1.0), ("two", 0.01)):
        joblib.dump(
            LogisticRegression(C=strength).fit(DATA[["a", "b"]], DATA["y"]), folder / f"{name}.joblib"
        )
    DATA.to_parquet(folder / "train.parquet")
    ROWS.to_csv(folder / "rows.csv", index=False)
    ROWS.to_parquet(folder / "rows.parquet")
    ROWS.to_json(folder / "rows.jsonl", orient="records", lines=True)
    with pytest.raises(SystemExit) as ended:
        main(["deploy", str(folder / "one.joblib"), "--data", str(folder / "train.parquet"), "--target", "y", "--name", "m",
              "--home", str(folder / "home"), "--why", "first"])  # fmt: skip
    assert not ended.value.code
    return folder


@pytest.fixture
def shell(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    capsys.readouterr()
    shutil.copytree(made, tmp_path / "copy")
    return Shell(tmp_path / "copy", capsys)


def deploy(shell: Shell, model: str, *more: str) -> list[str]:
    return [
        "deploy",
        str(shell.folder / f"{model}.joblib"),
        "--data",
        str(shell.folder / "train.parquet"),
        "--target",
        "y",
        "--name",
        "m",
        *more,
    ]


def test_deploying_again_is_the_same_version_and_another_model_the_next(shell: Shell) -> None:
    code, out, _ = shell(*deploy(shell, "one"))
    assert code == 0
    assert "m:1 was registered before and is live" in out
    assert "0 label flips" in out
    told = shell.json(*deploy(shell, "two", "--why", "better"))
    assert (told["version"], told["is_new"], told["engine"]) == (2, True, "onnx")
    assert told["proof"]["label_flips"] == 0
    contract = msgspec.convert(told["contract"], Contract)
    assert [field.name for field in contract] == ["a", "b"]


def test_packaging_apart_from_registering(shell: Shell) -> None:
    package = [
        "package",
        str(shell.folder / "two.joblib"),
        "--data",
        str(shell.folder / "train.parquet"),
        "--target",
        "y",
    ]
    archive = shell.folder / "two.fairway"
    told = shell.json(*package, "--out", str(archive), home=False)
    assert archive.is_file()
    code, out, _ = shell(*package, "--out", str(shell.folder / "bundle"), home=False)
    assert code == 0
    assert told["digest"] in out
    registered = shell.json("register", str(archive), "--name", "m")
    assert (registered["version"], registered["digest"]) == (2, told["digest"])
    code, out, _ = shell("register", str(shell.folder / "bundle"), "--name", "m", "--live")
    assert "m:2 was registered before" in out
    assert shell.json("route", "m")["arms"] == [{"version": 2, "weight": 1.0}]
    kept = archive.read_bytes()
    for taken in (shell.folder / "bundle", archive):
        code, _, told = shell(*package, "--out", str(taken), home=False)
        assert (code, f"{taken} is already there" in told) == (6, True), told
    assert archive.read_bytes() == kept
    assert shell("register", str(shell.folder / "nothing"), "--name", "m")[0] == 3
    (shell.folder / "no.fairway").write_bytes(b"not an archive")
    assert shell("register", str(shell.folder / "no.fairway"), "--name", "m")[0] == 5


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "stdin"])
def test_predicting_a_file(shell: Shell, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(shell.folder / f"rows.{kind}")
    if kind == "stdin":
        path = "-"
        monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO((shell.folder / "rows.csv").read_bytes()))
        )
    told = shell.json("predict", "m", path)
    model = joblib.load(shell.folder / "one.joblib")
    assert told["label"] == model.predict(ROWS).tolist()
    np.testing.assert_allclose(told["probabilities"], model.predict_proba(ROWS), atol=1e-5)


def test_predictions_as_csv(shell: Shell) -> None:
    code, out, _ = shell("predict", "m:1", str(shell.folder / "rows.csv"))
    assert code == 0
    frame = pd.read_csv(io.StringIO(out))
    assert list(frame.columns) == ["label", "probabilities_0", "probabilities_1"]
    assert len(frame) == 7


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_long_files_are_predicted_whole_and_problems_told_by_their_row(
    shell: Shell, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = pd.DataFrame(RANDOM.normal(size=(25_001, 2)), columns=["a", "b"])
    path = shell.folder / f"long.{kind}"

    def write() -> None:
        long.to_csv(path, index=False) if kind == "csv" else long.to_parquet(path)

    write()
    told = shell.json("predict", "m", str(path))
    assert told["label"] == joblib.load(shell.folder / "one.joblib").predict(long).tolist()
    monkeypatch.setattr(predicting, "_CHUNK_ROWS", 100)
    long = long.head(250)
    long.loc[205, "a"] = np.inf
    write()
    code, _, err = shell("predict", "m", str(path), "--json")
    assert code == 4
    assert [(p["field"], p["row"]) for p in json.loads(err)["problems"]] == [("a", 205)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["predict", "nobody", "rows.csv"], 3),
        (["predict", "m:9", "rows.csv"], 3),
        (["predict", "m@blue", "rows.csv"], 3),
        (["predict", "m", "nothing.csv"], 3),
        (["predict", "m", "rows.csv", "--url", "http://127.0.0.1:1"], 7),
        (["predict", "m", "rows.csv", "--url", "http://no host"], 7),
        (["predict", "m", "rows.csv", "--url", "ftp://x"], 4),
        (["predict", "../m", "rows.csv"], 4),
        (["show", "nobody"], 3),
        (["route", "nobody", "--to", "1"], 3),
        (["route", "m", "--to", "9"], 3),
        (["route", "m", "--to", "x"], 4),
        (["route", "m", "--to", "1=0.5"], 4),
        (["alias", "m", "blue", "9"], 3),
        (["alias", "m", "blue"], 3),
        (["alias", "m", "9", "1"], 4),
        (["rollback", "nobody"], 3),
        (["history", "nobody"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_has_its_exit_code_and_a_message(
    shell: Shell, arguments: list[str], code: int
) -> None:
    located = [str(shell.folder / a) if a.endswith(".csv") else a for a in arguments]
    got, out, err = shell(*located, "--json")
    assert (got, out) == (code, "")
    assert json.loads(err)["error"]


def test_looking_at_models(shell: Shell) -> None:
    assert [m["name"] for m in shell.json("models")] == ["m"]
    assert "champion=1" in shell("models")[1]
    told = shell.json("show", "m")
    assert (told["version"]["version"], told["versions"]) == (1, [1])
    assert told["proof"]["rows"] >= 200
    code, out, _ = shell("show", "m@champion")
    assert code == 0
    assert "m:1   sha256:" in out
    assert "float64" in out
    code, out, _ = shell("show", "m", "--proof")
    assert "label flips 0" in out.lower()
    assert "faster" in out
    assert shell("show", "m", "--card")[1].startswith("#")


def test_an_empty_home_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(tmp_path, capsys)
    assert "Deploy one:" in shell("models")[1]
    assert shell.json("models") == []


def test_traffic_goes_forth_and_back_and_history_tells(shell: Shell) -> None:
    shell.json(*deploy(shell, "two", "--why", "better"))
    assert shell.json("route", "m")["arms"] == [{"version": 2, "weight": 1.0}]
    code, out, _ = shell("route", "m", "--to", "1=0.9", "--to", "2=0.1", "--why", "try it")
    assert (code, out.strip()) == (0, "m: 1 90%, 2 10%")
    assert shell("rollback", "m", "--why", "no good")[1].strip() == "m: 2"
    assert shell.json("rollback", "m")["arms"] == [{"version": 1, "weight": 1.0}]
    changes = shell.json("history", "m")
    assert [c["why"] for c in changes if c["what"] == "route"] == [
        "rollback",
        "no good",
        "try it",
        "better",
        "first",
    ]
    assert len(shell.json("history", "m", "--limit", "2")) == 2
    assert "no good" in shell("history", "m")[1]


def test_aliases(shell: Shell) -> None:
    assert shell.json("alias", "m", "blue", "1") == {"model": "m", "alias": "blue", "version": 1}
    assert shell("alias", "m", "blue")[1].strip() == "m@blue: 1"
    assert len(shell.json("predict", "m@blue", str(shell.folder / "rows.csv"))["label"]) == 7
    assert shell("alias", "m", "blue", "--delete")[1].strip() == "m@blue: removed"
    assert shell("alias", "m", "blue")[0] == 3


def test_settings_that_are_wrong_name_the_file(shell: Shell) -> None:
    (shell.folder / "home" / "fairway.toml").write_text("[serving]\nprot = 1\n")
    code, _, err = shell("models")
    assert code == 1
    assert "prot" in err
