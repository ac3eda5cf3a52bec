"""Environments: made once and whole, kept while used, removed when they were not used for longest."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from fairway.core.errors import EnvironmentFailed, SettingsError, Unavailable
from fairway.core.settings import IsolationSettings
from fairway.runtimes.isolated.environments import MARK, Environments
from fairway.runtimes.isolated.interpreters import find_interpreter
from fairway.runtimes.isolated.lock import Lock, LockedPackage, make_lock, read_lock
from tests.unit.runtimes.isolated.wheels import make_wheel, use_only

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    wheel = make_wheel(tmp_path, "numpy", "0.1")  # a module of that name is all that is looked for
    use_only(tmp_path, monkeypatch)
    return locked(wheel)


def locked(wheel: Path, *more: str) -> Lock:
    """A lock of one wheel; hashes that no file has make it another lock of the same."""
    name, version = wheel.name.split("-")[:2]
    hashes = (f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}", *more)
    return make_lock(HERE, [LockedPackage(name, version, hashes)])


@pytest.fixture
def settings(tmp_path: Path) -> IsolationSettings:
    return IsolationSettings(folder=str(tmp_path / "environments"), build_seconds=100.0)


def test_an_environment_has_exactly_the_packages_of_its_lock(lock: Lock, settings: IsolationSettings) -> None:
    lease = Environments(settings).use(lock)
    ask = "import importlib.metadata as m, numpy; print(sorted(d.name for d in m.distributions()), numpy.__version__)"
    said = subprocess.run([lease.python, "-I", "-c", ask], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "['numpy'] 0.1"
    script = subprocess.run(
        [lease.folder / "bin" / "numpy-run"], capture_output=True, text=True, check=True
    ).stdout
    assert script.strip() == "0.1"  # though it was installed elsewhere and moved
    assert lease.made.packages == {"numpy": "0.1"}
    assert lease.made.python.startswith(HERE)
    assert read_lock(lease.made.lock.encode(), MARK) == lock
    assert Environments(settings).complaint(lock.digest) == ""
    assert sorted(path.name for path in lease.folder.parent.iterdir()) == [lock.digest, f"{lock.digest}.lock"]
    lease.close()


def test_it_is_made_once(lock: Lock, settings: IsolationSettings) -> None:
    before = Environments(settings).use(lock)
    made = (before.folder / MARK).stat()
    after = Environments(settings).use(lock)
    assert (after.folder / MARK).stat().st_ino == made.st_ino
    before.close()
    after.close()


def _use(settings: IsolationSettings, lock: Lock) -> int:
    lease = Environments(settings).use(lock)
    return (lease.folder / MARK).stat().st_ino


def test_processes_wait_for_the_one_that_makes_it(lock: Lock, settings: IsolationSettings) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as processes:
        seen = processes.starmap(_use, [(settings, lock)] * 3)
    assert len(set(seen)) == 1


def test_who_finds_it_made_and_used_while_waiting_to_make_it_uses_it_too(
    lock: Lock, settings: IsolationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, late = Environments(settings).use(lock), Environments(settings)
    seen = late.made
    looks = iter([None])  # both looked before either made it
    monkeypatch.setattr(late, "made", lambda digest: next(looks, seen(digest)))
    began = time.monotonic()
    second = late.use(lock)
    assert time.monotonic() - began < settings.build_seconds / 2
    assert second.folder == first.folder
    first.close()
    second.close()


def test_a_half_made_one_is_made_again(lock: Lock, settings: IsolationSettings) -> None:
    root = Path(settings.folder)
    leftover = root / f".making-{lock.digest}-x"
    (leftover / "bin").mkdir(parents=True)
    Environments(settings).use(lock).close()
    assert not leftover.exists()


@pytest.mark.parametrize(
    "break_it", [lambda folder: (folder / MARK).unlink(), lambda folder: (folder / MARK).write_text("{")]
)
def test_one_whose_mark_is_gone_is_made_again(
    lock: Lock, settings: IsolationSettings, break_it: object
) -> None:
    Environments(settings).use(lock).close()
    break_it(Path(settings.folder) / lock.digest)  # type: ignore[operator]
    assert MARK in Environments(settings).complaint(lock.digest)
    Environments(settings).use(lock).close()
    assert Environments(settings).complaint(lock.digest) == ""


def test_one_whose_python_is_gone_is_made_again(lock: Lock, settings: IsolationSettings) -> None:
    environments = Environments(settings)
    environments.use(lock).close()
    python = Path(settings.folder) / lock.digest / "bin" / "python"
    for link in python.parent.glob("python*"):
        link.unlink()
    python.symlink_to("/nowhere/python")
    assert "the Python it was made with is gone (/nowhere/python)" in environments.complaint(lock.digest)
    assert environments.listed() == [(lock.digest, None)]
    environments.use(lock).close()
    assert environments.complaint(lock.digest) == ""


def test_complaints(lock: Lock, settings: IsolationSettings) -> None:
    environments = Environments(settings)
    assert environments.complaint(lock.digest) == "it is not there"
    lease = environments.use(lock)
    (module,) = lease.folder.glob("lib/*/site-packages/numpy.py")
    (info,) = lease.folder.glob("lib/*/site-packages/numpy-0.1.dist-info")
    info.rename(info.with_name("away"))
    assert environments.complaint(lock.digest) == "packages are missing from it: numpy"
    module.write_text("raise ImportError('libblas is missing')")
    assert "numpy cannot be imported in it: ImportError: libblas is missing" in environments.complaint(
        lock.digest
    )
    lease.close()


def test_the_least_recently_used_goes_first_and_one_in_use_never(
    lock: Lock, settings: IsolationSettings, tmp_path: Path
) -> None:
    few = Environments(msgspec.structs.replace(settings, environments=2))
    wheel = tmp_path / "numpy-0.1-py3-none-any.whl"
    locks = [locked(wheel, f"sha256:{i:064x}") for i in range(4)]
    used = few.use(locks[0])
    few.use(locks[1]).close()
    for age, known in ((300, locks[0]), (200, locks[1])):
        os.utime(Path(settings.folder) / f"{known.digest}.lock", (time.time() - age,) * 2)
    few.use(locks[2]).close()
    assert {digest for digest, _ in few.listed()} == {locks[0].digest, locks[2].digest}
    assert used.python.exists()
    used.close()
    few.use(locks[3]).close()
    assert {digest for digest, _ in few.listed()} == {locks[2].digest, locks[3].digest}
    small = Environments(msgspec.structs.replace(settings, disk_bytes=1))
    assert len(small.trim(keep=locks[3].digest)) == 1
    assert [digest for digest, _ in small.listed()] == [locks[3].digest]


def test_what_killed_processes_left_is_swept(lock: Lock, settings: IsolationSettings) -> None:
    root = Path(settings.folder)
    for leftover in (root / f".making-{'0' * 64}-x", root / ".removing-x"):
        (leftover / "bin").mkdir(parents=True)
        os.utime(leftover, (0, 0))
    Environments(settings).use(lock).close()
    assert not list(root.glob(".*"))


def test_one_in_use_is_not_removed_by_hand(lock: Lock, settings: IsolationSettings) -> None:
    environments = Environments(settings)
    lease = environments.use(lock)
    assert not environments.remove(lock.digest)
    lease.close()
    assert environments.remove(lock.digest)
    assert environments.listed() == []


def test_who_waits_too_long_says_for_what(lock: Lock, settings: IsolationSettings) -> None:
    lease = Environments(settings).use(lock)
    shutil.rmtree(lease.folder)
    hasty = Environments(msgspec.structs.replace(settings, build_seconds=0.2))
    with pytest.raises(Unavailable, match="another process has held the environment"):
        hasty.use(lock)
    lease.close()


def test_building_can_be_forbidden(lock: Lock, settings: IsolationSettings) -> None:
    with pytest.raises(EnvironmentFailed, match="fairway environments --mend"):
        Environments(msgspec.structs.replace(settings, build=False)).use(lock)


def test_a_file_with_another_hash_is_not_installed(
    lock: Lock, settings: IsolationSettings, tmp_path: Path
) -> None:
    make_wheel(tmp_path, "numpy", "0.1", source="# altered\n")
    with pytest.raises(
        EnvironmentFailed, match=r"(?s)pip cannot install the packages of the lock.*(HASH|hash)"
    ):
        Environments(settings).use(lock)
    assert [path.name for path in Path(settings.folder).iterdir()] == [f"{lock.digest}.lock"]


def test_building_ends_in_time(lock: Lock, settings: IsolationSettings) -> None:
    with pytest.raises(EnvironmentFailed, match=r"longer than isolation\.build_seconds"):
        Environments(msgspec.structs.replace(settings, build_seconds=0.01)).use(lock)


def test_a_folder_is_needed() -> None:
    with pytest.raises(SettingsError, match=r"isolation\.folder"):
        Environments(IsolationSettings())


def test_interpreters_are_found_by_version_and_by_path() -> None:
    ours = find_interpreter()
    assert ours.minor == HERE
    assert find_interpreter(HERE) == ours
    assert find_interpreter(sys.executable) == ours


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("3.99", r"there is no Python 3\.99 on this machine. Install it"),
        ("/bin/true", "is not a Python interpreter"),
    ],
)
def test_interpreters_that_are_not_there(wanted: str, message: str) -> None:
    with pytest.raises(EnvironmentFailed, match=message):
        find_interpreter(wanted)
