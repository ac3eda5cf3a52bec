"""What traces are made of: the caller's `traceparent`, a request's moments, and what its spans say.

Sources: W3C Trace Context (w3.org/TR/trace-context) for `traceparent`; OpenTelemetry's semantic conventions for the names
of attributes and for which statuses are errors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import msgspec

from fairway.core.release import VERSION
from fairway.core.settings import TelemetrySettings

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED = 1
_HTTP_STATUSES = 100
"""Statuses from here on are HTTP's; smaller ones are gRPC's codes."""
_GRPC_FAILURES = frozenset({2, 4, 12, 13, 14, 15})
"""UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server's own, by the conventions."""

Stages = Sequence[tuple[str, float]]
"""Names of stages with the moments they ended; each began where the one before it ended."""


class Served(msgspec.Struct, frozen=True, gc=False):
    """What a span says about a request. `status` is the HTTP status, or the number of a gRPC code (below 100).
    `method` names the operation with few different values, such as `POST /v2/models/{model}/infer`. What is not
    known stays empty; `error` is Fairway's error code."""

    model: str
    protocol: str
    status: int
    request_id: str
    version: int = 0
    digest: str = ""
    rows: int = 0
    method: str = ""
    error: str = ""
    source: str = ""
    """Who answered, for a model with precomputed answers."""


class Parent(msgspec.Struct, frozen=True, gc=False):
    """The caller's span."""

    trace_id: int
    span_id: int
    sampled: bool


def read_traceparent(header: bytes | None) -> Parent | None:
    """None for one that is missing or not valid, which the standard says to ignore."""
    found = _TRACEPARENT.match(header.strip()) if header else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    parent = Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return parent if parent.trace_id and parent.span_id else None


class Trace(msgspec.Struct, frozen=True, gc=False):
    """A request on its way to becoming spans. `started` and the stages are `perf_counter` seconds; `clock_offset` added
    to them gives seconds since 1970."""

    parent: Parent | None
    started: float
    stages: Stages
    served: Served
    clock_offset: float


def is_failure(status: int) -> bool:
    """Whether a status is the server's fault, which is what makes a server span an error."""
    return status >= 500 or (status < _HTTP_STATUSES and status in _GRPC_FAILURES)


def attributes_of(served: Served) -> dict[str, str | int]:
    """The span's attributes; what is not known is left out."""
    code = "http.response.status_code" if served.status >= _HTTP_STATUSES else "rpc.grpc.status_code"
    known: dict[str, str | int] = {
        "fairway.model": served.model,
        "fairway.version": served.version,
        "fairway.digest": served.digest,
        "fairway.rows": served.rows,
        "fairway.protocol": served.protocol,
        "fairway.request_id": served.request_id,
        "fairway.source": served.source,
        "error.type": served.error,
    }
    return {code: served.status, **{name: value for name, value in known.items() if value not in ("", 0)}}


def resource_of(telemetry: TelemetrySettings) -> dict[str, str | int]:
    """What all spans of this process share."""
    return {
        "service.name": telemetry.service_name,
        "service.version": VERSION,
        "process.pid": os.getpid(),
    }
