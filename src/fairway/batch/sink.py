"""Where scored rows go: one part after the other, each of them whole or not there at all."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fairway.batch.columns import flat_table, without_nan
from fairway.batch.source import FORMATS, format_of, store_errors
from fairway.core.errors import AlreadyExists, InvalidInput, UnsupportedContent
from fairway.stores.disk import disk_errors, sync_directory

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENDINGS = ("csv", "jsonl", "parquet", "arrow")
"""How the names of output files end, by format: their own name."""
COMPRESSIONS = {
    "parquet": ("snappy", "zstd", "lz4", "gzip", "none"),
    "arrow": ("lz4", "zstd", "none"),
    "csv": ("gzip", "zstd", "none"),
    "jsonl": ("gzip", "zstd", "none"),
}
"""By format; Parquet is packed by snappy unless something else is said, the others are not."""
_TEXT = ("csv", "jsonl")
MANIFEST = "_fairway.json"
REJECTS = "_rejects.jsonl"
_BLOCK = 1024 * 1024
_encode_lines = msgspec.json.Encoder().encode_lines


class Written(msgspec.Struct, frozen=True):
    """A committed part: where it is, its size and the digest of its content."""

    name: str
    bytes: int
    sha256: str


class PartWriter(Protocol):
    """Takes the tables of one part in their order. Nothing is seen of them before `commit`."""

    def write(self, table: pa.Table) -> None: ...

    @property
    def bytes(self) -> int:
        """About what has been written: the same for the same tables."""

    def commit(self) -> Written: ...

    def abort(self) -> None: ...


class Sink(Protocol):
    """`check` refuses what it must not touch, before anything is read; with `overwrite` it removes it. `finish` puts
    what is there in its final form (`whole`: all of the run; else it may go on later)."""

    def check(self, *, overwrite: bool) -> None: ...

    def begin(self, folder: str, name: str, schema: pa.Schema) -> PartWriter: ...

    def finish(
        self, parts: Sequence[Written], rejects: Sequence[Path], manifest: bytes, *, whole: bool
    ) -> str:
        """Gives back where the rejects are, "" when there are none."""

    def close(self) -> None: ...


class FilePart:
    """A part as a local file, under a name that nobody reads until `commit`."""

    def __init__(
        self, scratch: Path, format: str, packed: str, schema: pa.Schema, publish: Callable[[Path], str]
    ) -> None:
        self._scratch = scratch
        self._publish = publish
        with disk_errors("write the output", scratch.parent):
            scratch.parent.mkdir(parents=True, exist_ok=True)
            self._raw: BinaryIO = scratch.open("wb")
            self._file: Any = _packing(self._raw, packed if format in _TEXT else "")
            self._write, self._close = _WRITERS[format](self._file, schema, packed)

    def write(self, table: pa.Table) -> None:
        with disk_errors("write the output", self._scratch.parent):
            self._write(table)

    @property
    def bytes(self) -> int:
        return self._raw.tell()

    def commit(self) -> Written:
        with disk_errors("write the output", self._scratch.parent):
            self._close()
            if self._file is not self._raw:
                self._file.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
            size = self._scratch.stat().st_size
            with self._scratch.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
        return Written(self._publish(self._scratch), size, digest)

    def abort(self) -> None:
        for close in (self._close, self._file.close, self._raw.close):
            with suppress(Exception):  # a writer that cannot end its file any more: it goes anyway
                close()
        self._scratch.unlink(missing_ok=True)


class Folder:
    """One file for each part, in the folders that the input's partition had."""

    def __init__(
        self, fs: Any, path: str, format: str, packed: str, scratch: Path, inputs: Sequence[str]
    ) -> None:
        self.fs, self.path = fs, path.rstrip("/")
        self.format, self.packed = format, packed
        self.is_local = is_local(fs)
        self._scratch = scratch
        if any(name == self.path or name.startswith(self.path + "/") for name in inputs):
            raise InvalidInput(
                f"the output {path} holds input files.",
                hint="Write to a folder of its own, beside the input.",
            )

    def check(self, *, overwrite: bool) -> None:
        with store_errors(self.fs, self.path):
            self._check(overwrite)

    def _check(self, overwrite: bool) -> None:
        found = list(self.fs.find(self.path)) if self.fs.exists(self.path) else []
        if found and not overwrite:
            raise AlreadyExists(
                f"{self.path} already holds {len(found)} file{'s' if len(found) != 1 else ''}, {found[0]} among them.",
                hint="Choose another output, or say --overwrite: that removes the data files there first.",
            )
        for name in found:
            if format_of(name)[0] or name.rpartition("/")[2] == MANIFEST:
                self.fs.rm_file(name)

    def begin(self, folder: str, name: str, schema: pa.Schema) -> PartWriter:
        place = f"{folder}{name}.{ending(self.format, self.packed)}"
        if not self.is_local:
            return FilePart(
                self._scratch / f"{name}.tmp",
                self.format,
                self.packed,
                schema,
                lambda p: self._upload(p, place),
            )
        final = Path(self.path) / place

        def rename(scratch: Path) -> str:
            os.replace(scratch, final)
            sync_directory(final.parent)
            return place

        return FilePart(final.parent / f".{final.name}.tmp", self.format, self.packed, schema, rename)

    def finish(
        self, parts: Sequence[Written], rejects: Sequence[Path], manifest: bytes, *, whole: bool
    ) -> str:
        where = ""
        if rejects:
            joined = self._scratch / "rejects.tmp"
            _join_bytes(rejects, joined)
            self._upload(joined, REJECTS)
            where = f"{self.path}/{REJECTS}"
        if whole:
            self._scratch.mkdir(parents=True, exist_ok=True)
            note = self._scratch / "manifest.tmp"
            note.write_bytes(manifest)
            self._upload(note, MANIFEST)
        return where

    def _upload(self, scratch: Path, place: str) -> str:
        """An object store shows an object when all of it is there; a local file is renamed."""
        with disk_errors("write the output", self.path):
            if self.is_local:
                hidden = Path(self.path) / f".{place}.tmp"
                hidden.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(scratch, hidden)
                os.replace(hidden, Path(self.path) / place)
            else:
                with store_errors(self.fs, self.path):
                    self.fs.put_file(str(scratch), f"{self.path}/{place}")
            scratch.unlink()
        return place

    def close(self) -> None:
        return None


