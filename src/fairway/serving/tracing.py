"""OpenTelemetry traces of predictions, made from timestamps after the answer has gone out.

The request path only keeps the moments it measures anyway; `record` puts them into a bounded queue, and a thread makes
spans of them and sends them by OTLP over HTTP. So a traced request costs the event loop a microsecond or two, and an
untraced one a look at its `traceparent`. Nothing of OpenTelemetry is imported before that thread starts, and it starts
only where `telemetry.otlp_endpoint` is set.
"""

from __future__ import annotations

import importlib.util
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from fairway.core.errors import MissingExtra, SettingsError
from fairway.core.settings import TelemetrySettings
from fairway.serving.spans import Served, Stages, Trace, read_traceparent

__all__ = ["Exporter", "Served", "Stages", "Trace", "Tracer", "open_exporter", "open_tracer"]

logger = logging.getLogger("fairway.tracing")

_EXPORT_SECONDS = 1.0
"""Longest time a finished trace waits to be sent."""
_BATCH = 256
"""Requests in one export."""
_CLOSE_SECONDS = 3.0


class Exporter(Protocol):
    """Sends traces; called from one thread."""

    def export(self, traces: list[Trace]) -> bool:
        """Whether they arrived."""

    def close(self) -> None: ...


class Tracer:
    """Decides which requests are traced, and hands them to the thread that exports them. Any thread may call it."""

    def __init__(self, rate: float, queue: int, open_exporter: Callable[[], Exporter]) -> None:
        self._rate = rate
        self._limit = queue
        self._queue: deque[Trace] = deque()
        self._dropped = 0
        self._failed = 0
        self._wake = threading.Event()
        self._closing = False
        self._open_exporter = open_exporter
        self._thread = threading.Thread(target=self._run, name="fairway-traces", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Traces that never arrived: the queue was full, or the collector did not take them."""
        return self._dropped + self._failed

    def wants(self, traceparent: bytes | None) -> bool:
        """Whether to trace a request: as its caller decided, or `trace_rate` of those whose caller said nothing."""
        parent = read_traceparent(traceparent) if traceparent else None
        if parent is not None:
            return parent.sampled
        return self._rate > 0 and random.random() < self._rate  # noqa: S311 - a sample, not a secret

    def record(self, traceparent: bytes | None, started: float, stages: Stages, served: Served) -> None:
        """A request that was answered. `started` and the ends of its stages are `perf_counter` seconds."""
        if len(self._queue) >= self._limit:
            self._dropped += 1
            return
        offset = time.time() - time.perf_counter()
        self._queue.append(Trace(read_traceparent(traceparent), started, stages, served, offset))
        if len(self._queue) >= _BATCH:
            self._wake.set()

    def close(self) -> None:
        """Sends what waits, for a few seconds at most."""
        self._closing = True
        self._wake.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            exporter = self._open_exporter()
        except Exception:
            logger.exception("traces cannot be exported")
            self._limit = 0
            self._dropped += len(self._queue)
            return
        well = True
        while True:
            if len(self._queue) < _BATCH and not self._closing:
                self._wake.wait(_EXPORT_SECONDS)
                self._wake.clear()
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            if batch:
                well = self._export(exporter, batch, well)
            elif self._closing:
                break
        exporter.close()

    def _export(self, exporter: Exporter, batch: list[Trace], well: bool) -> bool:
        """Tells once when it begins to fail, and once when it is well again."""
        try:
            arrived = exporter.export(batch)
        except Exception:
            if well:
                logger.exception("traces could not be exported")
            arrived = False
        if not arrived:
            self._failed += len(batch)
            if well:
                logger.warning("the trace collector does not take traces; they are dropped and counted")
        elif not well:
            logger.warning("the trace collector takes traces again; %d were dropped", self.dropped)
        return arrived


def open_tracer(telemetry: TelemetrySettings) -> Tracer | None:
    """None when no endpoint is set. Raises MissingExtra without the extra `otel`, SettingsError for an endpoint or rate
    that cannot be."""
    if not telemetry.otlp_endpoint:
        return None
    if not 0 <= telemetry.trace_rate <= 1:
        raise SettingsError(f"telemetry.trace_rate is {telemetry.trace_rate}; it must be from 0 to 1.")
    parts = urlsplit(telemetry.otlp_endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            f"telemetry.otlp_endpoint {telemetry.otlp_endpoint!r} is not an address such as http://127.0.0.1:4318."
        )
    if not _installed("opentelemetry.proto"):
        raise MissingExtra(
            "telemetry.otlp_endpoint is set, but OpenTelemetry's messages are not installed.",
            hint="Install them: pip install 'fairway[otel]'",
        )
    return Tracer(telemetry.trace_rate, telemetry.trace_queue, lambda: open_exporter(telemetry))


def open_exporter(telemetry: TelemetrySettings) -> Exporter:
    # Imports protobuf, in the exporting thread: a server is ready before.
    from fairway.serving.otlp import OtlpExporter

    return OtlpExporter(telemetry)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even its parent
        return False
