"""Traces as OpenTelemetry's messages, sent by OTLP over HTTP. Imported only where traces are on: needs the extra `otel`.

Built with the published messages (opentelemetry-proto), not through the SDK: its spans and their encoding take 300 us a
request, and these 90, in a thread that shares its interpreter with the event loop.

Sources: opentelemetry.io/docs/specs/otlp (OTLP/HTTP: path, content type, which statuses may be tried again, Retry-After).
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from fairway.core.release import VERSION
from fairway.core.settings import TelemetrySettings
from fairway.serving.spans import Trace, attributes_of, is_failure, resource_of

_PATH = "/v1/traces"
_TIMEOUT_SECONDS = 5.0
_TRIES = 3
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
_AGAIN = frozenset({429, 502, 503, 504})
_SAMPLED = 1
_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200
"""Flags of a span that say whether its parent lives in another process (trace.proto, SpanFlags)."""


class OtlpExporter:
    """Sends to `<otlp_endpoint>/v1/traces`, or to the endpoint as it is when it ends so."""

    def __init__(self, telemetry: TelemetrySettings, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(telemetry.otlp_endpoint)
        path = parts.path.rstrip("/")
        self._path = path if path.endswith(_PATH) else path + _PATH
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"content-type": "application/x-protobuf", **telemetry.otlp_headers}
        self._resource = resource_of(telemetry)
        self._sleep = sleep

    def export(self, traces: list[Trace]) -> bool:
        body = request_of(traces, self._resource).SerializeToString()
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(_TRIES):
            status, retry_after = self._post(body)
            if status not in _AGAIN or attempt == _TRIES - 1:
                return 200 <= status < 300
            self._sleep(min(retry_after if retry_after is not None else pause, _LONGEST_PAUSE_SECONDS))
            pause *= 2
        return False

    def close(self) -> None:
        self._connection.close()

    def _post(self, body: bytes) -> tuple[int, float | None]:
        """Status and `Retry-After`; a collector that cannot be reached is as good as a 503."""
        try:
            self._connection.request("POST", self._path, body, self._headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # opened again by the next request
            return http.HTTPStatus.SERVICE_UNAVAILABLE, None
        told = answer.headers.get("retry-after", "")
        return answer.status, float(told) if told.isdigit() else None


def request_of(traces: list[Trace], resource: dict[str, str | int]) -> Any:
    """The OTLP message of some traces."""
    message = ExportTraceServiceRequest()
    all_spans: ResourceSpans = message.resource_spans.add()
    _set_attributes(all_spans.resource, resource)
    scope: ScopeSpans = all_spans.scope_spans.add()
    scope.scope.name, scope.scope.version = "fairway", VERSION
    for trace in traces:
        _add(scope, trace)
    return message


def _add(scope: ScopeSpans, trace: Trace) -> None:
    """A server span for the request, child of the caller's span if there is one, and a child for each stage."""
    parent, served = trace.parent, trace.served
    trace_id = parent.trace_id.to_bytes(16, "big") if parent is not None else _random_id(16)
    span_id = _random_id(8)
    ended = trace.stages[-1][1] if trace.stages else trace.started
    span: Span = scope.spans.add(
        trace_id=trace_id,
        span_id=span_id,
        name=served.method or f"infer {served.model}".rstrip(),
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=_nanoseconds(trace.started + trace.clock_offset),
        end_time_unix_nano=_nanoseconds(ended + trace.clock_offset),
        flags=_SAMPLED | _HAS_REMOTE | (_IS_REMOTE if parent is not None else 0),
    )
    if parent is not None:
        span.parent_span_id = parent.span_id.to_bytes(8, "big")
    _set_attributes(span, attributes_of(served))
    if is_failure(served.status):
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = served.error
    began = span.start_time_unix_nano
    for name, moment in trace.stages:
        end = _nanoseconds(moment + trace.clock_offset)
        scope.spans.add(
            trace_id=trace_id,
            span_id=_random_id(8),
            parent_span_id=span_id,
            name=name,
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=began,
            end_time_unix_nano=end,
            flags=_SAMPLED | _HAS_REMOTE,
        )
        began = end


def _set_attributes(holder: Any, attributes: dict[str, str | int]) -> None:
    for name, value in attributes.items():
        pair = holder.attributes.add(key=name)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value


def _random_id(size: int) -> bytes:
    """Not all zeros, which is no id; ids must differ, not be secret."""
    return (random.getrandbits(size * 8) or 1).to_bytes(size, "big")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
