"""A bundle is the same for the same inputs, whole or not there, and verified before anything of it is used."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.bundle import FORMAT, UNSEALED, EngineSpec
from fairway.core.errors import AlreadyExists, CorruptBundle, NewerFormat, NotFound, StorageFull
from fairway.packaging.bundle import digest_of, is_safe_path, read_bundle, write_bundle
from tests.unit.packaging.conftest import PARTS

Write = Callable[..., Path]


def test_reads_back_what_was_written(bundle: Write) -> None:
    read = read_bundle(bundle())
    for name in ("spec", "contract", "golden", "environment", "proof", "timings"):
        assert getattr(read, name) == PARTS[name]
    assert (read.directory / "engine/weights.bin").read_bytes() == bytes(1000)
    assert read.digest == digest_of((read.directory / "manifest.json").read_bytes())
    assert read.manifest.made_with.startswith("fairway ")


def test_same_inputs_same_digest(bundle: Write) -> None:
    first = read_bundle(bundle("one"))
    shuffled = EngineSpec(kind="onnx", file="engine/model.onnx", options={"a": "2", "b": "1"})
    files = dict(reversed(PARTS["files"].items()))
    again = read_bundle(bundle("two", spec=shuffled, files=files, timings=None))
    assert again.digest == first.digest
    assert again.timings is None
    assert read_bundle(bundle("three", card="other")).digest != first.digest


def test_files_may_be_given_as_files(bundle: Write, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1000))
    files = {**PARTS["files"], "engine/weights.bin": tmp_path / "weights"}
    copied = bundle("copied", files=files)
    (tmp_path / "weights").write_bytes(b"changed later")
    assert read_bundle(copied).digest == read_bundle(bundle("given")).digest
    assert (copied / "engine/weights.bin").read_bytes() == bytes(1000)


def test_prepare_files_are_sealed_and_needed(bundle: Write) -> None:
    spec = msgspec.structs.replace(PARTS["spec"], prepare="prepare/clean.py:run")
    directory = bundle(spec=spec, prepare_files={"prepare/clean.py": b"def run(frame): return frame"})
    assert read_bundle(directory).spec.prepare == "prepare/clean.py:run"
    with pytest.raises(CorruptBundle, match=r"prepare/clean\.py is not listed"):
        read_bundle(bundle("without", spec=spec))


def test_refuses_to_write_over_anything(bundle: Write, tmp_path: Path) -> None:
    bundle()
    with pytest.raises(AlreadyExists):
        bundle()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../x", "manifest.json", "timings.json", "a\\b", "", "a//b", "c:x"]
)
def test_refuses_paths_outside(bundle: Write, path: str) -> None:
    assert not is_safe_path(path)
    with pytest.raises(ValueError, match="not a path inside"):
        bundle(files=PARTS["files"] | {path: b""})


def test_a_full_disk_leaves_nothing_behind(
    bundle: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="no room left to write"):
        bundle()
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_system_itself(tmp_path: Path) -> None:
    """The kernel refuses the write, in a process that may not write files beyond 500 bytes."""
    code = (
        "import resource, sys, pathlib\n"
        "from fairway.core.errors import StorageFull\n"
        "from fairway.packaging.bundle import write_bundle\n"
        "from tests.unit.packaging.conftest import PARTS\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "try:\n    write_bundle(pathlib.Path(sys.argv[1]), **PARTS)\n"
        "except StorageFull as error:\n    print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bundle")], capture_output=True, text=True, check=True
    )
    assert "File too large" in told.stdout
    assert list(tmp_path.iterdir()) == []


class TestDamage:
    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            read_bundle(tmp_path / "none")

    @pytest.mark.parametrize(
        ("path", "content", "told"),
        [
            ("engine/model.onnx", b"not really a grapH", r"engine/model\.onnx was altered"),
            ("engine/model.onnx", b"not", r"engine/model\.onnx has 3 bytes instead of 18"),
            ("contract.json", b"{}", r"contract\.json has"),
            ("manifest.json", b"", r"manifest\.json cannot be read"),
            ("manifest.json", b"[" * 100_000, r"manifest\.json cannot be read"),
            ("manifest.json", b'{"format": 1}', r"manifest\.json cannot be read"),
            ("extra.txt", b"x", r"extra\.txt is not listed"),
            ("engine/sub/extra", b"x", "engine/sub/extra is not listed"),
        ],
    )
    def test_altered(self, bundle: Write, path: str, content: bytes, told: str) -> None:
        directory = bundle()
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_bytes(content)
        with pytest.raises(CorruptBundle, match=told):
            read_bundle(directory)

    @pytest.mark.parametrize("path", [*PARTS["files"], "contract.json", "card.md", "manifest.json"])
    def test_missing(self, bundle: Write, path: str) -> None:
        directory = bundle()
        (directory / path).unlink()
        with pytest.raises(CorruptBundle, match=f"{path} is missing"):
            read_bundle(directory)

    def test_every_single_byte_of_the_sealed_part_counts(self, bundle: Write) -> None:
        directory = bundle()
        path = directory / "proof.json"
        whole = path.read_bytes()
        for i in range(0, len(whole), 17):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
            with pytest.raises(CorruptBundle, match=r"proof\.json was altered"):
                read_bundle(directory)

    def test_links(self, bundle: Write, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.write_bytes(PARTS["files"]["engine/model.onnx"])
        directory = bundle()
        (directory / "engine/model.onnx").unlink()
        (directory / "engine/model.onnx").symlink_to(outside)
        with pytest.raises(CorruptBundle, match=r"engine/model\.onnx is a link"):
            read_bundle(directory)
        linked = bundle("linked")
        (linked / "more").symlink_to(tmp_path, target_is_directory=True)
        with pytest.raises(CorruptBundle, match="more is a link"):
            read_bundle(linked)

    def test_special_files(self, bundle: Write) -> None:
        directory = bundle()
        os.mkfifo(directory / "pipe")
        with pytest.raises(CorruptBundle, match="pipe is a link or a special file"):
            read_bundle(directory)

    def test_a_manifest_that_points_outside(self, bundle: Write, tmp_path: Path) -> None:
        directory = bundle()
        manifest = json.loads((directory / "manifest.json").read_bytes())
        (tmp_path / "secret").write_bytes(b"x")
        manifest["files"]["../secret"] = manifest["files"]["card.md"]
        (directory / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CorruptBundle, match="not inside a bundle"):
            read_bundle(directory)

    def test_timings_are_no_evidence(self, bundle: Write) -> None:
        directory = bundle()
        (directory / "timings.json").write_bytes(b"nonsense")
        assert read_bundle(directory).timings is None


def test_a_newer_format_is_told_before_anything_else(bundle: Write) -> None:
    directory = bundle()
    newer = {"format": FORMAT + 1, "engine": "of a new kind", "seals": []}
    (directory / "manifest.json").write_text(json.dumps(newer))
    with pytest.raises(NewerFormat, match="Upgrade Fairway"):
        read_bundle(directory)


NAMES = st.text(st.sampled_from("abc/._- \\:\0"), min_size=1, max_size=8)


@given(NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_safe_paths_stay_inside(tmp_path: Path, name: str) -> None:
    if is_safe_path(name):
        assert (tmp_path / name).resolve().is_relative_to(tmp_path.resolve())
        assert (tmp_path / name).resolve() != tmp_path.resolve()
        assert name not in UNSEALED


def test_a_server_can_read_bundles_without_heavy_packages() -> None:
    heavy = "pandas pyarrow sklearn sqlalchemy prometheus_client onnx jinja2"
    code = (
        "import sys, fairway.packaging.bundle, fairway.packaging.golden, fairway.packaging.environment\n"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_somebody_else_writing_the_same_bundle_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two writers finds the directory taken at the last moment and says so."""
    rename = Path.rename

    def taken(self: Path, target: Path) -> Any:
        target.mkdir()
        (target / "theirs").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", taken)
    with pytest.raises(AlreadyExists):
        write_bundle(tmp_path / "bundle", **PARTS)
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
