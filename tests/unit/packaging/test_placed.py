"""The bundle in a folder that somebody else filled."""

from pathlib import Path

import pytest

from fairway.core.errors import CorruptBundle, NotFound
from fairway.packaging.placed import placed_bundle


def bundle(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def test_the_folder_itself_or_the_only_one_below(tmp_path: Path) -> None:
    assert placed_bundle(bundle(tmp_path / "a"), tmp_path / "scratch") == tmp_path / "a"
    inner = bundle(tmp_path / "b" / "payments")
    (tmp_path / "b" / "readme.txt").write_text("hello")
    assert placed_bundle(tmp_path / "b", tmp_path / "scratch") == inner
    bundle(tmp_path / "b" / "fraud")
    with pytest.raises(NotFound, match="several bundles: fraud, payments"):
        placed_bundle(tmp_path / "b", tmp_path / "scratch")


def test_what_is_there_instead_is_told_with_the_way_to_package_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no folder"):
        placed_bundle(tmp_path / "nowhere", tmp_path / "scratch")
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(NotFound, match="but nothing"):
        placed_bundle(folder, tmp_path / "scratch")
    (folder / "model.pkl").write_bytes(b"x")
    with pytest.raises(NotFound, match=r"but model\.pkl\..*fairway package"):
        placed_bundle(folder, tmp_path / "scratch")


def test_an_archive_is_unpacked_and_a_broken_one_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.fairway").write_bytes(b"no archive")
    with pytest.raises(CorruptBundle):
        placed_bundle(folder, tmp_path / "scratch")