class SingleFile:
    """All parts as one file: they wait in the run's folder until the run ends."""

    def __init__(
        self,
        fs: Any,
        path: str,
        scratch: Path,
        inputs: Sequence[str],
        format: str = "",
        packed: str = "",
    ) -> None:
        self.fs, self.path = fs, path
        kind, by_name = format_of(path)
        self.packed = packed or by_name
        self.format = format or kind
        self._scratch = scratch
        if path in inputs:
            raise InvalidInput(f"{path} is input and output at once.")

    def check(self, *, overwrite: bool) -> None:
        with store_errors(self.fs, self.path):
            there = self.fs.exists(self.path)
        if there and not overwrite:
            raise AlreadyExists(
                f"{self.path} is already there.", hint="Choose another output, or say --overwrite."
            )

    def begin(self, folder: str, name: str, schema: pa.Schema) -> PartWriter:
        final = self._scratch / f"{name}.part"

        def rename(scratch: Path) -> str:
            os.replace(scratch, final)
            return final.name

        return FilePart(self._scratch / f"{name}.tmp", self.format, self.packed, schema, rename)

    def finish(
        self, parts: Sequence[Written], rejects: Sequence[Path], manifest: bytes, *, whole: bool
    ) -> str:
        if not parts:
            return ""
        files = [self._scratch / part.name for part in parts]
        local = is_local(self.fs)
        final = Path(self.path)
        joined = final.with_name(f".{final.name}.tmp") if local else self._scratch / "joined.tmp"
        with disk_errors("write the output", joined.parent):
            joined.parent.mkdir(parents=True, exist_ok=True)
            if not (len(files) == 1 and _linked(files[0], joined)):
                if len(files) == 1:
                    shutil.copyfile(files[0], joined)
                else:
                    _JOIN[self.format](files, joined, self.packed)
                with joined.open("rb") as handle:
                    os.fsync(handle.fileno())
            self._place(joined, self.path, local)
            where = ""
            if rejects:
                where = f"{self.path}.rejects.jsonl"
                noted = joined.with_name(joined.name + ".rejects")
                _join_bytes(rejects, noted)
                self._place(noted, where, local)
        return where

    def _place(self, joined: Path, path: str, local: bool) -> None:
        if local:
            os.replace(joined, path)
            sync_directory(Path(path).parent)
        else:
            with store_errors(self.fs, path):
                self.fs.put_file(str(joined), path)
            joined.unlink()

    def close(self) -> None:
        return None


