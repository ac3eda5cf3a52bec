"""What merging does: for a model that gains by it, for one that may not, and for a server that is idle."""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import fairway
from benchmarks import serving
from benchmarks.peers import PORT, Server
from benchmarks.subject import binary_body, forest, json_body

WIDTH, LAYERS = 1024, 4
CONNECTIONS = 64
_OFFLINE = """
import sys, time, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options); name = session.get_inputs()[0].name
for rows in (1, 8, 16, 32, 64, 128, 256):
    x = np.random.default_rng(0).random((rows, int(sys.argv[2]))).astype(np.float32)
    session.run(None, {name: x}); best = 9.0
    for _ in range(20):
        began = time.perf_counter(); session.run(None, {name: x}); best = min(best, time.perf_counter() - began)
    print(rows / best)
"""


@dataclass
class Merged:
    """Medians over rounds. Rows a second of the MLP, by rows a request, and of its bare engine at its best batch
    size; requests a second of the forest and p50 of an idle server in ms, with merging on and off."""

    mlp_offline: float
    mlp: dict[int, float]
    forest: dict[str, float]
    idle_p50_ms: dict[str, float]


def measure(folder: Path, *, rounds: int, seconds: int, log: Path) -> Merged:
    home = folder / "batching"
    onnx = mlp(folder / "mlp.onnx")
    rows = np.random.default_rng(1).normal(size=(256, WIDTH)).astype(np.float32)
    fairway.deploy(onnx, rows, name="mlp", home=home)
    model, features, _ = forest()
    fairway.deploy(model, features, name="forest", home=home)
    mlp_bodies = {n: binary_body(folder / f"mlp-{n}.bin", "x", rows[:n]) for n in (1, 8)}
    forest_body = json_body(folder / "forest.json", "X", features[:1])
    offline: list[float] = []
    online: dict[int, list[float]] = {n: [] for n in mlp_bodies}
    trees: dict[str, list[float]] = {"auto": [], "off": []}
    idle: dict[str, list[float]] = {"auto": [], "off": []}
    for number in range(rounds):
        print(f"batching, round {number + 1}/{rounds}", flush=True)
        offline.append(_offline(onnx))
        server = _server(home, "mlp", "auto")
        with serving.running(server, mlp_bodies[1], log):
            for n, body in mlp_bodies.items():
                serving.wrk(server, body, CONNECTIONS, 2)  # the cost curve is learned while serving
                online[n].append(n * serving.wrk(server, body, CONNECTIONS, seconds)["rate"])
        for mode in ("auto", "off"):
            server = _server(home, "forest", mode)
            with serving.running(server, forest_body, log):
                serving.wrk(server, forest_body, CONNECTIONS, 2)
                trees[mode].append(serving.wrk(server, forest_body, CONNECTIONS, seconds)["rate"])
                idle[mode].append(serving.wrk(server, forest_body, 1, seconds)["p50_ms"])
    median = statistics.median
    return Merged(
        median(offline),
        {n: median(values) for n, values in online.items()},
        {mode: median(values) for mode, values in trees.items()},
        {mode: median(values) for mode, values in idle.items()},
    )


def mlp(path: Path) -> Path:
    """Four layers of 1024 by 1024 with ReLU between them."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for layer in range(LAYERS):
        matrix = random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
        weights += [
            numpy_helper.from_array(matrix.astype(np.float32), f"w{layer}"),
            numpy_helper.from_array(random.normal(size=WIDTH).astype(np.float32), f"b{layer}"),
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"h{layer}"]))
        last = f"h{layer}"
        if layer < LAYERS - 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{layer}"]))
            last = f"r{layer}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def _offline(onnx: Path) -> float:
    command = ["taskset", "-c", serving.SERVER_CORE, sys.executable, "-c", _OFFLINE, str(onnx), str(WIDTH)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return max(float(line) for line in done.stdout.split())


def _server(home: Path, model: str, mode: str) -> Server:
    program = str(Path(sys.executable).with_name("fairway"))
    command = (
        program,
        "serve",
        model,
        "--home",
        str(home),
        "--port",
        str(PORT),
        "--grpc-port",
        str(PORT + 1),
    )
    return Server(f"{model} {mode}", f"/v2/models/{model}/infer", command, {"FAIRWAY_BATCHING_MODE": mode})
