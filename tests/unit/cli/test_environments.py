"""Functions with requirements of their own, as users type them: deployed, shown, listed, mended, registered elsewhere.

The wheel of numpy that is installed here leads to this interpreter's own numpy, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.cli.main import main
from tests.unit.runtimes.isolated.wheels import make_wheel, use_only

SITE = str(Path(np.__file__).parent.parent)
LEADING = f"import sys; del sys.modules['numpy']; sys.path.insert(0, {SITE!r}); import numpy\n"
SOURCE = "def score(rows: dict):\n    return rows['a'] * 2\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "numpy", "0.1", source=LEADING)
    use_only(wheels, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "predict.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("numpy\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("a\n" + "\n".join(f"{i}.5" for i in range(20)), encoding="utf-8")

    def run(*arguments: str, home: str = "home") -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--home", str(tmp_path / home)])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


PACKAGE = ("predict.py:score", "--data", "rows.csv", "--requirements", "requirements.txt")


def environments(run: Run, *arguments: str, home: str = "home") -> Any:
    code, out, err = run("environments", "--json", *arguments, home=home)
    assert code == 0, err
    return json.loads(out.splitlines()[-1]) if out.strip().startswith("made") else json.loads(out)


def test_a_function_with_packages_of_its_own(run: Run, tmp_path: Path) -> None:
    code, out, err = run("deploy", *PACKAGE, "--name", "legacy")
    assert code == 0, err
    assert "isolated:python" in out
    assert "runs in    an environment of its own: Python 3." in run("show", "legacy")[1]
    assert "with numpy 0.1" in run("show", "legacy")[1]
    code, out, err = run("predict", "legacy", "rows.csv")
    assert out.split()[:3] == ["prediction", "1.0", "3.0"]
    (made,) = environments(run)
    assert (made["packages"], made["models"], made["state"]) == ("numpy 0.1", "legacy:1", "ok")
    shutil.rmtree(tmp_path / "home" / "environments" / made["digest"])
    (gone,) = environments(run)
    assert gone["state"] == "it is not there"
    code, out, _ = run("doctor")
    assert code == 1
    assert f"the environment {made['digest'][:12]} of legacy:1 cannot be used: it is not there." in out
    code, out, _ = run("environments", "--mend")
    assert f"made {made['digest'][:12]} for legacy:1" in out
    assert environments(run)[0]["state"] == "ok"
    code, out, err = run("environments", "--remove", made["digest"][:6])
    assert environments(run)[0]["state"] == "it is not there"
    assert run("environments", "--remove", "0000")[0] == 2


def test_a_bundle_registered_elsewhere_brings_its_environment(run: Run, tmp_path: Path) -> None:
    code, _, err = run("package", *PACKAGE, "--out", "legacy.fairway")
    assert code == 0, err
    code, _, err = run("register", "legacy.fairway", "--name", "legacy", home="other")
    assert code == 5
    assert "engine/predict.py, environment/requirements.lock" in err
    trust = ("--trust", "engine/predict.py", "--trust", "environment/requirements.lock")
    code, _, err = run("register", "legacy.fairway", "--name", "legacy", "--live", *trust, home="other")
    assert code == 0, err
    (made,) = environments(run, home="other")
    assert (made["models"], made["state"]) == ("legacy:1", "ok")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("predict.py:score", "--data", "rows.csv", "--python", "3.12"), 4, "give requirements too"),
        (
            ("rows.csv", "--data", "rows.csv", "--requirements", "requirements.txt"),
            4,
            "for a Python function",
        ),
        ((*PACKAGE, "--python", "3.99"), 5, "there is no Python 3.99"),
        ((*PACKAGE[:-1], "none.txt"), 3, "there is no file none.txt"),
        ((*PACKAGE, "--file", "none.npz"), 3, "none.npz"),
        (("predict.py:other", *PACKAGE[1:]), 5, "has no function 'other'"),
    ],
)
def test_what_cannot_be_packaged_is_told(
    run: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended, _, err = run("package", *arguments, "--out", "bundle")
    assert (ended, message in err) == (code, True), err


def test_a_function_of_a_frame_needs_pandas_among_its_requirements(run: Run, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text(
        "import sys\n"
        f"sys.path.remove({SITE!r})\n"  # where this test's numpy led
        "def score(frame):\n    return frame['a']\n",
        encoding="utf-8",
    )
    code, _, err = run("package", *PACKAGE, "--out", "bundle")
    assert code == 5
    assert "takes a DataFrame, and pandas is not among its requirements" in err


def test_nothing_to_list(run: Run) -> None:
    assert "No model has an environment of its own." in run("environments")[1]
