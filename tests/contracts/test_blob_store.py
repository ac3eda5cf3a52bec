"""What every blob store does, on a local folder, S3 over its real protocol, other fsspec filesystems and memory."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from fairway.core.errors import CorruptBundle
from fairway.stores.base import BlobStore
from fairway.stores.blobs_fsspec import FsspecBlobs
from fairway.stores.blobs_local import LocalBlobs
from fairway.stores.blobs_memory import MemoryBlobs


class Case:
    """A store, a second opening of the same one, and a way to damage a blob behind its back."""

    def __init__(self, open_store: Callable[[], BlobStore], alter: Callable[[str, bytes], None]) -> None:
        self.open_store = open_store
        self.store = open_store()
        self.alter = alter


@pytest.fixture(params=["local", "s3", "fsspec folder", "fsspec memory", "memory"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "local":
        root = tmp_path / "blobs"

        def alter(digest: str, content: bytes) -> None:
            path = root / digest[:2] / digest
            path.chmod(0o644)
            path.write_bytes(content)

        return Case(lambda: LocalBlobs(root), alter)
    if request.param == "memory":
        store = MemoryBlobs()

        def alter_memory(digest: str, content: bytes) -> None:
            store._blobs[digest] = (content, 0.0)

        return Case(lambda: store, alter_memory)
    options = {}
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        url, options = s3.new_bucket() + "/deep/er", s3.options
    elif request.param == "fsspec folder":
        url = f"file://{tmp_path}/blobs"
    else:
        url = f"memory://{tmp_path.name}"
    fs, root_path = fsspec.core.url_to_fs(url, **options)

    def alter_remote(digest: str, content: bytes) -> None:
        fs.pipe_file(f"{root_path}/{digest[:2]}/{digest}", content)

    return Case(lambda: FsspecBlobs(url, options), alter_remote)


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"", b"one", bytes(range(256)) * 5000])
def test_a_stored_file_comes_back_as_it_was(case: Case, tmp_path: Path, content: bytes) -> None:
    digest = case.store.put(_file(tmp_path / "in", content))
    assert digest == hashlib.sha256(content).hexdigest()
    again = case.open_store()
    again.fetch(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert again.exists(digest)
    assert again.size(digest) == len(content)
    assert list(again.digests()) == [digest]


def test_the_same_content_is_one_blob(case: Case, tmp_path: Path) -> None:
    first = case.store.put(_file(tmp_path / "a", b"same"))
    assert case.store.put(_file(tmp_path / "b", b"same")) == first
    assert list(case.store.digests()) == [first]


def test_an_empty_store_has_nothing(case: Case, tmp_path: Path) -> None:
    assert list(case.store.digests()) == []
    assert not case.store.exists("0" * 64)
    assert case.store.sweep(set(), older_than_seconds=0) == 0
    with pytest.raises(CorruptBundle, match="missing"):
        case.store.size("0" * 64)
    with pytest.raises(CorruptBundle, match="missing"):
        case.store.fetch("0" * 64, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("altered", [b"other content", b"shor", b""])
def test_an_altered_blob_is_found_out_when_it_is_read(case: Case, tmp_path: Path, altered: bytes) -> None:
    digest = case.store.put(_file(tmp_path / "in", b"right content"))
    case.alter(digest, altered)
    with pytest.raises(CorruptBundle, match=r"altered|sha256") as caught:
        case.store.fetch(digest, tmp_path / "out")
    assert digest in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_storing_a_truncated_blob_again_mends_it(case: Case, tmp_path: Path) -> None:
    digest = case.store.put(_file(tmp_path / "in", b"right content"))
    case.alter(digest, b"right con")
    assert case.store.put(tmp_path / "in") == digest
    case.store.fetch(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"right content"


def test_many_threads_store_the_same_and_different_files(case: Case, tmp_path: Path) -> None:
    def store(worker: int) -> None:
        mine = case.open_store()
        for number in range(4):
            mine.put(_file(tmp_path / f"{worker}-{number}", f"shared {number}".encode()))
        mine.put(_file(tmp_path / f"{worker}", f"own {worker}".encode()))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(store, range(4)))  # raises what a thread raised
    expected = [f"shared {number}" for number in range(4)] + [f"own {worker}" for worker in range(4)]
    assert sorted(case.store.digests()) == sorted(
        hashlib.sha256(text.encode()).hexdigest() for text in expected
    )


def test_a_sweep_removes_only_what_is_old_and_unnamed(case: Case, tmp_path: Path) -> None:
    kept = case.store.put(_file(tmp_path / "kept", b"kept"))
    case.store.put(_file(tmp_path / "left", b"left"))
    assert case.store.sweep({kept}, older_than_seconds=3600) == 0
    assert case.store.sweep({kept}, older_than_seconds=-3600) == 1
    assert list(case.store.digests()) == [kept]
