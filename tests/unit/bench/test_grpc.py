"""A real gRPC server that speaks V2 with the messages of Triton's client library."""

import asyncio
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc import service_pb2_grpc

from fairway.bench.address import read_address
from fairway.bench.alarm import clock
from fairway.bench.drive import drive
from fairway.bench.histogram import Histogram
from fairway.bench.payload import Wish, prepare
from fairway.bench.plan import Plan
from fairway.bench.recording import OK, TIMEOUT, Tally
from fairway.bench.run import run
from fairway.bench.server import connect, try_once
from fairway.core.errors import InvalidInput, MissingExtra, NotFound, Unavailable


@dataclass
class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers every `refuse`-th request UNAVAILABLE and, when told so, none at all."""

    refuse: int = 0
    silent: bool = False
    asked: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        if request.name != "m":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        answer = triton.ModelMetadataResponse(name="m", versions=["1"], platform="x")
        answer.inputs.add(name="a", datatype="FP32", shape=[-1, 3])
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.silent and len(self.asked) > 1:
            while context.is_active():
                time.sleep(0.01)
        if self.refuse and len(self.asked) % self.refuse == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return triton.ModelInferResponse(model_name="m", model_version="1")


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service
    server.stop(0).wait()


def plan_for(service: Service, **changes: Any) -> Plan:
    address = read_address(f"grpc://127.0.0.1:{service.port}/m")
    headers = [("X-API-Key", "k")]
    target, payload = prepare(address, Wish(rows=4), connect(address, headers, 5.0))
    wanted = {"seconds": 0.5, "warmup": 0.0, "connections": 4, "timeout": 5.0, "headers": headers}
    return Plan(target=target, payload=payload, **{**wanted, **changes})


def measure(plan: Plan) -> Tally:
    return asyncio.run(drive(plan, 0, clock))


def test_an_open_loop(service: Service) -> None:
    plan = plan_for(service, rate=60.0)
    assert plan.payload.source == "made-up values, protobuf"
    tally = measure(plan)
    assert tally.outcomes == {OK: 30}
    [tensor] = service.asked[0].inputs
    assert (service.asked[0].model_name, list(tensor.shape)) == ("m", [4, 3])
    assert len(service.asked[0].raw_input_contents[0]) == 4 * 3 * 4
    assert all(metadata["x-api-key"] == "k" for metadata in service.metadata)


def test_a_closed_loop_in_a_process_of_its_own(service: Service) -> None:
    tally = run(plan_for(service))
    assert tally.outcomes == {OK: len(service.asked)}
    assert Histogram.of(tally.latency).count > 4


def test_outcomes_by_code(service: Service) -> None:
    service.refuse = 3
    assert measure(plan_for(service, rate=60.0)).outcomes == {OK: 20, "UNAVAILABLE": 10}


def test_who_does_not_answer_times_out_and_the_lane_is_used_again(service: Service) -> None:
    service.silent = True
    tally = measure(plan_for(service, rate=20.0, connections=1, timeout=0.1))
    assert tally.outcomes == {OK: 1, TIMEOUT: 9}


def test_the_trial_and_the_metadata_speak_plainly(service: Service) -> None:
    plan = plan_for(service)
    address = read_address(f"grpc://127.0.0.1:{service.port}")
    server = connect(address, [], 5.0)
    try_once(server, plan)
    service.refuse = 1
    with pytest.raises(Unavailable, match="busy"):
        try_once(server, plan)
    with pytest.raises(NotFound, match="NOT_FOUND: no model x"):
        server.inputs("x", "")
    with pytest.raises(InvalidInput, match="--model"):
        server.only_model()
    nobody = connect(read_address("grpc://127.0.0.1:1"), [], 2.0)
    with pytest.raises(Unavailable, match="cannot be reached"):
        nobody.inputs("m", "")


def test_without_grpcio_the_message_names_the_extra(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "fairway.bench.grpc", raising=False)
    monkeypatch.delattr(sys.modules["fairway.bench"], "grpc", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtra, match=r"fairway\[bench\]"):
        connect(read_address("grpc://127.0.0.1:1"), [], 1.0).inputs("m", "")
