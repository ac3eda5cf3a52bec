"""A real server over gRPC: tritonclient, the stubs of tensorflow-serving-api's messages, several workers, TLS, draining."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc

import fairway
from tests.certificates import Authority, new_authority
from tests.e2e.servers import FAIRWAY, Server, numeric_data, serving, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home, "--workers", "2") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


def inputs(values: np.ndarray) -> list[triton.InferInput]:
    found = []
    for name, column in zip("abc", values.T, strict=True):
        tensor = triton.InferInput(name, [len(values)], "FP64")
        tensor.set_data_from_numpy(np.ascontiguousarray(column))
        found.append(tensor)
    return found


def test_tritonclient_gets_what_rest_and_python_give(
    server: Server, client: triton.InferenceServerClient, home: Path
) -> None:
    rows = numeric_data(20)[["a", "b", "c"]].to_numpy()
    answer = client.infer("line", inputs(rows), request_id="r-1", headers={"x-request-id": "me"})
    got = answer.as_numpy("prediction")
    assert answer.get_response().id == "r-1"
    body = {
        "inputs": [
            {"name": n, "shape": [20], "datatype": "FP64", "data": rows[:, i].tolist()}
            for i, n in enumerate("abc")
        ]
    }
    rest = np.array(server.post(body, "/v2/models/line/infer")[2]["outputs"][0]["data"])
    assert got.tolist() == rest.tolist()
    with fairway.load("line", home=home, record=False) as model:
        expected = model.predict(numeric_data(20)[["a", "b", "c"]])["prediction"]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_mixed_columns_come_through(client: triton.InferenceServerClient, server: Server) -> None:
    texts = {"country": ["DE", "FR"], "at": ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]}
    numbers = {"amount": [10.0, 20.0], "items": [1.0, 2.0], "member": [1.0, 0.0]}
    tensors = []
    for name, values in numbers.items():
        tensors.append(triton.InferInput(name, [2], "FP64").set_data_from_numpy(np.array(values)))
    for name, values in texts.items():
        tensors.append(
            triton.InferInput(name, [2], "BYTES").set_data_from_numpy(np.array(values, dtype=object))
        )
    answer = client.infer("shop", tensors)
    rest = server.post(
        {
            "instances": [
                {k: v[i] for k, v in (numbers | texts).items()} | {"items": i + 1, "member": i == 0}
                for i in (0, 1)
            ]
        },
        "/v2/models/shop/infer",
    )[2]
    [probabilities] = [o for o in rest["outputs"] if o["name"] == "probabilities"]
    np.testing.assert_allclose(answer.as_numpy("probabilities").ravel(), probabilities["data"], atol=1e-7)


def test_the_rest_of_tritonclient(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("line")
    assert not client.is_model_ready("nope")
    assert client.get_model_metadata("line").name == "line"
    assert client.get_model_config("line").config.max_batch_size > 0
    assert client.get_inference_statistics("line").model_stats[0].name == "line"
    client.unregister_system_shared_memory()
    with pytest.raises(triton.InferenceServerException, match="shared memory"):
        client.register_system_shared_memory("r", "/x", 10)


def test_tritonclient_streams(client: triton.InferenceServerClient) -> None:
    answers: list[tuple[str, str]] = []
    over = threading.Semaphore(0)

    def take(result: triton.InferResult | None, error: Exception | None) -> None:
        answers.append(("", str(error)) if result is None else (result.get_response().id, ""))
        over.release()

    rows = numeric_data(1)[["a", "b", "c"]].to_numpy()
    client.start_stream(take)
    for number in range(5):
        client.async_stream_infer("line", inputs(rows), request_id=str(number))
    client.async_stream_infer("nope", inputs(rows), request_id="x")
    for _ in range(6):
        assert over.acquire(timeout=20)
    client.stop_stream()
    assert [name for name, _ in answers[:5]] == [str(number) for number in range(5)]
    assert "no model 'nope'" in answers[5][1]


def test_every_worker_is_reached_and_counts_together(server: Server) -> None:
    rows = numeric_data(1)[["a", "b", "c"]].to_numpy()
    before = server.metric("fairway_requests_total")
    for _ in range(12):
        with triton.InferenceServerClient(
            server.grpc, channel_args=[("grpc.use_local_subchannel_pool", 1)]
        ) as client:
            client.infer("line", inputs(rows))
    assert server.metric("fairway_requests_total") == before + 12


SHIM = """
import sys
from fairway.serving.grpc import messages
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
import grpc
pool = descriptor_pool.DescriptorPool()
for data in messages.files().values():
    pool.AddSerializedFile(data)
