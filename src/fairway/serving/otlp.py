"""Traces as OpenTelemetry spans, sent by OTLP over HTTP. Imported only where traces are on: needs the extra `otel`."""

from __future__ import annotations

import logging
import random

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from fairway import __version__
from fairway.core.settings import TelemetrySettings
from fairway.serving.tracing import Trace, attributes_of, is_failure, resource_of

_PATH = "/v1/traces"
_TIMEOUT_SECONDS = 5.0
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("fairway", __version__)


class OtlpExporter:
    """Sends to `<otlp_endpoint>/v1/traces`, or to the endpoint as it is when it ends so."""

    def __init__(self, telemetry: TelemetrySettings) -> None:
        endpoint = telemetry.otlp_endpoint.rstrip("/")
        # It would log every failure of every batch; the tracer says once that exports fail.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._resource = Resource(resource_of(telemetry))
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint if endpoint.endswith(_PATH) else endpoint + _PATH,
            headers=telemetry.otlp_headers,
            timeout=_TIMEOUT_SECONDS,
        )

    def export(self, traces: list[Trace]) -> bool:
        spans = [span for trace in traces for span in spans_of(trace, self._resource)]
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def spans_of(trace: Trace, resource: Resource) -> list[ReadableSpan]:
    """A server span for the request, child of the caller's span if there is one, and a child for each stage.

    They are made as the SDK's exporters read them, not through its tracer, whose spans begin and end in real time and
    cost ten times as much."""
    parent, served = trace.parent, trace.served
    trace_id = parent.trace_id if parent is not None else _random_id(128)
    context = SpanContext(trace_id, _random_id(64), is_remote=False, trace_flags=_SAMPLED)
    above = None
    if parent is not None:
        above = SpanContext(trace_id, parent.span_id, is_remote=True, trace_flags=_SAMPLED)
    ended = trace.stages[-1][1] if trace.stages else trace.started
    failed = is_failure(served.status)
    spans = [
        ReadableSpan(
            name=served.method or f"infer {served.model}".rstrip(),
            context=context,
            parent=above,
            resource=resource,
            attributes=attributes_of(served),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR, served.error or None) if failed else Status(),
            start_time=_nanoseconds(trace.started + trace.clock_offset),
            end_time=_nanoseconds(ended + trace.clock_offset),
            instrumentation_scope=_SCOPE,
        )
    ]
    began = trace.started
    for name, moment in trace.stages:
        spans.append(
            ReadableSpan(
                name=name,
                context=SpanContext(trace_id, _random_id(64), is_remote=False, trace_flags=_SAMPLED),
                parent=context,
                resource=resource,
                kind=SpanKind.INTERNAL,
                start_time=_nanoseconds(began + trace.clock_offset),
                end_time=_nanoseconds(moment + trace.clock_offset),
                instrumentation_scope=_SCOPE,
            )
        )
        began = moment
    return spans


def _random_id(bits: int) -> int:
    return random.getrandbits(bits) or 1  # ids must differ, not be secret; zero is not one


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
