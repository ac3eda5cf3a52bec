"""Predictions to the log, off the hot path: a copy into memory here, everything else on one thread.

What is in memory is bounded in rows and bytes. What does not fit, or cannot be written, is dropped and counted; serving
never waits for the log, except in the durable mode: there `commit` returns when everything is on the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from fairway.core.errors import Unavailable
from fairway.core.settings import LogSettings
from fairway.inference.gathered import Gathered, likely_shape, shape_of
from fairway.inference.log_batches import Broken, LogBatches
from fairway.inference.predictions import Predictions, sampled
from fairway.inference.repository import LogHealth
from fairway.security.privacy import Vault
from fairway.stores.log_segments import LogBatch

logger = logging.getLogger("fairway.log")

_WRITE_BYTES = 2 * 1024 * 1024
"""So much is written early, so that bursts do not pile up in memory."""
_KEPT_BYTES = 8 * 1024 * 1024
"""The most memory that is kept for the next predictions of a version and shape."""
_FRESH_ROWS = 64
"""Small calls are gathered several at once, for one costs nearly as much; and so few that they are in the caches still."""
_FRESH_BYTES = 256 * 1024
"""Large calls are gathered at once."""
_REQUEST_BYTES = 128
"""About what is kept of who asked and how."""
_SAY_SECONDS = 30.0


class Log(Protocol):
    def append(self, batch: LogBatch) -> int: ...

    def sync(self) -> None: ...

    def close_old(self) -> None: ...

    def close(self) -> None: ...


class Counts(Protocol):
    """Told what becomes of rows."""

    def dropped(self, model: str, rows: int) -> None: ...

    def passed_over(self, model: str, rows: int) -> None: ...

    def written(self, model: str, rows: int, size: int) -> None: ...

    def failing(self, failing: bool) -> None: ...


class _Amount:
    """Of rows, and of bytes with what is kept of their requests."""

    def __init__(self) -> None:
        self.rows = 0
        self.bytes = 0


class Recorder:
    """Owns the log and the thread that writes it. `open_vault` gives the key of private fields when one is needed."""

    def __init__(
        self,
        log: Log,
        settings: LogSettings,
        counts: Counts,
        open_vault: Callable[[], Vault | None] = lambda: None,
        writer: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._rate = float(settings.bytes_per_second)
        self._left, self._refilled = self._rate, clock()
        self._settings = settings
        self._counts = counts
        self._batches = LogBatches(settings, open_vault, writer)
        self._lock = threading.Lock()
        """Held for what is gathered, and for as long as a copy takes."""
        self._disk = threading.Lock()
        """Held while what is gathered is taken and written; in the durable mode by whoever commits too."""
        self._fresh: deque[tuple[Predictions, int]] = deque()
        """What came last and its bytes, to be gathered when there is enough of it."""
        self._fresh_rows = self._fresh_bytes = 0
        self._gathered: dict[tuple[object, ...], Gathered] = {}
        """By version and shape."""
        self._empty: dict[tuple[object, ...], Gathered] = {}
        """What was written, to be filled again while the other is written."""
        self._broken: dict[tuple[str, int], list[Broken]] = {}
        self._waiting, self._writing = _Amount(), _Amount()
        self._closed = False
        self._due = threading.Event()
        self._said = 0.0
        self._health = LogHealth(since=datetime.now(UTC))
        self._thread = threading.Thread(target=self._run, name="fairway-log", daemon=True)
        self._thread.start()

    @property
    def health(self) -> LogHealth:
        """Whether predictions are being recorded, since when, and why not."""
        return self._health

    def record(self, predictions: Predictions) -> None:
        """Takes the predictions or counts them as dropped; returns at once. Their arrays stay as they are until they are
        gathered, which happens by itself."""
        size = predictions.bytes
        self._fresh.append((predictions, size))
        self._fresh_rows += predictions.columns.rows  # threads may lose some: it only says when to gather
        self._fresh_bytes += size
        if self._fresh_rows >= _FRESH_ROWS or self._fresh_bytes >= _FRESH_BYTES or self._closed:
            self.gather()

    def gather(self) -> None:
        """Copies what came: its arrays may change from now on."""
        with self._lock:
            self._gather()

    def _gather(self) -> None:
        """As `gather`; the lock is held."""
        groups: dict[tuple[object, ...], list[Predictions]] = {}
        self._fresh_rows = self._fresh_bytes = 0
        while self._fresh:
            taken = self._taken(*self._fresh.popleft())
            if taken is not None:
                groups.setdefault(likely_shape(taken), []).append(taken)
        for shape, group in groups.items():
            try:
                self._room_for(group[0], shape).add(group)
            except (TypeError, ValueError, MemoryError):
                for one in group:
                    self._gather_alone(one, shape)
        if self._waiting.bytes >= _WRITE_BYTES and not self._due.is_set():
            self._due.set()

    def _taken(self, predictions: Predictions, size: int) -> Predictions | None:
        """What is to be recorded of them; what is not, and should have been, is counted."""
        about = predictions.about
        if predictions.violations:
            self._broken.setdefault((about.model, about.version), []).append(predictions.violations)
        if about.sample < 1.0:
            chosen = sampled(predictions)
            if chosen is None:
                return None
            predictions, size = chosen, chosen.bytes
        rows = predictions.columns.rows
        if not rows:
            return None
        if self._rate and self._left < size and not self._may_spend(size):
            self._counts.passed_over(about.model, rows)
            return None
        waiting, writing, settings = self._waiting, self._writing, self._settings
        if (
            self._closed
            or waiting.rows + writing.rows + rows > settings.queue_rows
            or waiting.bytes + writing.bytes + size > settings.queue_bytes
        ):
            self._counts.dropped(about.model, rows)
            return None
        self._left -= size
        waiting.rows += rows
        waiting.bytes += size + _REQUEST_BYTES * len(predictions.requests)
        return predictions

    def _gather_alone(self, predictions: Predictions, shape: tuple[object, ...]) -> None:
        """Of those that are not all of one shape."""
        about = predictions.about
        try:
            self._room_for(predictions, (*shape, *shape_of(predictions))).add([predictions], "unsafe")
        except Exception:  # no answer is lost because it cannot be recorded
            self._counts.dropped(about.model, predictions.columns.rows)
            if self._may_say():
                logger.exception("predictions of %s cannot be recorded", about.model)

    def _room_for(self, predictions: Predictions, shape: tuple[object, ...]) -> Gathered:
        found = self._gathered.get(shape)
        if found is None:
            found = self._gathered[shape] = Gathered(predictions)
        return found

    def _may_spend(self, size: int) -> bool:
        """A second's worth of bytes may be spent at once, and is there again a second later. What is larger than that
        is taken when nothing has been spent."""
        now = self._clock()
        self._left = min(self._rate, self._left + (now - self._refilled) * self._rate)
        self._refilled = now
        return self._left >= min(size, self._rate)

    def commit(self) -> None:
        """In the durable mode, returns when what was recorded is on the disk or counted as dropped; else at once."""
        if self._settings.durable and (self._fresh or self._waiting.rows or self._writing.rows):
            with self._disk:  # whoever writes now has it until it is written
                self._write()

    def close(self) -> None:
        """Writes what is gathered and closes the log."""
        with self._lock:
            self._gather()
            self._closed = True
        self._due.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            self._due.wait(self._settings.flush_seconds)
            self._due.clear()
            closed = self._closed
            with self._disk:
                self._write()
                self._log.close_old()
                if closed:
                    self._log.close()
                    return

    def _take(self) -> dict[tuple[object, ...], Gathered]:
        """What is gathered; what comes now is gathered elsewhere."""
        with self._lock:
            self._gather()
            taken, self._gathered, self._empty = self._gathered, self._empty, {}
            broken, self._broken = self._broken, {}
            self._writing, self._waiting = self._waiting, _Amount()
        for (model, version), each in broken.items():
            for one in each:
                self._batches.note(model, version, one)
        return {key: gathered for key, gathered in taken.items() if gathered.rows}

    def _write(self) -> None:
        failure: Unavailable | None = None
        taken = self._take()
        for key, gathered in taken.items():
            model, rows = gathered.about.model, gathered.rows
            try:
                size = self._log.append(self._batches.batch(gathered))
                if self._settings.durable:
                    self._log.sync()
            except Unavailable as error:
                failure = error
                self._counts.dropped(model, rows)
            except Exception:  # the thread must live on, or nothing would be recorded again
                self._counts.dropped(model, rows)
                logger.exception("predictions of %s could not be recorded", model)
            else:
                self._counts.written(model, rows, size)
            gathered.clear()
            if gathered.room_bytes <= _KEPT_BYTES:
                self._empty[key] = gathered
        if taken:
            self._say(failure)
        with self._lock:  # rows count against the limit until they are written, so memory stays bounded
            self._writing = _Amount()

    def _say(self, failure: Unavailable | None) -> None:
        """Keeps the state that readiness and metrics tell."""
        if failure is None:
            if not self._health.recording:
                self._health = LogHealth(since=datetime.now(UTC))
                self._counts.failing(False)
                logger.warning("predictions are being recorded again")
            return
        if self._health.recording:
            self._health = LogHealth(recording=False, since=datetime.now(UTC), reason=str(failure))
            self._counts.failing(True)
        if self._may_say():
            logger.error("predictions are not being recorded: %s", failure)

    def _may_say(self) -> bool:
        """Not more often than somebody reads it."""
        now = time.monotonic()
        if now - self._said <= _SAY_SECONDS:
            return False
        self._said = now
        return True
