"""Answers kept for requests that come again: optional, one cache a model and worker.

Two requests are the same when they go to the same version (by digest) and every byte of their validated columns is
the same: dtypes, shapes, nulls, the sign of a zero. The whole key is kept beside the answer and compared; a hash
only finds it. (Triton compares a 64-bit hash alone, and says that a collision gives a wrong answer.) Outputs are
kept whole, whatever the caller wanted of them. Failures are not kept.
"""

from __future__ import annotations

import marshal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.errors import SettingsError
from fairway.core.settings import Settings
from fairway.stores.counters import Counters

Key = tuple[object, ...]
"""The version's digest, then dtype, shape and content of the matrix, or of every column."""

ENTRY_BYTES = 480
"""What an entry takes besides its parts: its place in the table, its struct, its tuple and its dict."""
PART_BYTES = 128
"""What an array of an answer, or a column of a key, takes besides its content."""
LARGEST = 8
"""One answer may take at most a cache's `1 / LARGEST`, so that no request empties it for all others."""
_NO_REFERENCES = 2
"""The marshal format whose bytes depend on the values alone, not on which strings are the same object."""


class _Entry(msgspec.Struct, gc=False):
    outputs: Outputs
    bytes: int
    expires: float


class ResponseCache:
    """At most `max_bytes` of keys and answers, each for `ttl_seconds`; the least recently used go first.

    Safe to use from several threads. `clock` gives seconds. Counts `fairway_cache_hits_total`, `_misses_total`,
    `_evicted_total` (for room) and the gauge `fairway_cache_bytes`, each by model.
    """

    def __init__(
        self,
        model: str,
        max_bytes: int,
        ttl_seconds: float,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._most = max_bytes // LARGEST
        self._ttl = ttl_seconds
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()
        labels = (("model", model),)
        self._count = counters.values  # these slots are written under this cache's lock, and nowhere else
        self._hits = counters.slot("fairway_cache_hits_total", labels)
        self._misses = counters.slot("fairway_cache_misses_total", labels)
        self._evicted = counters.slot("fairway_cache_evicted_total", labels)
        self._bytes = counters.slot("fairway_cache_bytes", labels)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes in use."""
        return self._used

    def key(self, digest: str, columns: Columns) -> Key | None:
        """What this request is known by; None for one too large to keep. Make it before the engine runs."""
        packed = columns.packed
        if packed is not None:
            if packed.nbytes > self._most:
                return None
            return digest, packed.dtype, packed.shape, packed.tobytes()
        if columns.bytes > self._max_bytes:  # a rough size, so that the copy below is not made in vain
            return None
        parts: list[object] = [digest]
        for values in columns.arrays:
            parts += (values.dtype, values.shape, _content(values))
        return tuple(parts)

    def find(self, key: Key) -> Outputs | None:
        """The answer to the same request, its arrays read-only; None when there is none, or none that young."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or self._clock() >= entry.expires:
                if entry is not None:
                    self._drop(key, entry)
                self._count[self._misses] += 1.0
                return None
            self._entries.move_to_end(key)
            self._count[self._hits] += 1.0
            return dict(entry.outputs)

    def keep(self, key: Key, outputs: Outputs) -> None:
        """Keeps a copy of an answer. One too large, or that holds objects that could change, is not kept."""
        copies: Outputs = {}
        size = ENTRY_BYTES + _key_bytes(key)
        for name, values in outputs.items():
            content = _content_bytes(values)
            if content is None:
                return
            # A copy of its own: the caller may write into what it was given, and a view of a batch's answer would
            # hold all of the batch.
            copies[name] = copy = np.array(values)
            copy.flags.writeable = False
            size += PART_BYTES + content
        if size > self._most:
            return
        with self._lock:
            known = self._entries.get(key)
            if known is not None:
                self._drop(key, known)
            self._entries[key] = _Entry(copies, size, self._clock() + self._ttl)
            self._used += size
            while self._used > self._max_bytes:
                oldest = next(iter(self._entries))
                self._drop(oldest, self._entries[oldest])
                self._count[self._evicted] += 1.0
            self._count[self._bytes] = self._used

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()
            self._used = 0
            self._count[self._bytes] = 0.0

    def _drop(self, key: Key, entry: _Entry) -> None:
        del self._entries[key]
        self._used -= entry.bytes
        self._count[self._bytes] = self._used


def cache_of(settings: Settings, model: str, counters: Counters) -> ResponseCache | None:
    """The cache of a model, or None where it has none (the default).

    Raises SettingsError where a model has a time to keep answers and no room for them.
    """
    own = settings.models.get(model)
    size, seconds = settings.cache.max_bytes, settings.cache.ttl_seconds
    if own is not None:
        size = size if own.cache_bytes is None else own.cache_bytes
        seconds = seconds if own.cache_seconds is None else own.cache_seconds
        if own.cache_seconds and not size and own.cache_bytes is None:
            raise SettingsError(
                f"[models.{model}] has cache_seconds = {own.cache_seconds:g} and no room for answers.",
                hint="Set cache_bytes there too, such as 67108864.",
            )
    if not size or not seconds:
        return None
    return ResponseCache(model, size, seconds, counters)


def _content(values: Array) -> bytes:
    """The exact content of a column. Text is length-prefixed and tagged, so that no two columns look alike."""
    if values.dtype.kind == "O":
        return marshal.dumps(values.tolist(), _NO_REFERENCES)
    return values.tobytes()


def _key_bytes(key: Key) -> int:
    return sum(PART_BYTES + len(part) for part in key if isinstance(part, bytes))


def _content_bytes(values: Array) -> int | None:
    """Bytes of an array's content; None when it holds objects that somebody could change."""
    if values.dtype.kind != "O":
        return values.nbytes
    size = values.nbytes
    for value in values.flat:
        if value is not None and type(value) not in _FIXED:
            return None
        size += sys.getsizeof(value)
    return size


_FIXED = frozenset([str, bytes, int, float, bool])
