"""Predictions to the log, off the hot path: an append to a queue here, everything else on one thread.

The queue is bounded in rows and bytes. What does not fit, or cannot be written, is dropped and counted; serving
never waits for the log, except in the durable mode: there `commit` returns when everything is on the disk.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Privacy
from fairway.core.errors import Unavailable
from fairway.core.settings import LogSettings
from fairway.inference.repository import LogHealth
from fairway.security.privacy import Vault, private_fields, private_text
from fairway.stores.arrow_columns import Nested, Texts, same_text, texts_of
from fairway.stores.log_segments import FIELDS, MATRIX, LogBatch, join

logger = logging.getLogger("fairway.log")

_SELDOM, _OFTEN = 0.1, 0.02
"""Seconds between gatherings. Each time all that the thread touches has left the caches, so it is seldom; but where
much comes, what is gathered late has left them too, and one long burst would stand in the tail latency."""
_MUCH = 10_000
"""Rows a second from which on it is often."""
_WRITE_BYTES = (
    1024 * 1024
)  # gathered rows are written early from here on, so that bursts do not pile up in memory
_LARGE_BYTES = 256 * 1024
_OBJECT_BYTES = 1024
"""What the objects around a few values take in the queue."""
_WARN_SECONDS = 30.0
_EVERYTHING = 2**32
KEY_FIELD = "request key"
"""What the routing key is called where it is hashed or tokenised."""


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


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in all predictions of a version: who answers, which fields are private, which share of the
    requests is recorded."""

    model: str
    version: int
    digest: str
    private: Mapping[str, Privacy] = {}
    sample: float = 1.0


Asked = tuple[str, str | None, str | None, str]
"""Of one request: its id, its routing key, the version that it asked for by name (None: the route chose), and the
name of its API key."""


class Predictions(msgspec.Struct, frozen=True, gc=False):
    """Requests that were answered together, `counts` rows each, one after the other in `columns` and `outputs`.

    `time` is when, in seconds since 1970; `seconds` is how long each request took. `sources` says who answered each:
    None for the model. `keys`, where requests have them, are what each row's precomputed answer was found by.
    `violations` are rules that were broken since the last predictions of this version, with their rows."""

    about: Logged
    asked: Sequence[Asked]
    counts: Sequence[int]
    time: float
    seconds: Sequence[float]
    columns: Columns
    outputs: Outputs
    protocol: str = ""
    sources: Sequence[str] | None = None
    keys: Sequence[Sequence[bytes] | None] | None = None
    violations: Mapping[tuple[str, str], int] | None = None

    @property
    def bytes(self) -> int:
        """Rough size of what came and what was answered."""
        return self.columns.bytes + sum([values.nbytes for values in self.outputs.values()])

    @property
    def request_ids(self) -> list[str]:
        return [one[0] for one in self.asked]


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
        self._prepare = _Prepare(settings, open_vault, writer)
        self._queue: deque[Predictions] = deque()
        self._queued_rows = 0
        self._queued_bytes = 0
        self._taken_rows = 0
        self._taken_bytes = 0
        self._lock = threading.Lock()
        self._disk = threading.Lock()
        """Held while the queue is taken and written; in the durable mode by whoever commits too."""
        self._pending: dict[tuple[object, ...], list[LogBatch]] = {}
        self._closed = False
        self._stop = threading.Event()
        self._warned = 0.0
        self._health = LogHealth(since=datetime.now(UTC))
        self._thread = threading.Thread(target=self._run, name="fairway-log", daemon=True)
        self._thread.start()

    @property
    def health(self) -> LogHealth:
        """Whether predictions are being recorded, since when, and why not."""
        return self._health

    def record(self, prediction: Predictions) -> None:
        """Takes the predictions or counts them as dropped; returns at once."""
        rows = prediction.columns.rows
        size = prediction.bytes
        if self._rate and not self._may_spend(size):
            self._counts.passed_over(prediction.about.model, rows)
            return
        size += _OBJECT_BYTES
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
            self._counts.dropped(prediction.about.model, rows)

    def _may_spend(self, size: int) -> bool:
        """A second's worth of bytes may be spent at once, and is there again a second later. What is larger than that
        is taken when nothing has been spent."""
        now = self._clock()
        with self._lock:
            self._left = min(self._rate, self._left + (now - self._refilled) * self._rate)
            self._refilled = now
            if self._left < min(size, self._rate):
                return False
            self._left -= size
            return True

    def commit(self) -> None:
        """In the durable mode, returns when what was recorded is on the disk or counted as dropped; else at once."""
        if self._settings.durable and self._queued_rows:  # until they are written, wherever they wait
            with self._disk:
                self._gather()
                self._write()

    def close(self) -> None:
        """Writes what is queued and closes the log."""
        with self._lock:
            self._closed = True
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        written = time.monotonic()
        pause = _OFTEN
        while True:
            stopping = self._stop.wait(min(pause, self._settings.flush_seconds))
            due = time.monotonic() - written >= self._settings.flush_seconds
            with self._disk:
                pause = _OFTEN if self._gather() > _MUCH * pause else _SELDOM
                if stopping or due or self._taken_bytes >= _WRITE_BYTES:
                    self._write()
                    self._log.close_old()
                    written = time.monotonic()
                if stopping:
                    self._log.close()
                    return

    def _gather(self) -> int:
        """Moves the queue into batches; returns how many rows."""
        if not self._queue:
            return 0
        with self._lock:
            taken, self._queue = self._queue, deque()
        gathered = sum([prediction.columns.rows for prediction in taken])
        self._taken_rows += gathered
        groups: dict[tuple[Any, ...], list[Predictions]] = {}
        for prediction in taken:
            self._taken_bytes += prediction.bytes + _OBJECT_BYTES
            about = prediction.about
            groups.setdefault((about.model, about.version, prediction.columns.names), []).append(prediction)
        for predictions in groups.values():
            try:
                batch = self._prepare.batch(predictions)
            except Exception:  # the thread must live on, or nothing would be recorded again
                rows = sum(prediction.columns.rows for prediction in predictions)
                self._counts.dropped(predictions[0].about.model, rows)
                logger.exception("predictions of %s could not be recorded", predictions[0].about.model)
                continue
            if batch is not None:
                self._pending.setdefault(batch.shape, []).append(batch)
        return gathered

    def _write(self) -> None:
        pending, self._pending = self._pending, {}
        failure: Unavailable | None = None
        for group in (group for batches in pending.values() for group in _of_a_size(batches)):
            model, rows = group[0].model, sum(map(len, group))
            try:
                size = self._log.append(join(group))
                if self._settings.durable:
                    self._log.sync()
            except Unavailable as error:
                failure = error
                self._counts.dropped(model, rows)
            except Exception:
                self._counts.dropped(model, rows)
                logger.exception("a batch of predictions of %s could not be recorded", model)
            else:
                self._counts.written(model, rows, size)
        if pending:
            self._say(failure)
        with self._lock:  # rows count against the limit until they are written, so memory stays bounded
            self._queued_rows -= self._taken_rows
            self._queued_bytes -= self._taken_bytes
        self._taken_rows = self._taken_bytes = 0

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
        if time.monotonic() - self._warned > _WARN_SECONDS:
            self._warned = time.monotonic()
            logger.error("predictions are not being recorded: %s", failure)


