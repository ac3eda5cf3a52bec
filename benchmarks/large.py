"""Models as large as one likes, made with onnx, and put into a registry without any packaging tool's help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import fairway
from fairway.app.home import Home, open_home
from fairway.core.route import everything_to
from fairway.packaging.bundle import read_bundle

FEATURES = 4


def table_model(path: Path, megabytes: float, shift: float = 0.0) -> Path:
    """An ONNX model that looks rows up in a large table beside it: y = x[0] + x[1] + x[2] + x[3] + `shift`.

    It is as large as wanted and as quick as any."""
    rows = max(1, int(megabytes * 2**20 / 4 / 256))
    table = np.zeros((rows, 256), dtype=np.float32)
    table[:, 0] = shift
    weights = helper.make_tensor("table", TensorProto.FLOAT, table.shape, table.tobytes(), raw=True)
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        helper.make_node("Gather", ["table", "zero"], ["row"]),
        helper.make_node("ReduceSum", ["row", "axis"], ["shift"], keepdims=1),
        helper.make_node("Add", ["sum", "shift"], ["y"]),
    ]
    return _saved(path, nodes, [weights, axis, zero])


def bundle_of(path: Path, out: Path) -> Path:
    sample = np.random.default_rng(1).normal(size=(20, FEATURES)).astype(np.float32)
    fairway.package(path, {"x": sample}, out=out)
    return out


def register(home: Home, name: str, bundle: Path) -> int:
    """The version the bundle is under this name, without any traffic."""
    read = read_bundle(bundle)
    return home.registry.register(
        name,
        bundle,
        digest=read.digest,
        engine=read.proof.engine,
        input_signature=read.contract.input_signature(),
        who="somebody",
        why="to see",
    ).version


def route(home: Path, name: str, version: int) -> None:
    with open_home(home) as place:
        now = place.registry.route(name)
        place.registry.set_route(
            everything_to(name, version),
            expected_revision=0 if now is None else now.revision,
            who="somebody",
            why="to see",
        )


def dense_model(path: Path, megabytes: float, width: int = 2048) -> Path:
    """An ONNX model that multiplies by every one of its weights: y = mean(x W1 W2 ... Wn), with tanh in between."""
    layers = max(1, round(megabytes * 2**20 / 4 / width / width))
    random = np.random.default_rng(5)
    first = random.normal(size=(FEATURES, width)).astype(np.float32)
    weights = [helper.make_tensor("w0", TensorProto.FLOAT, first.shape, first.tobytes(), raw=True)]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h0"])]
    for layer in range(1, layers + 1):
        values = random.normal(scale=width**-0.5, size=(width, width)).astype(np.float32)
        weights.append(
            helper.make_tensor(f"w{layer}", TensorProto.FLOAT, values.shape, values.tobytes(), raw=True)
        )
        nodes.append(helper.make_node("MatMul", [f"h{layer - 1}", f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"m{layer}"], [f"h{layer}"]))
    nodes.append(helper.make_node("ReduceMean", [f"h{layers}", "axis"], ["y"], keepdims=1))
    weights.append(helper.make_tensor("axis", TensorProto.INT64, [1], [1]))
    return _saved(path, nodes, weights)


def _saved(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> Path:
    """With the weights beside the graph, as large models are saved."""
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return path


def private_bytes(pid: int) -> tuple[int, int]:
    """(proportional share of all memory, memory that is its own alone) of a process, bytes."""
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount = line.split(":")
        values[name] = int(amount.split()[0]) * 1024
    return values["Pss"], values["Private_Dirty"] + values["Private_Clean"]
