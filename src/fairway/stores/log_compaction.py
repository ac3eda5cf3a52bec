"""From segments to Parquet, and out of the archive again when rows are old or too many.

A compaction reads segments that nobody appends to any more and writes one part a day and set of columns. A part appears
whole and names its segments; only when all parts are there are the segments removed. Killed before that, the next run
finds what the parts have already and goes on behind it: no row is lost, none is there twice.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fairway.core.clock import Clock, trusted
from fairway.core.errors import FairwayError, RegistryUnavailable, StorageFull, Unavailable
from fairway.core.settings import LogSettings
from fairway.stores.disk import file_lock, write_whole
from fairway.stores.log_archive import LABELS, PREDICTIONS, Archive, Part
from fairway.stores.log_reading import (
    BATCH_ROWS,
    SEGMENTS,
    PredictionLog,
    Segment,
    day_number,
    day_text,
    days_of,
    log_id,
    model_lock,
    rows_of,
    short_digest,
)
from fairway.stores.log_segments import OPENING, is_closed
from fairway.stores.segment_batches import Damage

logger = logging.getLogger("fairway.log")

_GROUP_BYTES = 256 * 1024 * 1024
"""Most bytes of segments that become one part a day."""
_DAYS_AT_ONCE = 32
DAMAGED = ".damaged"
_MOST_DAMAGED = 20
"""Files kept for a person, per stream of a model."""
_DAY = 86_400_000_000
_DAY_SECONDS = 86_400.0
_ODD_SECONDS = _DAY_SECONDS
_TRUST_SECONDS = 3600.0


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """What a compaction did. `left` counts segments that are still being written or that it is too early for; `damaged`
    those that nothing could be read from, which are kept under another name."""

    segments: int = 0
    parts: int = 0
    rows: int = 0
    left: int = 0
    damaged: int = 0
    removed_parts: int = 0
    removed_rows: int = 0
    busy: bool = False
    errors: tuple[str, ...] = ()
    """By model, why it could not be done now; its segments stay."""


def compact(
    log: PredictionLog,
    settings: LogSettings,
    *,
    everything: bool = False,
    clock: Callable[[], float] = time.time,
) -> Compacted:
    """Compacts what is due, or `everything` that is closed, and applies retention. Safe to kill at any moment, and to
    run while workers write; of several at once on one machine, one does it (`busy`). A model that fails is told in
    `errors`; the others go on."""
    log.folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = file_lock(log.folder / ".compact.lock", timeout_seconds=0.0)
        lock.__enter__()
    except RegistryUnavailable:
        return Compacted(busy=True)
    try:
        return _compact(log, settings, everything, clock)
    finally:
        lock.__exit__(None, None, None)


def _compact(
    log: PredictionLog, settings: LogSettings, everything: bool, clock: Callable[[], float]
) -> Compacted:
    scratch = log.folder / ".scratch"
    scratch.mkdir(exist_ok=True)
    for leftover in scratch.iterdir():
        leftover.unlink(missing_ok=True)
    counts = dict.fromkeys(("segments", "parts", "rows", "left", "damaged"), 0)
    errors: list[str] = []
    streams: dict[tuple[str, str], list[Segment]] = {}
    for segment in log.segments():
        streams.setdefault((segment.model, segment.stream), []).append(segment)
    for (model, _), segments in streams.items():
        closed = [segment for segment in segments if is_closed(segment.path)]
        counts["left"] += len(segments) - len(closed)
        if not everything and not _is_due(closed, settings, clock()):
            counts["left"] += len(closed)
            continue
        try:
            for group in _groups(closed):
                for name, amount in _compact_group(log, group, scratch, clock).items():
                    counts[name] += amount
        except (FairwayError, OSError, pa.ArrowException) as error:
            logger.error("the log of %s could not be compacted; it is tried again: %s", model, error)
            errors.append(f"{model}: {error}")
    removed: list[Part] = []
    try:
        removed = retain(log.archive, settings, log.folder / ".clock.json", clock())
        _remove_old(log.folder, DAMAGED, clock() - settings.keep_days * 86_400)
        _remove_old(log.folder, OPENING, clock() - _DAY_SECONDS)  # of writers that died at that very moment
    except (FairwayError, OSError) as error:
        errors.append(f"retention: {error}")
    return msgspec.structs.replace(
        Compacted(removed_parts=len(removed), removed_rows=sum(part.rows for part in removed)),
        errors=tuple(errors),
        **counts,
    )


def _is_due(closed: Sequence[Segment], settings: LogSettings, now: float) -> bool:
    """Whether there is enough, or something waits for long. A clock that went back does not make anything wait."""
    size, oldest = 0, now
    for segment in closed:
        with suppress(FileNotFoundError):
            found = segment.path.stat()
            size += found.st_size
            oldest = min(oldest, found.st_mtime) if found.st_mtime <= now else -np.inf
    return size >= settings.compact_bytes or now - oldest >= settings.compact_seconds


def _groups(closed: Sequence[Segment]) -> Iterator[list[Segment]]:
    group: list[Segment] = []
    size = 0
    for segment in closed:
        try:
            bytes_ = segment.path.stat().st_size
        except FileNotFoundError:
            continue
        if group and size + bytes_ > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(segment)
        size += bytes_
    if group:
        yield group


def _compact_group(
    log: PredictionLog, group: Sequence[Segment], scratch: Path, clock: Callable[[], float]
) -> dict[str, int]:
    model, kind = group[0].model, group[0].kind
    damage = {segment.path.name: Damage() for segment in group}
    by_segment = {segment.path.name: days_of(segment, damage[segment.path.name]) for segment in group}
    nothing = [segment for segment in group if not by_segment[segment.path.name]]
    lost = sum(_set_aside(segment, "nothing can be read from it") for segment in nothing)
    whole = [segment for segment in group if by_segment[segment.path.name]]
    with log.snapshot(kind, model) as snapshot:
        covered = snapshot.covered
    days = sorted({d for s in whole for d in by_segment[s.path.name] - covered.get(s.path.name, set())})
    rows = parts = 0
    for begin in range(0, len(days), _DAYS_AT_ONCE):
        writers = _Writers(log, whole, covered, set(days[begin : begin + _DAYS_AT_ONCE]), scratch)
        try:
            for part, path in writers.written(int(clock())):
                log.archive.put(path, part)
                rows += part.rows
                parts += 1
        finally:
            writers.close()
    with model_lock(log.folder, model, exclusive=True) as alone:
        for segment in whole if alone else ():
            if places := damage[segment.path.name].places:
                lost += _set_aside(
                    segment, f"it is damaged in {places} places; what can be read is compacted"
                )
            else:
                segment.path.unlink(missing_ok=True)
    if not alone:  # somebody reads them now; the parts say that they are done
        logger.info("segments of %s are being read; they are removed the next time", model)
    return {"segments": len(whole), "parts": parts, "rows": rows, "damaged": lost}


class _Writers:
    """Local files for the rows of some days of a group of segments: one for each day and set of columns."""

    def __init__(
        self,
        log: PredictionLog,
        group: Sequence[Segment],
        covered: dict[str, set[int]],
        days: set[int],
        scratch: Path,
    ) -> None:
        self._log = log
        self._group = group
        self._covered = covered
        self._days = days
        self._scratch = scratch
        self._open: dict[tuple[int, str, str], _Writer] = {}

    def written(self, now: int) -> Iterator[tuple[Part, Path]]:
        """Each part and its file, when all rows have been read: then a part's name is known, and which segments it is
        the last of. Parts of one day and several sets of columns name only segments whose rows they have."""
        clock = "received" if self._group[0].kind == LABELS else "time"
        for segment in self._group:
            for batch in rows_of(segment, self._covered):
                self._add(segment, batch, clock)
        mine = log_id(self._log.folder)
        if not mine:  # parts that nobody could tell from another log's
            raise Unavailable(f"{self._log.folder} cannot be written to.")
        for (day, digest, columns), writer in sorted(self._open.items()):
            first, last = writer.finish(writer.segments)
            first_segment = self._group[0]
            yield (
                Part(
                    kind=first_segment.kind,
                    model=first_segment.model,
                    day=day_text(day),
                    stream=first_segment.stream,
                    digest=digest,
                    columns=columns,
                    rows=writer.rows,
                    first=first,
                    last=last,
                    log=mine,
                    written=now,
                    serial=secrets.token_hex(4),
                    size=writer.path.stat().st_size,
                ),
                writer.path,
            )

    def close(self) -> None:
        for writer in self._open.values():
            writer.abort()

    def _add(self, segment: Segment, batch: pa.RecordBatch, clock: str) -> None:
        micro = batch.column(clock).cast(pa.int64()).to_numpy()
        days = micro // _DAY
        digest = "0" * 12
        if "digest" in batch.schema.names:
            digest = (short_digest(batch.column("digest")[0].as_py()) or "0").ljust(12, "0")
            digest = digest if all(c in "0123456789abcdef" for c in digest) else _hash(digest, 12)
        columns = _hash(str([(field.name, str(field.type)) for field in batch.schema]), 8)
        for day in np.unique(days).tolist():
            if day not in self._days:
                continue
            rows = batch if len(np.unique(days)) == 1 else batch.filter(pa.array(days == day))
            key = (day, digest, columns)
            writer = self._open.get(key)
            if writer is None:
                path = self._scratch / f"{secrets.token_hex(8)}.parquet"
                writer = self._open[key] = _Writer(path, batch.schema)
            of_day = micro[days == day]
            writer.add(rows, int(of_day.min()), int(of_day.max()), segment.path.name)


class _Writer:
    """One Parquet file, in row groups of `BATCH_ROWS`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self.segments: list[str] = []
        self._limits: list[int] = []
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._writer = pq.ParquetWriter(str(path), schema, compression="zstd")

    def add(self, batch: pa.RecordBatch, first: int, last: int, segment: str) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self.rows += batch.num_rows
        self._limits = [min([first, *self._limits]), max([last, *self._limits])]
        if segment not in self.segments[-1:]:
            self.segments.append(segment)
        if self._held_rows >= BATCH_ROWS:
            self._flush()

    def finish(self, segments: Sequence[str]) -> tuple[int, int]:
        self._flush()
        self._writer.add_key_value_metadata({SEGMENTS.decode(): msgspec.json.encode(segments).decode()})
        self._writer.close()
        return self._limits[0], self._limits[1]

    def abort(self) -> None:
        with suppress(Exception):
            self._writer.close()
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held)
            self._writer.write_table(table.sort_by("time") if "time" in table.column_names else table)
            self._held, self._held_rows = [], 0


