"""What reloading costs: requests that fail, other models' p99, and memory after many reloads, loads and unloads.

python -m benchmarks.reload                    all of it: 500 MB, 100,000 requests, 100 reloads, 200 cycles
python -m benchmarks.reload --megabytes 50 --requests 5000 --reloads 10 --cycles 10    a quick look
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.large import bundle_of, private_bytes, register, route, table_model
from fairway.app.home import open_home
from fairway.serving.folder import ServerFolder
from fairway.serving.repository import ServerRepository

FAIRWAY = str(Path(sys.executable).with_name("fairway"))
WORKERS = 2
_LOOK_SECONDS = 0.02
_SETTLE_SECONDS = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reload", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=500.0, help="weights of the large model")
    parser.add_argument("--requests", type=int, default=100_000, help="while the large model is reloaded")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second, both models together")
    parser.add_argument(
        "--every", type=float, default=10.0, help="seconds from one of its reloads to the next"
    )
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--cycles", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairway-reload-") as scratch:
        folder = Path(scratch)
        lines = soak(folder / "soak", given.reloads, given.cycles)
        lines += under_load(folder / "load", given.megabytes, given.requests, given.rate, given.every)
    print("\n".join(lines))
    return 0


@dataclass
class Running:
    """A server and its processes."""

    address: str
    process: subprocess.Popen[str]

    def workers(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [
            int(pid) for pid in listed if "fairway.serving.worker" in Path(f"/proc/{pid}/cmdline").read_text()
        ]

    def repository(self) -> ServerRepository:
        arguments = Path(f"/proc/{self.workers()[0]}/cmdline").read_text().split("\0")
        folder = next(Path(a).parent for a in arguments if a.endswith(".json"))
        return ServerRepository(ServerFolder(folder), WORKERS, 600.0)

    def serves(self, model: str, version: int) -> bool:
        """Whether every worker has loaded it and let the one before go."""
        states = [s for s in self.repository().index() if s.model == model]
        return {s.version for s in states if s.state == "ready"} == {version}

    def megabytes(self) -> float:
        """Memory of all workers, what they share counted once."""
        return sum(private_bytes(pid)[0] for pid in self.workers()) / 2**20


@contextmanager
def serving(home: Path) -> Iterator[Running]:
    command = [FAIRWAY, "serve", "--home", str(home), "--port", "0", "--grpc-port", "0", "--json"]
    command += ["--workers", str(WORKERS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Running(json.loads(process.stdout.readline())["address"], process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def soak(folder: Path, reloads: int, cycles: int) -> list[str]:
    """Memory before and after many reloads, and many loads and unloads, of a 20 MB model under light traffic."""
    home = folder / "home"
    with open_home(home) as place:
        for number, shift in enumerate((0.0, 1.0)):
            model = table_model(folder / f"m{number}" / "m.onnx", 20, shift)
            register(place, "model", bundle_of(model, folder / f"b{number}"))
    route(home, "model", 1)
    with serving(home) as server, httpx.Client(base_url=server.address) as client:

        def reload(turn: int) -> int:
            version = 2 - turn % 2
            route(home, "model", version)
            _until(lambda: server.serves("model", version))
            return _errors(client, "model")

        repository = server.repository()

        def cycle(_turn: int) -> int:
            repository.unload("model")
            repository.load("model")
            return _errors(client, "model")

        rows = []
        for what, step, count in (("reloads", reload, reloads), ("loads and unloads", cycle, cycles)):
            errors = sum(step(turn) for turn in range(10))  # what only the first ones take is no leak
            time.sleep(_SETTLE_SECONDS)
            before = server.megabytes()
            began = time.monotonic()
            errors += sum(step(turn) for turn in range(count))
            seconds = time.monotonic() - began
            time.sleep(_SETTLE_SECONDS)
            after = server.megabytes()
            rows.append(
                f"| {count} {what} | {errors} | {before:.0f} MB | {after:.0f} MB | {seconds / count:.2f} s |"
            )
    return [
        f"A 20 MB model in {WORKERS} workers; memory of both workers (PSS), after 10 to warm up and at the end.",
        "",
        "| what | errors | before | after | each |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def under_load(folder: Path, megabytes: float, requests: int, rate: float, every: float) -> list[str]:
    """A large model reloaded every so many seconds while it and a small one are asked."""
    home = folder / "home"
    with open_home(home) as place:
        for number, shift in enumerate((0.0, 1.0)):
            model = table_model(folder / f"m{number}" / "m.onnx", megabytes, shift)
            register(place, "large", bundle_of(model, folder / f"b{number}"))
        register(place, "small", bundle_of(table_model(folder / "s" / "m.onnx", 0.1), folder / "s-bundle"))
    route(home, "small", 1)
    route(home, "large", 2)
    with serving(home) as server:
        _until(lambda: server.serves("large", 2))
        seconds = requests / rate
        quiet = _load(server, min(seconds, 20.0), rate)
        reloads = 0

        def keep_reloading(busy: Callable[[], bool]) -> None:
            nonlocal reloads
            while busy():
                next_one = time.monotonic() + every
                version = 1 + reloads % 2
                route(home, "large", version)
                _until(partial(server.serves, "large", version))
                reloads += 1
                while busy() and time.monotonic() < next_one:
                    time.sleep(_LOOK_SECONDS)

        busy = _load(server, seconds, rate, keep_reloading)
    rows = []
    for name in ("small", "large"):
        before, during = quiet[name], busy[name]
        rows.append(
            f"| {name} | {during['requests']:,} | {during['failed']} | {before['p50']:.2f} ms | {during['p50']:.2f} ms "
            f"| {before['p99']:.2f} ms | {during['p99']:.2f} ms | {during['p99'] / before['p99'] - 1:+.0%} |"
        )
    return [
        f"A model of {megabytes:.0f} MB reloaded {reloads} times in {seconds:.0f} s, {WORKERS} workers, "
        f"{rate:.0f} requests/s (open loop).",
        "",
        "| model | requests | failed | p50 quiet | p50 reloading | p99 quiet | p99 reloading | p99 change |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def _load(
    server: Running,
    seconds: float,
    rate: float,
    meanwhile: Callable[[Callable[[], bool]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Half of the rate on each model; requests, failures and percentiles (ms) by model."""
    options = [
        "--rate",
        str(rate / 2),
        "--connections",
        "8",
        "--seconds",
        str(seconds),
        "--warmup",
        "2",
        "--json",
    ]
    loads = {
        name: subprocess.Popen(
            [FAIRWAY, "bench", server.address, "--model", name, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("small", "large")
    }
    with ThreadPoolExecutor(1) as pool:
        if meanwhile is not None:
            time.sleep(2.0)
            pool.submit(meanwhile, lambda: any(load.poll() is None for load in loads.values())).result()
        return {name: _read(load.communicate()[0]) for name, load in loads.items()}


def _read(printed: str) -> dict[str, Any]:
    told = json.loads(printed)
    return {
        "requests": told["requests"],
        "failed": told["requests"] - told["ok"],
        "p50": told["latency"]["p50"] * 1000,
        "p99": told["latency"]["p99"] * 1000,
    }


def _errors(client: httpx.Client, model: str) -> int:
    """1 when a prediction fails."""
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}
    return int(client.post(f"/v2/models/{model}/infer", json=body).status_code != 200)


def _until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it did not happen within {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
