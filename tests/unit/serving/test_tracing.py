"""Traces as a collector receives them, which requests are traced, and that off costs nothing."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fairway.core.errors import MissingExtra, SettingsError
from fairway.core.settings import TelemetrySettings
from fairway.serving import tracing
from fairway.serving.otlp import OtlpExporter
from fairway.serving.spans import (
    Parent,
    Served,
    Trace,
    attributes_of,
    is_failure,
    read_traceparent,
)
from fairway.serving.tracing import Tracer, open_tracer
from tests.collector import Collector, attributes, collecting

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
UNSAMPLED = f"00-{TRACE}-{SPAN}-00".encode()
STAGES = (("parse", 10.001), ("validate", 10.003), ("queue", 10.004), ("run", 10.008), ("encode", 10.009))
SERVED = Served(
    model="m",
    protocol="rest",
    status=200,
    request_id="r-1",
    version=3,
    digest="sha256:ab",
    rows=64,
    method="POST /v2/models/{model}/infer",
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def opened(collector: Collector, **changes: Any) -> Tracer:
    settings = TelemetrySettings(
        **{"otlp_endpoint": f"http://127.0.0.1:{collector.port}", "trace_rate": 1.0, **changes}
    )
    tracer = open_tracer(settings)
    assert tracer is not None
    return tracer


def test_a_request_with_a_parent_becomes_its_child_with_a_span_for_each_stage(collector: Collector) -> None:
    tracer = opened(collector, otlp_headers={"x-key": "k"}, service_name="shop")
    assert tracer.wants(SAMPLED)
    now = time.perf_counter()
    moments = tuple((name, now + moment - 10) for name, moment in STAGES)
    before = time.time()
    tracer.record(SAMPLED, now, moments, SERVED)
    tracer.close()
    server, *stages = collector.spans
    assert server.trace_id.hex() == TRACE
    assert server.parent_span_id.hex() == SPAN
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.name == "POST /v2/models/{model}/infer"
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert attributes(server) == {
        "http.response.status_code": 200,
        "fairway.model": "m",
        "fairway.version": 3,
        "fairway.digest": "sha256:ab",
        "fairway.rows": 64,
        "fairway.protocol": "rest",
        "fairway.request_id": "r-1",
    }
    assert [span.name for span in stages] == ["parse", "validate", "queue", "run", "encode"]
    assert all(span.trace_id == server.trace_id for span in stages)
    assert all(span.parent_span_id == server.span_id for span in stages)
    assert len({span.span_id for span in collector.spans}) == 6
    starts = [server.start_time_unix_nano, *(span.end_time_unix_nano for span in stages)]
    assert [span.start_time_unix_nano for span in stages] == starts[:-1]
    assert stages[-1].end_time_unix_nano == server.end_time_unix_nano
    lengths = [(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for span in stages]
    assert lengths == pytest.approx([0.001, 0.002, 0.001, 0.004, 0.001], abs=1e-5)
    assert server.start_time_unix_nano / 1e9 == pytest.approx(before, abs=1.0)
    told = {p.key: p.value.string_value for p in collector.requests[0].resource_spans[0].resource.attributes}
    assert told["service.name"] == "shop"
    assert collector.headers[0]["x-key"] == "k"
    assert tracer.dropped == 0


def test_without_a_parent_a_trace_of_its_own_begins(collector: Collector) -> None:
    tracer = opened(collector)
    for _ in range(2):
        tracer.record(None, 1.0, STAGES, SERVED)
    tracer.record(b"nonsense", 1.0, (), msgspec.structs.replace(SERVED, method=""))
    tracer.close()
    servers = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert len({span.trace_id for span in servers}) == 3
    assert all(span.parent_span_id == b"" for span in servers)
    assert servers[-1].name == "infer m"
    assert servers[-1].start_time_unix_nano == servers[-1].end_time_unix_nano


@pytest.mark.parametrize(
    ("status", "failure"),
    [(200, False), (400, False), (429, False), (500, True), (503, True), (0, False), (3, False), (5, False), (13, True), (14, True), (4, True)],
)  # fmt: skip
def test_what_counts_as_the_servers_failure(status: int, failure: bool, collector: Collector) -> None:
    tracer = opened(collector)
    served = Served(model="m", protocol="grpc", status=status, request_id="r", error="overloaded")
    tracer.record(None, 1.0, (("parse", 1.1),), served)
    tracer.close()
    assert is_failure(status) == failure
    span = collector.spans[0]
    assert (span.status.code == Status.STATUS_CODE_ERROR) == failure
    assert attributes(span)["error.type"] == "overloaded"
    assert (
        attributes(span)["http.response.status_code" if status >= 100 else "rpc.grpc.status_code"] == status
    )


@given(st.binary(max_size=80))
def test_any_header_is_read_or_ignored(header: bytes) -> None:
    read_traceparent(header)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_traceparent_is_read(trace_id: int, span_id: int, flags: int) -> None:
    header = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}".encode()
    assert read_traceparent(header) == Parent(trace_id, span_id, bool(flags & 1))
    assert read_traceparent(b" " + header + b"\t") == read_traceparent(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
        SAMPLED.upper(),
        SAMPLED + b"-more",
        SAMPLED[:-1],
        SAMPLED.replace(b"00-", b"ff-", 1),
        SAMPLED.replace(b"-", b"_"),
    ],
)
def test_what_is_no_traceparent(header: bytes | None) -> None:
    assert read_traceparent(header) is None


def test_a_later_version_may_say_more() -> None:
    assert read_traceparent(b"01" + SAMPLED[2:] + b"-more") == read_traceparent(SAMPLED)


def test_the_caller_decides_and_else_the_rate() -> None:
    for rate in (0.0, 1.0):
        tracer = Tracer(rate, 10, Kept)
        assert tracer.wants(SAMPLED)
        assert not tracer.wants(UNSAMPLED)
        assert tracer.wants(None) == tracer.wants(b"nonsense") == bool(rate)
        tracer.close()
    tracer = Tracer(0.25, 10, Kept)
    wanted = sum(tracer.wants(None) for _ in range(4000))
    tracer.close()
    assert 850 <= wanted <= 1150  # 1000 with a deviation of 27


class Kept:
    """An exporter that keeps what it gets, once it may."""

    def __init__(self, act: Callable[[list[Trace]], bool] = lambda traces: True) -> None:
        self.act = act
        self.traces: list[Trace] = []
        self.closed = False

    def export(self, traces: list[Trace]) -> bool:
        taken = self.act(traces)
        self.traces += traces
        return taken

    def close(self) -> None:
        self.closed = True


def test_a_full_queue_drops_and_counts() -> None:
    may_open = threading.Event()
    kept = Kept()

    def open_exporter() -> Kept:
        may_open.wait()
        return kept

    tracer = Tracer(1.0, 5, open_exporter)
    for _ in range(12):
        tracer.record(None, 1.0, STAGES, SERVED)
    assert tracer.dropped == 7
    may_open.set()
    tracer.close()
    assert len(kept.traces) == 5
    assert kept.closed


def test_a_collector_that_refuses_or_is_away_costs_traces_and_one_line(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    tracer = opened(collector)
    for _ in range(3):
        tracer.record(None, 1.0, STAGES, SERVED)
    tracer.close()
    assert tracer.dropped == 3
    assert [record.name for record in caplog.records] == ["fairway.tracing"]
    assert "does not take traces" in caplog.text


@pytest.mark.parametrize(("status", "tries"), [(503, 3), (429, 3), (404, 1)])
def test_what_may_be_tried_again_is(collector: Collector, status: int, tries: int) -> None:
    collector.status = status
    pauses: list[float] = []
    exporter = OtlpExporter(
        TelemetrySettings(otlp_endpoint=f"http://127.0.0.1:{collector.port}/"), pauses.append
    )
    trace = Trace(None, 1.0, STAGES, SERVED, 0.0)
    assert not exporter.export([trace])
    assert pauses == [0.5, 1.0][: tries - 1]
    collector.retry_after = "2"
    assert not exporter.export([trace])
    assert pauses[tries - 1 :] == [2.0, 2.0][: tries - 1]
    collector.status = 200
    assert exporter.export([trace])
    exporter.close()


def test_nobody_there_is_as_good_as_busy() -> None:
    pauses: list[float] = []
    exporter = OtlpExporter(TelemetrySettings(otlp_endpoint="http://127.0.0.1:1"), pauses.append)
    assert not exporter.export([Trace(None, 1.0, STAGES, SERVED, 0.0)])
    assert len(pauses) == 2
    exporter.close()


def test_the_endpoint_may_hold_a_path(collector: Collector) -> None:
    for path in ("", "/", "/v1/traces"):
        tracer = opened(collector, otlp_endpoint=f"http://127.0.0.1:{collector.port}{path}")
        tracer.record(None, 1.0, (), SERVED)
        tracer.close()
    assert len(collector.spans) == 3


def test_it_says_so_once_and_once_more_when_it_is_well(caplog: pytest.LogCaptureFixture) -> None:
    results: list[bool | Exception] = [True, False, OSError("gone"), True]

    def act(traces: list[Trace]) -> bool:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    kept = Kept(act)
    tracer = Tracer(1.0, 100, lambda: kept)
    exported = 0
    while results:
        left = len(results)
        tracer.record(None, 1.0, (), SERVED)
        tracer._wake.set()
        exported += 1
        while len(results) == left:
            time.sleep(0.001)
    tracer.close()
    assert tracer.dropped == 2
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "the trace collector does not take traces; they are dropped and counted",
        "the trace collector takes traces again; 2 were dropped",
    ]


def test_an_exporter_that_cannot_be_opened_drops_all(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Kept:
        raise RuntimeError("no")

    tracer = Tracer(1.0, 100, broken)
    tracer._thread.join()
    tracer.record(None, 1.0, (), SERVED)
    tracer.close()
    assert tracer.dropped == 1
    assert "traces cannot be exported" in caplog.text


def test_many_threads_lose_nothing() -> None:
    kept = Kept()
    tracer = Tracer(1.0, 100_000, lambda: kept)

    def send() -> None:
        for _ in range(500):
            tracer.record(SAMPLED, 1.0, STAGES, SERVED)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracer.close()
    assert len(kept.traces) + tracer.dropped == 2000
    assert tracer.dropped == 0


def test_attributes_leave_out_what_is_not_known() -> None:
    served = Served(model="", protocol="rest", status=404, request_id="r", error="model_not_found")
    assert attributes_of(served) == {
        "http.response.status_code": 404,
        "fairway.protocol": "rest",
        "fairway.request_id": "r",
        "error.type": "model_not_found",
    }


def test_off_means_nothing_is_imported() -> None:
    code = (
        "import sys; from fairway.serving import tracing, logs; from fairway.core.settings import TelemetrySettings;"
        "assert tracing.open_tracer(TelemetrySettings(trace_rate=1.0)) is None;"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("127.0.0.1:4318", "ftp://h", "http://"):
        with pytest.raises(SettingsError, match="not an address"):
            open_tracer(TelemetrySettings(otlp_endpoint=endpoint))
    with pytest.raises(SettingsError, match="from 0 to 1"):
        open_tracer(TelemetrySettings(otlp_endpoint="http://h", trace_rate=2.0))
    monkeypatch.setattr(tracing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"fairway\[otel\]"):
        open_tracer(TelemetrySettings(otlp_endpoint="http://h"))
