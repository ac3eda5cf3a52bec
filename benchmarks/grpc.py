"""ModelInfer over gRPC, 32 calls in flight: one core for the server, one for the load generator."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import serving
from benchmarks.peers import PORT, Server
from benchmarks.subject import Bodies

IN_FLIGHT = 32
ROWS = (1, 64)


@dataclass
class Called:
    """Medians over rounds, by rows a call: calls a second, p50 and p99 in ms, CPU microseconds of the server's
    processes a call."""

    name: str
    rate: dict[int, float]
    p50_ms: dict[int, float]
    p99_ms: dict[int, float]
    cpu_us: dict[int, float]


def measure(servers: list[Server], bodies: Bodies, *, rounds: int, seconds: int, log: Path) -> list[Called]:
    samples: dict[str, dict[int, list[dict[str, float]]]] = {s.name: {n: [] for n in ROWS} for s in servers}
    for number in range(rounds):
        for server in servers:
            print(f"gRPC, round {number + 1}/{rounds}: {server.name}", flush=True)
            with serving.running(server, bodies[server.form, 1], log) as (process, _):
                for rows in ROWS:
                    found = _load(server, bodies["json", rows].path, process.pid, seconds)
                    if found["errors"]:
                        raise RuntimeError(f"{server.name}: {found['errors']} errors over gRPC: {found}")
                    samples[server.name][rows].append(found)

    def median(name: str, what: str) -> dict[int, float]:
        return {rows: statistics.median(f[what] for f in found) for rows, found in samples[name].items()}

    return [
        Called(s.name, *(median(s.name, what) for what in ("rate", "p50_ms", "p99_ms", "cpu_us")))
        for s in servers
    ]


def _load(server: Server, body: Path, pid: int, seconds: int) -> dict[str, float]:
    command = ["taskset", "-c", serving.LOAD_CORE, sys.executable, "-m", "benchmarks.grpc_load"]
    command += [f"127.0.0.1:{PORT + 1}", "--body", str(body), "--in-flight", str(IN_FLIGHT)]
    command += ["--seconds", str(seconds), "--pid", str(pid)]
    for header in server.headers:
        name, value = header.split(": ", 1)
        command += ["--header", f"{name.lower()}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))
