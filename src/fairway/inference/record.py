"""Predictions to the log, off the hot path: an append to a queue here, everything else on one thread.

The queue is bounded in rows and bytes. What does not fit, or cannot be written, is dropped and counted; serving
never waits for the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.errors import Unavailable
from fairway.core.settings import LogSettings
from fairway.stores.log_segments import LogBatch

logger = logging.getLogger("fairway.log")

_GATHER_SECONDS = 0.02  # small, frequent bites: one long burst would stand in the tail latency
_WRITE_BYTES = (
    1024 * 1024
)  # gathered rows are written early from here on, so that bursts do not pile up in memory
_WARN_SECONDS = 30.0


class Log(Protocol):
    def append(self, batch: LogBatch) -> None: ...

    def close(self) -> None: ...


class Predictions(msgspec.Struct, frozen=True, gc=False):
    """Requests that one engine call answered, `counts` rows each, one after the other in `columns` and `outputs`.

    `time` is when, in seconds since 1970; `seconds` is how long each request took."""

    model: str
    version: int
    digest: str
    request_ids: Sequence[str]
    counts: Sequence[int]
    time: float
    seconds: Sequence[float]
    columns: Columns
    outputs: Outputs


class Recorder:
    """Owns the log and the thread that writes it. `on_dropped(model, rows)` hears of every row lost."""

    def __init__(self, log: Log, settings: LogSettings, on_dropped: Callable[[str, int], None]) -> None:
        self._log = log
        self._settings = settings
        self._on_dropped = on_dropped
        self._queue: deque[Predictions] = deque()
        self._queued_rows = 0
        self._queued_bytes = 0
        self._taken_rows = 0
        self._taken_bytes = 0
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, int], list[LogBatch]] = {}
        self._closed = False
        self._stop = threading.Event()
        self._warned = 0.0
        self._thread = threading.Thread(target=self._run, name="fairway-log", daemon=True)
        self._thread.start()

    def record(self, prediction: Predictions) -> None:
        """Takes the predictions or counts them as dropped; returns at once."""
        rows = prediction.columns.rows
        size = prediction.columns.bytes
        with self._lock:
            fits = (
                not self._closed
                and self._queued_rows + rows <= self._settings.queue_rows
                and self._queued_bytes + size <= self._settings.queue_bytes
            )
            if fits:
                self._queued_rows += rows
                self._queued_bytes += size
                self._queue.append(prediction)
        if not fits:
            self._on_dropped(prediction.model, rows)

    def close(self) -> None:
        """Writes what is queued and closes the log."""
        with self._lock:
            self._closed = True
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        written = time.monotonic()
        while True:
            stopping = self._stop.wait(min(_GATHER_SECONDS, self._settings.flush_seconds))
            self._gather()
            due = time.monotonic() - written >= self._settings.flush_seconds
            if stopping or due or self._taken_bytes >= _WRITE_BYTES:
                self._write()
                written = time.monotonic()
            if stopping:
                self._log.close()
                return

    def _gather(self) -> None:
        """Moves the queue into batches per version."""
        with self._lock:
            taken, self._queue = self._queue, deque()
        groups: dict[tuple[str, int], list[Predictions]] = {}
        for prediction in taken:
            self._taken_rows += prediction.columns.rows
            self._taken_bytes += prediction.columns.bytes
            groups.setdefault((prediction.model, prediction.version), []).append(prediction)
        for key, predictions in groups.items():
            try:
                self._pending.setdefault(key, []).append(_batch(predictions))
            except Exception:  # the thread must live on, or nothing would be recorded again
                self._on_dropped(key[0], sum(prediction.columns.rows for prediction in predictions))
                logger.exception("predictions of %s could not be recorded", key[0])

    def _write(self) -> None:
        pending, self._pending = self._pending, {}
        for (model, _), batches in pending.items():
            rows = sum(len(batch) for batch in batches)
            try:
                self._log.append(_joined(batches))
            except Unavailable as error:
                self._on_dropped(model, rows)
                if time.monotonic() - self._warned > _WARN_SECONDS:
                    self._warned = time.monotonic()
                    logger.error("predictions are not being recorded: %s", error)
            except Exception:
                self._on_dropped(model, rows)
                logger.exception("a batch of predictions of %s could not be recorded", model)
        with self._lock:  # rows count against the limit until they are written, so memory stays bounded
            self._queued_rows -= self._taken_rows
            self._queued_bytes -= self._taken_bytes
        self._taken_rows = self._taken_bytes = 0


def _batch(predictions: list[Predictions]) -> LogBatch:
    first = predictions[0]
    counts = [count for prediction in predictions for count in prediction.counts]
    outputs = {
        name: np.concatenate([prediction.outputs[name] for prediction in predictions])
        for name in first.outputs
    }
    single = max(counts) == 1
    ids = [name.encode("ascii", "replace") for prediction in predictions for name in prediction.request_ids]
    calls = [len(prediction.counts) for prediction in predictions]
    times = np.repeat(np.array([prediction.time for prediction in predictions]), calls)
    seconds = np.array([s for prediction in predictions for s in prediction.seconds], dtype=np.float32)
    return LogBatch(
        model=first.model,
        version=first.version,
        digest=first.digest,
        request_ids=ids,
        counts=counts,
        rows=np.zeros(len(ids), np.int32)
        if single
        else np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
        times=((times if single else np.repeat(times, counts)) * 1e6).astype(np.int64),
        seconds=seconds if single else np.repeat(seconds, counts),
        inputs=_inputs([prediction.columns for prediction in predictions]),
        outputs=outputs,
    )


def _inputs(columns: list[Columns]) -> dict[str, Array]:
    names = columns[0].names
    packed = [c.packed for c in columns if c.packed is not None]
    if len(packed) == len(columns):
        matrix = np.ascontiguousarray(np.concatenate(packed).T)
        return {name: matrix[i] for i, name in enumerate(names)}
    return {name: np.concatenate([c.arrays[i] for c in columns]) for i, name in enumerate(names)}


def _joined(batches: list[LogBatch]) -> LogBatch:
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    return LogBatch(
        model=first.model,
        version=first.version,
        digest=first.digest,
        request_ids=[name for batch in batches for name in batch.request_ids],
        counts=[count for batch in batches for count in batch.counts],
        rows=np.concatenate([batch.rows for batch in batches]),
        times=np.concatenate([batch.times for batch in batches]),
        seconds=np.concatenate([batch.seconds for batch in batches]),
        inputs={name: np.concatenate([batch.inputs[name] for batch in batches]) for name in first.inputs},
        outputs={name: np.concatenate([batch.outputs[name] for batch in batches]) for name in first.outputs},
    )
