"""Our messages are the published ones, compiled from the files beside them, and in nobody's way."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from fairway.core.errors import MalformedInput
from fairway.serving.grpc import messages
from scripts import protos

TENSORFLOW = json.loads(Path(__file__).with_name("tensorflow_serving.json").read_text())
"""Numbers, types and labels of tensorflow-serving-api 2.21, and of the TensorFlow 2.20 messages it uses."""


def ours(package: str) -> list[Descriptor]:
    found = []
    for name in messages.files():
        file = messages.pool().FindFileByName(name)
        if file.package == package:
            found += file.message_types_by_name.values()
    assert found
    return found


def fields(message: Descriptor) -> dict[str, tuple[int, int, bool]]:
    return {field.name: (field.number, field.type, field.is_repeated) for field in message.fields}


def compare(mine: Descriptor, published: Descriptor) -> None:
    theirs = fields(published)
    assert fields(mine) == {name: theirs.get(name) for name in fields(mine)}, mine.full_name
    for nested in mine.nested_types:
        compare(nested, published.nested_types_by_name[nested.name])
    for kind in mine.enum_types:
        values = {value.name: value.number for value in published.enum_types_by_name[kind.name].values}
        assert {value.name: value.number for value in kind.values}.items() <= values.items()


@pytest.mark.parametrize(
    ("package", "published"),
    [
        ("inference", (service_pb2, model_config_pb2)),
        ("grpc.health.v1", (health_pb2,)),
        ("grpc.reflection.v1", (reflection_pb2,)),
    ],
)
def test_numbers_are_those_of_clients_that_others_ship(package: str, published: tuple[Any, ...]) -> None:
    theirs: dict[str, Descriptor] = {}
    for module in published:
        theirs |= module.DESCRIPTOR.message_types_by_name
    for message in ours(package):
        compare(message, theirs[message.name])


@pytest.mark.parametrize("package", ["tensorflow", "tensorflow.serving"])
def test_numbers_are_those_of_tensorflow_serving(package: str) -> None:
    def check(message: Descriptor) -> None:
        published = {
            name: (number, kind, label == 3)
            for name, (number, kind, label) in TENSORFLOW["messages"][message.full_name].items()
        }
        for name, found in fields(message).items():
            wanted = published[name]
            if message.full_name == "tensorflow.serving.StatusProto" and name == "error_code":
                wanted = (wanted[0], 5, False)  # an enumeration of the same numbers
            assert found == wanted, f"{message.full_name}.{name}"
        for nested in message.nested_types:
            check(nested)

    for message in ours(package):
        check(message)
    for name, values in TENSORFLOW["enums"].items():
        if name.rpartition(".")[0] != package and not name.startswith(f"{package}."):
            continue
        if name.startswith("tensorflow.serving") != (package == "tensorflow.serving"):
            continue
        mine = messages.pool().FindEnumTypeByName(name)
        assert {value.name: value.number for value in mine.values}.items() <= values.items()


def test_every_published_method_is_there() -> None:
    for name, methods in TENSORFLOW["services"].items():
        if name in ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
            mine = messages.pool().FindServiceByName(name)
            assert [method.name for method in mine.methods] == methods


def test_the_compiled_files_are_current() -> None:
    assert protos.COMPILED.read_bytes() == protos.compiled(), "python -m scripts.protos"


@pytest.mark.parametrize("first", ["fairway", "tritonclient"])
def test_clients_with_the_same_names_live_in_the_same_process(first: str) -> None:
    mine = "from fairway.serving.grpc.messages import message; a = message('inference.ModelInferRequest')"
    theirs = "from tritonclient.grpc.service_pb2 import ModelInferRequest as b"
    lines = [mine, theirs] if first == "fairway" else [theirs, mine]
    lines.append("assert a is not b; assert b.FromString(a(id='x').SerializeToString()).id == 'x'")
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_a_worker_that_serves_model_infer_needs_no_protobuf() -> None:
    lines = "import sys, fairway.serving.grpc.server; assert not any(n.startswith(('google', 'grpc')) for n in sys.modules)"
    subprocess.run([sys.executable, "-c", lines], check=True)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(MalformedInput, match=r"not a inference\.ModelInferRequest"):
        messages.parse("inference.ModelInferRequest", b"\xff")


def test_files_come_after_those_they_import() -> None:
    seen: set[str] = set()
    for name, data in messages.files().items():
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        assert set(file.dependency) <= seen
        seen.add(name)
