"""Runs the tools that fill environments: `venv` of the interpreter, then its pip, or uv where there is no pip.

pip comes first because its configuration (mirror, certificate, keyring) is the one that machines have. Only wheels are
taken: building a source distribution would run code that no hash covers, with whatever build tools the index has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from fairway.core.errors import EnvironmentFailed, SettingsError
from fairway.core.settings import IsolationSettings
from fairway.runtimes.isolated.interpreters import Interpreter

OLDEST_PIP = (22, 3)
"""The first that installs into another environment (`--python`)."""
_LAST_LINES = 12
_LAST_CHARACTERS = 1500


class Installer(msgspec.Struct, frozen=True):
    """`command` is pip (to which `--python` is added) or `uv pip`; `deadline` is a `time.monotonic` moment."""

    tool: str
    command: tuple[str, ...]
    deadline: float

    def install(self, requirements: Path, python: Path) -> None:
        """Installs exactly what the file names into the environment of `python`. Raises EnvironmentFailed."""
        given = ["--no-deps", "--require-hashes", "-r", str(requirements)]
        if self.tool == "uv":
            only = ["--only-binary", ":all:", "--compile-bytecode", "--quiet"]
            command = [*self.command, "install", "--python", str(python), *only, *given]
        else:
            only = ["--only-binary=:all:", "--no-input", "--no-warn-script-location", "--quiet"]
            command = [*self.command, "--python", str(python), "install", *only, *given]
        run(command, self.deadline, f"{self.tool} cannot install the packages of the lock")


@contextmanager
def open_installer(interpreter: Interpreter, settings: IsolationSettings) -> Iterator[Installer]:
    """The installer for environments of this interpreter. Raises EnvironmentFailed when there is none."""
    deadline = time.monotonic() + settings.build_seconds
    if settings.installer not in ("auto", "pip", "uv"):
        raise SettingsError(f"isolation.installer is {settings.installer!r}; it may be auto, pip or uv.")
    with TemporaryDirectory(prefix="fairway-pip-") as scratch:
        if settings.installer != "uv":
            pip = _pip(interpreter, Path(scratch), deadline)
            if pip is not None:
                yield Installer("pip", pip, deadline)
                return
        uv = _uv()
        if settings.installer == "pip" or uv is None:
            raise EnvironmentFailed(
                f"{interpreter.path} has no pip {OLDEST_PIP[0]}.{OLDEST_PIP[1]} or newer, and there is no uv.",
                hint="Install one: apt-get install python3-venv python3-pip, or pip install uv.",
            )
        yield Installer("uv", (uv, "pip"), deadline)


def _pip(interpreter: Interpreter, scratch: Path, deadline: float) -> tuple[str, ...] | None:
    """pip of the interpreter, or of an empty environment of it."""
    own = (interpreter.path, "-m", "pip")
    if _version(own) >= OLDEST_PIP:
        return own
    with contextlib.suppress(EnvironmentFailed):
        run([interpreter.path, "-m", "venv", str(scratch / "pip")], deadline, "")
        fresh = (str(scratch / "pip" / "bin" / "python"), "-m", "pip")
        if _version(fresh) >= OLDEST_PIP:
            return fresh
    return None


def _version(pip: tuple[str, ...]) -> tuple[int, ...]:
    """(23, 2) of "pip 23.2.1 from ..."; () when it does not answer."""
    try:
        done = subprocess.run(
            [*pip, "--version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=tool_environment(),
        )
        return tuple(int(part) for part in done.stdout.split()[1].split(".")[:2])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return ()


def _uv() -> str | None:
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.is_file() else shutil.which("uv")


def make_venv(interpreter: Interpreter, folder: Path, deadline: float) -> Path:
    """An empty environment at `folder`; returns its interpreter."""
    run(
        [interpreter.path, "-m", "venv", "--without-pip", str(folder)],
        deadline,
        f"{interpreter.path} -m venv failed",
        hint="On Debian and Ubuntu: apt-get install python3-venv",
    )
    return folder / "bin" / "python"


def tool_environment() -> Mapping[str, str]:
    """The user's own, without what would steer another Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept.pop("VIRTUAL_ENV", None)
    kept.pop("PIP_REQUIRE_VIRTUALENV", None)
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(command: list[str], deadline: float, what: str, *, hint: str | None = None) -> str:
    """What the command printed to stdout. Raises EnvironmentFailed with the end of what it said."""
    left = deadline - time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=tool_environment(),
            start_new_session=True,  # so that what it started ends with it
        )
    except OSError as error:
        raise EnvironmentFailed(f"{what}: {error}.", hint=hint) from error
    try:
        printed, said = process.communicate(timeout=max(left, 0.1))
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailed(
            f"{what}: it took longer than isolation.build_seconds allows.",
            hint="Raise it, or look at the network.",
        ) from error
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        lines = [line.strip() for line in (said or printed).splitlines() if line.strip()]
        told = "; ".join(lines[-_LAST_LINES:])[-_LAST_CHARACTERS:]
        raise EnvironmentFailed(f"{what} (exit code {process.returncode}): {told}", hint=hint)
    return printed
