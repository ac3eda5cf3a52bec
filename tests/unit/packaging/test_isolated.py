"""Requirements of a function's own: locked with hashes and no address, and refused where they cannot be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fairway.core.errors import EnvironmentFailed, InvalidInput, NotFound
from fairway.core.settings import IsolationSettings
from fairway.packaging.isolated import lock_requirements
from fairway.packaging.opening import Requirements, open_model
from fairway.runtimes.isolated.interpreters import find_interpreter
from fairway.runtimes.isolated.lock import Lock, read_lock
from tests.unit.runtimes.isolated.wheels import make_wheel, use_only


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "numpy", "0.1")
    make_wheel(folder, "numpy", "0.2")
    make_wheel(folder, "Old_Model", "1.5", needs="numpy<0.2")
    use_only(folder, monkeypatch)
    return folder


def lock(folder: Path, text: str) -> Lock:
    requirements = folder / "requirements.txt"
    requirements.write_text(text, encoding="utf-8")
    return lock_requirements(requirements, find_interpreter(), IsolationSettings(build_seconds=100.0))


def test_everything_needed_is_locked_with_the_hash_of_its_file(tmp_path: Path, wheels: Path) -> None:
    locked = lock(tmp_path, "old-model  # from before\n")
    assert locked.versions == {"numpy": "0.1", "old-model": "1.5"}
    digest = hashlib.sha256((wheels / "numpy-0.1-py3-none-any.whl").read_bytes()).hexdigest()
    assert locked.packages[0].hashes == (f"sha256:{digest}",)
    assert "://" not in locked.text
    assert str(tmp_path) not in locked.text
    assert read_lock(locked.text.encode(), "x") == locked


def test_numpy_is_locked_even_where_nobody_asks_for_it(tmp_path: Path, wheels: Path) -> None:
    assert lock(tmp_path, "").versions == {"numpy": "0.2"}


def test_a_file_that_is_locked_already_stays_as_it_is(tmp_path: Path, wheels: Path) -> None:
    digest = hashlib.sha256((wheels / "numpy-0.1-py3-none-any.whl").read_bytes()).hexdigest()
    assert lock(tmp_path, f"numpy==0.1 --hash=sha256:{digest}\n").versions == {"numpy": "0.1"}
    make_wheel(wheels, "lonely", "1.0")
    other = hashlib.sha256((wheels / "lonely-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    with pytest.raises(InvalidInput, match="does not name numpy"):
        lock(tmp_path, f"lonely==1.0 --hash=sha256:{other}\n")


def test_what_an_index_cannot_give_is_refused(tmp_path: Path, wheels: Path) -> None:
    with pytest.raises(InvalidInput, match="old-model comes from an address or a folder"):
        lock(tmp_path, f"{wheels / 'Old_Model-1.5-py3-none-any.whl'}\n")
    with pytest.raises(
        EnvironmentFailed, match=r"requirements\.txt cannot be resolved.*unheard-of.*Only wheels"
    ):
        lock(tmp_path, "unheard-of\n")
    with pytest.raises(EnvironmentFailed, match="cannot be resolved"):
        lock(tmp_path, "old-model\nnumpy==0.2\n")
    with pytest.raises(NotFound, match="which --requirements names"):
        lock_requirements(tmp_path / "none.txt", find_interpreter(), IsolationSettings())


@pytest.mark.parametrize("model", ["model.joblib", object()])
def test_only_functions_have_requirements_of_their_own(tmp_path: Path, model: object) -> None:
    requirements = Requirements(tmp_path / "requirements.txt", None, IsolationSettings())
    with pytest.raises(InvalidInput, match=r"for a Python function, given as file\.py:function"):
        open_model(model, requirements=requirements)
    with pytest.raises(NotFound, match=r"there is no file .*none\.py"):
        open_model(str(tmp_path / "none.py:score"), requirements=requirements)
