from __future__ import annotations

import errno

import pytest

from fairway.core.errors import FairwayError, InvalidInput, RegistryUnavailable, StorageFull, Unavailable
from fairway.stores.blobs_fsspec import FsspecBlobs
from fairway.stores.remote import remote_errors, shown_url


def told(error: Exception, meaning: type[Unavailable] = Unavailable) -> FairwayError:
    with pytest.raises(FairwayError) as failure, remote_errors("write", "far", "a.url", meaning=meaning):
        raise error
    return failure.value


def test_errors_say_what_where_and_which_setting() -> None:
    gone = told(RuntimeError("gone"), RegistryUnavailable)
    assert type(gone) is RegistryUnavailable
    assert str(gone).startswith(
        "Could not write at far: gone. Check that the store is up, that a.url is right"
    )
    assert type(told(ValueError())) is Unavailable
    assert "far: ValueError." in str(told(ValueError()))


def test_a_full_store_is_told_as_that() -> None:
    full = told(OSError(errno.ENOSPC, "full"))
    assert type(full) is StorageFull
    assert str(full).startswith("No room left to write at far.")


def test_our_own_errors_pass() -> None:
    own = InvalidInput("own")
    assert told(own) is own


def test_a_password_in_the_address_is_never_told() -> None:
    assert shown_url("sftp://ann:se@cret@host/blobs") == "host/blobs"
    assert shown_url("s3://bucket/blobs") == "s3://bucket/blobs"
    with pytest.raises(RegistryUnavailable) as failure:
        FsspecBlobs("nosuch://ann:secret@host/blobs", {})
    assert "secret" not in str(failure.value)
