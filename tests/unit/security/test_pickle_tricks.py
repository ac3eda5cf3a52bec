"""Every known trick is refused before anything runs, whatever it is wrapped in."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fickling.fickle as fickling
import joblib
import numpy as np
import pytest

from fairway.core.errors import ArtifactError, CorruptBundle, UnknownFormat, UntrustedArtifact
from fairway.packaging.opening import open_model
from fairway.security.pickle_audit import audit_pickle
from fairway.security.pickle_file import load_pickle
from tests.unit.security.payloads import PAYLOADS, SILENT, Build, code, program, system

STOCK_READER = """
import os, pickle, sys, warnings
import joblib, pandas, scipy.stats
warnings.simplefilter("ignore")
for folder in sys.argv[1:]:
    if os.fork() == 0:
        sys.path.insert(0, folder)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os.dup2(sys.stdout.fileno(), 1), os.dup2(sys.stdout.fileno(), 2)
        path = os.path.join(folder, "model.pkl")
        with open(path, "rb") as file:
            data = file.read()
        try:
            joblib.load(path) if b"NumpyArrayWrapper" in data else pickle.loads(data)
        except BaseException:
            pass
        os._exit(0)
    os.wait()
"""


def test_the_tricks_are_real(tmp_path: Path) -> None:
    """A stock unpickler, in another process, falls for every one of them."""
    folders = []
    for number, (trick, build) in enumerate(PAYLOADS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "trick").write_text(trick)
        (folder / "model.pkl").write_bytes(build(folder / "sentinel", folder))
        folders.append(folder)
    command = [sys.executable, "-c", STOCK_READER, *map(str, folders)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert [f.joinpath("trick").read_text() for f in folders if not (f / "sentinel").exists()] == []


@pytest.mark.parametrize("trick", [*PAYLOADS, *SILENT])
def test_refused_and_not_run(trick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    build: Build = (PAYLOADS | SILENT)[trick]
    sentinel = tmp_path / "sentinel"
    before = set(sys.modules)
    path = tmp_path / "model.pkl"
    path.write_bytes(build(sentinel, tmp_path))
    with pytest.raises(UntrustedArtifact) as refused:
        open_model(path)
    assert not sentinel.exists()
    for name in refused.value.names:
        assert f"--trust {name}" in str(refused.value)
        assert name.rpartition(".")[0] not in set(sys.modules) - before, "the audit imported it"


@pytest.mark.parametrize("trick", ["os.system", "runs before it breaks", "inside joblib's array of objects"])
@pytest.mark.parametrize(
    "wrap",
    [
        zlib.compress,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    ],
    ids=["zlib", "gzip", "bz2", "xz", "lzma"],
)
def test_compressed(trick: str, wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    path = tmp_path / "model.joblib"
    path.write_bytes(wrap(PAYLOADS[trick](sentinel, tmp_path)))
    with pytest.raises(UntrustedArtifact):
        open_model(path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "name", ["model.txt", "model.onnx", "model.json", "model", "model.skops", "model.cbm", "model.npy"]
)
def test_under_another_name(name: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    path = tmp_path / name
    path.write_bytes(program(system(sentinel)))
    with pytest.raises(UntrustedArtifact):
        open_model(path)
    assert not sentinel.exists()


def test_in_containers(tmp_path: Path) -> None:
    """Archives are not searched: what is inside is never opened at all."""
    sentinel = tmp_path / "sentinel"
    evil = program(system(sentinel))
    torch = tmp_path / "torch.pt"
    with zipfile.ZipFile(torch, "w") as archive:
        archive.writestr("archive/data.pkl", evil)
    tar = tmp_path / "model.tar"
    with tarfile.open(tar, "w") as archive_tar:
        entry = tarfile.TarInfo("model.pkl")
        entry.size = len(evil)
        archive_tar.addfile(entry, io.BytesIO(evil))
    array = tmp_path / "weights.npy"
    np.save(array, np.array([1, "a"], dtype=object), allow_pickle=True)
    damaged = bytearray(torch.read_bytes())
    damaged[6] ^= 0x01  # the flag bit that makes scanners, but not every reader, give up on a zip
    flagged = tmp_path / "flagged.pt"
    flagged.write_bytes(damaged)
    for path in (torch, tar, array, flagged):
        with pytest.raises(UnknownFormat, match="Fairway reads"):
            open_model(path)
    assert not sentinel.exists()


def test_a_zip_glued_behind_a_pickle(tmp_path: Path) -> None:
    """Zip readers look at the end, pickle readers at the beginning."""
    sentinel = tmp_path / "sentinel"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("schema.json", "{}")
    path = tmp_path / "model.skops"
    path.write_bytes(program(system(sentinel)) + archive.getvalue())
    with pytest.raises(UntrustedArtifact):
        open_model(path)
    assert not sentinel.exists()


def _honest() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])


@pytest.mark.parametrize("protocol", range(2, 5))  # fickling reads no BYTEARRAY8
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("how", ["eval", "exec", "function on the object", "other module"])
def test_injected_by_fickling(protocol: int, first: bool, how: str, tmp_path: Path) -> None:
    """An honest model with code put in by fickling, which still opens as that model."""
    sentinel = tmp_path / "sentinel"
    pickled = fickling.Pickled.load(pickle.dumps(_honest(), protocol))
    if how == "eval":
        pickled.insert_python_eval(code(sentinel), run_first=first)
    elif how == "exec":
        pickled.insert_python_exec(code(sentinel), run_first=first)
    elif how == "other module":
        pickled.insert_python(f"touch {sentinel}", module="os", attr="system", run_first=first)
    else:
        pickled.insert_function_call_on_unpickled_object(
            f"def f(model):\n    {code(sentinel)}\n    return model"
        )
    data = pickled.dumps()
    with pytest.raises(UntrustedArtifact):
        load_pickle(data)
    assert not sentinel.exists()
    if how == "function on the object" and sys.version_info >= (3, 13):
        return  # its two steps share names by a `locals()` that Python no longer has (PEP 667)
    pickle.loads(data)
    assert sentinel.exists(), "the payload was none"


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(protocol: int, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return eval, (code(sentinel),)

    data = pickle.dumps({"model": _honest(), "x": [Evil()]}, protocol)
    with pytest.raises(UntrustedArtifact) as refused:
        load_pickle(data)
    assert refused.value.names == ("builtins.eval",)
    assert not sentinel.exists()


def test_behind_an_array_of_joblib(tmp_path: Path) -> None:
    """The raw items of an array look like opcodes; what follows them must still be read."""
    sentinel = tmp_path / "sentinel"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return eval, (code(sentinel),)

    path = tmp_path / "model.joblib"
    joblib.dump([np.frombuffer(b".0" * 5000, dtype=np.uint8), Evil()], path)
    with pytest.raises(UntrustedArtifact) as refused:
        open_model(path)
    assert refused.value.names == ("builtins.eval",)
    assert not sentinel.exists()


def test_several_names_are_all_said(tmp_path: Path) -> None:
    data = program(*(SILENT[name](tmp_path / "s", tmp_path)[2:-1] for name in ("nt.system", "pip.main")))
    assert audit_pickle(data).refused == ("nt.system", "pip.main")


def test_trust_is_exact(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    data = program(system(sentinel))
    for trust in ("os", "os.*", "*", "os.", "system", "posix.system", "os.system.x", "OS.SYSTEM", ""):
        with pytest.raises(UntrustedArtifact):
            load_pickle(data, trust=(trust,))
    assert not sentinel.exists()
    assert load_pickle(data, trust=("os.system",)) == 0
    assert sentinel.exists()


def test_a_second_pickle_alone_is_refused_too() -> None:
    with pytest.raises(CorruptBundle, match="more follow"):
        load_pickle(pickle.dumps([1]) + pickle.dumps([2]))
    with pytest.raises(CorruptBundle, match="more follow"):
        load_pickle(pickle.dumps([1]) + b"\x00" * 10)


@pytest.mark.parametrize("cut", [1, 2, 3, 10, 50, 200, -1, -2, -30])
def test_truncated(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(_honest(), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError):
        open_model(path)
