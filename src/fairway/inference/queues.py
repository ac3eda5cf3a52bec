"""The queue of each version, made when a call first has to wait, and the threads that all queues share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary, ref

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import Overloaded
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.live import LiveVersion
from fairway.inference.memory import LARGE_BYTES, keep_freed
from fairway.inference.microbatch import MergingQueue
from fairway.inference.stats import queue_depth
from fairway.stores.counters import Counters

_PLAIN = ModelSettings()
Call = Callable[[LiveVersion, int, Columns], Outputs]
"""An engine call made for so many requests."""


class Queues:
    """`call` makes the engine calls. Safe from any thread."""

    def __init__(self, settings: Settings, counters: Counters, call: Call) -> None:
        self._settings = settings
        self._counters = counters
        self._call = call
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._queues: WeakKeyDictionary[LiveVersion, MergingQueue] = WeakKeyDictionary()

    def of(self, version: LiveVersion) -> MergingQueue:
        with self._lock:
            queue = self._queues.get(version)
            if queue is None:
                own = self._settings.models.get(version.model, _PLAIN)
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(
                        self._settings.serving.threads, thread_name_prefix="fairway-run"
                    )
                queued = _Queued(version, self._call)
                queue = self._queues[version] = MergingQueue(
                    f"{version.model}:{version.version}",
                    queued.run,
                    queued,
                    limit=own.queue or self._settings.serving.queue,
                    runners=min(own.threads or _runners(self._settings), version.calls_at_once),
                    submit=self._threads.submit,
                    count=queue_depth(self._counters, version.model, version.version),
                )
            return queue

    def close(self) -> None:
        """Runs what still waits."""
        if self._threads is not None:
            self._threads.shutdown()


class _Queued:
    """A version as its queue sees it. Who waits holds the version, the queue does not: when nobody waits and nothing
    routes to it any more, it goes."""

    def __init__(self, version: LiveVersion, call: Call) -> None:
        self._version = ref(version)
        self._call = call

    def run(self, columns: Columns) -> Outputs:
        version = self._version()
        if version is None:
            raise Overloaded("this version is not loaded any more.", hint="Try again.")
        if columns.bytes >= LARGE_BYTES:
            keep_freed()
        return self._call(version, 1, columns)

    def merged(self, requests: int) -> None:
        version = self._version()
        if version is not None:
            version.stats.merged(requests)

    def merge_rows(self) -> int:
        version = self._version()
        return 1 if version is None else version.merge_rows()


def _runners(settings: Settings) -> int:
    """Engine calls at once: one for each core that a worker has to itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (settings.serving.workers * settings.serving.engine_threads))