kind = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
request = kind("tensorflow.serving.PredictRequest")()
request.model_spec.name = "line"
for name in "abc":
    request.inputs[name].dtype = 2
    request.inputs[name].tensor_shape.dim.add(size=1)
    request.inputs[name].double_val.append(1.0)
channel = grpc.insecure_channel(sys.argv[1])
call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict",
    request_serializer=lambda m: m.SerializeToString(),
    response_deserializer=kind("tensorflow.serving.PredictResponse").FromString)
output = call(request, timeout=20).outputs["prediction"]
print(list(output.double_val) + list(output.float_val))
"""


def test_a_tensorflow_serving_client_in_a_process_of_its_own(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHIM, server.grpc], capture_output=True, text=True, check=True
    )
    [value] = json.loads(done.stdout)
    body = {"inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [1.0]} for n in "abc"]}
    rest = server.post(body, "/v2/models/line/infer")[2]["outputs"][0]["data"]
    assert value == pytest.approx(rest[0])


def test_a_worker_that_is_told_to_stop_finishes_and_clients_lose_nothing(home: Path) -> None:
    rows = numeric_data(1)[["a", "b", "c"]].to_numpy()
    with serving(home, "--workers", "2") as server, triton.InferenceServerClient(server.grpc) as client:
        client.infer("line", inputs(rows))
        failed: list[Exception] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    client.infer("line", inputs(rows))
                except Exception as error:  # noqa: BLE001
                    failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            worker = server.workers()[0]
            os.kill(worker, signal.SIGTERM)
            while worker in server.workers():
                stop.wait(0.05)
            stop.wait(0.5)
        stop.set()
        for thread in threads:
            thread.join(20)
        assert failed == []


def test_grpc_can_be_left_out(home: Path) -> None:
    with serving(home, "--no-grpc") as server:
        assert server.grpc == ""
        assert server.ask("GET", "/v2/health/live")[0] == 200


def test_the_ready_line_names_the_port(home: Path) -> None:
    command = [FAIRWAY, "serve", "line", "--port", "0", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    process.wait(30)
    process.stdout.close()
    assert " gRPC 127.0.0.1:" in line


def test_probes_need_nothing_but_the_port(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        found = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert found.status == health_pb2.HealthCheckResponse.SERVING


def secure(server: Server, authority: Authority, client: tuple[Path, Path] | None = None) -> grpc.Channel:
    shown = [part.read_bytes() for part in client] if client is not None else [None, None]
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), shown[1], shown[0])
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(server.grpc, credentials, options=options)


def is_live(channel: grpc.Channel) -> bool:
    with channel:
        return bool(
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=10) == b"\x08\x01"
        )


def test_tls_with_client_certificates_and_new_files(home: Path, tmp_path: Path) -> None:
    authority = new_authority(tmp_path)
    files = authority.issue(tmp_path, "localhost", stem="server")
    ours = authority.issue(tmp_path, "ours", client=True)
    options = [
        "--tls-cert",
        str(files[0]),
        "--tls-key",
        str(files[1]),
        "--tls-client-ca",
        str(authority.file),
    ]
    with serving(home, *options, environ={"FAIRWAY_TLS_POLL_SECONDS": "0.05"}) as server:
        kept = secure(server, authority, ours)
        live = kept.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert live(b"", timeout=10)
        with pytest.raises(grpc.RpcError):
            is_live(secure(server, authority))
        with pytest.raises(grpc.RpcError):
            is_live(grpc.insecure_channel(server.grpc))
        (tmp_path / "other").mkdir()
        other = new_authority(tmp_path / "other")
        renewed = other.issue(tmp_path / "other", "localhost")
        for old, new in zip(files, renewed, strict=True):
            os.replace(new, old)

        def renewed_is_shown() -> bool:
            try:
                return is_live(secure(server, other, ours))
            except grpc.RpcError:
                return False

        until(renewed_is_shown)
        assert live(b"", timeout=10), "a connection that stands is not touched"
        kept.close()
