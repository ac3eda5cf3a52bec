from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fairway.core.errors import ArtifactError, FairwayError, NotFound, UnknownFormat
from fairway.packaging.opening import open_model
from fairway.packaging.python_file import needed_files, split_entry


def _write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_entries() -> None:
    assert split_entry("a/model.py:predict") == (Path("a/model.py"), "predict")
    for text in ("model.py", "model.py:", "model.py:a.b", "model.joblib:predict", ":predict", "model.py:2x"):
        assert split_entry(text) is None


def test_a_function_with_its_modules(tmp_path: Path) -> None:
    _write(
        tmp_path,
        model="import json\nimport features\nfrom steps.scale import double\n"
        "def predict(rows): return double(features.pick(rows))\n",
        features="from constants import COLUMN\ndef pick(rows): return rows[COLUMN]\n",
        constants="COLUMN = 'a'\n",
        steps__scale="from . import factor\ndef double(v): return factor.TWO * v\n",
        steps__factor="TWO = 2\n",
        unrelated="raise SystemExit\n",
    )
    (tmp_path / "steps" / "__init__.py").touch()
    before = set(sys.modules), list(sys.path)
    opened = open_model(f"{tmp_path}/model.py:predict")
    assert (opened.kind, opened.entry) == ("python", "model.py:predict")
    assert opened.model({"a": 4}) == 8
    assert set(opened.files) == {
        "model.py",
        "features.py",
        "constants.py",
        "steps/__init__.py",
        "steps/scale.py",
        "steps/factor.py",
    }
    assert all(path.is_file() for path in opened.files.values())
    assert {"features", "steps"}.isdisjoint(set(sys.modules) - before[0])
    assert sys.path == before[1]


def test_two_models_with_modules_of_one_name(tmp_path: Path) -> None:
    answers = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        _write(folder, model="import own\ndef predict(rows): return own.X\n", own=f"X = {number}\n")
        answers.append(open_model(f"{folder}/model.py:predict").model({}))
    assert answers == [1, 2]


def test_files_that_no_import_shows(tmp_path: Path) -> None:
    _write(tmp_path, model="def predict(rows): return rows\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.npz").write_bytes(b"x")
    (tmp_path / "words.txt").write_text("a")
    opened = open_model(f"{tmp_path}/model.py:predict", files=("data", tmp_path / "words.txt"))
    assert set(opened.files) == {"model.py", "data/weights.npz", "words.txt"}
    with pytest.raises(NotFound, match=r"no file none\.txt"):
        open_model(f"{tmp_path}/model.py:predict", files=("none.txt",))
    with pytest.raises(ArtifactError, match="outside"):
        open_model(f"{tmp_path}/model.py:predict", files=("..",))


def test_imports_that_lead_outside_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    _write(tmp_path, secret="X = 1\n")
    _write(folder, model="from .. import secret\nfrom ..secret import X\nimport os\n")
    (folder / "linked.py").symlink_to(tmp_path / "secret.py")
    _write(folder, other="import linked\n")
    assert set(needed_files(folder / "model.py")) == {"model.py"}
    assert set(needed_files(folder / "other.py")) == {"other.py"}


def test_what_can_be_wrong_with_it(tmp_path: Path) -> None:
    _write(
        tmp_path,
        model="def predict(rows): return rows\ndef _own(rows): return rows\nTABLE = 3\n",
        broken="def predict(:\n",
        failing="import a_package_that_is_not_there\ndef predict(rows): return rows\n",
    )
    with pytest.raises(NotFound, match="there is no file"):
        open_model(f"{tmp_path}/none.py:predict")
    with pytest.raises(NotFound, match="It has: TABLE, predict"):
        open_model(f"{tmp_path}/model.py:score")
    with pytest.raises(FairwayError, match="no function 'TABLE'"):
        open_model(f"{tmp_path}/model.py:TABLE")
    with pytest.raises(ArtifactError, match="line 1"):
        open_model(f"{tmp_path}/broken.py:predict")
    with pytest.raises(ArtifactError, match="a_package_that_is_not_there"):
        open_model(f"{tmp_path}/failing.py:predict")


def test_a_live_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(
        tmp_path, live_model="import live_step\ndef predict(rows): return live_step.X\n", live_step="X = 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import live_model  # type: ignore[import-not-found]

    opened = open_model(live_model.predict)
    assert (opened.kind, opened.entry, set(opened.files)) == (
        "python",
        "live_model.py:predict",
        {"live_model.py", "live_step.py"},
    )
    assert opened.model is live_model.predict


class Callable:
    def __call__(self, rows: object) -> object:
        return rows


def test_functions_no_other_process_could_find() -> None:
    def inner(rows: object) -> object:
        return rows

    for function in (inner, lambda rows: rows, Callable(), len, Path.exists):
        with pytest.raises(UnknownFormat, match="Put it into a file"):
            open_model(function)