def open_file_sink(
    fs: Any, path: str, *, format: str, scratch: Path, inputs: Sequence[str], compression: str = ""
) -> Folder | SingleFile:
    """One file when `path` ends like one, else a folder. `format` is "" where the name says it. `compression` is one of
    `COMPRESSIONS`, "" for the format's own."""
    kind, packed = format_of(path)
    if kind and not path.endswith("/") and not fs.isdir(path):
        chosen = format or kind
    else:
        chosen, kind = format or "parquet", ""
    if chosen not in ENDINGS:
        raise UnsupportedContent(f"{chosen!r} is not written here; formats are {', '.join(ENDINGS)}.")
    if packed and chosen not in ("csv", "jsonl"):
        raise UnsupportedContent(f"{chosen} is packed by itself; leave out .{packed}.")
    if packed not in ("", "gz", "zst"):
        raise UnsupportedContent(f".{packed} is read here but not written; write .gz or .zst.")
    codec = _codec(chosen, compression)
    if kind and chosen in _TEXT and codec and codec != packed:
        raise UnsupportedContent(
            f"{path} is not named like a file packed by {compression}.", hint=f"Name it {path}.{codec}"
        )
    if kind:
        return SingleFile(fs, path, scratch, inputs, chosen, codec)
    return Folder(fs, path, chosen, codec, scratch, inputs)


def _codec(format: str, compression: str) -> str:
    """What `packed` is for a format: for text an ending, for columns their codec."""
    if compression and compression not in COMPRESSIONS[format]:
        raise UnsupportedContent(
            f"{format} is not written with compression {compression!r}; {', '.join(COMPRESSIONS[format])} are."
        )
    if format in _TEXT:
        return {"gzip": "gz", "zstd": "zst"}.get(compression, "")
    return compression


def ending(format: str, packed: str) -> str:
    """How the name of an output file ends."""
    return f"{format}.{packed}" if packed and format in _TEXT else format


def _linked(path: Path, name: Path) -> bool:
    """Whether the file has got a second name: not across filesystems, and not on every one."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:
        return False
    return True


def is_local(fs: Any) -> bool:
    """Whether the fsspec file system is this machine's own."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol))


def _packing(raw: BinaryIO, packed: str) -> Any:
    if packed == "gz":
        return gzip.GzipFile(
            filename="", fileobj=raw, mode="wb", compresslevel=5, mtime=0
        )  # the same bytes every time
    return zstd.ZstdFile(raw, "wb") if packed == "zst" else raw


_Writer = tuple[Callable[[pa.Table], None], Callable[[], None]]


