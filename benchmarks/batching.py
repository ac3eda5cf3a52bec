"""What merging does: for a model that gains by it, for one that may not, and for a server that is idle."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import fairway
from benchmarks import serving
from benchmarks.peers import PORT, Server
from benchmarks.subject import binary_body, forest, json_body

MLPS = {"1024 numbers in and out": (1024,) * 5, "30 features, 2 classes": (30, 1024, 1024, 1024, 1024, 2)}
"""Width of the input and of what each layer gives: four layers with nothing else, and the same behind a table's row."""
CONNECTIONS = 64
REQUEST_ROWS = (1, 8, 32)
_OFFLINE = """
import sys, time, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options); name = session.get_inputs()[0].name
for rows in (32, 64, 128, 256, 512):
    x = np.random.default_rng(0).random((rows, int(sys.argv[2]))).astype(np.float32)
    session.run(None, {name: x}); calls = 0; began = time.perf_counter()
    while time.perf_counter() - began < 1.0:
        session.run(None, {name: x}); calls += 1
    print(rows * calls / (time.perf_counter() - began))
"""


@dataclass
class Merged:
    """Medians over rounds. Rows a second of each MLP, by rows a request, and of its bare engine at its best batch
    size; requests a second of the forest and p50 of an idle server in ms, with merging on and off."""

    mlps_offline: dict[str, float]
    mlps: dict[str, dict[int, float]]
    forest: dict[str, float]
    idle_p50_ms: dict[str, float]


def measure(folder: Path, *, rounds: int, seconds: int, log: Path) -> Merged:
    home = folder / "batching"
    mlps = [_Mlp(folder, home, kind) for kind in MLPS]
    model, features, _ = forest()
    fairway.deploy(model, features, name="forest", home=home)
    forest_body = json_body(folder / "forest.json", "X", features[:1])
    trees: dict[str, list[float]] = {"auto": [], "off": []}
    idle: dict[str, list[float]] = {"auto": [], "off": []}
    for number in range(rounds):
        print(f"batching, round {number + 1}/{rounds}", flush=True)
        for mlp in mlps:
            mlp.measure(seconds, log)
        for mode in ("auto", "off"):
            server = _server(home, "forest", mode)
            with serving.running(server, forest_body, log):
                serving.wrk(server, forest_body, CONNECTIONS, 2)
                trees[mode].append(serving.wrk(server, forest_body, CONNECTIONS, seconds)["rate"])
                idle[mode].append(serving.wrk(server, forest_body, 1, seconds)["p50_ms"])
    median = statistics.median
    return Merged(
        {mlp.kind: median(mlp.offline) for mlp in mlps},
        {mlp.kind: {n: median(values) for n, values in mlp.online.items()} for mlp in mlps},
        {mode: median(values) for mode, values in trees.items()},
        {mode: median(values) for mode, values in idle.items()},
    )


class _Mlp:
    """One kind of MLP, deployed, and the rates seen so far."""

    def __init__(self, folder: Path, home: Path, kind: str) -> None:
        widths = MLPS[kind]
        self.kind = kind
        self.name = f"mlp{widths[0]}"
        self._home = home
        self._inputs = widths[0]
        self._onnx = write_mlp(folder / f"{self.name}.onnx", widths)
        rows = np.random.default_rng(1).normal(size=(256, widths[0])).astype(np.float32)
        fairway.deploy(self._onnx, rows, name=self.name, home=home)
        self._bodies = {n: binary_body(folder / f"{self.name}-{n}.bin", "x", rows[:n]) for n in REQUEST_ROWS}
        self.offline: list[float] = []
        self.online: dict[int, list[float]] = {n: [] for n in REQUEST_ROWS}

    def measure(self, seconds: int, log: Path) -> None:
        """One round: the bare engine at each batch size for a second, then the server."""
        core = ("taskset", "-c", serving.SERVER_CORE)
        command = [*core, sys.executable, "-c", _OFFLINE, str(self._onnx), str(self._inputs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.offline.append(max(float(line) for line in done.stdout.split()))
        server = _server(self._home, self.name, "auto")
        with serving.running(server, self._bodies[1], log):
            for n, body in self._bodies.items():
                serving.wrk(server, body, CONNECTIONS, 2)  # the cost curve is learned while serving
                self.online[n].append(n * serving.wrk(server, body, CONNECTIONS, seconds)["rate"])


def write_mlp(path: Path, widths: Sequence[int]) -> Path:
    """Layers between these widths, with ReLU between them, as ONNX."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for layer, (given, made) in enumerate(pairwise(widths)):
        matrix = random.normal(size=(given, made)) / np.sqrt(given)
        weights += [
            numpy_helper.from_array(matrix.astype(np.float32), f"w{layer}"),
            numpy_helper.from_array(random.normal(size=made).astype(np.float32), f"b{layer}"),
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"h{layer}"]))
        last = f"h{layer}"
        if layer < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{layer}"]))
            last = f"r{layer}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, widths[0]])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, widths[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


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
