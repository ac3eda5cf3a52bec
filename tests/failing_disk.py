"""A disk that fails once."""

import errno
import os

import pytest


def fail_next_fdatasync(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The next `fdatasync` of a segment raises EIO; those after it work. Gives what is empty once it has failed."""
    failing, real = [1], os.fdatasync

    def broken(handle: int) -> None:
        if failing:
            failing.pop()
            raise OSError(errno.EIO, "Input/output error")
        real(handle)

    monkeypatch.setattr("fairway.stores.log_segments.os.fdatasync", broken)
    return failing
