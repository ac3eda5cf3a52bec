"""Looks around the machine for `fairway doctor`. Reads, and writes one temporary file to the home."""

from __future__ import annotations

import contextlib
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cryptography import x509
from packaging.utils import canonicalize_name

from fairway.core.errors import FairwayError
from fairway.doctor.findings import PACKAGE, Facts

WITH_SYSTEM_LIBRARIES = ("lightgbm", "xgboost", "catboost", "onnxruntime", "psycopg")
"""Distributions (named as they are imported) that are installed and still fail where a system library lacks."""


def look(
    home: Path,
    *,
    host: str,
    ports: Mapping[str, int],
    registry: str,
    open_registry: Callable[[], object],
    settings_error: str | None = None,
    environments: Callable[[], Mapping[str, str]] = dict,
    libraries: Sequence[str] = WITH_SYSTEM_LIBRARIES,
    certificates: Sequence[str] = (),
) -> Facts:
    """Gathers the facts. `ports` by the option that says them. `open_registry` raises a FairwayError when the registry named `registry` is away.
    `environments` says what is wrong with each environment of a model, as `Facts.environments`."""
    installed: dict[str, str] = {
        canonicalize_name(d.name): d.version for d in metadata.distributions() if d.name
    }
    registry_error = _registry_error(open_registry)
    return Facts(
        python=platform.python_version(),
        requirements=tuple(metadata.requires(PACKAGE) or ()),
        installed=installed,
        home=str(home),
        home_error=_write_error(home),
        free_bytes=_free_bytes(home),
        ports={option: (port, _port_error(host, port)) for option, port in ports.items()},
        registry=registry,
        registry_error=registry_error,
        settings_error=settings_error,
        environments=environments() if registry_error is None else {},
        broken_imports=_import_errors([name for name in libraries if name in installed]),
        certificates={path: _days_left(path) for path in certificates},
    )


def _days_left(path: str) -> float | str:
    """Days until the first certificate of a PEM file ends, or why that cannot be told."""
    try:
        found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        return str(error)
    now = datetime.now(UTC)
    return min((one.not_valid_after_utc - now).total_seconds() for one in found) / 86_400


def _write_error(home: Path) -> str | None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"fairway doctor")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _free_bytes(home: Path) -> int:
    for folder in (home, *home.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def _port_error(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def _registry_error(open_registry: Callable[[], object]) -> str | None:
    try:
        open_registry()
    except FairwayError as error:
        return str(error)
    return None


def _import_errors(names: list[str]) -> dict[str, str]:
    """The last line a failed import writes. Each runs in a process of its own: a broken library may end it."""
    tries = {
        name: subprocess.Popen(
            [sys.executable, "-c", f"import {name}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    }
    errors = {}
    for name, process in tries.items():
        _, said = process.communicate()
        if process.returncode:
            lines = said.strip().splitlines()
            errors[name] = lines[-1] if lines else f"the process ended with {process.returncode}"
    return errors
