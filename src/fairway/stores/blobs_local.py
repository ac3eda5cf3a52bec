"""Blobs in a local folder: `<root>/<first two digits>/<digest>`, written beside and renamed into place."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from fairway.core.errors import CorruptBundle, RegistryUnavailable
from fairway.stores.base import sha256_of
from fairway.stores.disk import disk_errors, sync_directory

_CHUNK = 1024 * 1024
_READ_ONLY = 0o444  # bundles are hard links to blobs: an edit in place would alter the registry


class LocalBlobs:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._uploads = root / "uploads"

    @property
    def where(self) -> str:
        return str(self._root)

    def put(self, source: Path) -> str:
        with disk_errors("store a file", self._root):
            digest = sha256_of(source)
            blob = self._path(digest)
            if blob.is_file() and sha256_of(blob) == digest:  # else a damaged blob is mended here
                return digest
            self._uploads.mkdir(parents=True, exist_ok=True)
            upload = self._uploads / uuid.uuid4().hex
            try:
                copied = _copy(source, upload)
                if copied != digest:
                    raise RegistryUnavailable(
                        f"{source} changed while it was being stored.", hint="Try again."
                    )
                blob.parent.mkdir(exist_ok=True)
                upload.replace(blob)
            finally:
                upload.unlink(missing_ok=True)
            sync_directory(blob.parent)
            sync_directory(self._root)
        return digest

    def fetch(self, digest: str, destination: Path) -> None:
        blob = self._path(digest)
        with disk_errors("read a stored file", self._root):
            try:
                found = sha256_of(blob)
            except FileNotFoundError:
                raise _missing(digest, self.where) from None
        if found != digest:
            raise CorruptBundle(
                f"the stored file {blob} was altered: its sha256 is {found}.",
                hint="Register the bundle again: that puts the right content back.",
            )
        with disk_errors("write a file", destination.parent):
            try:
                os.link(blob, destination)
            except FileExistsError:
                raise
            except OSError:  # another filesystem, or one without hard links
                _copy(blob, destination)

    def exists(self, digest: str) -> bool:
        with disk_errors("look for a stored file", self._root):
            return self._path(digest).is_file()

    def size(self, digest: str) -> int:
        with disk_errors("look for a stored file", self._root):
            try:
                return self._path(digest).stat().st_size
            except FileNotFoundError:
                raise _missing(digest, self.where) from None

    def digests(self) -> Iterator[str]:
        with disk_errors("list the stored files", self._root):
            for blob in self._root.glob("[0-9a-f][0-9a-f]/*"):
                yield blob.name

    def sweep(self, keep: Collection[str], *, older_than_seconds: float) -> int:
        limit = time.time() - older_than_seconds
        removed = 0
        with disk_errors("remove leftovers", self._root):
            unwanted = [blob for blob in self._root.glob("[0-9a-f][0-9a-f]/*") if blob.name not in keep]
            for path in [*unwanted, *self._uploads.glob("*")]:
                try:
                    if path.stat().st_mtime <= limit:
                        path.unlink()
                        removed += 1
                except FileNotFoundError:  # another sweep, or the upload came to its end
                    continue
        return removed

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest


def _copy(source: Path, destination: Path) -> str:
    """Copies durably; returns the digest of what was copied."""
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, destination.open("xb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fchmod(writer.fileno(), _READ_ONLY)
            os.fsync(writer.fileno())
    except FileExistsError:
        raise
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def _missing(digest: str, where: str) -> CorruptBundle:
    return CorruptBundle(
        f"the stored file {digest} is missing from {where}.", hint="Register the bundle again."
    )
