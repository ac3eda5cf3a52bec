"""Predictions and labels as workers leave them on disk, and what a reader finds."""

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from fairway.core.label import Label
from fairway.core.settings import LogSettings
from fairway.stores.arrow_columns import Nested, same_text, texts_of
from fairway.stores.label_log import LabelLog
from fairway.stores.log_archive import Archive
from fairway.stores.log_reading import PredictionLog
from fairway.stores.log_segments import LogBatch, SegmentLog

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = 86_400.0
Row = tuple[str, float]
"""A request id and its time in seconds since 1970."""


def seconds(time: datetime) -> float:
    return time.timestamp()


def prediction_batch(
    rows: Sequence[Row],
    *,
    model: str = "m",
    version: int = 1,
    keys: Sequence[str | None] | None = None,
    extra: bool = False,
    arm: str | None = "",
) -> LogBatch:
    """One row a request; `amount` is a checksum of its id."""
    count = len(rows)
    amounts = np.array([zlib.crc32(name.encode()) % 1000 for name, _ in rows], dtype=np.float64)
    times = np.array([round(time * 1e6) for _, time in rows], dtype=np.int64)
    return LogBatch(
        model=model,
        stream=f"v{version}",
        metadata={
            "fairway.model": model,
            "fairway.digest": "sha256:" + f"{version:x}" * 64,
            "fairway.writer": "here.1",
            "fairway.sample": "1.0",
        },
        texts={
            "request_id": texts_of([name for name, _ in rows]),
            "key": same_text(None, count) if keys is None else texts_of(keys),
            "arm": same_text(f"v{version}" if arm == "" else arm, count),
            "source": same_text("live", count),
            "protocol": same_text("rest", count),
            "caller": same_text("", count),
            "violations": same_text(None, count),
        },
        columns={
            "time": times.view("datetime64[us]"),
            "version": np.full(count, version, np.int32),
            "seconds": np.full(count, 0.001, np.float32),
        },
        nested=Nested(
            np.ones(count, np.int32),
            {},
            {
                "input.amount": amounts,
                **({"input.more": amounts.astype(np.int64)} if extra else {}),
                "output.label": (amounts > 500).astype(np.int64),
            },
        ),
    )


def segment_log(folder: Path, segment_bytes: int = 2**24) -> SegmentLog:
    return SegmentLog(folder, segment_bytes=segment_bytes, disk_bytes=2**30)


def write_predictions(folder: Path, *groups: Sequence[Row], **options: object) -> None:
    """Each group as a closed segment."""
    for group in groups:
        log = segment_log(folder)
        log.append(prediction_batch(group, **options))  # type: ignore[arg-type]
        log.close()


def write_labels(folder: Path, labels: Sequence[Label], received: float) -> None:
    log = LabelLog(folder, LogSettings())
    log.append(labels, "", received)
    log.sync()
    log.close()


def label(
    request_id: str, value: object, time: float, *, row: int = 0, key: str = "", model: str = "m"
) -> Label:
    return Label(model, msgspec.json.encode(value), round(time * 1e6), request_id, key, row)


def opened(folder: Path, archive: Path | str | None = None) -> PredictionLog:
    return PredictionLog(folder, Archive(str(archive or folder.parent / "archive")))


def ids(batches: Iterable[pa.RecordBatch]) -> list[str]:
    """The request ids, sorted: a row that is lost or there twice shows."""
    return sorted(name for batch in batches for name in batch.column("request_id").to_pylist())
