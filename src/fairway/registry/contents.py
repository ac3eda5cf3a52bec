"""What belongs to a bundle, as its manifest says. The manifest's own sha256 is the bundle's digest."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import msgspec

from fairway.core.bundle import FORMAT, UNSEALED, File, Manifest
from fairway.core.errors import CorruptBundle, NewerFormat

MANIFEST = "manifest.json"
PREFIX = "sha256:"


def manifest_digest(content: bytes) -> str:
    return PREFIX + hashlib.sha256(content).hexdigest()


def sealed_files(directory: Path, digest: str) -> dict[str, File]:
    """The files that the manifest in `directory` seals, by path, without the manifest itself.

    `CorruptBundle` when the manifest is missing, is not the one `digest` names, or names a path outside the
    bundle; `NewerFormat` when a newer Fairway wrote it.
    """
    try:
        content = (directory / MANIFEST).read_bytes()
    except OSError as error:
        raise CorruptBundle(
            f"{directory} has no {MANIFEST} that can be read ({error.strerror}).",
            hint="Package the model again.",
        ) from error
    found = manifest_digest(content)
    if found != digest:
        raise CorruptBundle(
            f"{directory / MANIFEST} was altered: its digest is {found}, not {digest}.",
            hint="Package the model again.",
        )
    try:
        newest = msgspec.json.decode(content, type=_Format).format
        if newest > FORMAT:
            raise NewerFormat(
                f"The bundle {directory} has format {newest}; this Fairway reads up to {FORMAT}.",
                hint="Upgrade Fairway: pip install --upgrade fairway",
            )
        files = msgspec.json.decode(content, type=Manifest).files
    except msgspec.MsgspecError as error:
        raise CorruptBundle(f"{directory / MANIFEST} is not a manifest: {error}.") from error
    outside = [path for path in files if not _is_inside(path)]
    if outside:
        raise CorruptBundle(f"{directory / MANIFEST} names a file outside the bundle: {outside[0]!r}.")
    return files


def is_complete(directory: Path, digest: str) -> bool:
    """True when every sealed file is there with its size. Contents are checked when a model is loaded."""
    try:
        files = sealed_files(directory, digest)
        return all((directory / path).stat().st_size == file.size for path, file in files.items())
    except (CorruptBundle, OSError):
        return False


def hexadecimal(digest: str) -> str:
    """The folder name of a bundle: its digest without the prefix."""
    plain = digest.removeprefix(PREFIX)
    if len(plain) != 64 or not set(plain) <= set("0123456789abcdef"):
        raise CorruptBundle(f"{digest!r} is not a bundle digest: write sha256: and 64 hexadecimal digits.")
    return plain


class _Format(msgspec.Struct):
    format: int


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = bool(parts) and "\\" not in path and "\0" not in path and str(PurePosixPath(path)) == path
    return plain and not path.startswith("/") and ".." not in parts and path not in UNSEALED