def _set_aside(segment: Segment, why: str) -> int:
    """A closed segment that cannot be read as a whole is kept for a person, as `.damaged`; an empty one is of no use. Of those
    kept, the oldest go when there are many."""
    try:
        if segment.path.stat().st_size == 0:
            segment.path.unlink(missing_ok=True)
            return 0
        segment.path.rename(segment.path.with_suffix(DAMAGED))
    except FileNotFoundError:
        return 0
    logger.error("%s: %s; it is kept as %s", segment.path, why, DAMAGED)
    kept = sorted(segment.path.parent.glob(f"*{DAMAGED}"))
    for path in kept[:-_MOST_DAMAGED]:
        logger.error("%s is removed: more than %d damaged files are kept", path, _MOST_DAMAGED)
        path.unlink(missing_ok=True)
    return 1


def _remove_old(folder: Path, ending: str, before: float) -> None:
    """Removes files with such names that were last written before."""
    for path in folder.glob(f"*/*/*{ending}"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()


def retain(archive: Archive, settings: LogSettings, state: Path, now: float) -> list[Part]:
    """Removes parts that are older than `keep_days`, and the oldest days of models that have too many bytes. A part is
    as old as its rows and its file both say, so rows that a wrong clock dated back are not lost at once. Nothing goes by
    age while the clock cannot be trusted; see `trusted`."""
    seen, sure = trusted(_read_clock(state), now)
    with suppress(FairwayError, OSError):
        write_whole(state, msgspec.json.encode(seen))
    limit = now - settings.keep_days * 86_400
    removed: list[Part] = []
    for kind in (PREDICTIONS, LABELS):
        by_model: dict[str, list[Part]] = {}
        for part in archive.parts(kind):
            by_model.setdefault(part.model, []).append(part)
        for parts in by_model.values():
            gone = [
                part
                for part in parts
                if sure and part.written < limit and (day_number(part.day) + 1) * 86_400 < limit
            ]
            kept = sorted(
                (part for part in parts if part not in gone), key=lambda part: (part.day, part.written)
            )
            size = sum(part.size for part in kept)
            for part in kept:
                if size <= settings.archive_bytes:
                    break
                gone.append(part)
                size -= part.size
            for part in gone:
                archive.remove(part)
            removed += gone
    return removed


def _read_clock(state: Path) -> Clock:
    try:
        return msgspec.json.decode(state.read_bytes(), type=Clock)
    except (OSError, msgspec.MsgspecError):
        return Clock()


def forget(
    log: PredictionLog, model: str, *, request_ids: Sequence[str] = (), keys: Sequence[str] = ()
) -> tuple[int, int]:
    """Removes every row of these requests or keys from the archive: predictions and labels. Returns how many, and how
    many segments are still being written: they cannot be changed before they are closed.

    A part is written anew under its own name, so a reader has the old one or the new one. A file that was set aside and has one
    of them is removed as a whole: what could be read of it is in the archive.
    """
    scratch = log.folder / ".scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    removed = 0
    with file_lock(log.folder / ".compact.lock", timeout_seconds=60.0):
        for kind in (PREDICTIONS, LABELS):
            for part in log.archive.parts(kind, model):
                removed += _without(log, part, request_ids, keys, scratch)
        for path in (log.folder / model).glob(f"*/*{DAMAGED}"):
            if _has_any(path, [*request_ids, *keys]):
                logger.warning("%s is removed: it has what is to be forgotten", path)
                path.unlink(missing_ok=True)
        return removed, len([*log.segments(PREDICTIONS, model), *log.segments(LABELS, model)])


def _has_any(path: Path, names: Sequence[str]) -> bool:
    """Whether any of these texts stands in a file, wherever. None can be found in an empty one."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as seen:
        return any(seen.find(name.encode("utf-8", "replace")) >= 0 for name in names)


def _without(
    log: PredictionLog, part: Part, request_ids: Sequence[str], keys: Sequence[str], scratch: Path
) -> int:
    def hit(batch: pa.RecordBatch) -> Any:
        masks = [
            pc.fill_null(pc.is_in(batch.column(name), pa.array(list(values), pa.string())), False)
            for name, values in (("request_id", request_ids), ("key", keys))
            if name in batch.schema.names and values
        ]
        return masks[0] if len(masks) == 1 else pc.or_(*masks) if masks else None

    found = 0
    for batch in log.part_rows(part, ["request_id", "key"]):
        mask = hit(batch)
        found += 0 if mask is None else int(pc.sum(mask).as_py() or 0)
    if not found:
        return 0
    place, filesystem = log.archive.place(part), log.archive.filesystem
    with pq.ParquetFile(place, filesystem=filesystem, pre_buffer=False) as file:
        schema, told = file.schema_arrow, file.metadata.metadata or {}
    path = scratch / f"{secrets.token_hex(8)}.parquet"
    try:
        with pq.ParquetWriter(str(path), schema, compression="zstd") as writer:
            for batch in log.part_rows(part):
                writer.write_batch(batch.filter(pc.invert(hit(batch))))
            writer.add_key_value_metadata({SEGMENTS.decode(): told.get(SEGMENTS, b"[]").decode()})
        log.archive.put(path, part)
    except OSError as error:
        raise StorageFull(f"{part.path} could not be written anew: {error}.") from error
    except pa.ArrowException as error:
        raise Unavailable(f"{part.path} could not be written anew: {error}.") from error
    finally:
        path.unlink(missing_ok=True)
    return found


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
