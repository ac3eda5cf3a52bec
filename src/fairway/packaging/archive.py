"""A bundle as one file, `NAME.fairway`: a zip archive without compression, the same bytes every time.

Compressed bytes depend on the version of the compressor, and weights hardly shrink; so nothing is compressed.
Reading accepts compressed archives too, within limits, and trusts no name, size or count the archive states.
"""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
from pathlib import Path

from fairway.core.bundle import UNSEALED
from fairway.core.errors import CorruptBundle, NotFound
from fairway.packaging.bundle import (
    MANIFEST,
    Bundle,
    full_disk_told,
    is_safe_path,
    new_directory,
    read_bundle,
)

SUFFIX = ".fairway"
FILES = 10_000
TOTAL_BYTES = 64 * 1024**3
RATIO = 200
"""Most bytes a compressed byte may become; a zip bomb has a thousand and more."""
_CHUNK_BYTES = 1 << 20


def archive(directory: Path, path: Path) -> str:
    """Writes the bundle at `directory` as the single file `path` (replaced at once if there), returns its digest."""
    bundle = read_bundle(directory)
    names = [MANIFEST, *sorted(bundle.manifest.files)]
    names += sorted(name for name in UNSEALED - {MANIFEST} if (directory / name).is_file())
    with full_disk_told(path):
        descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with (
                os.fdopen(descriptor, "wb") as file,
                zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target,
            ):
                for name in names:
                    _add(target, directory / name, name)
            Path(fresh).chmod(0o644)  # mkstemp makes it private
            Path(fresh).replace(path)
        finally:
            Path(fresh).unlink(missing_ok=True)
    return bundle.digest


def _add(target: zipfile.ZipFile, source: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # the earliest date a zip can hold
    entry.create_system = 3  # Unix, wherever this runs
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    size = source.stat().st_size
    entry.file_size = size
    with source.open("rb") as file, target.open(entry, "w", force_zip64=size >= 2**31) as out:
        while chunk := file.read(_CHUNK_BYTES):
            out.write(chunk)


def unarchive(path: Path, directory: Path) -> Bundle:
    """Unpacks `path` at `directory`, which must not exist, verifies it, and returns the bundle.

    Raises CorruptBundle for anything but plain files at plain paths inside the limits.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}.")
    try:
        with zipfile.ZipFile(path) as source:
            entries = _checked(path, source.infolist())
            with new_directory(directory) as fresh:
                for entry in entries:
                    _extract(path, source, entry, fresh / entry.filename)
                read_bundle(fresh)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise CorruptBundle(f"{path} is not a whole archive: {error}.", hint="Copy it again.") from error
    return read_bundle(directory)


def _checked(path: Path, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    names = [entry.filename for entry in entries]
    if len(entries) > FILES:
        raise CorruptBundle(f"{path} holds {len(entries):,} files; a bundle has at most {FILES:,}.")
    if len(set(names)) < len(names):
        raise CorruptBundle(f"{path} holds a file twice.")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or entry.is_dir() or entry.flag_bits & 0x1:
            raise CorruptBundle(f"{path}: {entry.filename!r} is no plain file.")
        if not is_safe_path(entry.filename) and entry.filename not in UNSEALED:
            raise CorruptBundle(f"{path}: {entry.filename!r} would be written outside the bundle.")
        if entry.file_size > RATIO * max(entry.compress_size, 1):
            raise CorruptBundle(f"{path}: {entry.filename!r} is compressed more than {RATIO} times.")
    total = sum(entry.file_size for entry in entries)
    if total > TOTAL_BYTES:
        raise CorruptBundle(f"{path} unpacks to {total:,} bytes; at most {TOTAL_BYTES:,} are unpacked.")
    return entries


def _extract(path: Path, source: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with source.open(entry) as file, target.open("xb") as out:
        while chunk := file.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise CorruptBundle(f"{path}: {entry.filename!r} is larger than the archive states.")
            out.write(chunk)
