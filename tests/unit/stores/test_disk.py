"""Files that are whole or not there, and locks that die with their process."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.core.errors import RegistryUnavailable, StorageFull
from fairway.stores.disk import disk_errors, file_lock, write_whole


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (errno.ENOSPC, StorageFull, "No room left to store a file in /x"),
        (errno.EDQUOT, StorageFull, "No room left"),
        (errno.EFBIG, StorageFull, "No room left"),
        (errno.EROFS, RegistryUnavailable, "May not store a file in /x .*choose another"),
        (errno.EACCES, RegistryUnavailable, "May not"),
        (errno.EIO, RegistryUnavailable, "Could not store a file in /x: .*Input/output"),
    ],
)
def test_system_errors_get_a_meaning(number: int, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught, disk_errors("store a file", "/x"):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), disk_errors("store a file", "/x"):
        raise KeyError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    write_whole(path, b"new")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_held_lock_is_waited_for_and_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        file_lock(path, timeout_seconds=1),
        pytest.raises(RegistryUnavailable, match=f"held {path} for 0.05 s"),
        file_lock(path, timeout_seconds=0.05),
    ):
        pass
    with file_lock(path, timeout_seconds=0):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys; from fairway.stores.disk import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1]), timeout_seconds=1): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "lock")], check=False)
    assert done.returncode == -9
    with file_lock(tmp_path / "lock", timeout_seconds=0):
        pass
