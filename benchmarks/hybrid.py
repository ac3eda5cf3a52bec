"""Precomputed answers over HTTP beside the live model: the same logistic regression, the same server, in turn.

Keys are drawn at random from all there are. The live model gets the 30 features that it needs; a key is all that the
others send.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

import fairway
from benchmarks import serving
from benchmarks.peers import PORT, Server
from benchmarks.subject import JSON, Body, Subject
from fairway.app.precompute import precompute

CONNECTIONS = (1, 32)
LIVE, KEYED, BOTH, REDIS = "live", "key only", "key and features", "key only, Redis"


@dataclass
class Seen:
    """Medians over rounds, by what was asked and connections."""

    keys: int
    rate: dict[tuple[str, int], float] = field(default_factory=dict)
    p50_ms: dict[tuple[str, int], float] = field(default_factory=dict)
    p99_ms: dict[tuple[str, int], float] = field(default_factory=dict)
    cpu_us: dict[tuple[str, int], float] = field(default_factory=dict)


def measure(folder: Path, *, rounds: int, seconds: int, keys: int, log: Path) -> Seen:
    subject = Subject(folder)
    with _redis(folder) as redis:
        _deploy(subject, folder, keys, redis)
        bodies = {
            LIVE: ("lr", subject.bodies["json", 1]),
            KEYED: ("keyed", _body(folder / "key.json", '{"parameters":{"customer_id":"%s"}}')),
            BOTH: ("keyed", _with_key(folder / "both.json", subject.bodies["json", 1])),
        }
        if redis:
            bodies[REDIS] = ("remote", bodies[KEYED][1])
        program = str(Path(sys.executable).with_name("fairway"))
        ports = ("--port", str(PORT), "--grpc-port", str(PORT + 1))
        command = (program, "serve", "--home", str(subject.home), *ports)
        headers = (f"Authorization: Bearer {subject.key}",)
        samples: dict[tuple[str, int], list[dict[str, float]]] = {}
        server = Server("fairway", "/v2/models/lr/infer", command, headers=headers)
        with serving.running(server, bodies[LIVE][1], log) as (process, _):
            for number in range(rounds):
                print(f"round {number + 1}/{rounds}", flush=True)
                for connections in CONNECTIONS:
                    for what, (name, body) in bodies.items():
                        asked = Server("fairway", f"/v2/models/{name}/infer", (), headers=headers)
                        before = serving.cpu_seconds(process.pid)
                        if what == LIVE:
                            seen = serving.wrk(asked, body, connections, seconds)
                        else:
                            seen = _wrk(asked, body, connections, seconds, keys)
                        spent = serving.cpu_seconds(process.pid) - before
                        seen["cpu_us"] = spent * 1e6 / (seen["rate"] * seconds)
                        if seen["errors"]:
                            raise RuntimeError(f"{what}: {seen['errors']:.0f} errors")
                        samples.setdefault((what, connections), []).append(seen)

    def median(name: str) -> dict[tuple[str, int], float]:
        return {key: statistics.median(one[name] for one in ones) for key, ones in samples.items()}

    return Seen(keys, median("rate"), median("p50_ms"), median("p99_ms"), median("cpu_us"))


def table(seen: Seen) -> list[str]:
    """Rows of a Markdown table: what, rates and latencies, and their ratio to the live model's."""
    lines = ["| what | " + " | ".join(f"{c} conn | p50 | p99 | CPU" for c in CONNECTIONS) + " |"]
    lines.append("| --- " * (1 + 4 * len(CONNECTIONS)) + "|")
    asked = list(dict.fromkeys(what for what, _ in seen.rate))
    for what in asked:
        cells = [
            f"{seen.rate[what, c]:,.0f}/s | {seen.p50_ms[what, c]:.2f} ms | {seen.p99_ms[what, c]:.2f} ms | "
            f"{seen.cpu_us[what, c]:.0f} us"
            for c in CONNECTIONS
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    for what in asked[1:]:
        cells = [
            " | ".join(
                f"{measured[what, c] / measured[LIVE, c]:.2f}"
                for measured in (seen.rate, seen.p50_ms, seen.p99_ms, seen.cpu_us)
            )
            for c in CONNECTIONS
        ]
        lines.append(f"| {what} / live | {' | '.join(cells)} |")
    return lines


def _deploy(subject: Subject, folder: Path, keys: int, redis: str) -> None:
    """`keyed` and, with a Redis, `remote`: the model of `lr`, with answers for c0, c1, ..."""
    settings = ["[models.keyed]", 'hybrid_key = "customer_id"', 'hybrid_missing = "refuse"']
    if redis:
        settings += ["[models.remote]", 'hybrid_key = "customer_id"', f'hybrid_store = "{redis}"']
    (subject.home / "fairway.toml").write_text("\n".join(settings) + "\n")
    rows = folder / "keys.parquet"
    with fairway.load("lr", home=subject.home, record=False) as model:
        names = [field.name for field in model.contract]
    chosen = np.random.default_rng(7).integers(0, len(subject.features), keys)
    frame = pd.DataFrame(subject.features[chosen], columns=names)
    frame.insert(0, "customer_id", [f"c{n}" for n in range(keys)])
    frame.to_parquet(rows, index=False)
    for name, store in (("keyed", None), ("remote", redis)):
        if store != "":
            fairway.deploy(subject.model, subject.features, name=name, home=subject.home)
            began = time.perf_counter()
            precompute(name, rows, key="customer_id", store=store, ttl_seconds=0, home=subject.home)
            print(f"{keys} answers of {name} in {time.perf_counter() - began:.1f} s", flush=True)


def _body(path: Path, text: str) -> Body:
    path.write_text(text)
    return Body(path, JSON)


def _with_key(path: Path, live: Body) -> Body:
    text = live.path.read_text()
    return _body(path, text.removesuffix("}") + ',"parameters":{"customer_id":"%s"}}')


def _wrk(server: Server, body: Body, connections: int, seconds: int, keys: int) -> dict[str, float]:
    return serving.wrk(server, body, connections, seconds, "keyed.lua", KEYS=str(keys))


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis of its own; empty where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        print("no redis-server here: left out", flush=True)
        yield ""
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ})
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(20)
