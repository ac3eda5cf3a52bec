"""Files on a local disk: whole or not at all, and errors by meaning."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairway.core.errors import RegistryUnavailable, StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
_POLL_SECONDS = 0.02


@contextmanager
def disk_errors(what: str, where: Path | str) -> Iterator[None]:
    """Turns an OSError of the block into a Fairway error that says what failed, where, and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise StorageFull(
                f"No room left to {what} in {where} ({reason}).", hint="Free some space there and try again."
            ) from error
        if error.errno in _DENIED:
            raise RegistryUnavailable(
                f"May not {what} in {where} ({reason}).",
                hint="Make the folder writable for this user, or choose another.",
            ) from error
        raise RegistryUnavailable(f"Could not {what} in {where}: {error}.") from error


def sync_directory(directory: Path) -> None:
    """Makes renames and new names in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replaces the file at `path`: a reader sees the old content or the new, never a part. `mode` is its permissions,
    less what the umask takes."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(made, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def file_lock(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """One process at a time; the system lets go of the lock when its process dies."""
    with disk_errors("take a lock", path.parent):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise RegistryUnavailable(
                        f"Another process has held {path} for {timeout_seconds:g} s.",
                        hint="Wait for it to finish, or raise registry.lock_timeout_seconds.",
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)
