"""What the prediction log costs a server: off, on, and durable; and how quickly labels are safe on the disk.

The same server and model in turn, recording chosen by a setting. Beside the rate stands the processor time a request took,
which other work on the machine does not change much.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import peers, serving
from benchmarks.peers import Server
from benchmarks.serving import Load
from benchmarks.subject import Body, Subject
from fairway.app.home import open_home
from fairway.app.keys import create_key

ALONE = {"FAIRWAY_CONTROL_ENABLED": "false"}
"""The monitor, which starts beside a server that records, is measured in `monitoring`."""
MODES = {
    "off": {**ALONE, "FAIRWAY_LOG_ENABLED": "false"},
    "on": ALONE,
    "durable": {**ALONE, "FAIRWAY_LOG_DURABLE": "true"},
}
LOADS = (Load("json", 1, 1), Load("json", 1, 32), Load("json", 64, 8), Load("binary", 64, 8))
LABELS = (1, 32)


@dataclass
class Recorded:
    """Medians over rounds, by mode and load; labels a second and their p50 in ms, by connections."""

    rate: dict[tuple[str, Load], float] = field(default_factory=dict)
    p50_ms: dict[tuple[str, Load], float] = field(default_factory=dict)
    cpu_us: dict[tuple[str, Load], float] = field(default_factory=dict)
    labels: dict[int, float] = field(default_factory=dict)
    labels_p50_ms: dict[int, float] = field(default_factory=dict)


def cost(server: Server, process: int, subject: Subject, load: Load, seconds: int) -> dict[str, float]:
    """What a load costs the server of this process: requests a second, milliseconds, and microseconds of CPU a request."""
    before = serving.cpu_seconds(process)
    result = serving.wrk(server, subject.bodies[load.form, load.rows], load.connections, seconds)
    spent = serving.cpu_seconds(process) - before
    return {
        "rate": result["rate"],
        "p50_ms": result["p50_ms"],
        "cpu_us": spent / max(1.0, result["rate"] * seconds) * 1e6,
    }


def measure(folder: Path, *, rounds: int, seconds: int, log: Path) -> Recorded:
    subject = Subject(folder)
    plain = peers.fairway(subject.home, subject.key)
    with open_home(subject.home) as home:
        key = create_key(home, "labels", scopes=("feedback",), why="a benchmark")[1]
    seen: dict[str, dict[tuple[str, Load], list[float]]] = {"rate": {}, "p50_ms": {}, "cpu_us": {}}
    labels: dict[str, dict[int, list[float]]] = {"rate": {}, "p50_ms": {}}
    label = folder / "label.json"
    label.write_text(json.dumps({"request_id": "r-1", "label": 1}))
    for _ in range(rounds):
        for mode, environment in MODES.items():
            server = replace(plain, environment={**plain.environment, **environment})
            with serving.running(server, subject.bodies["json", 1], log) as (process, _):
                for load in LOADS:
                    for name, value in cost(server, process.pid, subject, load, seconds).items():
                        seen[name].setdefault((mode, load), []).append(value)
                if mode == "on":
                    _labels(server, key, label, seconds, labels)
    found = Recorded(**{name: {k: statistics.median(v) for k, v in of.items()} for name, of in seen.items()})
    found.labels = {k: statistics.median(v) for k, v in labels["rate"].items()}
    found.labels_p50_ms = {k: statistics.median(v) for k, v in labels["p50_ms"].items()}
    return found


def _labels(
    server: Server, key: str, label: Path, seconds: int, seen: dict[str, dict[int, list[float]]]
) -> None:
    asked = replace(server, path="/feedback", headers=(f"Authorization: Bearer {key}",))
    body = Body(label, ("Content-Type: application/json",))
    for connections in LABELS:
        result = serving.wrk(asked, body, connections, seconds)
        for name, values in seen.items():
            values.setdefault(connections, []).append(result[name])


def table(found: Recorded) -> list[list[str]]:
    """Rows: the load; rate off, on, durable; their ratios; processor time a request."""
    rows = []
    for load in LOADS:
        rate = {mode: found.rate[mode, load] for mode in MODES}
        cpu = {mode: found.cpu_us[mode, load] for mode in MODES}
        rows.append(
            [
                f"{load.form}, {load.rows} row{'s' if load.rows > 1 else ''}, {load.connections} conn",
                *(f"{rate[mode]:,.0f}/s" for mode in MODES),
                f"{rate['on'] / rate['off']:.2f}",
                f"{rate['durable'] / rate['off']:.2f}",
                " / ".join(f"{cpu[mode]:.0f}" for mode in MODES) + " us",
                " / ".join(f"{found.p50_ms[mode, load]:.2f}" for mode in MODES) + " ms",
            ]
        )
    return rows
