"""What loading a bundle will take, told from its files alone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import msgspec

from fairway.core.bundle import EngineSpec
from fairway.runtimes.base import ENGINES


class _Manifest(msgspec.Struct):
    engine: EngineSpec


def engine_bytes(directory: Path) -> int:
    """Size of the engine's files; 0 when they cannot be seen: loading then says why."""
    try:
        return sum(path.stat().st_size for path in (directory / "engine").rglob("*") if path.is_file())
    except OSError:
        return 0


def import_engine(directory: Path) -> None:
    """Imports the library that a bundle needs, so that what loading the bundle takes can be told from it. Whatever
    is wrong is left for loading to say."""
    try:
        spec = msgspec.json.decode((directory / "manifest.json").read_bytes(), type=_Manifest).engine
        import_module(ENGINES[spec.kind][0].partition(":")[0])
    except (OSError, msgspec.MsgspecError, KeyError, ImportError):
        return
