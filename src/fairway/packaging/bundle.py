"""Writes and reads bundles: the directory that holds a packaged model and its proof.

Reading verifies before anything is used: format, every file's size and sha256, nothing unlisted, no links, no
path that leaves the directory. A server imports this module, so it needs nothing but the core and msgspec.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fairway.core.bundle import (
    FORMAT,
    UNSEALED,
    EngineSpec,
    Environment,
    File,
    GoldenRows,
    Manifest,
    Proof,
    Timings,
)
from fairway.core.contract import Contract
from fairway.core.errors import AlreadyExists, CorruptBundle, NewerFormat, NotFound, StorageFull

MANIFEST = "manifest.json"
NEEDED = ("contract.json", "golden.json", "profile.json", "environment.json", "proof.json", "card.md")
MANIFEST_BYTES = 16 * 1024**2
VALUE_BYTES = 256 * 1024**2
"""Largest JSON file of a bundle that is read into memory."""
_CHUNK_BYTES = 1 << 20
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `digest` ("sha256:...") is its identity; `directory` is where it lies."""

    directory: Path
    digest: str
    manifest: Manifest
    contract: Contract
    golden: GoldenRows
    environment: Environment
    proof: Proof
    timings: Timings | None

    @property
    def spec(self) -> EngineSpec:
        return self.manifest.engine

    @property
    def engine(self) -> str:
        return self.spec.kind


class _FormatOnly(msgspec.Struct):
    format: int


def write_bundle(
    directory: Path,
    *,
    spec: EngineSpec,
    contract: Contract,
    files: Mapping[str, bytes | Path],
    golden: GoldenRows,
    profile: msgspec.Struct,
    environment: Environment,
    proof: Proof,
    card: str,
    timings: Timings | None,
    prepare_files: Mapping[str, bytes] | None = None,
) -> str:
    """Writes a bundle at `directory`, which must not exist, and returns its digest. `files` are contents, or files to
    copy.

    The same values give the same digest. The directory appears complete or not at all. Raises AlreadyExists,
    StorageFull on a full disk, and ValueError for a file path that leaves the bundle.
    """
    values: dict[str, Any] = {
        "contract.json": contract,
        "golden.json": golden,
        "profile.json": profile,
        "environment.json": environment,
        "proof.json": proof,
    }
    contents: dict[str, bytes | Path] = {name: _json(value) for name, value in values.items()}
    contents |= {"card.md": card.encode(), **files, **(prepare_files or {})}
    for path in contents:
        if not is_safe_path(path):
            raise ValueError(f"{path!r} is not a path inside a bundle")
    manifest = Manifest(
        format=FORMAT,
        engine=spec,
        files={path: _described(contents[path]) for path in sorted(contents)},
        made_with=f"fairway {version('fairway')}",
    )
    sealed = _json(manifest)
    if timings is not None:
        contents["timings.json"] = _json(timings)
    with new_directory(directory) as fresh:
        for path, content in {**contents, MANIFEST: sealed}.items():
            write_file(fresh / path, content)
    return digest_of(sealed)


def read_bundle(directory: Path, *, check_files: bool = True) -> Bundle:
    """Verifies and reads the bundle at `directory`. Without `check_files` the files that are not read are not looked
    at either: enough to describe a model, not to load it.

    Raises NotFound, CorruptBundle naming the file, or NewerFormat.
    """
    if not directory.is_dir():
        raise NotFound(f"there is no bundle at {directory}.")
    sealed = _read(directory, MANIFEST, MANIFEST_BYTES)
    written = _decoded(sealed, _FormatOnly, directory, MANIFEST).format
    if written > FORMAT:
        raise NewerFormat(
            f"the bundle at {directory} has format {written}; this Fairway reads up to {FORMAT}.",
            hint="Upgrade Fairway: pip install --upgrade fairway",
        )
    manifest = _decoded(sealed, Manifest, directory, MANIFEST)
    if check_files:
        _check_listed(directory, manifest)
        for path, file in manifest.files.items():
            _check_file(directory, path, file)

    def value(path: str, kind: type[_Value]) -> _Value:
        return _decoded(_read(directory, path, VALUE_BYTES), kind, directory, path)

    return Bundle(
        directory=directory,
        digest=digest_of(sealed),
        manifest=manifest,
        contract=value("contract.json", Contract),
        golden=value("golden.json", GoldenRows),
        environment=value("environment.json", Environment),
        proof=value("proof.json", Proof),
        timings=_timings(directory),
    )


