"""Traffic that goes on, and models to change under it."""

import http.client
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import fairway
from fairway.app.home import Home, open_home
from fairway.core.route import everything_to
from fairway.packaging.bundle import read_bundle
from fairway.serving.folder import ServerFolder
from fairway.serving.repository import ServerRepository
from tests.e2e.servers import Server

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
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [weights, axis, zero],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return path


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
        who="tests",
        why="a test",
    ).version


def route(home: Path, name: str, version: int) -> None:
    with open_home(home) as place:
        now = place.registry.route(name)
        place.registry.set_route(
            everything_to(name, version),
            expected_revision=0 if now is None else now.revision,
            who="tests",
            why="a test",
        )


@contextmanager
def tables(folder: Path, megabytes: float, shifts: tuple[float, ...]) -> Iterator[list[Path]]:
    """Bundles of `table_model`."""
    bundles = []
    for i, shift in enumerate(shifts):
        bundles.append(
            bundle_of(table_model(folder / f"m{i}" / "m.onnx", megabytes, shift), folder / f"b{i}")
        )
        shutil.rmtree(folder / f"m{i}")
    yield bundles
    for bundle in bundles:
        shutil.rmtree(bundle)


def folder_of(server: Server) -> ServerFolder:
    """The folder through which the server's processes talk."""
    arguments = Path(f"/proc/{server.workers()[0]}/cmdline").read_text().split("\0")
    return ServerFolder(Path(next(a for a in arguments if a.endswith(".json"))).parent)


def repository_of(server: Server, workers: int = 1) -> ServerRepository:
    return ServerRepository(folder_of(server), workers, 60.0)


@dataclass
class Traffic:
    """What clients got: `answers` by version header, `failures` in words, `seconds` of each request."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopping: bool = False

    @property
    def count(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def wait_for(self, more: int) -> None:
        """Until that many more requests have been answered."""
        until, deadline = self.count + more, time.monotonic() + 60
        while self.count < until:
            assert time.monotonic() < deadline, self
            time.sleep(0.005)


@contextmanager
def traffic(address: str, path: str, body: object, clients: int = 4, pause: float = 0.0) -> Iterator[Traffic]:
    """Clients that ask again and again, each on a connection it keeps."""
    seen = Traffic()
    payload = json.dumps(body).encode()

    def ask() -> None:
        connection: http.client.HTTPConnection | None = None
        while not seen.stopping:
            began = time.perf_counter()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(address, timeout=30)
                connection.request("POST", path, payload, {"content-type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
                if answer.status == 200:
                    seen.answers[answer.headers["fairway-version"]] += 1
                else:
                    seen.failures.append(f"{answer.status} {content.decode()}")
            except (OSError, http.client.HTTPException) as error:
                seen.failures.append(repr(error))
                if connection is not None:
                    connection.close()
                connection = None
            seen.seconds.append(time.perf_counter() - began)
            if pause:
                time.sleep(pause)
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.stopping = True
        for thread in threads:
            thread.join()
