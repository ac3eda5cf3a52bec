"""The prediction log as one: segments that are not compacted yet, and the Parquet of the archive.

Every row is read once, whatever is being compacted meanwhile. A part of the archive says in its metadata which segments
its day's rows came from (`SEGMENTS`); a segment's rows of a day that such a part has are left out. Segments are removed
under the model's lock, which a reader shares while it looks at them.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fairway.core.errors import FairwayError, Unavailable
from fairway.stores.arrow_columns import ROWS
from fairway.stores.disk import file_lock, write_whole
from fairway.stores.log_archive import LABELS, PREDICTIONS, Archive, Part
from fairway.stores.log_segments import ENDING, FIELDS, MATRIX
from fairway.stores.segment_batches import Damage, whole_batches

SEGMENTS = b"fairway.segments"
"""In the metadata of a part: the names of the segments that it has all rows of its day of, as JSON."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000
_FIRST = (
    "time", "request_id", "row", "version", "digest", "arm", "source", "protocol", "caller", "key", "seconds",
    "writer", "sample", "violations",
)  # fmt: skip
BATCH_ROWS = 65_536
_ID = re.compile(rb"[0-9a-f]{8}")
_ID_SECONDS = 10.0
_BUFFER_BYTES = 1024 * 1024


class Segment(msgspec.Struct, frozen=True):
    """A file that some worker appends or appended to."""

    model: str
    stream: str
    path: Path

    @property
    def kind(self) -> str:
        return LABELS if self.stream == LABELS else PREDICTIONS


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """A version's rows in the log, and when the first and the last of them were predicted (UTC)."""

    version: int
    digest: str
    """The digest's first 12 hexadecimal digits."""
    rows: int
    first: datetime
    last: datetime


class Snapshot(msgspec.Struct, frozen=True):
    """What there is of one kind of one model's rows at one moment. `covered`: by segment, the days that a part has."""

    parts: list[Part]
    segments: list[Segment]
    covered: dict[str, set[int]]


