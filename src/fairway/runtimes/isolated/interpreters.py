"""Finds the Python that an environment is made with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fairway.core.errors import EnvironmentFailed

OLDEST = (3, 8)
_ASK = (
    "import json, platform, sys;"
    "print(json.dumps([getattr(sys, '_base_executable', None) or sys.executable, platform.python_version()]))"
)
_LOOK_SECONDS = 30


class Interpreter(msgspec.Struct, frozen=True):
    """`path` is not inside an environment where the interpreter knows better; `version` is complete: "3.12.1"."""

    path: str
    version: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


def find_interpreter(wanted: str | None = None) -> Interpreter:
    """The interpreter of a minor version ("3.12"), at a path, or, without `wanted`, the one that runs this.

    Raises EnvironmentFailed when there is none, or it is older than what the child program runs on.
    """
    places = [sys.executable] if wanted is None else _places(wanted)
    version = wanted if wanted is not None and re.fullmatch(r"3\.\d+", wanted) else None
    for place in places:
        found = ask(place)
        if found is None or (version is not None and found.minor != version):
            continue
        if tuple(map(int, found.minor.split("."))) < OLDEST:
            raise EnvironmentFailed(
                f"{place} is Python {found.version}; models run on {OLDEST[0]}.{OLDEST[1]} or newer."
            )
        return found
    if version is not None:
        raise EnvironmentFailed(
            f"there is no Python {version} on this machine.",
            hint=f"Install it (uv python install {version}, pyenv install {version}), or give --python a path.",
        )
    raise EnvironmentFailed(f"{wanted} is not a Python interpreter.", hint="Give --python 3.12, or a path.")


def ask(path: str) -> Interpreter | None:
    """What the interpreter at `path` says it is; None when it says nothing."""
    said = _said([path, "-I", "-c", _ASK])
    try:
        executable, version = msgspec.json.decode(said, type=tuple[str, str])
    except msgspec.DecodeError:
        return None
    return Interpreter(executable, version)


def _places(wanted: str) -> Iterator[str]:
    if os.sep in wanted or not re.fullmatch(r"3\.\d+", wanted):
        found = wanted if os.sep in wanted else shutil.which(wanted)
        if found is not None:
            yield found
        return
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == wanted:
        yield sys.executable
    on_path = shutil.which(f"python{wanted}")
    if on_path is not None:
        yield on_path
    for tool, question in (("pyenv", ["prefix", wanted]), ("uv", ["python", "find", "--no-project", wanted])):
        where = shutil.which(tool)
        answer = _said([where, *question]).decode(errors="replace").strip() if where is not None else ""
        if answer:
            yield answer if Path(answer).is_file() else str(Path(answer) / "bin" / "python")


def _said(command: list[str]) -> bytes:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOOK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
