"""The environments of a home: one folder for each lock, made once, used by many, the least recently used removed.

    <folder>/<digest>/              a venv with exactly the packages of the lock, and environment.json
    <folder>/<digest>.lock          held shared by those who use it, exclusively by who makes or removes it
    <folder>/.making-<digest>-...   half made; swept by the next who makes it

An environment appears by a rename when it is whole, so one that is there can be used. The system lets go of locks when
their process dies, so nothing has to be mended after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fairway.core.errors import EnvironmentFailed, SettingsError, Unavailable
from fairway.core.settings import IsolationSettings
from fairway.runtimes.isolated.installer import make_venv, open_installer
from fairway.runtimes.isolated.interpreters import find_interpreter
from fairway.runtimes.isolated.lock import Lock
from fairway.stores.disk import disk_errors, sync_directory, write_whole

logger = logging.getLogger("fairway.isolated")

MARK = "environment.json"
_POLL_SECONDS = 0.05
_DIGEST_CHARACTERS = 64
_LOOK_SECONDS = 60
_HEAD_BYTES = 2048
_ASK = """
import importlib.metadata, sys, numpy
numpy.__version__
for name in sys.argv[1:]:
    try:
        importlib.metadata.version(name)
        print(name)
    except importlib.metadata.PackageNotFoundError:
        pass
"""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a made environment. `python` is complete, such as "3.12.1"; `disk_bytes` what it takes."""

    digest: str
    python: str
    packages: dict[str, str]
    disk_bytes: int
    lock: str


