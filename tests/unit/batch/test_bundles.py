"""Room for bundles on a machine where many workers begin at once."""

import os
import time
from pathlib import Path

import pytest

from fairway.batch import bundles


def made(root: Path, name: str, age_seconds: float) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "manifest.json").touch()
    moment = time.time() - age_seconds
    os.utime(folder, (moment, moment))
    return folder


def test_what_other_processes_are_filling_is_left_alone(tmp_path: Path) -> None:
    filling = [made(tmp_path, f".abc-{number}", 600 - number) for number in range(16)]
    bundles._make_room(tmp_path)
    assert all((folder / "manifest.json").exists() for folder in filling)


def test_the_oldest_go_and_so_does_what_dead_processes_left(tmp_path: Path) -> None:
    whole = [made(tmp_path, f"{number:064}", 100_000 - number) for number in range(12)]
    home = made(tmp_path, "home", 1e6)
    dead, filling = made(tmp_path, ".abc-1", 100_000), made(tmp_path, ".abc-2", 10)
    (tmp_path / "a file").touch()
    bundles._make_room(tmp_path)
    assert [folder.exists() for folder in whole] == [False] * 5 + [True] * 7  # and the one to come
    assert (home.exists(), dead.exists(), filling.exists()) == (True, False, True)
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".")]) == 1


def test_two_that_make_room_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has listed, another has removed by the time that it is looked at."""
    for number in range(9):
        made(tmp_path, f"{number:064}", 100 - number)
    listed = list(tmp_path.iterdir())
    bundles._make_room(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda root: iter(listed))
        bundles._make_room(tmp_path)
    assert len(list(tmp_path.iterdir())) == 7