def _parquet(file: Any, schema: pa.Schema, packed: str) -> _Writer:
    # Scores hardly repeat: a dictionary of them is built for nothing (2.5 times as long, and a third larger).
    repeating = [
        f.name for f in schema if not pa.types.is_nested(f.type) and not pa.types.is_floating(f.type)
    ]
    writer = pq.ParquetWriter(file, schema, use_dictionary=repeating or False, compression=packed or "snappy")
    return lambda table: writer.write_table(table, row_group_size=len(table) or 1), writer.close


def _arrow(file: Any, schema: pa.Schema, packed: str) -> _Writer:
    options = pa.ipc.IpcWriteOptions(compression=None if packed in ("", "none") else packed)
    writer = pa.ipc.new_file(file, schema, options=options)
    return writer.write_table, writer.close


def _csv(file: Any, schema: pa.Schema, packed: str) -> _Writer:
    names = flat_table(schema.empty_table()).column_names
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    header = io.StringIO(newline="")
    csv.writer(header, lineterminator="\n").writerow(names)
    file.write(header.getvalue().encode())

    def write(table: pa.Table) -> None:
        pyarrow.csv.write_csv(without_nan(flat_table(table)), file, options)

    return write, lambda: None


def _jsonl(file: Any, schema: pa.Schema, packed: str) -> _Writer:
    def write(table: pa.Table) -> None:
        file.write(_encode_lines(table.to_pylist()))

    return write, lambda: None


_WRITERS: dict[str, Callable[[Any, pa.Schema, str], _Writer]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "csv": _csv,
    "jsonl": _jsonl,
}


def _join_bytes(files: Sequence[Path], joined: Path, packed: str = "") -> None:
    """One after the other, as packed members of one file may stand too."""
    joined.parent.mkdir(parents=True, exist_ok=True)
    with joined.open("wb") as out:
        for path in files:
            with path.open("rb") as part:
                shutil.copyfileobj(part, out, _BLOCK)


def join_rejects(rejects: Sequence[Path], folder: Path) -> str:
    """One file of them in `folder`, and its path; "" when there are none."""
    if not rejects:
        return ""
    joined = folder / REJECTS
    _join_bytes(rejects, folder / "rejects.tmp")
    os.replace(folder / "rejects.tmp", joined)
    return str(joined)


def _join_csv(files: Sequence[Path], joined: Path, packed: str) -> None:
    """With the header of the first only. Packed parts are unpacked for it."""
    with joined.open("wb") as raw, _packing(raw, packed) as out:
        for number, path in enumerate(files):
            with path.open("rb") as part:
                content: Any = gzip.GzipFile(fileobj=part) if packed == "gz" else part
                content = zstd.ZstdFile(part, "rb") if packed == "zst" else content
                header = content.readline()
                if number == 0:
                    out.write(header)
                shutil.copyfileobj(content, out, _BLOCK)


def _tables(files: Sequence[Path], format: str) -> Iterator[pa.Table]:
    for path in files:
        if format == "parquet":
            with pq.ParquetFile(path) as file:
                for group in range(file.metadata.num_row_groups):
                    yield file.read_row_group(group)
        else:
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
                for i in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(i)])


def _join_tables(format: str) -> Callable[[Sequence[Path], Path, str], None]:
    def join(files: Sequence[Path], joined: Path, packed: str) -> None:
        if format == "parquet":
            with pq.ParquetFile(files[0]) as file:
                schema = file.schema_arrow
        else:
            with pa.OSFile(str(files[0])) as source, pa.ipc.open_file(source) as reader:
                schema = reader.schema
        with joined.open("wb") as out:
            write, close = _WRITERS[format](out, schema, packed)
            for table in _tables(files, format):
                write(table)
            close()

    return join


_JOIN: dict[str, Callable[[Sequence[Path], Path, str], None]] = {
    "csv": _join_csv,
    "jsonl": _join_bytes,
    "parquet": _join_tables("parquet"),
    "arrow": _join_tables("arrow"),
}
assert set(ENDINGS) == set(_JOIN) == set(FORMATS.values())
