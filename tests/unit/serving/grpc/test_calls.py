"""Calls through gRPC's own client: deadlines, cancelling, errors, access, streaming, health, reflection, metrics."""

import asyncio
import gc
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fairway.core.columns import Columns
from fairway.core.errors import ModelNotFound
from fairway.core.route import everything_to
from fairway.core.settings import ServingSettings, Settings
from fairway.inference.live import LiveModel
from fairway.inference.repository import State, VersionState
from fairway.security.access import Access
from fairway.security.keys import new_key
from fairway.serving.grpc.calls import Ticket
from fairway.serving.grpc.messages import message
from fairway.stores.counters import Counters
from tests.planes import Adding, Kept, live_version, plane
from tests.unit.serving.grpc.conftest import INFER, Port, Serve, asking, raw

Response = message("inference.ModelStreamInferResponse")


class Slow:
    """An engine that holds every call until it is told to go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.engine = Adding(before=self._hold)

    def _hold(self, columns: Columns) -> None:
        self.entered.set()
        assert self.go.wait(20)


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.go.set()


def serve_slow(serve: Serve, slow: Slow, counters: Counters | None = None) -> Port:
    counters = counters or Counters()
    model = LiveModel(everything_to("m", 1), {1: live_version(1, slow.engine, counters=counters)}, {})
    settings = Settings(serving=ServingSettings(threads=1))
    return serve(plane(model, counters=counters, settings=settings, inline_seconds=-1.0), settings)


def counted(port: Port, **labels: str) -> float:
    return sum(
        value
        for (name, pairs), value in port.app.plane.counters.totals().items()
        if name == "fairway_requests_total" and labels.items() <= dict(pairs).items()
    )


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def started(port: Port, request: Any, **options: Any) -> grpc.Future:
    return port.channel.unary_unary(
        INFER + "ModelInfer",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=message("inference.ModelInferResponse").FromString,
    ).future(request, **options)


def test_metadata_of_an_answer(port: Port) -> None:
    _, call = port.asked(
        INFER + "ModelInfer", asking(), "inference.ModelInferResponse", metadata=[("x-request-id", "mine-1")]
    )
    told = dict(call.trailing_metadata())
    assert (told["x-request-id"], told["fairway-version"], told["fairway-digest"]) == (
        "mine-1",
        "m:1",
        "sha256:1",
    )


def test_metadata_and_counts_of_an_error(port: Port) -> None:
    request = asking()
    request.inputs[1].name = "c"
    error = port.refused(INFER + "ModelInfer", request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "b missing" in error.details()
    told = dict(error.trailing_metadata())
    assert told["fairway-code"] == "contract_violation"
    assert told["x-request-id"]
    assert counted(port, model="m", protocol="grpc", code="contract_violation") == 1
    port.infer(asking())
    assert counted(port, model="m", protocol="grpc", code="ok") == 1


def test_safe_mode_names_nothing(serve: Serve) -> None:
    port = serve(settings=Settings(serving=ServingSettings(errors="safe")))
    request = asking()
    request.inputs[1].name = "secret"
    error = port.refused(INFER + "ModelInfer", request)
    assert error.details() == "The request is not valid."
    assert port.refused(INFER + "ModelInfer", asking(model_name="x")).details() == "Not found."


def test_errors_may_hold_any_text(port: Port) -> None:
    error = port.refused(INFER + "ModelInfer", asking(model_name="grün 100%\n"))
    assert "grün 100%" in error.details()


def test_predictions_are_recorded_with_their_request_id(serve: Serve) -> None:
    kept = Kept()
    port = serve(plane(recorder=kept))
    port.infer(asking(), metadata=[("x-request-id", "rec-1")])
    [prediction] = kept.predictions
    assert list(prediction.request_ids) == ["rec-1"]


def test_a_deadline_ends_a_call_in_the_queue_and_its_work_is_not_run(serve: Serve, slow: Slow) -> None:
    port = serve_slow(serve, slow)
    first = started(port, asking())
    assert slow.entered.wait(20)
    error = port.refused(INFER + "ModelInfer", asking(), timeout=0.2)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    slow.go.set()
    assert raw(first.result(20)).tolist() == [4.0, 6.0]
    until(lambda: counted(port, code="deadline_exceeded") + counted(port, code="cancelled") == 1)
    port.infer(asking())
    assert slow.engine.calls == 2


def test_a_cancelled_call_is_not_run_if_it_still_waits(serve: Serve, slow: Slow) -> None:
    port = serve_slow(serve, slow)
    first = started(port, asking())
    assert slow.entered.wait(20)
    second = started(port, asking())
    until(lambda: port.call(lambda: sum(len(c.streams) for c in port.server._connections)) == 2)
    second.cancel()
    until(lambda: counted(port, code="cancelled") == 1)
    slow.go.set()
    first.result(20)
    port.infer(asking())
    assert slow.engine.calls == 2


def test_a_connection_that_goes_takes_its_calls_with_it(serve: Serve, slow: Slow) -> None:
    port = serve_slow(serve, slow)
    first = started(port, asking())
    assert slow.entered.wait(20)
    with grpc.insecure_channel(port.address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
        call = other.unary_unary(INFER + "ModelInfer").future(asking().SerializeToString())
        until(lambda: port.call(lambda: len(port.server._connections)) == 2)
        until(lambda: port.call(lambda: sum(len(c.streams) for c in port.server._connections)) == 2)
    assert call.code() is grpc.StatusCode.CANCELLED
    until(lambda: counted(port, code="cancelled") == 1)
    slow.go.set()
    first.result(20)
    assert slow.engine.calls == 1


class Streamed:
    """A streaming call: `send` requests, take answers from `answers`."""

    def __init__(self, port: Port, **options: Any) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        call = port.channel.stream_stream(
            INFER + "ModelStreamInfer",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=Response.FromString,
        )
        self.answers = call(iter(self._requests.get, None), **options)

    def send(self, *requests: Any) -> None:
        for request in requests:
            self._requests.put(request)

    def end(self) -> None:
        self._requests.put(None)


def test_streamed_requests_are_answered_in_order_and_errors_do_not_end_the_stream(port: Port) -> None:
    streamed = Streamed(port, timeout=20)
    streamed.send(*[asking(id=str(i)) for i in range(300)], asking(model_name="nope"), asking(id="last"))
    for i in range(300):
        answer = next(streamed.answers)
        assert (answer.infer_response.id, answer.error_message) == (str(i), "")
    assert "no model 'nope'" in next(streamed.answers).error_message
    assert next(streamed.answers).infer_response.id == "last"
    streamed.end()
    with pytest.raises(StopIteration):
        next(streamed.answers)
    assert streamed.answers.code() is grpc.StatusCode.OK


def test_large_streamed_requests_wait_for_their_turn(port: Port) -> None:
    streamed = Streamed(port, timeout=60)
    large = message("inference.ModelInferRequest")(model_name="m")
    for name in ("a", "b"):
        large.inputs.add(name=name, datatype="FP64", shape=[90_000])
        large.raw_input_contents.append(b"\0" * 720_000)
    streamed.send(*[large] * 8)
    streamed.end()
    assert [len(answer.infer_response.raw_output_contents[0]) for answer in streamed.answers] == [720_000] * 8


def test_a_streams_deadline_ends_it(port: Port) -> None:
    streamed = Streamed(port, timeout=0.3)
    streamed.send(asking())
    next(streamed.answers)
    with pytest.raises(grpc.RpcError) as caught:
        next(streamed.answers)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    streamed.end()
    until(lambda: port.call(lambda: sum(len(c.streams) for c in port.server._connections)) == 0)


def keyed(**options: Any) -> tuple[str, Access]:
    key, secret = new_key("k", scopes=("infer",), now=datetime.now(UTC), **options)
    return secret, Access([key])


def test_keys_are_asked_for_but_not_of_probes(serve: Serve) -> None:
    secret, access = keyed()
    port = serve(access=access)
    error = port.refused(INFER + "ModelInfer", asking())
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    for metadata in ([("authorization", f"Bearer {secret}")], [("x-api-key", secret)]):
        assert raw(port.infer(asking(), metadata=metadata)).tolist() == [4.0, 6.0]
    assert (
        port.refused(INFER + "ModelInfer", asking(), metadata=[("x-api-key", "fw_no")]).code().name
        == "UNAUTHENTICATED"
    )
    health = health_pb2_grpc.HealthStub(port.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == 1
    assert port.ask(INFER + "ServerLive", b"", "inference.ServerLiveResponse").live
    assert port.refused(INFER + "ServerMetadata", b"").code().name == "UNAUTHENTICATED"
    assert (
        port.refused("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"").code().name
        == "UNAUTHENTICATED"
    )


def test_a_key_reaches_its_models_and_scopes_only(serve: Serve) -> None:
    secret, access = keyed(models=("other",))
    port = serve(access=access)
    metadata = [("x-api-key", secret)]
    refused = port.refused(INFER + "ModelInfer", asking(), metadata=metadata)
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
    unknown = port.refused(INFER + "ModelInfer", asking(model_name="nope"), metadata=metadata)
    assert unknown.code() is grpc.StatusCode.PERMISSION_DENIED, "nobody learns which models there are"
    admin = port.refused(INFER + "RepositoryIndex", b"", metadata=metadata)
    assert admin.code() is grpc.StatusCode.PERMISSION_DENIED


def test_limits_of_a_key_count_and_are_given_back(serve: Serve, slow: Slow) -> None:
    secret, access = keyed(concurrency=1)
    port = serve_slow(serve, slow)
    port.app.access = access
    metadata = [("x-api-key", secret)]
    first = started(port, asking(), metadata=metadata)
    assert slow.entered.wait(20)
    error = port.refused(INFER + "ModelInfer", asking(), metadata=metadata)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    slow.go.set()
    first.result(20)
    port.infer(asking(), metadata=metadata)


def test_a_large_message_without_a_key_is_refused_before_it_has_come(serve: Serve) -> None:
    _, access = keyed()
    port = serve(access=access)
    error = port.refused(INFER + "ModelInfer", b"\0" * 5_000_000)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_message_of_65_mb_is_refused_with_the_limit_and_the_server_lives(port: Port) -> None:
    error = port.refused(INFER + "ModelInfer", b"\0" * (65 * 1024 * 1024))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the limit is 67108864 (limits.body_bytes)" in error.details()
    assert raw(port.infer(asking())).tolist() == [4.0, 6.0]


def test_models_are_described_as_over_http(port: Port) -> None:
    metadata = message("inference.ModelMetadataRequest")(name="m")
    described = port.ask(INFER + "ModelMetadata", metadata, "inference.ModelMetadataResponse")
    assert (described.name, list(described.versions), described.platform) == ("m", ["1"], "fairway_onnx")
    assert [(t.name, t.datatype, list(t.shape)) for t in described.outputs] == [
        ("sum", "FP64", [-1]),
        ("both", "FP64", [-1, 2]),
    ]
    config = port.ask(INFER + "ModelConfig", metadata, "inference.ModelConfigResponse").config
    assert (config.name, config.max_batch_size, [t.name for t in config.input]) == ("m", 100_000, ["a", "b"])
    port.infer(asking())
    [stats] = port.ask(INFER + "ModelStatistics", metadata, "inference.ModelStatisticsResponse").model_stats
    assert (stats.name, stats.inference_count, stats.inference_stats.success.count) == ("m", 2, 1)
    everything = port.ask(INFER + "ModelStatistics", b"", "inference.ModelStatisticsResponse")
    assert [found.name for found in everything.model_stats] == ["m"]
    server = port.ask(INFER + "ServerMetadata", b"", "inference.ServerMetadataResponse")
    assert server.name == "fairway"
    assert "model_repository" in server.extensions
    for method in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
        request = message(f"inference.{method}Request")(name="nope")
        assert port.refused(INFER + method, request).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("m", "", True), ("m", "1", True), ("m", "champion", True), ("m", "9", False), ("x", "", False)],
)
def test_model_ready(port: Port, name: str, version: str, ready: bool) -> None:
    asked = message("inference.ModelReadyRequest")(name=name, version=version)
    assert port.ask(INFER + "ModelReady", asked, "inference.ModelReadyResponse").ready is ready


def test_a_server_that_leaves_is_not_ready(port: Port) -> None:
    port.app.ready = False
    assert not port.ask(INFER + "ServerReady", b"", "inference.ServerReadyResponse").ready
    assert port.ask(INFER + "ServerLive", b"", "inference.ServerLiveResponse").live
    health = health_pb2_grpc.HealthStub(port.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == 2


def test_health_names_services_and_watches_them(port: Port) -> None:
    health = health_pb2_grpc.HealthStub(port.channel)
    service = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
    assert health.Check(service, timeout=20).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="x"), timeout=20)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watched = health.Watch(service, timeout=20)
    assert next(watched).status == 1
    port.app.ready = False
    assert next(watched).status == 2
    watched.cancel()
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="x"), timeout=20)
    assert next(unknown).status == 3
    unknown.cancel()


def test_reflection_gives_what_tools_need(port: Port) -> None:
    database = ProtoReflectionDescriptorDatabase(port.channel)
    services = database.get_services()
    assert {
        "inference.GRPCInferenceService",
        "tensorflow.serving.PredictionService",
        "grpc.health.v1.Health",
    } <= set(services)
    found = DescriptorPool(database)
    method = found.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    assert method.input_type.fields_by_name["raw_input_contents"].number == 7
    assert found.FindMessageTypeByName("tensorflow.serving.PredictRequest").file.dependencies
    with pytest.raises(KeyError):
        found.FindMessageTypeByName("no.such.Message")


class Repository:
    def __init__(self) -> None:
        self.states = {"m": State.ready, "n": State.unloaded}
        self.calls: list[tuple[str, str]] = []

    def index(self) -> list[VersionState]:
        return [VersionState(model=name, version=1, state=state) for name, state in self.states.items()]

    def load(self, model: str, *, source: str = "") -> None:
        if model not in self.states:
            raise ModelNotFound(f"no model {model!r} is registered.")
        self.calls.append(("load", model))
        self.states[model] = State.ready

    def unload(self, model: str) -> None:
        self.calls.append(("unload", model))
        self.states[model] = State.unloaded


def test_the_repository_is_for_admins(serve: Serve) -> None:
    port = serve(access=Access(open_admin=True))
    load = message("inference.RepositoryModelLoadRequest")
    assert port.refused(INFER + "RepositoryIndex", b"").code() is grpc.StatusCode.UNIMPLEMENTED
    port.app.repository = repository = Repository()
    index = port.ask(INFER + "RepositoryIndex", b"", "inference.RepositoryIndexResponse")
    assert [(m.name, m.version, m.state, m.reason) for m in index.models] == [
        ("m", "1", "READY", ""),
        ("n", "1", "UNAVAILABLE", "unloaded"),
    ]
    ready = message("inference.RepositoryIndexRequest")(ready=True)
    assert len(port.ask(INFER + "RepositoryIndex", ready, "inference.RepositoryIndexResponse").models) == 1
    port.ask(INFER + "RepositoryModelLoad", load(model_name="n"), "inference.RepositoryModelLoadResponse")
    unload = message("inference.RepositoryModelUnloadRequest")(model_name="m")
    port.ask(INFER + "RepositoryModelUnload", unload, "inference.RepositoryModelUnloadResponse")
    assert repository.calls == [("load", "n"), ("unload", "m")]
    assert (
        port.refused(INFER + "RepositoryModelLoad", load(model_name="x")).code() is grpc.StatusCode.NOT_FOUND
    )
    configured = load(model_name="n")
    configured.parameters["config"].string_param = "{}"
    assert port.refused(INFER + "RepositoryModelLoad", configured).code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_repository_is_off_without_an_admin_key(port: Port) -> None:
    port.app.repository = Repository()
    error = port.refused(INFER + "RepositoryIndex", b"")
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "admin" in error.details()


def test_shared_memory_is_said_not_to_be_there(port: Port) -> None:
    for kind in ("System", "Cuda"):
        error = port.refused(f"{INFER}{kind}SharedMemoryRegister", b"")
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "shared memory" in error.details()
        call = port.channel.unary_unary(f"{INFER}{kind}SharedMemoryUnregister")
        assert call(b"", timeout=20) == b""


def test_stopping_ends_streams_that_wait_for_their_caller(serve: Serve) -> None:
    port = serve()
    streamed = Streamed(port, timeout=20)
    streamed.send(asking())
    next(streamed.answers)
    watched = health_pb2_grpc.HealthStub(port.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
    next(watched)

    asyncio.run_coroutine_threadsafe(port.server.stop(10.0), port.loop).result(20)
    for call in (streamed.answers, watched):
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    streamed.end()
    assert not port.server._connections


@pytest.mark.parametrize("threaded", [False, True])
def test_calls_leave_nothing_behind_for_the_garbage_collector(serve: Serve, threaded: bool) -> None:
    """Collections are rare in a worker, and some of these values are not even looked at by them."""
    settings = Settings(serving=ServingSettings(threads=1))
    port = serve(plane(settings=settings, inline_seconds=-1.0 if threaded else 10.0), settings)
    tickets: list[weakref.ref[Any]] = []
    turn = port.server._service.turn
    wrong = asking()
    wrong.inputs[0].name = "x"
    add = turn.add

    def adding(ticket: Ticket) -> None:
        tickets.append(weakref.ref(ticket))
        add(ticket)

    port.call(lambda: setattr(turn, "add", adding))
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            port.infer(asking(), timeout=1000)
            port.refused(INFER + "ModelInfer", wrong)
        until(lambda: all(ticket() is None for ticket in tickets))
    finally:
        gc.enable()
    assert len(tickets) == 10
