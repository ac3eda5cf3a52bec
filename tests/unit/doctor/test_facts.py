"""The doctor's eyes, on this very machine."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from fairway.core.errors import RegistryUnavailable
from fairway.doctor import facts
from fairway.doctor.findings import diagnose, healthy
from tests.certificates import new_authority


def look(
    home: Path,
    ports: Mapping[str, int] = MappingProxyType({}),
    open_registry=lambda: None,
    libraries: tuple[str, ...] = (),
    certificates: tuple[str, ...] = (),
) -> facts.Facts:
    return facts.look(
        home,
        host="127.0.0.1",
        ports=ports,
        registry="sqlite",
        open_registry=open_registry,
        libraries=libraries,
        certificates=certificates,
    )


def test_the_environment_the_tests_run_in_is_healthy(tmp_path: Path) -> None:
    seen = look(tmp_path / "home", libraries=facts.WITH_SYSTEM_LIBRARIES)
    assert healthy(diagnose(seen)), [f for f in diagnose(seen) if f.status == "problem"]
    assert seen.installed["numpy"]
    assert any(text.startswith("numpy") for text in seen.requirements)


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert look(tmp_path / "file" / "home").home_error == os.strerror(20)


def test_a_taken_port_is_seen(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert look(tmp_path, ports={"--port": port}).ports == {"--port": (port, os.strerror(98))}


def test_a_registry_that_raises_is_reported_in_its_own_words(tmp_path: Path) -> None:
    def away() -> None:
        raise RegistryUnavailable("no route to host")

    assert look(tmp_path, open_registry=away).registry_error == "no route to host"


def test_a_package_whose_import_fails_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lightgbm.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert look(tmp_path, libraries=("lightgbm",)).broken_imports == {
        "lightgbm": "OSError: libgomp.so.1: cannot open shared object file"
    }


def test_the_days_that_certificates_have_left(tmp_path: Path) -> None:
    certificate, _ = new_authority(tmp_path).issue(tmp_path, "server")
    (tmp_path / "none.pem").write_text("nothing")
    files = (str(certificate), str(tmp_path / "none.pem"), str(tmp_path / "gone.pem"))
    found = look(tmp_path, certificates=files).certificates
    good, damaged, gone = (found[path] for path in files)
    assert isinstance(good, float)
    assert good > 0
    assert isinstance(damaged, str)
    assert "No such file" in str(gone)