class PredictionLog:
    """Reads what the workers of this machine wrote to `folder` and what any machine has compacted to `archive`."""

    def __init__(self, folder: Path, archive: Archive) -> None:
        self.folder = folder
        self.archive = archive

    def models(self) -> list[str]:
        """Names of the models that anything is known of. "_" is for labels that name no model."""
        found = {part.model for kind in (PREDICTIONS, LABELS) for part in self.archive.parts(kind)}
        found |= {segment.model for segment in self.segments()}
        return sorted(found)

    def present(self, model: str) -> list[Present]:
        """The versions in the log, with how many rows and from when to when."""
        found: dict[tuple[int, str], list[int]] = {}

        def add(version: int, digest: str, rows: int, first: int, last: int) -> None:
            known = found.setdefault((version, digest), [0, first, last])
            known[:] = [known[0] + rows, min(known[1], first), max(known[2], last)]

        with self.snapshot(PREDICTIONS, model) as snapshot:
            for part in snapshot.parts:
                add(int(part.stream[1:]), part.digest, part.rows, part.first, part.last)
            for segment in snapshot.segments:
                for batch in rows_of(segment, snapshot.covered, ("time", "digest")):
                    limits = pc.min_max(batch.column("time").cast(pa.int64())).as_py()
                    digest = short_digest(batch.column("digest")[0].as_py())
                    add(int(segment.stream[1:]), digest, batch.num_rows, limits["min"], limits["max"])
        return [
            Present(version=version, digest=digest, rows=rows, first=moment(first), last=moment(last))
            for (version, digest), (rows, first, last) in sorted(found.items())
        ]

    def windows(
        self,
        model: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        versions: Collection[int] | None = None,
        digest: str | None = None,
        arm: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows with `start <= time < end` in batches of at most `BATCH_ROWS`, in no particular order.

        `digest` is a whole digest or its beginning; `arm` is as the log has it (`v3`), and leaves out requests that asked
        for a version by name. With `columns`, batches have exactly these, of nulls where a row has no such column; else
        what each file has. One batch of each file is in memory at a time.
        """
        low = None if start is None else micros(start)
        high = None if end is None else micros(end)
        wanted = short_digest(digest) if digest else ""
        streams = None if versions is None else {f"v{version}" for version in versions}

        def chosen(batch: pa.RecordBatch) -> pa.RecordBatch:
            return _chosen(batch, low, high, wanted, arm, columns)

        needed = None if columns is None else [*dict.fromkeys([*columns, "time", "digest", "arm"])]
        with self.snapshot(PREDICTIONS, model) as snapshot:
            for segment in snapshot.segments:
                if streams is None or segment.stream in streams:
                    for batch in rows_of(segment, snapshot.covered, needed):
                        yield from _in_bites(chosen(batch))
        for part in snapshot.parts:
            if streams is not None and part.stream not in streams:
                continue
            if (low is not None and part.last < low) or (high is not None and part.first >= high):
                continue
            if wanted and not part.digest.startswith(wanted[:12]):
                continue
            for batch in self.part_rows(part, needed, low, high):
                yield from _in_bites(chosen(batch))

    def labels(self, model: str) -> Iterator[pa.RecordBatch]:
        """Every label that came for a model, corrected ones and duplicates too, in no particular order."""
        with self.snapshot(LABELS, model) as snapshot:
            for segment in snapshot.segments:
                yield from rows_of(segment, snapshot.covered)
        for part in snapshot.parts:
            yield from self.part_rows(part)

    def part_rows(
        self,
        part: Part,
        columns: Sequence[str] | None = None,
        low: int | None = None,
        high: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a part, without row groups that lie outside `low <= time < high` (microseconds). Of a part that has
        been removed meanwhile, nothing."""
        try:
            # Read ahead, a part would be in memory as a whole.
            file = pq.ParquetFile(
                self.archive.place(part),
                filesystem=self.archive.filesystem,
                pre_buffer=False,
                buffer_size=_BUFFER_BYTES,
            )
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowInvalid) as error:
            raise Unavailable(f"{part.path} in {self.archive.where} cannot be read: {error}.") from error
        with file:
            groups = [i for i in range(file.num_row_groups) if _may_have(file.metadata, i, low, high)]
            names = None if columns is None else [n for n in columns if n in file.schema_arrow.names]
            yield from file.iter_batches(BATCH_ROWS, row_groups=groups, columns=names)

    def segments(self, kind: str | None = None, model: str | None = None) -> list[Segment]:
        """Segments there are on this machine, the oldest first."""
        streams = {PREDICTIONS: ("v*",), LABELS: (LABELS,)}.get(kind or "", ("v*", LABELS))
        found = [
            Segment(path.parent.parent.name, path.parent.name, path)
            for stream in streams
            for path in self.folder.glob(f"{model or '*'}/{stream}/*{ENDING}")
        ]
        return sorted(found, key=lambda segment: (segment.path.name, segment.path))

    @contextmanager
    def snapshot(self, kind: str, model: str) -> Iterator[Snapshot]:
        """What there is now. Its segments stay until this is left."""
        with model_lock(self.folder, model, exclusive=False):
            segments = self.segments(kind, model)
            parts = self.archive.parts(kind, model)
            yield Snapshot(parts, segments, self._covered(parts, segments))

    def _covered(self, parts: Sequence[Part], segments: Sequence[Segment]) -> dict[str, set[int]]:
        """By segment, the days whose rows are in a part already. Only parts that this log was compacted to can say so,
        and only those of days that the segments have."""
        mine = log_id(self.folder)
        own = [part for part in parts if part.log == mine]
        if not own or not segments:
            return {}
        days = {day for segment in segments for day in days_of(segment)}
        covered: dict[str, set[int]] = {}
        for part in own:
            if day_number(part.day) not in days:
                continue
            for name in self.segments_of(part):
                covered.setdefault(name, set()).add(day_number(part.day))
        return covered

    def segments_of(self, part: Part) -> list[str]:
        """Names of the segments that a part was made from."""
        try:
            metadata = pq.read_metadata(self.archive.place(part), filesystem=self.archive.filesystem).metadata
        except FileNotFoundError:
            return []
        except (OSError, pa.ArrowInvalid) as error:
            raise Unavailable(f"{part.path} in {self.archive.where} cannot be read: {error}.") from error
        return msgspec.json.decode((metadata or {}).get(SEGMENTS, b"[]"), type=list[str])


