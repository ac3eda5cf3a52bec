"""The single-file form gives the same bytes for the same bundle, and unpacks nothing dangerous."""

from __future__ import annotations

import errno
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.core.errors import AlreadyExists, CorruptBundle, NotFound, StorageFull
from fairway.packaging import archive as module
from fairway.packaging.archive import archive, unarchive
from fairway.packaging.bundle import read_bundle

Write = Callable[..., Path]


def test_there_and_back(bundle: Write, tmp_path: Path) -> None:
    directory = bundle()
    digest = archive(directory, tmp_path / "a.fairway")
    unpacked = unarchive(tmp_path / "a.fairway", tmp_path / "unpacked")
    assert unpacked.digest == digest == read_bundle(directory).digest
    assert unpacked.timings == read_bundle(directory).timings


def test_same_bundle_same_bytes(bundle: Write, tmp_path: Path) -> None:
    one, two = bundle("one"), bundle("two")
    os.utime(two / "card.md", (0, 0))
    archive(one, tmp_path / "1.fairway")
    archive(two, tmp_path / "2.fairway")
    assert (tmp_path / "1.fairway").read_bytes() == (tmp_path / "2.fairway").read_bytes()
    archive(two, tmp_path / "1.fairway")  # replaces


def test_a_damaged_bundle_is_not_archived(bundle: Write, tmp_path: Path) -> None:
    directory = bundle()
    (directory / "card.md").write_text("x")
    with pytest.raises(CorruptBundle):
        archive(directory, tmp_path / "a.fairway")
    assert not (tmp_path / "a.fairway").exists()


def test_a_full_disk_leaves_nothing(bundle: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    directory = bundle()
    monkeypatch.setattr(module, "_add", full)
    with pytest.raises(StorageFull):
        archive(directory, tmp_path / "a.fairway")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_nothing_is_overwritten(bundle: Write, tmp_path: Path) -> None:
    archive(bundle(), tmp_path / "a.fairway")
    with pytest.raises(AlreadyExists):
        unarchive(tmp_path / "a.fairway", tmp_path / "bundle")
    with pytest.raises(NotFound):
        unarchive(tmp_path / "none.fairway", tmp_path / "x")


@pytest.fixture
def archived(bundle: Write, tmp_path: Path) -> Path:
    archive(bundle(), tmp_path / "a.fairway")
    return tmp_path / "a.fairway"


def refused(path: Path, told: str) -> None:
    target = path.parent / "unpacked"
    with pytest.raises(CorruptBundle, match=told):
        unarchive(path, target)
    assert not target.exists()
    assert not [left for left in path.parent.iterdir() if left.name.startswith(".unpacked")]
    assert not (path.parent.parent / "evil").exists()


def add(
    path: Path, name: str, content: bytes = b"x", *, mode: int = 0, method: int = zipfile.ZIP_STORED
) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as target:
        warnings.simplefilter("ignore")  # zipfile warns of names that stand twice
        target.writestr(entry, content, compress_type=method)


@pytest.mark.parametrize("name", ["../evil", "/evil", "engine/../../evil", "..\\evil", "engine/", "C:evil"])
def test_names_that_leave(archived: Path, name: str) -> None:
    add(archived, name)
    refused(archived, "outside the bundle|no plain file")


def test_links_twins_and_strangers(archived: Path) -> None:
    whole = archived.read_bytes()
    add(archived, "engine/link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)
    refused(archived, "no plain file")
    archived.write_bytes(whole)
    add(archived, "card.md", b"other")
    refused(archived, "twice")
    archived.write_bytes(whole)
    add(archived, "stranger.txt")
    refused(archived, r"stranger\.txt is not listed")


def test_limits(archived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = archived.read_bytes()
    add(archived, "engine/bomb", bytes(10_000_000), method=zipfile.ZIP_DEFLATED)
    refused(archived, "compressed more than 200 times")
    archived.write_bytes(whole)
    monkeypatch.setattr(module, "FILES", 3)
    refused(archived, "at most 3")
    monkeypatch.undo()
    monkeypatch.setattr(module, "TOTAL_BYTES", 100)
    refused(archived, "at most 100")


def test_truncated_and_altered(archived: Path) -> None:
    whole = archived.read_bytes()
    archived.write_bytes(whole[: len(whole) // 2])
    refused(archived, "not a whole archive")
    archived.write_bytes(b"")
    refused(archived, "not a whole archive")
    at = whole.index(b"not really a graph")
    archived.write_bytes(whole[:at] + b"N" + whole[at + 1 :])
    refused(archived, "not a whole archive")


def test_a_size_that_lies(archived: Path) -> None:
    """The central directory says 5 bytes for a file that has 18; nothing past the lie is kept."""
    whole = archived.read_bytes()
    with zipfile.ZipFile(archived) as source:
        entry = source.getinfo("engine/model.onnx")
    at = whole.rindex(b"engine/model.onnx") - 46
    size = entry.file_size.to_bytes(4, "little")
    head = whole[at : at + 46].replace(size + size, (5).to_bytes(4, "little") * 2)
    assert head != whole[at : at + 46]
    archived.write_bytes(whole[:at] + head + whole[at + 46 :])
    refused(archived, "not a whole archive|larger than|has 5 bytes")
