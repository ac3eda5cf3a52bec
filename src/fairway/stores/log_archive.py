"""Where the prediction log is kept for long: Parquet behind a folder or any fsspec URL.

    <archive>/predictions/model=<model>/day=<UTC day>/<name>.parquet
    <archive>/labels/model=<model>/day=<UTC day>/<name>.parquet

A name tells what a reader has to know before it opens a file: stream, digest, columns, rows, first and last time, which
machine's log it came from, when it was written. So listing is enough to choose files, also where opening one takes long.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pyarrow.fs as pafs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from fairway.core.errors import MissingExtra, SettingsError, Unavailable
from fairway.stores.disk import sync_directory
from fairway.stores.remote import OBJECT_STORES, remote_errors, shown_url

PREDICTIONS = "predictions"
LABELS = "labels"
_DEFAULTS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}}
}
_PLACE = re.compile(
    r"(?P<kind>predictions|labels)/model=(?P<model>[^/]+)/day=(?P<day>\d{4,}-\d\d-\d\d)/"
    r"(?P<stream>v\d+|labels)_(?P<digest>[0-9a-f]{12})_(?P<columns>[0-9a-f]{8})_(?P<rows>\d+)_"
    r"(?P<first>-?\d+)_(?P<last>-?\d+)_(?P<log>[0-9a-f]{8})_(?P<written>\d+)_(?P<serial>[0-9a-f]{8})\.parquet\Z"
)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the archive, as its name tells. `first` and `last` are microseconds since 1970; `written` seconds.
    `rows` is how many there were when it was written; some may have been forgotten since. `digest` and `columns` are the
    beginnings of the version's digest and of a digest of its column names and types."""

    kind: str
    model: str
    day: str
    stream: str
    digest: str
    columns: str
    rows: int
    first: int
    last: int
    log: str
    written: int
    serial: str
    size: int = 0

    @property
    def path(self) -> str:
        """Below the archive's root."""
        name = (
            f"{self.stream}_{self.digest}_{self.columns}_{self.rows}_{self.first}_{self.last}_{self.log}_"
            f"{self.written}_{self.serial}.parquet"
        )
        return f"{self.kind}/model={self.model}/day={self.day}/{name}"


def part_of(path: str, size: int = 0) -> Part | None:
    """The part that a path below the archive's root names; None for any other file."""
    found = _PLACE.search(path)
    if found is None:
        return None
    return msgspec.convert({**found.groupdict(), "size": size}, Part, strict=False)


class Archive:
    """`url` as fsspec reads it; `options` are the filesystem's own (`endpoint_url`, `key`, ...)."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.where = shown_url(url)
        protocol = get_protocol(url)
        try:
            given = {} if protocol == "file" else {"use_listings_cache": False}
            self._fs, root = fsspec.core.url_to_fs(
                url, **_DEFAULTS.get(protocol, {}), **given, **(options or {})
            )
        except ImportError as error:
            raise MissingExtra(
                f"The archive at {self.where} needs the package {error.name or protocol!r}.",
                hint="Install it with: pip install 'fairway[s3]'" if protocol.startswith("s3") else None,
            ) from error
        except (ValueError, TypeError) as error:
            raise SettingsError(f"log.archive_url {self.where} cannot be opened: {error}.") from error
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self._whole = protocol in OBJECT_STORES | {"memory"}  # an object is seen when its upload is complete

    @property
    def filesystem(self) -> pafs.FileSystem:
        """For pyarrow; paths on it are those of `place`."""
        return pafs.LocalFileSystem() if self._local else pafs.PyFileSystem(pafs.FSSpecHandler(self._fs))

    def place(self, part: Part) -> str:
        return f"{self._root}/{part.path}"

    def parts(self, kind: str, model: str | None = None) -> list[Part]:
        """What there is, by day and name; of one model or of all."""
        below = f"{self._root}/{kind}" if model is None else f"{self._root}/{kind}/model={model}"
        with self._errors("list the archive"):
            try:
                found = self._fs.find(below, detail=True)
            except FileNotFoundError:
                return []
        parts = [part_of(str(path), int(info.get("size") or 0)) for path, info in found.items()]
        return sorted((part for part in parts if part is not None), key=lambda part: part.path)

    def put(self, source: Path, part: Part) -> None:
        """The local file `source` as `part`: whole or not at all, and on the disk when this returns. It is moved away."""
        place = self.place(part)
        with self._errors("write to the archive"):
            size = source.stat().st_size
            if self._local:
                target = Path(place)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._move_here(source, target)
            elif self._whole:
                self._fs.put_file(str(source), place)
            else:
                self._fs.makedirs(posixpath.dirname(place), exist_ok=True)
                upload = f"{posixpath.dirname(place)}/.{posixpath.basename(place)}.upload"
                self._fs.put_file(str(source), upload)
                self._fs.mv(upload, place)
            if not self._local and int(self._fs.info(place)["size"]) != size:
                raise Unavailable(
                    f"{part.path} did not arrive whole at {self.where}.", hint="It is tried again."
                )
            source.unlink(missing_ok=True)

    def remove(self, part: Part) -> None:
        with self._errors("remove from the archive"):
            try:
                self._fs.rm_file(self.place(part))
            except FileNotFoundError:
                return
            if self._local:
                try:
                    Path(self.place(part)).parent.rmdir()
                except OSError:  # not empty
                    return

    def _move_here(self, source: Path, target: Path) -> None:
        with source.open("rb") as file:
            os.fsync(file.fileno())
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            near = target.with_name(f".{target.name}.upload")  # another filesystem: copied first
            self._fs.put_file(str(source), str(near))
            with near.open("rb") as file:
                os.fsync(file.fileno())
            near.replace(target)
        sync_directory(target.parent)

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return remote_errors(what, self.where, "log.archive_url")
