"""What others ship for their own servers, as it is: NVIDIA's load generator, TensorFlow Serving's stubs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.servers import Server, numeric_data, serving

PROGRAMS = Path(__file__).parents[2] / ".venv" / "programs"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home, "line") as running:
        yield running


@pytest.mark.parametrize(
    ("protocol", "options"),
    [("http", []), ("grpc", []), ("grpc", ["--streaming", "-a"])],
    ids=["http", "grpc", "streaming"],
)
def test_perf_analyzer(server: Server, protocol: str, options: list[str], tmp_path: Path) -> None:
    rows = numeric_data(8)[["a", "b", "c"]]
    values = {"data": [{name: [row[name]] for name in rows.columns} for row in rows.to_dict("records")]}
    (tmp_path / "rows.json").write_text(json.dumps(values))
    address = server.address if protocol == "http" else server.grpc
    command = [str(PROGRAMS / "bin" / "perf_analyzer"), "-m", "line", "-i", protocol, "-u", address]
    command += ["-b", "1", "--input-data", str(tmp_path / "rows.json"), "-p", "1000", "-s", "500"]
    command += ["--concurrency-range", "2", "--max-trials", "3", *options]
    libraries = PROGRAMS / "nvidia" / "cuda_runtime" / "lib"
    done = subprocess.run(
        command,
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Throughput:" in done.stdout, done.stdout + done.stderr
    assert float(done.stdout.split("Throughput: ")[1].split()[0]) > 0
    assert "errors" not in done.stdout.lower().replace("0 errors", "")


STUBS = """
import json, sys, types
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from fairway.serving.grpc import messages

# TensorFlow's own messages, which the stubs import and nobody wants 600 MB for, under the names of its files.
pool = descriptor_pool.Default()
pool.AddSerializedFile(messages.files()["tensorflow.proto"])
for name in ("framework/tensor", "example/example", "protobuf/meta_graph", "protobuf/error_codes"):
    file = FileDescriptorProto(name=f"tensorflow/core/{name}.proto", dependency=["tensorflow.proto"], public_dependency=[0])
    if name == "protobuf/error_codes":
        file = FileDescriptorProto(name=f"tensorflow/core/{name}.proto", package="tensorflow.error", syntax="proto3")
        codes = file.enum_type.add(name="Code")
        codes.value.add(name="OK", number=0)
    pool.AddSerializedFile(file.SerializeToString())
    module = types.ModuleType(f"tensorflow.core.{name.replace('/', '.')}_pb2")
    for depth in range(1, 4):
        package = ".".join(module.__name__.split(".")[:depth])
        sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
    sys.modules[module.__name__] = module
    module.xla_dot_tsl_dot_protobuf_dot_error__codes__pb2 = module
    setattr(sys.modules[module.__name__.rpartition(".")[0]], module.__name__.rpartition(".")[2], module)

import grpc
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc, predict_pb2,
    prediction_service_pb2_grpc, regression_pb2,
)

channel = grpc.insecure_channel(sys.argv[1])
predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
request = predict_pb2.PredictRequest()
request.model_spec.name = "line"
for name in "abc":
    request.inputs[name].dtype = 2
    request.inputs[name].tensor_shape.dim.add(size=2)
    request.inputs[name].double_val.extend([1.0, 2.0])
answer = predictions.Predict(request, timeout=20)
output = answer.outputs["prediction"]
regression = regression_pb2.RegressionRequest()
regression.model_spec.name = "line"
for value in (1.0, 2.0):
    example = regression.input.example_list.examples.add()
    for name in "abc":
        example.features.feature[name].float_list.value.append(value)
regressed = predictions.Regress(regression, timeout=20)
metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
metadata.model_spec.name = "line"
described = predictions.GetModelMetadata(metadata, timeout=20)
status = get_model_status_pb2.GetModelStatusRequest()
status.model_spec.name = "line"
states = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=20)
try:
    predictions.Classify(classification_pb2.ClassificationRequest(model_spec=request.model_spec), timeout=20)
    refused = ""
except grpc.RpcError as error:
    refused = error.code().name
print(json.dumps({
    "version": answer.model_spec.version.value,
    "predicted": list(output.double_val) + list(output.float_val),
    "regressed": [r.value for r in regressed.result.regressions],
    "described": sorted(described.metadata),
    "states": [[s.version, s.state] for s in states.model_version_status],
    "refused": refused,
}))
"""


def test_tensorflow_servings_own_stubs(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUBS, server.grpc],
        env={**os.environ, "PYTHONPATH": str(PROGRAMS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    body = {"inputs": [{"name": n, "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]} for n in "abc"]}
    expected = server.post(body, "/v2/models/line/infer")[2]["outputs"][0]["data"]
    assert told["predicted"] == pytest.approx(expected)
    assert told["regressed"] == pytest.approx(expected, rel=1e-6)
    assert (told["version"], told["described"]) == (1, ["signature_def"])
    assert told["states"] == [[1, 30]]  # AVAILABLE
    assert told["refused"] == "INVALID_ARGUMENT"  # a regressor does not classify
