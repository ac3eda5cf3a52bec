"""`fairway contract` as people and programs meet it, on a real registry with a real model."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from fairway.app.library import deploy
from fairway.app.load import load
from fairway.cli import main
from fairway.core.contract import Action, Contract
from fairway.packaging.contract_text import contract_from_text


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    model = LogisticRegression().fit(data, data["a"] > 0)
    home = tmp_path_factory.mktemp("deployed")
    deploy(model, data, name="m", home=home)
    return home


@pytest.fixture
def home(deployed: Path, tmp_path: Path) -> Path:
    """A copy, so that each test may register versions of its own."""
    import shutil

    return Path(shutil.copytree(deployed, tmp_path / "home"))


def run(home: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main.main(["contract", *arguments, "--home", str(home)])
    return int(ended.value.code or 0)


def shown(home: Path, capsys: Any, model: str = "m") -> Contract:
    capsys.readouterr()
    assert run(home, "show", model) == 0
    return contract_from_text(capsys.readouterr().out)


def test_show(home: Path, capsys: Any) -> None:
    contract = shown(home, capsys)
    assert [field.name for field in contract] == ["a", "b"]
    assert run(home, "show", "m:1", "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Contract) == contract
    assert run(home, "show", "nobody") == 3


class TestEdit:
    def test_rules_make_a_new_version(self, home: Path, capsys: Any) -> None:
        before = shown(home, capsys)
        assert run(home, "edit", "m", "--set", "a.on_null=impute:mean", "--set", "b.on_range=clip") == 0
        told = capsys.readouterr().out
        assert "m:2 registered: m:1 with the edited contract" in told
        assert "fairway route m --to 2" in told
        after = shown(home, capsys, "m:2")
        assert after.inputs[0].rules.on_null is Action.impute
        assert after.inputs[0].imputed_by == "mean"
        assert after.inputs[1].rules.on_range is Action.clip
        assert after.outputs == before.outputs
        assert shown(home, capsys, "m:1") == before
        with load("m:2", home=home, record=False) as model:
            imputed = model.predict({"a": [None], "b": [99.0]})
            same = {"a": [after.inputs[0].impute_with], "b": [after.inputs[1].maximum]}
            np.testing.assert_array_equal(imputed["probabilities"], model.predict(same)["probabilities"])

    def test_a_file(self, home: Path, tmp_path: Path, capsys: Any) -> None:
        assert run(home, "show", "m") == 0
        text = capsys.readouterr().out
        (tmp_path / "c.toml").write_text(text.replace("[inputs.a]\n", '[inputs.a]\ndescription = "first"\n'))
        assert run(home, "edit", "m", "--file", str(tmp_path / "c.toml"), "--live", "--json") == 0
        assert msgspec.json.decode(capsys.readouterr().out)["version"] == 2
        assert shown(home, capsys).inputs[0].description == "first"  # live now
        (tmp_path / "c.toml").write_text(text)
        assert run(home, "edit", "m:1", "--file", str(tmp_path / "c.toml")) == 4
        assert "same as before" in capsys.readouterr().err
        assert run(home, "edit", "m", "--file", str(tmp_path / "none.toml")) == 3

    def test_mistakes_register_nothing(self, home: Path, tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "c.toml").write_text('[inputs.a]\ndtype = "float"\n')
        assert run(home, "edit", "m", "--file", str(tmp_path / "c.toml")) == 4
        assert "inputs.a.dtype (line 2): 'float' is none of" in capsys.readouterr().err
        assert run(home, "edit", "m", "--set", "a.on_null=warn") == 4
        assert "nullable is false and cannot become true" in capsys.readouterr().err
        assert run(home, "show", "m:2") == 3

    @pytest.mark.parametrize("good", [True, False])
    def test_the_editor(
        self, home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, good: bool
    ) -> None:
        editor = tmp_path / "editor"
        wanted = "'on_outlier = \"reject\"'" if good else "'on_outlier = \"explode\"'"
        editor.write_text(
            f"#!{sys.executable}\nimport sys, pathlib, os\npath = pathlib.Path(sys.argv[1])\n"
            f"path.write_text(path.read_text().replace('on_outlier = \"warn\"', {wanted}))\n"
            "os.utime(path, (4e9, 4e9))\n"
        )
        editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("VISUAL", str(editor))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        ended = run(home, "edit", "m")
        if good:
            assert ended == 0
            assert shown(home, capsys, "m:2").inputs[0].rules.on_outlier is Action.reject
            return
        told = capsys.readouterr().err
        assert ended == 4
        kept = Path(told.partition("--file ")[2].split()[0])
        assert "explode" in kept.read_text()

    def test_an_editor_left_without_saving(
        self, home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VISUAL", "true")
        assert run(home, "edit", "m") == 4
        assert "nothing was changed" in capsys.readouterr().err


class TestCheck:
    def test_clean_rows_end_with_0(self, home: Path, tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "rows.csv").write_text("a,b\n0.5,1\n99,0\n")
        assert run(home, "check", "m", str(tmp_path / "rows.csv")) == 0
        told = capsys.readouterr().out
        assert "on_range" in told
        assert "2 rows, 0 would be refused" in told

    def test_refused_rows_end_with_1(self, home: Path, tmp_path: Path, capsys: Any) -> None:
        (tmp_path / "rows.csv").write_text("a,b\n,1\nx,0\n0.1,0.1\n")
        assert run(home, "check", "m", str(tmp_path / "rows.csv"), "--json") == 1
        told = msgspec.json.decode(capsys.readouterr().out)
        assert (told["rows"], told["refused"]) == (3, 2)
        assert {(f["field"], f["rule"], f["rows"]) for f in told["findings"]} == {
            ("a", "on_null", 1),
            ("a", "type", 1),
        }
        assert run(home, "check", "m", str(tmp_path / "rows.csv")) == 1
        assert "a row 1: expected a number, got 'x'" in capsys.readouterr().out

    def test_other_files(self, home: Path, tmp_path: Path, capsys: Any) -> None:
        pd.DataFrame({"a": [0.1, np.nan], "b": [0.0, 0.0]}).to_parquet(tmp_path / "rows.parquet")
        assert run(home, "check", "m", str(tmp_path / "rows.parquet")) == 1
        assert "2 rows, 1 would be refused" in capsys.readouterr().out
        assert run(home, "check", "m", str(tmp_path / "none.csv")) == 3
        assert os.listdir(tmp_path)
