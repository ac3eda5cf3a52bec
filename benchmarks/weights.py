"""Memory of several workers that serve one large model: its weights are mapped from one file, not copied.

python -m benchmarks.weights                     1 GB of weights, 1 and 4 workers
python -m benchmarks.weights --megabytes 400
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.large import bundle_of, dense_model, private_bytes, register, route
from fairway.app.home import open_home

FAIRWAY = str(Path(sys.executable).with_name("fairway"))
ROW = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=1024.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairway-weights-") as scratch:
        print("\n".join(weights(Path(scratch), given.megabytes, given.workers)))
    return 0


def weights(folder: Path, megabytes: float, workers: list[int]) -> list[str]:
    """A table of memory by number of workers."""
    home = folder / "home"
    with open_home(home) as place:
        model = dense_model(folder / "m" / "m.onnx", megabytes)
        register(place, "large", bundle_of(model, folder / "bundle"))
    route(home, "large", 1)
    totals: list[float] = []
    rows = []
    for count in workers:
        ready, shares = _measure(home, count)
        total = sum(pss for pss, _ in shares) / 2**20
        totals.append(total)
        own = max(private for _, private in shares) / 2**20
        rows.append(f"| {count} | {total:.0f} MB | {own:.0f} MB | {ready:.1f} s | {total / totals[0]:.2f} |")
    return [
        f"A dense model of {megabytes:.0f} MB of weights, every one of them used; memory of all workers (PSS) after "
        "40 requests.",
        "",
        "| workers | all together | one's own at most | ready | to the first |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def _measure(home: Path, workers: int) -> tuple[float, list[tuple[int, int]]]:
    """Seconds to ready, and each worker's (PSS, private) bytes."""
    command = [FAIRWAY, "serve", "--home", str(home), "--port", "0", "--grpc-port", "0", "--json"]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = json.loads(process.stdout.readline())["address"]
        ready = time.monotonic() - began
        for _ in range(40):  # each on a connection of its own, so that every worker gets some
            httpx.post(f"{address}/v2/models/large/infer", json=ROW, timeout=60).raise_for_status()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        shares = [
            private_bytes(int(pid))
            for pid in children
            if "fairway.serving.worker" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    return ready, shares


if __name__ == "__main__":
    sys.exit(main())
