from __future__ import annotations

import errno

import pytest

from fairway.core.errors import InvalidInput, RegistryUnavailable, StorageFull, Unavailable
from fairway.stores.blobs_fsspec import FsspecBlobs
from fairway.stores.remote import remote_errors, shown_url


def test_errors_say_what_where_and_which_setting() -> None:
    with pytest.raises(
        RegistryUnavailable, match=r"Could not read at far: gone\. .*registry\.blobs_url is right"
    ):
        with remote_errors("read", "far", "registry.blobs_url", meaning=RegistryUnavailable):
            raise RuntimeError("gone")
    with pytest.raises(Unavailable, match="Could not read at far: ValueError") as failure:
        with remote_errors("read", "far", "log.archive_url"):
            raise ValueError
    assert type(failure.value) is Unavailable


def test_a_full_store_is_told_as_that() -> None:
    with pytest.raises(StorageFull, match="No room left to write at far"):
        with remote_errors("write", "far", "log.archive_url"):
            raise OSError(errno.ENOSPC, "full")


def test_our_own_errors_pass() -> None:
    with pytest.raises(InvalidInput, match="^own$"), remote_errors("write", "far", "log.archive_url"):
        raise InvalidInput("own")


def test_a_password_in_the_address_is_never_told() -> None:
    assert shown_url("sftp://ann:se@cret@host/blobs") == "host/blobs"
    assert shown_url("s3://bucket/blobs") == "s3://bucket/blobs"
    with pytest.raises(RegistryUnavailable) as failure:
        FsspecBlobs("nosuch://ann:secret@host/blobs", {})
    assert "secret" not in str(failure.value)
