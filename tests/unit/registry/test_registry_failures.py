"""What happens when the disk is full, a file is altered, or the blobs go away while registering."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.core.errors import CorruptBundle, RegistryUnavailable, StorageFull
from fairway.core.settings import RegistrySettings
from fairway.registry.contents import hexadecimal
from fairway.registry.registry import Registry, open_registry
from fairway.stores.blobs_local import LocalBlobs
from tests.bundles import register


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path / "home", RegistrySettings()) as registry:
        yield registry


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _blob(registry: Registry, content: str) -> Path:
    return registry.home / "blobs" / content[:2] / content


def test_a_full_disk_registers_nothing_and_leaves_nothing_half(registry: Registry, tmp_path: Path) -> None:
    register(registry, tmp_path / "a", b"fits")
    content = bytes(4 * 1024 * 1024)
    with pytest.raises(StorageFull, match=r"No room left.*blobs.*Free some space"), _room_for_one_copy():
        register(registry, tmp_path / "b", content)
    assert [version.version for version in registry.versions("payments")] == [1]
    assert list((registry.home / "blobs" / "uploads").iterdir()) == []
    assert register(registry, tmp_path / "b", content).version == 2


@contextmanager
def _room_for_one_copy() -> Iterator[None]:
    """Room for the bundle itself, none for a second copy of it."""
    put = LocalBlobs.put

    def limited(self: LocalBlobs, source: Path) -> str:
        with _largest_file(2 * 1024 * 1024):
            return put(self, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalBlobs, "put", limited)
        yield


def test_a_full_disk_while_unpacking_leaves_no_bundle(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(registry, tmp_path / "a", bytes(4 * 1024 * 1024))

    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_links)
    with pytest.raises(StorageFull), _largest_file(2 * 1024 * 1024):
        registry.fetch(version)
    assert list((registry.home / "bundles").iterdir()) == []
    assert (registry.fetch(version) / "engine/model.onnx").stat().st_size == 4 * 1024 * 1024


def test_an_unpacked_bundle_shares_the_disk_space_of_the_blobs_and_is_read_only(
    registry: Registry, tmp_path: Path
) -> None:
    model = registry.fetch(register(registry, tmp_path / "a", b"model")) / "engine/model.onnx"
    assert model.stat().st_nlink == 2
    assert model.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("damage", [b"modem", b"mod", b""])
def test_an_altered_file_is_named_and_registering_again_mends_it(
    registry: Registry, tmp_path: Path, damage: bytes
) -> None:
    version = register(registry, tmp_path / "a", b"model")
    with registry._database.reading() as rows:
        blob = _blob(registry, rows.files("payments", 1)["engine/model.onnx"].sha256)
    blob.chmod(0o644)
    blob.write_bytes(damage)
    with pytest.raises(CorruptBundle, match=r"payments:1: engine/model\.onnx .*Register the bundle again"):
        registry.fetch(version)
    assert not (registry.home / "bundles" / hexadecimal(version.digest)).exists()
    assert list((registry.home / "bundles").iterdir()) == []
    assert register(registry, tmp_path / "a", b"model").version == 1
    assert (registry.fetch(version) / "engine/model.onnx").read_bytes() == b"model"


def test_damaged_timings_do_not_matter(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, tmp_path / "a", b"model")
    with registry._database.reading() as rows:
        _blob(registry, rows.files("payments", 1)["timings.json"].sha256).unlink()
    assert not (registry.fetch(version) / "timings.json").exists()


def test_an_unpacked_bundle_is_found_without_the_database(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, tmp_path / "a", b"model")
    directory = registry.fetch(version)
    Path(registry.where).unlink()
    assert registry.fetch(version) == directory
    with pytest.raises(RegistryUnavailable, match=r"registry\.db"):
        registry.models()


def test_files_that_a_cleaning_took_are_stored_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cleaning elsewhere, between the storing of files and the transaction that names them."""
    put, calls = LocalBlobs.put, 0

    def put_and_lose(self: LocalBlobs, source: Path) -> str:
        nonlocal calls
        calls += 1
        digest = put(self, source)
        if calls == 1:
            _blob(registry, digest).unlink()
        return digest

    monkeypatch.setattr(LocalBlobs, "put", put_and_lose)
    version = register(registry, tmp_path / "a", b"model")
    assert calls == 8  # all four files twice
    assert registry.fetch(version).is_dir()


def test_files_that_vanish_always_are_an_error(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalBlobs, "exists", lambda self, digest: False)
    with pytest.raises(RegistryUnavailable, match="vanish"):
        register(registry, tmp_path / "a", b"model")
    assert registry.models() == ()


def test_a_cleaning_that_fails_does_not_undo_a_registration(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> int:
        raise RegistryUnavailable("away")

    monkeypatch.setattr(LocalBlobs, "sweep", fails)
    assert register(registry, tmp_path / "a", b"model").version == 1
    assert "not cleaned up" in caplog.text
