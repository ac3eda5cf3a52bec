"""Tries a bundle as a server will: read, loaded, its golden rows answered again."""

from __future__ import annotations

import shutil
from pathlib import Path

from fairway.core.settings import IsolationSettings
from fairway.packaging.bundle import Bundle, read_bundle
from fairway.packaging.golden import check_golden
from fairway.runtimes.base import load


def verify_bundle(directory: Path, *, threads: int = 1, isolation: IsolationSettings | None = None) -> Bundle:
    """The bundle just written at `directory`; one that fails is removed, so that nobody uses it."""
    try:
        bundle = read_bundle(directory)
        engine = load(directory, bundle.spec, bundle.contract, threads=threads, isolation=isolation)
        try:
            check_golden(engine, bundle.contract, bundle.golden)
        finally:
            engine.unload()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return bundle
