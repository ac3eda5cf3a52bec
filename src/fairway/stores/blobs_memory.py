"""Blobs in this process's memory: for tests and for embedding without a disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from fairway.core.errors import CorruptBundle
from fairway.stores.disk import disk_errors


class MemoryBlobs:
    def __init__(self) -> None:
        self._blobs: dict[str, tuple[bytes, float]] = {}

    @property
    def where(self) -> str:
        return "memory"

    def put(self, source: Path) -> str:
        with disk_errors("read a file", source.parent):
            content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if self._blobs.get(digest, (b"", 0.0))[0] != content or not self.exists(digest):
            self._blobs[digest] = (content, time.time())
        return digest

    def fetch(self, digest: str, destination: Path) -> None:
        content = self._content(digest)
        if hashlib.sha256(content).hexdigest() != digest:
            raise CorruptBundle(
                f"the stored file {digest} in memory was altered.", hint="Register the bundle again."
            )
        with disk_errors("write a file", destination.parent), destination.open("xb") as stream:
            stream.write(content)

    def exists(self, digest: str) -> bool:
        return digest in self._blobs

    def size(self, digest: str) -> int:
        return len(self._content(digest))

    def digests(self) -> Iterator[str]:
        return iter(tuple(self._blobs))

    def sweep(self, keep: Collection[str], *, older_than_seconds: float) -> int:
        limit = time.time() - older_than_seconds
        unwanted = [
            name for name, (_, stored) in tuple(self._blobs.items()) if name not in keep and stored <= limit
        ]
        return sum(self._blobs.pop(name, None) is not None for name in unwanted)

    def _content(self, digest: str) -> bytes:
        if digest not in self._blobs:
            raise CorruptBundle(
                f"the stored file {digest} is missing from memory.", hint="Register the bundle again."
            )
        return self._blobs[digest][0]
