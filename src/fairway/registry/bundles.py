"""Bundles unpacked below `<home>/bundles/<digest>`: made beside, renamed into place, checked on the way."""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from fairway.core.bundle import UNSEALED, File
from fairway.core.errors import CorruptBundle, RegistryUnavailable
from fairway.registry.contents import MANIFEST, hexadecimal, is_complete, sealed_files
from fairway.stores.base import BlobStore
from fairway.stores.disk import disk_errors, sync_directory

_ATTEMPTS = 5

log = logging.getLogger("fairway.registry")


class UnpackedBundles:
    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._blobs = blobs

    def fetch(self, digest: str, files: Callable[[], Mapping[str, File]], *, name: str) -> Path:
        """The folder of the bundle, unpacked now if it is not there yet. `files` is asked only then.

        Processes may do this at once: the first to finish wins and the others use its folder. `CorruptBundle`
        names the version as `name`, and the file that is not as it was registered.
        """
        directory = self._root / hexadecimal(digest)
        if is_complete(directory, digest):
            return directory
        with disk_errors("unpack a bundle", self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            unpacked = self._root / f".{uuid.uuid4().hex}"
            try:
                self._unpack(unpacked, files(), digest, name)
                self._place(unpacked, directory, digest)
            finally:
                shutil.rmtree(unpacked, ignore_errors=True)
        return directory

    def find(self, digest: str) -> Path | None:
        """The folder of the bundle, if it is there and whole."""
        directory = self._root / hexadecimal(digest)
        return directory if is_complete(directory, digest) else None

    def sweep(self, *, older_than_seconds: float) -> int:
        """Removes folders that a killed process left half unpacked. Returns how many."""
        limit = time.time() - older_than_seconds
        removed = 0
        with disk_errors("remove leftovers", self._root):
            for path in self._root.glob(".*"):
                try:
                    if path.stat().st_mtime <= limit:
                        shutil.rmtree(path)
                        removed += 1
                except FileNotFoundError:  # its own process, or another sweep, removed it
                    continue
        return removed

    def _unpack(self, directory: Path, files: Mapping[str, File], digest: str, name: str) -> None:
        directory.mkdir()
        folders = {directory}
        for path, file in files.items():
            destination = directory / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            folders.add(destination.parent)
            try:
                self._blobs.fetch(file.sha256, destination)
            except CorruptBundle as error:
                if path in UNSEALED and path != MANIFEST:
                    log.warning("%s: %s is left out: %s", name, path, error)
                    continue
                raise CorruptBundle(f"{name}: {path} is not as it was registered: {error}") from error
        sealed = sealed_files(directory, digest)
        for path, file in sealed.items():
            if path not in files or files[path].sha256 != file.sha256:
                raise CorruptBundle(f"{name}: {path} is not the file that its manifest seals.")
        for folder in folders:
            sync_directory(folder)

    def _place(self, unpacked: Path, directory: Path, digest: str) -> None:
        for _ in range(_ATTEMPTS):
            try:
                unpacked.rename(directory)
            except OSError:
                if not directory.is_dir():
                    raise
                if is_complete(directory, digest):  # another process was first
                    return
                damaged = self._root / f".{uuid.uuid4().hex}"
                try:
                    os.rename(directory, damaged)
                except FileNotFoundError:  # another process is mending it too
                    continue
                shutil.rmtree(damaged, ignore_errors=True)
            else:
                sync_directory(self._root)
                return
        raise RegistryUnavailable(f"{directory} is being replaced by other processes.", hint="Try again.")
