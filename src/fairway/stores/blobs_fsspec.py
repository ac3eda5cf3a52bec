"""Blobs behind any fsspec URL: S3, GCS, Azure, SFTP, ...

An object store shows an object only when its upload is complete. Elsewhere (SFTP, network folders) a write can
stop half-way, so there a blob is uploaded under `uploads/` and then moved to its name. What is read is checked
against its digest.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.utils import get_protocol

from fairway.core.errors import CorruptBundle, MissingExtra, RegistryUnavailable
from fairway.stores.base import sha256_of
from fairway.stores.remote import OBJECT_STORES, remote_errors, shown_url

_CHUNK = 1024 * 1024
_EXTRAS = {"s3": "s3", "s3a": "s3"}
# S3 without limits would keep a caller waiting for minutes when the store is away.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 1}}}
}


class FsspecBlobs:
    """`url` as fsspec reads it; `options` are the filesystem's own (`endpoint_url`, `key`, ...)."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        protocol = get_protocol(url)
        extra = _EXTRAS.get(protocol)
        self.where = shown_url(url)
        try:
            # Listings are not cached: other processes write here.
            settings = {**_DEFAULTS.get(protocol, {}), "use_listings_cache": False, **options}
            self._fs, root = fsspec.core.url_to_fs(url, **settings)
        except ImportError as error:
            raise MissingExtra(
                f"Blobs at {self.where} need the package {error.name or protocol!r}.",
                hint=f"Install it with: pip install 'fairway[{extra}]'" if extra else None,
            ) from error
        except ValueError as error:
            raise RegistryUnavailable(
                f"Cannot open {self.where}: {error}.", hint="Check registry.blobs_url."
            ) from error
        self._moves = protocol not in OBJECT_STORES
        self._root = root.rstrip("/")
        self._uploads = f"{self._root}/uploads"

    def put(self, source: Path) -> str:
        with self._errors("store a file"):
            digest = sha256_of(source)
            blob = self._path(digest)
            size = source.stat().st_size
            if self._size(digest) == size:
                return digest
            if self._moves:
                self._upload_and_move(source, blob)
            else:
                self._fs.put_file(str(source), blob)
            if self._size(digest) != size:
                raise RegistryUnavailable(
                    f"{source} did not arrive whole at {self.where}.", hint="Try again."
                )
        return digest

    def fetch(self, digest: str, destination: Path) -> None:
        found = hashlib.sha256()
        with self._errors("read a stored file"):
            try:
                reader = self._fs.open(self._path(digest), "rb")
            except FileNotFoundError:
                raise _missing(digest, self.where) from None
            with reader, destination.open("xb") as writer:
                while chunk := reader.read(_CHUNK):
                    found.update(chunk)
                    writer.write(chunk)
                writer.flush()
                os.fsync(writer.fileno())
        if found.hexdigest() != digest:
            destination.unlink()
            raise CorruptBundle(
                f"the stored file {self._path(digest)} at {self.where} was altered.",
                hint="Delete it there and register the bundle again.",
            )

    def exists(self, digest: str) -> bool:
        with self._errors("look for a stored file"):
            return self._size(digest) is not None

    def size(self, digest: str) -> int:
        with self._errors("look for a stored file"):
            size = self._size(digest)
        if size is None:
            raise _missing(digest, self.where)
        return size

    def digests(self) -> Iterator[str]:
        for path in self._listed():
            if not path.startswith(f"{self._uploads}/"):
                yield posixpath.basename(path)

    def sweep(self, keep: Collection[str], *, older_than_seconds: float) -> int:
        limit = time.time() - older_than_seconds
        removed = 0
        for path in self._listed():
            if posixpath.basename(path) in keep:
                continue
            with self._errors("remove leftovers"):
                try:
                    if self._fs.modified(path).timestamp() <= limit:
                        self._fs.rm_file(path)
                        removed += 1
                except FileNotFoundError:
                    continue
        return removed

    def _upload_and_move(self, source: Path, blob: str) -> None:
        upload = f"{self._uploads}/{uuid.uuid4().hex}"
        self._fs.makedirs(self._uploads, exist_ok=True)
        self._fs.makedirs(posixpath.dirname(blob), exist_ok=True)
        try:
            self._fs.put_file(str(source), upload)
            self._fs.mv(upload, blob)
        except BaseException:
            self._forget(upload)
            raise

    def _listed(self) -> list[str]:
        with self._errors("list the stored files"):
            try:
                return [str(path) for path in self._fs.find(self._root)]
            except FileNotFoundError:  # nothing stored yet
                return []

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    def _size(self, digest: str) -> int | None:
        try:
            return int(self._fs.info(self._path(digest))["size"])
        except FileNotFoundError:
            return None

    def _forget(self, upload: str) -> None:
        try:
            self._fs.rm_file(upload)
        except Exception:  # noqa: BLE001 - the first error is the one to tell; a later sweep removes the rest
            return

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return remote_errors(what, self.where, "registry.blobs_url", meaning=RegistryUnavailable)


def _missing(digest: str, where: str) -> CorruptBundle:
    return CorruptBundle(
        f"the stored file {digest} is missing from {where}.", hint="Register the bundle again."
    )
