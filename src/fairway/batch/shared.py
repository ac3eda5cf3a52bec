"""Output that several machines write at once: parts under names that two attempts at one part cannot mix up.

A part has one name, which depends on its file and number only, and the same content whoever writes it. Two attempts at
it (an executor that was taken for dead, a task that was started twice because the first was slow, a resumed run beside
a straggler) write under names of their own, and whoever is later replaces the same bytes. Tables need nothing: the mark
of the part is in the transaction (`sql.py`).
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from fairway.batch.sink import FilePart, Folder, PartWriter, SingleFile, Sink, Written, ending, is_local
from fairway.batch.source import file_system
from fairway.batch.sql import SqlSink, read_place
from fairway.core.errors import InvalidInput
from fairway.stores.disk import sync_directory


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where workers put parts: a folder's URL, or a table's. `probe` is a file in a local folder by which a worker
    sees that it is the same one; "" elsewhere."""

    url: str
    format: str = ""
    packed: str = ""
    is_table: bool = False
    probe: str = ""


class SharedFolder(Folder):
    """A `Folder` that many write into."""

    def begin(self, folder: str, name: str, schema: pa.Schema) -> PartWriter:
        place = f"{folder}{name}.{ending(self.format, self.packed)}"
        attempt = uuid.uuid4().hex[:12]
        if not self.is_local:
            scratch = self._scratch / f"{name}.{attempt}.tmp"
            return FilePart(scratch, self.format, self.packed, schema, lambda p: self._upload(p, place))
        final = Path(self.path) / place

        def rename(scratch: Path) -> str:
            os.replace(scratch, final)
            sync_directory(final.parent)
            return place

        hidden = final.parent / f".{final.name}.{attempt}.tmp"
        return FilePart(hidden, self.format, self.packed, schema, rename)


class Gathered:
    """One output file, whose parts wait in a folder beside it that every worker can write to, until the run ends."""

    def __init__(self, single: SingleFile, waiting: SharedFolder, scratch: Path) -> None:
        self._single, self._waiting = single, waiting
        self._scratch = scratch

    def check(self, *, overwrite: bool) -> None:
        self._single.check(overwrite=overwrite)

    def begin(self, folder: str, name: str, schema: pa.Schema) -> PartWriter:
        return self._waiting.begin("", name, schema)

    def finish(
        self, parts: Sequence[Written], rejects: Sequence[Path], manifest: bytes, *, whole: bool
    ) -> str:
        folder = self._waiting
        if not folder.is_local:
            for part in parts:
                place = self._scratch / part.name  # below the folders of the input's partition
                place.parent.mkdir(parents=True, exist_ok=True)
                folder.fs.get_file(f"{folder.path}/{part.name}", str(place))
        return self._single.finish(parts, rejects, manifest, whole=whole)

    def discard(self) -> None:
        """Removes the waiting parts. Only when the ledger says that the run is finished: until then it may go on."""
        folder = self._waiting
        if folder.fs.exists(folder.path):
            folder.fs.rm(folder.path, recursive=True)

    def close(self) -> None:
        return None


def share(sink: Sink, url: str, scratch: Path) -> tuple[Sink, Target]:
    """What the driver finishes a run with in place of the local engine's `sink` of `url`, and where workers put parts."""
    if isinstance(sink, SqlSink):
        return sink, Target(url=url, is_table=True)
    local = isinstance(sink, Folder | SingleFile) and is_local(sink.fs)
    if isinstance(sink, SingleFile):
        folder = f"{sink.path}.parts"
        shared = SharedFolder(sink.fs, folder, sink.format, sink.packed, scratch, ())
        own = scratch if not shared.is_local else Path(folder)
        single = SingleFile(sink.fs, sink.path, own, (), sink.format, sink.packed)
        target = Target(url=folder if local else f"{url}.parts", format=sink.format, packed=sink.packed)
        return Gathered(single, shared, scratch), target
    assert isinstance(sink, Folder), "sinks are tables, folders and files"
    place = sink.path if local else url.rstrip("/")
    return sink, Target(url=place, format=sink.format, packed=sink.packed)


def with_probe(target: Target, run: str, storage: Mapping[str, Mapping[str, Any]]) -> Target:
    """Puts the probe into a local folder."""
    if target.is_table:
        return target
    fs, path = file_system(target.url, storage)
    if not is_local(fs):
        return target
    probe = Path(path) / f".fairway-{run}"
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    return msgspec.structs.replace(target, probe=str(probe))


def tidy(target: Target) -> None:
    """Removes the probe, and what attempts that died have left under hidden names. Once the run has ended."""
    if target.is_table or "://" in target.url:
        return
    folder = Path(target.url)
    for left in (*folder.rglob(".part-*.tmp"), *folder.glob(".fairway-*")):
        left.unlink(missing_ok=True)


def open_target(
    target: Target, attempt: str, storage: Mapping[str, Mapping[str, Any]], scratch: Path
) -> Sink:
    """A worker's sink. Raises InvalidInput when this machine does not see the folder that the driver sees."""
    if target.is_table:
        return SqlSink(read_place(target.url), attempt, scratch)
    if target.probe and not Path(target.probe).exists():
        raise InvalidInput(
            f"{socket.gethostname()} does not see the output folder {Path(target.probe).parent} of the machine that "
            "began the run.",
            hint="Write to an object store (s3://...), or to a file system that all machines mount.",
        )
    fs, path = file_system(target.url, storage)
    return SharedFolder(fs, path, target.format, target.packed, scratch, ())
