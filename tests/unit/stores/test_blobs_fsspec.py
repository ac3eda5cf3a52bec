"""Object stores that are away, missing, refusing or full."""

import errno
import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry

from fairway.core.errors import MissingExtra, RegistryUnavailable, StorageFull
from fairway.stores.blobs_fsspec import FsspecBlobs
from tests.services import S3, free_port


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").write_bytes(b"content")
    return tmp_path / "in"


def test_an_object_store_that_is_away(source: Path) -> None:
    options = {"endpoint_url": f"http://127.0.0.1:{free_port()}", "key": "k", "secret": "hidden"}
    with pytest.raises(
        RegistryUnavailable, match=r"store a file at s3://bucket.*Check that the store is up"
    ) as caught:
        FsspecBlobs("s3://bucket", options).put(source)
    assert "hidden" not in str(caught.value)


def test_a_bucket_that_is_not_there(source: Path, s3: S3) -> None:
    with pytest.raises(RegistryUnavailable, match="s3://no-such-bucket-here"):
        FsspecBlobs("s3://no-such-bucket-here/models", s3.options).put(source)


def test_an_unknown_kind_of_url() -> None:
    with pytest.raises(RegistryUnavailable, match=r"nonsense.*registry\.blobs_url"):
        FsspecBlobs("nonsense://x", {})


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(MissingExtra, match=r"fairway\[s3\]"):
        FsspecBlobs("s3://bucket", {})


def test_a_full_store_and_what_an_upload_leaves(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FsspecBlobs(f"file://{tmp_path}/blobs", {})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(blobs._fs, "mv", full)
        with pytest.raises(StorageFull, match="No room left to store a file"):
            blobs.put(source)
        assert list((tmp_path / "blobs" / "uploads").iterdir()) == []
        patch.setattr(blobs._fs, "rm_file", full)
        with pytest.raises(StorageFull):
            blobs.put(source)
    assert len(list((tmp_path / "blobs" / "uploads").iterdir())) == 1
    assert list(blobs.digests()) == []
    assert blobs.sweep(set(), older_than_seconds=-60) == 1
    assert list((tmp_path / "blobs" / "uploads").iterdir()) == []