class _Prepare:
    """Makes batches for the log: a share of the requests, private fields never as they are."""

    def __init__(self, settings: LogSettings, open_vault: Callable[[], Vault | None], writer: str) -> None:
        self._settings = settings
        self._open_vault = open_vault
        self._vault: Vault | None = None
        self._opened = False
        self._writer = writer
        self._violations: dict[tuple[str, int], dict[tuple[str, str], int]] = {}

    def batch(self, predictions: Sequence[Predictions]) -> LogBatch | None:
        """Predictions of one version as rows; None when none of them is in the sample."""
        about = predictions[0].about
        for prediction in predictions:
            if prediction.violations:
                self._note(about, prediction.violations)
        asked = [one for prediction in predictions for one in prediction.asked]
        counts = [count for prediction in predictions for count in prediction.counts]
        chosen = None
        if about.sample < 1.0:
            chosen = np.array([in_sample(one[0], about.sample) for one in asked])
            if not chosen.any():
                return None
        return self._made(about, predictions, asked, counts, chosen) if sum(counts) else None

    def _made(
        self,
        about: Logged,
        predictions: Sequence[Predictions],
        asked: list[Asked],
        counts: list[int],
        chosen: Array | None,
    ) -> LogBatch:
        ids, keys, wanted, callers = zip(*asked, strict=True)
        calls = [len(prediction.counts) for prediction in predictions]
        times = np.repeat(np.array([prediction.time for prediction in predictions]), calls)
        parts = [prediction.columns for prediction in predictions]
        matrix = None if about.private else _matrix(parts)
        outputs = {
            name: _whole([prediction.outputs[name] for prediction in predictions])
            for name in predictions[0].outputs
        }
        vault = self._key() if about.private or self._settings.key_privacy in ("hash", "token") else None
        inputs = {} if matrix is not None else private_fields(_inputs(parts), about.private, vault)
        columns = {
            "time": (times * 1e6).astype(np.int64).view("datetime64[us]"),
            "version": np.full(len(asked), about.version, dtype=np.int32),
            "seconds": np.array([s for prediction in predictions for s in prediction.seconds], np.float32),
        }
        arm = f"v{about.version}"
        texts = {
            "request_id": texts_of(ids),
            "key": self._texts([*keys], vault),
            "arm": _texts([arm if one is None else None for one in wanted]),
            "source": _texts(_each(predictions, lambda p: p.sources, "live")),
            "protocol": _texts(_each(predictions, lambda p: None, None)),
            "caller": _texts(callers),
        }
        nested = Nested(
            np.array(counts, np.int32),
            {},
            {
                **({} if matrix is None else {MATRIX: matrix}),
                **{f"input.{name}": values for name, values in inputs.items()},
                **{f"output.{name}": values for name, values in outputs.items()},
            },
        )
        own = self._own_keys(predictions, keys, counts, vault)
        if own is not None:
            del texts["key"]
            nested = msgspec.structs.replace(nested, texts={"key": own})
        if chosen is not None and not chosen.all():
            columns, texts, nested = _only(chosen, columns, texts, nested)
        texts["violations"] = self._violations_text(about, len(nested.counts))
        return LogBatch(
            model=about.model,
            stream=f"v{about.version}",
            metadata=self._metadata(about, None if matrix is None else parts[0].names),
            texts=texts,
            columns=columns,
            nested=nested,
        )

    def _metadata(self, about: Logged, fields: Sequence[str] | None) -> dict[str, str]:
        """What is the same in every row; `fields` are those of a matrix."""
        metadata = {
            "fairway.model": about.model,
            "fairway.digest": about.digest,
            "fairway.writer": self._writer,
            "fairway.sample": repr(about.sample),
        }
        if fields is not None:
            metadata[FIELDS] = msgspec.json.encode(fields).decode()
        return metadata

    def _own_keys(
        self,
        predictions: Sequence[Predictions],
        keys: Sequence[str | None],
        counts: Sequence[int],
        vault: Vault | None,
    ) -> Texts | None:
        """The key of each row, where precomputed answers are looked for by them."""
        if not any(prediction.keys is not None for prediction in predictions):
            return None
        own = [one for p in predictions for one in (p.keys or [None] * len(p.counts))]
        values: list[str | None] = []
        for each, key, count in zip(own, keys, counts, strict=True):
            values += [key] * count if each is None else [k.decode("utf-8", "replace") for k in each]
        return self._texts(values, vault)

    def _texts(self, keys: Sequence[str | None], vault: Vault | None) -> Texts:
        how = self._settings.key_privacy
        return _texts([None if key is None else private_text(vault, KEY_FIELD, key, how) for key in keys])

    def _key(self) -> Vault | None:
        """The key of private values, None when there is none: they are then not written at all."""
        if not self._opened:
            self._opened = True
            self._vault = self._open_vault()
        return self._vault

    def _note(self, about: Logged, violations: Mapping[tuple[str, str], int]) -> None:
        noted = self._violations.setdefault((about.model, about.version), {})
        for place, rows in violations.items():
            noted[place] = noted.get(place, 0) + rows

    def _violations_text(self, about: Logged, rows: int) -> Texts:
        """Broken rules stand in the first row that is written after they were broken."""
        noted = self._violations.pop((about.model, about.version), None)
        if not noted:
            return same_text(None, rows)
        told = [{"field": field, "rule": rule, "rows": count} for (field, rule), count in noted.items()]
        data = msgspec.json.encode(told)
        lengths = np.zeros(rows, np.int32)
        lengths[0] = len(data)
        present = np.zeros(rows, bool)
        present[0] = True
        return Texts(lengths, data, present)


