"""Labels on disk: appended, and on the disk before anybody is told so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fairway.core.label import Label
from fairway.core.settings import LogSettings
from fairway.stores.arrow_columns import same_text, texts_of
from fairway.stores.log_segments import LABELS, LogBatch, SegmentLog, writer_name


class LabelLog:
    """This process's labels, below `<folder>/<model>/labels`. Safe to share between threads."""

    def __init__(
        self, folder: Path, settings: LogSettings, protect: Callable[[str], str | None] = str
    ) -> None:
        """`protect` gives a key as it may be written."""
        self._protect = protect
        self._log = SegmentLog(
            folder,
            segment_bytes=settings.segment_bytes,
            disk_bytes=settings.label_bytes,
            segment_seconds=settings.segment_seconds,
            bounded=False,
        )
        self._lock = threading.Lock()
        self._writer = writer_name()

    @property
    def failures(self) -> int:
        """Counts up when labels that had been appended may not have reached the disk."""
        return self._log.failures

    def append(self, labels: Sequence[Label], caller: str, received: float) -> None:
        """Appends; they are safe after `sync`. `received` is seconds since 1970. Raises StorageFull or Unavailable."""
        by_model: dict[str, list[Label]] = {}
        for label in labels:
            by_model.setdefault(label.model, []).append(label)
        with self._lock:
            for model, some in by_model.items():
                self._log.append(self._batch(model, some, caller, received))

    def sync(self, since: int | None = None) -> None:
        """Returns when everything appended is on the disk. Of several threads each says as `since` what `failures` was
        before it appended: a failure that another was told of may have taken its labels too. Raises as `append`."""
        with self._lock:
            self._log.sync(since)
            self._log.close_old()

    def close_old(self) -> None:
        with self._lock:
            self._log.close_old()

    def close(self) -> None:
        with self._lock:
            self._log.close()

    def _batch(self, model: str, labels: Sequence[Label], caller: str, received: float) -> LogBatch:
        rows = len(labels)
        return LogBatch(
            model=model,
            stream=LABELS,
            metadata={"fairway.model": model, "fairway.writer": self._writer},
            texts={
                "request_id": texts_of([label.request_id or None for label in labels]),
                "key": texts_of([self._protect(label.key) if label.key else None for label in labels]),
                "label": texts_of([label.value.decode("utf-8", "replace") for label in labels]),
                "caller": same_text(caller, rows),
            },
            columns={
                "row": np.array([label.row for label in labels], dtype=np.int32),
                "time": np.array([label.time for label in labels], dtype=np.int64).view("datetime64[us]"),
                "received": np.full(rows, int(received * 1e6), dtype=np.int64).view("datetime64[us]"),
            },
        )
