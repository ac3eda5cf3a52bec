"""Deploying, packaging and showing a pipeline as users type it."""

import json
from pathlib import Path

import pytest

from fairway.cli.main import main

FUNCTIONS = """
def half(rows: dict):
    return rows["x"] / 2
"""
PIPELINE = """
outputs = "first"
[inputs]
x = "float64"
[nodes.first]
function = "functions.py:half"
inputs = ["x"]
"""


class Shell:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--home", str(self.folder / "home")])
        shown = self._capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "p.toml").write_text(PIPELINE)
    (tmp_path / "data.csv").write_text("x\n1.5\n2.5\n4\n")
    return Shell(tmp_path, capsys)


def test_a_pipeline_is_deployed_shown_and_used_as_a_node(shell: Shell) -> None:
    folder = shell.folder
    code, out, err = shell(
        "deploy", str(folder / "p.toml"), "--data", str(folder / "data.csv"), "--name", "half"
    )
    assert code == 0, err
    assert "half:1 is live" in out
    assert "1 node in one process" in out
    code, out, _ = shell("show", "half")
    assert [row.split() for row in out.splitlines() if "functions.py:half" in row] == [
        ["first", "functions.py:half", "x", "prediction"]
    ]
    _, out, _ = shell("show", "half", "--json")
    assert json.loads(out)["pipeline"]["outputs"] == {"prediction": {"name": "prediction", "node": "first"}}
    (folder / "outer.toml").write_text('outputs = "inner"\n[nodes.inner]\nmodel = "half@champion"\n')
    code, out, err = shell("package", str(folder / "outer.toml"), "--out", str(folder / "outer"))
    assert code == 0, err
    assert (folder / "outer/engine/nodes/inner/manifest.json").exists()


def test_a_pipeline_has_no_options_of_a_models_own(shell: Shell) -> None:
    code, _, err = shell(
        "deploy", str(shell.folder / "p.toml"), "--name", "half", "--trust", "a.B", "--native"
    )
    assert code == 4
    assert "A pipeline takes no trust, tolerance, allow_flips or native" in err


def test_a_model_that_is_no_pipeline_needs_data(shell: Shell) -> None:
    code, _, err = shell("deploy", str(shell.folder / "functions.py:half"), "--name", "half")
    assert code == 4
    assert "--data FILE" in err


def test_what_is_wrong_is_listed(shell: Shell) -> None:
    (shell.folder / "p.toml").write_text(
        'outputs = "a"\n[nodes.a]\nmodel = "gone"\n[nodes.b]\nmodel = "lost"\n'
    )
    code, _, err = shell("deploy", str(shell.folder / "p.toml"), "--name", "half")
    assert code == 4
    assert "2 problems in nodes.a, nodes.b" in err
    assert "nodes.a: There is no model 'gone'. Registered models: none yet" in err