def _of_a_size(batches: Sequence[LogBatch]) -> Iterator[list[LogBatch]]:
    """Small batches to be joined; large ones each alone, since copying them once more is what they would cost most."""
    small: list[LogBatch] = []
    for batch in batches:
        if batch.bytes >= _LARGE_BYTES:
            yield [batch]
        else:
            small.append(batch)
    if small:
        yield small


def _whole(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def in_sample(request_id: str, share: float) -> bool:
    """Whether a request is recorded: decided by its id alone, so that every process decides alike."""
    return zlib.crc32(request_id.encode("utf-8", "replace")) < share * _EVERYTHING


def _each(
    predictions: Sequence[Predictions], of: Callable[[Predictions], Sequence[str] | None], default: str | None
) -> list[str | None]:
    values: list[str | None] = []
    for prediction in predictions:
        given = of(prediction)
        fallback = prediction.protocol if default is None else default
        values += [fallback] * len(prediction.counts) if given is None else given
    return values


def _texts(values: Sequence[str | None]) -> Texts:
    """A value a row; mostly all are the same."""
    first = values[0]
    return same_text(first, len(values)) if values.count(first) == len(values) else texts_of(values)


def _only(
    chosen: Array, columns: dict[str, Array], texts: dict[str, Texts], nested: Nested
) -> tuple[dict[str, Array], dict[str, Texts], Nested]:
    """The requests that are in the sample, with their rows."""
    rows = np.repeat(chosen, nested.counts)
    return (
        {name: values[chosen] for name, values in columns.items()},
        {name: values.take(chosen) for name, values in texts.items()},
        Nested(
            nested.counts[chosen],
            {name: values.take(rows) for name, values in nested.texts.items()},
            {name: values[rows] for name, values in nested.columns.items()},
        ),
    )


def _inputs(columns: Sequence[Columns]) -> dict[str, Array]:
    parts = zip(*[part.arrays for part in columns], strict=True)
    return {name: _whole(arrays) for name, arrays in zip(columns[0].names, parts, strict=True)}


def _matrix(columns: Sequence[Columns]) -> Array | None:
    """The inputs as one matrix, where that is what they are: turning it into columns is left to who reads the log."""
    packed = [part.packed for part in columns if part.packed is not None]
    return _whole(packed) if len(packed) == len(columns) else None
