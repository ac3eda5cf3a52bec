"""Servers under load: one core for the server, one for the load generator (wrk), rounds in turn, medians."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import HERE, Server
from benchmarks.subject import Bodies, Body

SERVER_CORE, LOAD_CORE = "0", "1"
READY_SECONDS = 90.0


class Load(NamedTuple):
    form: str
    rows: int
    connections: int


LOADS = (Load("json", 1, 1), Load("json", 1, 32), Load("json", 64, 8), Load("binary", 64, 8))


@dataclass
class Measured:
    """Medians over rounds by load; start in seconds, memory in MB of the process that answers and of all."""

    name: str
    rate: dict[Load, float] = field(default_factory=dict)
    p50_ms: dict[Load, float] = field(default_factory=dict)
    p99_ms: dict[Load, float] = field(default_factory=dict)
    ready_seconds: float = 0.0
    worker_mb: float = 0.0
    total_mb: float = 0.0


def measure(servers: list[Server], bodies: Bodies, *, rounds: int, seconds: int, log: Path) -> list[Measured]:
    """Each round starts every server once, loads it and stops it, so that noise falls on all alike. Each was started
    once before, so that its bytecode and its files are where a second start finds them."""
    samples: dict[str, list[Measured]] = {server.name: [] for server in servers}
    for server in servers:
        with running(server, bodies[server.form, 1], log):
            pass
    for number in range(rounds):
        for server in servers:
            print(f"round {number + 1}/{rounds}: {server.name}", flush=True)
            samples[server.name].append(_round(server, bodies, seconds, log))
    return [_median(name, rounds_of) for name, rounds_of in samples.items()]


def _round(server: Server, bodies: Bodies, seconds: int, log: Path) -> Measured:
    measured = Measured(server.name)
    with running(server, bodies[server.form, 1], log) as (process, ready):
        measured.ready_seconds = ready
        measured.worker_mb, measured.total_mb = memory(process.pid)
        for load in LOADS:
            if load.form == "binary" and not server.binary:
                continue
            form = server.form if load.form == "json" else load.form
            result = wrk(server, bodies[form, load.rows], load.connections, seconds)
            if result["errors"]:
                raise RuntimeError(f"{server.name}: {result['errors']} errors at {load}")
            measured.rate[load] = result["rate"]
            measured.p50_ms[load] = result["p50_ms"]
            measured.p99_ms[load] = result["p99_ms"]
        worker, total = memory(process.pid)
        measured.worker_mb, measured.total_mb = max(worker, measured.worker_mb), max(total, measured.total_mb)
    return measured


@contextmanager
def running(server: Server, body: Body, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A started server, and the seconds from its process's start to its first prediction."""
    # Bytecode is kept, as it is wherever pip installs: the time to ready is not a compiler's.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **server.environment}
    command = ["taskset", "-c", SERVER_CORE, *server.command]
    began = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=server.folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process, _first_answer(server, process, body, began)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.5)


def _first_answer(server: Server, process: subprocess.Popen[bytes], body: Body, began: float) -> float:
    headers = dict(line.split(": ", 1) for line in (*body.headers, *server.headers))
    request = urllib.request.Request(server.url, body.path.read_bytes(), headers)
    while time.perf_counter() - began < READY_SECONDS:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with {process.returncode}; see the log")
        try:
            with urllib.request.urlopen(request, timeout=5):
                return time.perf_counter() - began
        except (urllib.error.URLError, OSError):
            time.sleep(0.005)
    raise RuntimeError(f"{server.name} did not answer within {READY_SECONDS:.0f} s")


def wrk(
    server: Server, body: Body, connections: int, seconds: int, script: str = "predict.lua", **environ: str
) -> dict[str, float]:
    """Requests a second, latency percentiles in ms, errors. `environ` is for the script."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    told = {"BODY": str(body.path), "HEADERS": "\n".join((*body.headers, *server.headers)), **environ}
    done = subprocess.run(
        [*command, "-s", str(HERE.parent / script), server.url],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return dict(json.loads(line.removeprefix("RESULT ")))


def memory(pid: int) -> tuple[float, float]:
    """Resident MB of the largest process below `pid`, and of all of them together."""
    sizes = []
    for process in [pid, *_descendants(pid)]:
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        sizes += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")]
    return max(sizes, default=0.0), sum(sizes)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and those below it have taken."""
    ticks = 0
    for process in [pid, *_descendants(pid)]:
        try:
            told = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            continue
        ticks += sum(map(int, told.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in children for found in (int(child), *_descendants(int(child)))]


def _median(name: str, rounds: list[Measured]) -> Measured:
    median = statistics.median
    keys = rounds[0].rate
    return Measured(
        name,
        {key: median(r.rate[key] for r in rounds) for key in keys},
        {key: median(r.p50_ms[key] for r in rounds) for key in keys},
        {key: median(r.p99_ms[key] for r in rounds) for key in keys},
        median(r.ready_seconds for r in rounds),
        median(r.worker_mb for r in rounds),
        median(r.total_mb for r in rounds),
    )