def digest_of(manifest: bytes) -> str:
    """The identity of the bundle whose manifest.json holds these bytes."""
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def is_safe_path(path: str) -> bool:
    """True for a plain relative POSIX path below the bundle that is no special file of it."""
    parts = path.split("/")
    return (
        path not in UNSEALED
        and not any(part in ("", ".", "..") for part in parts)
        and not any(character in path for character in "\\:\0")
        and len(path) < 1024
    )


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """A directory to fill, moved to `directory` at the end; removed if anything goes wrong before."""
    require_free(directory)
    with full_disk_told(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            yield fresh
            fresh.chmod(0o755)  # mkdtemp makes it private; a server may run as another user
            fresh.rename(directory)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # somebody else just made it
                raise _taken(directory) from error
            raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def require_free(directory: Path) -> None:
    """Raises AlreadyExists where something stands at `directory`."""
    if directory.exists() or directory.is_symlink():
        raise _taken(directory)


def _taken(directory: Path) -> AlreadyExists:
    return AlreadyExists(f"{directory} is already there.", hint="Remove it or choose another place.")


@contextmanager
def full_disk_told(where: Path) -> Iterator[None]:
    """Turns the errors of a full disk, quota or file size limit into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(
                f"there is no room left to write {where} ({error.strerror}).",
                hint="Free some space and try again.",
            ) from error
        raise


def write_file(path: Path, content: bytes | Path) -> None:
    """Writes a new file, its content given or copied from another, and waits until the disk has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        if isinstance(content, Path):
            with content.open("rb") as original:
                shutil.copyfileobj(original, file, _CHUNK_BYTES)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _json(value: Any) -> bytes:
    # Mappings in sorted order, or the order somebody happened to fill them in would change the digest.
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=1) + b"\n"


def _described(content: bytes | Path) -> File:
    if isinstance(content, Path):
        with content.open("rb") as file:
            return File(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=content.stat().st_size)
    return File(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _decoded(content: bytes, kind: type[_Value], directory: Path, path: str) -> _Value:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _corrupt(directory, path, f"cannot be read: {error}") from error


def _corrupt(directory: Path, path: str, reason: str) -> CorruptBundle:
    return CorruptBundle(
        f"the bundle at {directory} is damaged: {path} {reason}.",
        hint="Copy it again, or package the model again.",
    )


def _check_listed(directory: Path, manifest: Manifest) -> None:
    """The manifest names safe paths, all that a bundle needs, and all that is there."""
    for path in manifest.files:
        if not is_safe_path(path):
            raise _corrupt(directory, MANIFEST, f"lists the path {path!r}, which is not inside a bundle")
    needed = [*NEEDED, manifest.engine.file]
    if manifest.engine.prepare is not None:
        needed.append(manifest.engine.prepare.rpartition(":")[0])
    for path in needed:
        if path not in manifest.files:
            raise _corrupt(directory, path, "is not listed in manifest.json")
    for path in _walk(directory, directory):
        if path not in manifest.files and path not in UNSEALED:
            raise _corrupt(directory, path, "is not listed in manifest.json")


def _walk(directory: Path, folder: Path) -> Iterator[str]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path).relative_to(directory).as_posix()
        if entry.is_symlink() or not (
            entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
        ):
            raise _corrupt(directory, path, "is a link or a special file")
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(directory, Path(entry.path))
        else:
            yield path


def _open(directory: Path, path: str) -> int:
    """A descriptor of a regular file; never follows a link at its end."""
    try:
        descriptor = os.open(directory / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        raise _corrupt(directory, path, "is missing") from None
    except OSError as error:
        raise _corrupt(directory, path, f"cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _corrupt(directory, path, "is no plain file")
    return descriptor


def _read(directory: Path, path: str, most: int) -> bytes:
    with os.fdopen(_open(directory, path), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise _corrupt(directory, path, f"is larger than {most:,} bytes")
    return content


def _check_file(directory: Path, path: str, expected: File) -> None:
    with os.fdopen(_open(directory, path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.size:
            raise _corrupt(directory, path, f"has {size:,} bytes instead of {expected.size:,}")
        if hashlib.file_digest(file, "sha256").hexdigest() != expected.sha256:
            raise _corrupt(directory, path, "was altered: its sha256 is not the one in manifest.json")


def _timings(directory: Path) -> Timings | None:
    """Not sealed, so never trusted for more than a line in a report: None when absent or unreadable."""
    try:
        return _decoded(_read(directory, "timings.json", MANIFEST_BYTES), Timings, directory, "timings.json")
    except CorruptBundle:
        return None
