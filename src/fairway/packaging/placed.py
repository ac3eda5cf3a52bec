"""The bundle in a folder that somebody else filled: a platform that unpacks what it was given."""

from __future__ import annotations

import shutil
from pathlib import Path

from fairway.core.errors import NotFound
from fairway.packaging.archive import SUFFIX, unarchive
from fairway.packaging.bundle import MANIFEST

_SHOWN = 8


def placed_bundle(folder: Path, scratch: Path) -> Path:
    """The folder of the bundle at `folder`: it, its only bundle below, or its only `.fairway` archive, unpacked at
    `scratch` (replaced if there).

    Raises NotFound saying what is there instead and how to package it, or CorruptBundle.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}.")
    if (folder / MANIFEST).is_file():
        return folder
    inside = sorted(folder.iterdir())
    bundles = [path for path in inside if (path / MANIFEST).is_file()]
    archives = [path for path in inside if path.suffix == SUFFIX and path.is_file()]
    if len(bundles) + len(archives) > 1:
        names = ", ".join(path.name for path in [*bundles, *archives][:_SHOWN])
        raise NotFound(f"{folder} holds several bundles: {names}.", hint="Put one model there.")
    if bundles:
        return bundles[0]
    if archives:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        return unarchive(archives[0], scratch).directory
    names = ", ".join(path.name for path in inside[:_SHOWN]) or "nothing"
    raise NotFound(
        f"{folder} holds no Fairway bundle, but {names}.",
        hint="Package the model with a sample of its data (fairway package MODEL --data SAMPLE --out model.fairway) and "
        "put model.fairway, or what is in the bundle's folder, into the archive: tar czf model.tar.gz model.fairway",
    )
