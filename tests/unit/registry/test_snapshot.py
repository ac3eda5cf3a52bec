"""The snapshot a server starts from."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fairway.core.errors import RegistryUnavailable
from fairway.core.route import everything_to
from fairway.registry.snapshot import (
    FORMAT,
    ServedModel,
    ServedVersion,
    ServingSnapshot,
    read_snapshot,
    snapshot_path,
    write_snapshot,
)


def _snapshot(directory: Path, names: tuple[str, ...] = (), revision: int = 3) -> ServingSnapshot:
    directory.mkdir(parents=True, exist_ok=True)
    version = ServedVersion(version=1, digest="sha256:1", aliases=("champion",), directory=str(directory))
    model = ServedModel(route=everything_to("payments", 1, revision=2), versions=(version,))
    return ServingSnapshot(revision=revision, models=(model,), names=names)


def test_what_was_written_is_read_for_the_same_names_in_any_order(tmp_path: Path) -> None:
    everything = _snapshot(tmp_path / "bundles" / "1")
    some = _snapshot(tmp_path / "bundles" / "1", names=("b", "a"), revision=4)
    assert read_snapshot(tmp_path) is None
    write_snapshot(tmp_path, everything)
    write_snapshot(tmp_path, some)
    assert read_snapshot(tmp_path) == everything
    assert read_snapshot(tmp_path, ("a", "b")) == some
    assert read_snapshot(tmp_path, ("a",)) is None


def test_a_bundle_outside_the_home_keeps_its_place(tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "elsewhere")
    (tmp_path / "home").mkdir()
    write_snapshot(tmp_path / "home", snapshot)
    assert read_snapshot(tmp_path / "home") == snapshot


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"revision":1}'])
def test_a_damaged_snapshot_is_none(tmp_path: Path, content: bytes) -> None:
    write_snapshot(tmp_path, _snapshot(tmp_path / "bundles" / "1"))
    snapshot_path(tmp_path).write_bytes(content)
    assert read_snapshot(tmp_path) is None


def test_a_snapshot_of_another_format_or_without_its_bundles_is_none(tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "bundles" / "1")
    write_snapshot(tmp_path, msgspec.structs.replace(snapshot, format=FORMAT + 1))
    assert read_snapshot(tmp_path) is None
    write_snapshot(tmp_path, snapshot)
    (tmp_path / "bundles" / "1").rmdir()
    assert read_snapshot(tmp_path) is None


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "bundles" / "1")
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryUnavailable, match="file"):
        write_snapshot(tmp_path / "file", snapshot)


def test_starting_from_a_snapshot_imports_nothing_slow() -> None:
    program = (
        "import sys, fairway.registry.snapshot, fairway.stores.revision\n"
        "slow = {'sqlalchemy', 'alembic', 'fsspec', 'numpy', 'pandas', 'pyarrow', 'prometheus_client'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
