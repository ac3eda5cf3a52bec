"""A server's traces as a collector receives them, and its JSON log, through the real processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from fairway.bench.grpc import ask
from fairway.bench.tensors import Spec, Tensor, grpc_body
from fairway.bench.v2_grpc import INFER
from tests.collector import attributes, collecting
from tests.e2e.servers import serving, until

pytestmark = pytest.mark.e2e
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = {"instances": [[0.1, 0.2, 0.3]]}
SECRET = "4929-1234-5678"


def test_a_request_is_a_span_of_its_callers_trace(home: Path) -> None:
    with collecting() as collector:
        environ = {"FAIRWAY_TELEMETRY_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}
        with serving(home, "line", environ=environ) as server:
            path = "/v2/models/line/infer"
            for flag in ("00", "01"):
                status, told, _ = server.post(ROW, path, traceparent=f"00-{TRACE}-{SPAN}-{flag}")
                assert status == 200
            assert server.post(ROW, path)[0] == 200  # telemetry.trace_rate is 0
            wrong = server.post(b"{}", path, traceparent=f"00-{TRACE}-{SPAN}-01")
            assert wrong[0] == 400
            until(lambda: len([s for s in collector.spans if s.kind == Span.SPAN_KIND_SERVER]) >= 2)
        servers = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
        assert len(servers) == 2
        good = next(span for span in servers if attributes(span)["http.response.status_code"] == 200)
        bad = next(span for span in servers if attributes(span)["http.response.status_code"] == 400)
        for span in servers:
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
            assert span.start_time_unix_nano <= span.end_time_unix_nano
        known = attributes(good)
        assert known["fairway.model"] == "line"
        assert known["fairway.version"] == 1
        assert known["fairway.rows"] == 1
        assert known["fairway.digest"].startswith("sha256:")
        assert known["fairway.request_id"] == told["x-request-id"]
        assert attributes(bad)["error.type"] == "malformed_input"
        stages = [span for span in collector.spans if span.parent_span_id == good.span_id]
        assert {"parse", "validate", "run", "encode"} <= {span.name for span in stages}
        assert all(
            good.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            for span in stages
        )


def test_over_grpc_it_is_the_same(home: Path) -> None:
    with collecting() as collector:
        environ = {"FAIRWAY_TELEMETRY_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}
        with serving(home, "line", environ=environ) as server:
            tensors = [Tensor(Spec(name, "FP64", [2]), [0.1, 0.2]) for name in "abc"]
            for body, flag in (
                (grpc_body("line", "", tensors), "00"),
                (grpc_body("line", "", tensors), "01"),
            ):
                metadata = [("traceparent", f"00-{TRACE}-{SPAN}-{flag}"), ("x-request-id", f"g-{flag}")]
                assert ask(server.grpc, INFER, body, metadata, 10.0)[0] == "OK"
        [span] = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
        assert span.name == "inference.GRPCInferenceService/ModelInfer"
        known = attributes(span)
        assert known["rpc.grpc.status_code"] == 0
        assert (known["fairway.rows"], known["fairway.protocol"], known["fairway.request_id"]) == (
            2,
            "grpc",
            "g-01",
        )
        stages = {child.name for child in collector.spans if child.parent_span_id == span.span_id}
        assert stages == {"parse", "validate", "queue", "run", "encode"}


def test_all_of_the_share_is_traced_without_a_parent(home: Path) -> None:
    with collecting() as collector:
        environ = {
            "FAIRWAY_TELEMETRY_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "FAIRWAY_TELEMETRY_TRACE_RATE": "1",
        }
        with serving(home, "line", environ=environ) as server:
            for _ in range(5):
                assert server.post(ROW, "/v2/models/line/infer")[0] == 200
        servers = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
        assert len({span.trace_id for span in servers}) == 5  # what was left was sent while stopping


def test_serving_goes_on_without_the_collector(home: Path) -> None:
    environ = {"FAIRWAY_TELEMETRY_OTLP_ENDPOINT": "http://127.0.0.1:1", "FAIRWAY_TELEMETRY_TRACE_RATE": "1"}
    with serving(home, "line", environ=environ) as server:
        for _ in range(20):
            assert server.post(ROW, "/v2/models/line/infer")[0] == 200


def lines(errors: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in errors.read_text().splitlines()]


def test_every_line_of_the_log_is_json_and_quotes_nothing(home: Path) -> None:
    environ = {"FAIRWAY_TELEMETRY_LOG_FORMAT": "json", "FAIRWAY_TELEMETRY_LOG_LEVEL": "info"}
    with serving(home, "line", "--workers", "2", environ=environ) as server:
        body = {"dataframe_records": [{"a": SECRET, "b": 1, "c": 1}]}
        status, told, _ = server.post(body, "/v2/models/line/infer", x_request_id="r-17")
        assert (status, told["x-request-id"]) == (400, "r-17")
        until(lambda: "r-17" in server.errors.read_text())
    assert SECRET not in server.errors.read_text()
    found = lines(server.errors)
    assert {line["role"] for line in found} >= {"worker"}
    [failure] = [line for line in found if line["logger"] == "fairway.requests"]
    assert failure["request_id"] == "r-17"
    assert failure["model"] == "line"
    assert failure["code"] == "contract_violation"
    assert failure["status"] == 400
    assert failure["problems"] == [{"field": "a", "row": 0}]


def test_values_are_logged_when_asked_for(home: Path) -> None:
    environ = {"FAIRWAY_TELEMETRY_LOG_VALUES": "true", "FAIRWAY_TELEMETRY_LOG_LEVEL": "info"}
    with serving(home, "line", environ=environ) as server:
        server.post({"dataframe_records": [{"a": SECRET, "b": 1, "c": 1}]}, "/v2/models/line/infer")
        until(lambda: SECRET in server.errors.read_text())