def rows_of(
    segment: Segment, covered: dict[str, set[int]] | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The whole batches of a segment, without rows of days that are `covered`. What its writer says once for all rows
    (digest, writer, sample) is a column too."""
    days = (covered or {}).get(segment.path.name)
    for written in whole_batches(segment.path, segment.stream, Damage()):
        batch = _flat(written) if ROWS in written.schema.names else written
        rows = _with_constants(batch, columns) if segment.stream != LABELS else batch
        if days:
            of_day = rows.column(_clock(segment)).cast(pa.int64()).to_numpy() // _DAY
            rows = rows.filter(pa.array(np.isin(of_day, list(days), invert=True)))
        if rows.num_rows:
            yield rows


def days_of(segment: Segment, damage: Damage | None = None) -> set[int]:
    """The days, since 1970, that a segment has rows of. `damage` is told what could not be read."""
    days: set[int] = set()
    for batch in whole_batches(segment.path, segment.stream, damage or Damage()):
        micro = batch.column(_clock(segment)).cast(pa.int64()).to_numpy()
        days.update((micro // _DAY).tolist())
    return days


def _clock(segment: Segment) -> str:
    """Labels are kept by when they came: what they say of themselves may be any time."""
    return "received" if segment.stream == LABELS else "time"


def _flat(requests: pa.RecordBatch) -> pa.RecordBatch:
    """A row for each row of each request, which segments have as a list in the request's one row."""
    nested = requests.column(ROWS)
    inner = nested.flatten()
    request = pc.list_parent_indices(nested)
    counts = pc.list_value_length(nested).to_numpy()
    ends = np.cumsum(counts)
    places = np.arange(len(inner), dtype=np.int32) - np.repeat(ends - counts, counts).astype(np.int32)
    rows = {
        name: column.take(request)
        for name, column in zip(requests.schema.names, requests.columns, strict=True)
        if name != ROWS
    }
    rows["row"] = pa.array(places)
    if "violations" in rows:  # told once a request, so that they can be counted
        rows["violations"] = pc.if_else(pa.array(places == 0), rows["violations"], None)
    for field, values in zip(inner.type, inner.flatten(), strict=True):
        if field.name == MATRIX:
            rows |= _columns_of(values, (requests.schema.metadata or {}).get(FIELDS.encode(), b"[]"))
        else:
            rows[field.name] = values
    return pa.RecordBatch.from_arrays(
        [*rows.values()], schema=pa.schema([(n, c.type) for n, c in rows.items()], requests.schema.metadata)
    )


def _columns_of(matrix: pa.FixedSizeListArray, fields: bytes) -> dict[str, pa.Array]:
    """The inputs of a matrix, one column each."""
    names = msgspec.json.decode(fields, type=list[str])
    columns = np.ascontiguousarray(np.asarray(matrix.flatten()).reshape(-1, len(names)).T)
    return {f"input.{name}": pa.array(columns[i]) for i, name in enumerate(names)}


def _with_constants(batch: pa.RecordBatch, columns: Sequence[str] | None) -> pa.RecordBatch:
    told = batch.schema.metadata or {}
    rows = batch.num_rows
    constants = {
        "digest": pa.repeat(pa.scalar(told.get(b"fairway.digest", b"").decode()), rows),
        "writer": pa.repeat(pa.scalar(told.get(b"fairway.writer", b"").decode()), rows),
        "sample": pa.repeat(pa.scalar(float(told.get(b"fairway.sample", b"1")), pa.float32()), rows),
    }
    given = dict(zip(batch.schema.names, batch.columns, strict=True)) | constants
    names = [name for name in _FIRST if name in given] + [name for name in given if name not in _FIRST]
    if columns is not None:
        names = [name for name in names if name in columns]
    return pa.RecordBatch.from_arrays([given[name] for name in names], names=names)


def _chosen(
    batch: pa.RecordBatch,
    low: int | None,
    high: int | None,
    digest: str,
    arm: str | None,
    columns: Sequence[str] | None,
) -> pa.RecordBatch:
    time = batch.column("time").cast(pa.int64())
    mask: Any = None
    tests = [
        None if low is None else pc.greater_equal(time, low),
        None if high is None else pc.less(time, high),
        pc.match_substring_regex(batch.column("digest"), f"^(sha256:)?{digest}") if digest else None,
        None
        if arm is None
        else pc.fill_null(pc.equal(batch.column("arm"), arm), False)
        if "arm" in batch.schema.names
        else pa.array([False] * batch.num_rows),
    ]
    for test in tests:
        if test is not None:
            mask = test if mask is None else pc.and_(mask, test)
    if mask is not None:
        batch = batch.filter(mask)
    if columns is None:
        return batch
    arrays = [
        batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows) for name in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _in_bites(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for begin in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(begin, BATCH_ROWS)


def _may_have(metadata: Any, group: int, low: int | None, high: int | None) -> bool:
    """Whether a row group may have rows of a time range, by its statistics."""
    if low is None and high is None:
        return True
    row_group = metadata.row_group(group)
    for i in range(row_group.num_columns):
        column = row_group.column(i)
        if column.path_in_schema == "time" and column.is_stats_set and column.statistics.has_min_max:
            first, last = micros(column.statistics.min), micros(column.statistics.max)
            return not ((low is not None and last < low) or (high is not None and first >= high))
    return True


@contextmanager
def model_lock(folder: Path, model: str, *, exclusive: bool) -> Iterator[bool]:
    """Held shared by who reads a model's segments, alone by who removes them. Gives whether it was got: somebody who
    wants it alone does not wait. Where no file can be made nobody removes anything either."""
    path = folder / model / ".lock"
    handle = -1
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    if handle < 0:
        yield not exclusive
        return
    try:
        if exclusive:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        else:
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield True
    finally:
        os.close(handle)


def log_id(folder: Path) -> str:
    """What the parts made from this folder are known by; "" while there is no folder that can be written to. One that a
    power cut left empty is made anew."""
    path = folder / ".id"
    known = _id_in(path)
    if known or not folder.is_dir():
        return known
    try:
        with file_lock(folder / ".id.lock", timeout_seconds=_ID_SECONDS):
            known = _id_in(path)
            if not known:
                known = secrets.token_hex(4)
                write_whole(path, known.encode())
    except (FairwayError, OSError):
        return ""
    return known


def _id_in(path: Path) -> str:
    try:
        found = _ID.fullmatch(path.read_bytes().strip())
    except FileNotFoundError:
        return ""
    return "" if found is None else found[0].decode()


def short_digest(digest: str | None) -> str:
    """The first 12 hexadecimal digits, as names of parts have them."""
    return (digest or "").removeprefix("sha256:")[:12]


def micros(time: datetime) -> int:
    """Microseconds since 1970, exactly. A time without a zone is UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if microseconds > 0 else datetime.min.replace(tzinfo=UTC)


def day_text(day: int) -> str:
    return moment(day * _DAY).date().isoformat()


def day_number(text: str) -> int:
    return micros(datetime.fromisoformat(text)) // _DAY