class Lease:
    """An environment in use: not removed until `close`, or until this process ends."""

    def __init__(self, folder: Path, made: Made, descriptor: int) -> None:
        self.folder = folder
        self.made = made
        self._descriptor = descriptor

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Environments:
    """The environments below `settings.folder`."""

    def __init__(self, settings: IsolationSettings) -> None:
        if not settings.folder:
            raise SettingsError(
                "a model with an environment of its own needs a folder for it.",
                hint="Open it through a home, or set isolation.folder.",
            )
        self._settings = settings
        self._root = Path(settings.folder).absolute()

    def use(self, lock: Lock) -> Lease:
        """The environment of the lock, made now if it is not there; others who want it wait meanwhile.

        Raises EnvironmentFailed when it cannot be made, or is not there and `build` is off; Unavailable when
        another process does not let go of it.
        """
        digest = lock.digest
        with disk_errors("keep environments", self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            deadline = time.monotonic() + self._settings.build_seconds
            while True:
                if _locked(descriptor, fcntl.LOCK_SH):
                    made = self.made(digest)
                    if made is not None:
                        os.utime(descriptor)  # when it was last used
                        return Lease(self._root / digest, made, descriptor)
                    if not self._settings.build:
                        raise EnvironmentFailed(
                            f"the environment {digest[:12]} ({lock.described()}) is not there, and isolation.build is off.",
                            hint="Make it: fairway environments --mend",
                        )
                    if _locked(descriptor, fcntl.LOCK_EX):
                        if self.made(digest) is None:
                            self._make(lock)
                        deadline = time.monotonic() + self._settings.build_seconds
                        continue
                # Another makes it, and will keep using it: whoever now waited to be alone with it would wait for ever.
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        f"another process has held the environment {digest[:12]} for {self._settings.build_seconds:g} s.",
                        hint="It makes it, or uses a broken one: stop that process, or wait.",
                    )
                time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise

    def made(self, digest: str) -> Made | None:
        """The environment, if it is there and its interpreter still is."""
        folder = self._root / digest
        if not (folder / "bin" / "python").exists():  # follows the link to the interpreter it was made with
            return None
        try:
            return msgspec.json.decode((folder / MARK).read_bytes(), type=Made)
        except (OSError, msgspec.MsgspecError):
            return None

    def listed(self) -> list[tuple[str, Made | None]]:
        """(digest, what is known) of every environment, the most recently used first; None for a broken one."""
        found = [
            path.name
            for path in (self._root.iterdir() if self._root.is_dir() else ())
            if path.is_dir() and not path.name.startswith(".") and len(path.name) == _DIGEST_CHARACTERS
        ]
        return [(digest, self.made(digest)) for digest in sorted(found, key=self._used, reverse=True)]

    def complaint(self, digest: str) -> str:
        """What is wrong with an environment; "" when nothing is. Starts its interpreter."""
        folder = self._root / digest
        if not folder.is_dir():
            return "it is not there"
        if not (folder / "bin" / "python").exists():
            return f"the Python it was made with is gone ({os.path.realpath(folder / 'bin' / 'python')})"
        made = self.made(digest)
        if made is None:
            return f"{MARK} cannot be read"
        try:
            done = subprocess.run(
                [str(folder / "bin" / "python"), "-I", "-B", "-c", _ASK, *made.packages],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LOOK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"its Python does not run: {error}"
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return f"numpy cannot be imported in it: {lines[-1][:300]}"
        wrong = [name for name in made.packages if name not in done.stdout.split()]
        return f"packages are missing from it: {', '.join(wrong)}" if wrong else ""

    def remove(self, digest: str) -> bool:
        """Removes an environment, and what was left of a half-made one. False when it is in use."""
        with self._alone(digest) as alone:
            if alone:
                self._sweep(digest)
                doomed = self._root / f".removing-{uuid.uuid4().hex}"
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self._root / digest, doomed)
                    shutil.rmtree(doomed, ignore_errors=True)
            return alone

    def trim(self, keep: str = "") -> list[str]:
        """Removes the least recently used until count and size fit, and what killed processes left behind. Returns
        the digests removed."""
        self._sweep_all()
        known = self.listed()
        count, size = len(known), sum(made.disk_bytes for _, made in known if made is not None)
        removed = []
        for digest, made in reversed(known):
            if count <= self._settings.environments and size <= self._settings.disk_bytes:
                break
            if digest == keep or not self.remove(digest):
                continue
            count -= 1
            size -= made.disk_bytes if made is not None else 0
            removed.append(digest)
            logger.warning("removed the environment %s, which was least recently used", digest[:12])
        return removed

    def _make(self, lock: Lock) -> None:
        """With the lock held exclusively."""
        digest = lock.digest
        self._sweep(digest)
        interpreter = find_interpreter(lock.python)
        making = self._root / f".making-{digest}-{uuid.uuid4().hex}"
        logger.info("making the environment %s: %s", digest[:12], lock.described())
        try:
            with (
                disk_errors("make an environment", self._root),
                open_installer(interpreter, self._settings) as tool,
            ):
                python = make_venv(interpreter, making, tool.deadline)
                requirements = making / "requirements.lock"
                requirements.write_text(lock.text, encoding="ascii")
                tool.install(requirements, python)
                _readdress(making, self._root / digest)
                made = Made(
                    digest=digest,
                    python=interpreter.version,
                    packages=lock.versions,
                    disk_bytes=_size(making),
                    lock=lock.text,
                )
                write_whole(making / MARK, msgspec.json.encode(made))
                shutil.rmtree(self._root / digest, ignore_errors=True)  # a broken one
                making.rename(self._root / digest)
                sync_directory(self._root)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        self.trim(keep=digest)

    def _sweep(self, digest: str) -> None:
        for leftover in self._root.glob(f".making-{digest}-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _sweep_all(self) -> None:
        """What others left half made, or half removed. Who makes one holds its lock; removing takes a moment."""
        for leftover in self._root.glob(".making-*"):
            digest = leftover.name.split("-")[1]
            with self._alone(digest) as alone:
                if alone:
                    self._sweep(digest)
        for leftover in self._root.glob(".removing-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > self._settings.build_seconds:
                    shutil.rmtree(leftover, ignore_errors=True)

    def _lock_path(self, digest: str) -> Path:
        return self._root / f"{digest}.lock"

    def _used(self, digest: str) -> float:
        try:
            return self._lock_path(digest).stat().st_mtime
        except OSError:
            return 0.0

    @contextmanager
    def _alone(self, digest: str) -> Iterator[bool]:
        """Whether nobody uses it; nobody can until the block ends."""
        with disk_errors("look after environments", self._root):
            descriptor = os.open(self._lock_path(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield _locked(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    """Whether the lock could be had at once. Where not, a lock held before is given up too."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    return True


def _readdress(folder: Path, final: Path) -> None:
    """Scripts begin with the path of their interpreter, which is about to move: in their first line, or in the third
    where that would be too long."""
    before, after = f"{folder}/bin/".encode(), f"{final}/bin/".encode()
    for script in (folder / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        if content.startswith(b"#!"):
            script.write_bytes(content[:_HEAD_BYTES].replace(before, after) + content[_HEAD_BYTES:])


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
