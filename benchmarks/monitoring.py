"""What watching costs: a server that records and is watched against one with both off; and a drift check of many rows.

The monitor shares the server's one core. A window ends every hour by default; so that the looking itself falls into the load,
there is a mode in which one ends every ten seconds. Beside the rate stands the processor time of all processes for a
request.

    python -m benchmarks.monitoring exact REFERENCE CURRENT | sketches REFERENCE CURRENT    one check, in a process of its own
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import peers, serving
from benchmarks.recording import cost
from benchmarks.serving import Load
from benchmarks.subject import Subject
from fairway.app.drift import drift
from fairway.monitoring.drift.compare_profiles import compare_profiles
from fairway.monitoring.drift.profile import Profile

OFF = {
    "FAIRWAY_LOG_ENABLED": "false",
    "FAIRWAY_MONITORING_ENABLED": "false",
    "FAIRWAY_CONTROL_ENABLED": "false",
}
ON = {"FAIRWAY_CONTROL_ENABLED": "true", "FAIRWAY_CONTROL_PORT": "0"}
BUSY = {
    **ON,
    "FAIRWAY_MONITORING_WINDOW_SECONDS": "10",
    "FAIRWAY_MONITORING_INTERVAL_SECONDS": "1",
    "FAIRWAY_MONITORING_GRACE_SECONDS": "1",
}
MODES = {"off": OFF, "on": ON, "busy": BUSY}
LOADS = (Load("json", 1, 1), Load("json", 1, 32), Load("json", 64, 8))
COLUMNS = 30


@dataclass
class Watched:
    """Medians over rounds, by mode and load."""

    rate: dict[tuple[str, Load], float] = field(default_factory=dict)
    p50_ms: dict[tuple[str, Load], float] = field(default_factory=dict)
    cpu_us: dict[tuple[str, Load], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Of one process: seconds of the check by the clock and of the processor, and the most memory that it had at any
    time."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    drifted: tuple[str, ...]


def measure(folder: Path, *, rounds: int, seconds: int, log: Path) -> Watched:
    subject = Subject(folder)
    plain = peers.fairway(subject.home, subject.key)
    seen: dict[str, dict[tuple[str, Load], list[float]]] = {"rate": {}, "p50_ms": {}, "cpu_us": {}}
    for _ in range(rounds):
        for mode, environment in MODES.items():
            server = replace(plain, environment={**plain.environment, **environment})
            with serving.running(server, subject.bodies["json", 1], log) as (process, _):
                if mode != "off":
                    time.sleep(10)  # until the control process has its lease and the monitor has started
                for load in LOADS:
                    for name, value in cost(server, process.pid, subject, load, seconds).items():
                        seen[name].setdefault((mode, load), []).append(value)
    return Watched(**{name: {k: statistics.median(v) for k, v in of.items()} for name, of in seen.items()})


def table(found: Watched) -> list[list[str]]:
    rows = []
    for load in LOADS:
        rate = {mode: found.rate[mode, load] for mode in MODES}
        rows.append(
            [
                f"{load.form}, {load.rows} row{'s' if load.rows > 1 else ''}, {load.connections} conn",
                *(f"{rate[mode]:,.0f}/s" for mode in MODES),
                f"{rate['on'] / rate['off']:.3f}",
                f"{rate['busy'] / rate['off']:.3f}",
                " / ".join(f"{found.cpu_us[mode, load]:.0f}" for mode in MODES) + " us",
                " / ".join(f"{found.p50_ms[mode, load]:.2f}" for mode in MODES) + " ms",
            ]
        )
    return rows


def check(folder: Path, rows: int) -> dict[str, Check]:
    """A drift check of `rows` rows of each side, by tests of all rows and from sketches."""
    reference, current = folder / "reference.parquet", folder / "current.parquet"
    _write(reference, rows, seed=1, shift=0.0)
    _write(current, rows, seed=2, shift=0.1)
    found = {}
    for how in ("exact", "sketches"):
        command = [sys.executable, "-m", "benchmarks.monitoring", how, str(reference), str(current)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        found[how] = Check(told["seconds"], told["cpu_seconds"], told["peak_mb"], tuple(told["drifted"]))
    return found


def _write(path: Path, rows: int, *, seed: int, shift: float) -> None:
    """Twenty numbers, five of them skewed, and ten columns of categories; the first number has moved by `shift`."""
    random = np.random.default_rng(seed)
    batch = 100_000
    writer = None
    for start in range(0, rows, batch):
        size = min(batch, rows - start)
        columns = {f"n{i}": random.normal(shift if i == 0 else 0.0, 1.0, size) for i in range(15)}
        columns |= {f"s{i}": random.lognormal(0.0, 1.0, size) for i in range(5)}
        names = np.array([f"c{i}" for i in range(20)])
        columns |= {f"c{i}": names[random.integers(0, 5 + i, size)] for i in range(10)}
        made = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, made.schema)
        writer.write_table(made)
    if writer is not None:
        writer.close()


def _peak_mb() -> float:
    """Of this program. What getrusage tells begins with the memory of the process that it was started from."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> int:
    """One check, whose time and memory are printed as JSON. Reading sketches is part of neither: a window has them."""
    how, reference, current = sys.argv[1:4]
    if how == "exact":
        began, worked = time.perf_counter(), time.process_time()
        report = drift(reference, current)
    else:
        before, after = (_profile(Path(path)) for path in (reference, current))
        began, worked = time.perf_counter(), time.process_time()
        report = compare_profiles(before, after)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    peak = _peak_mb()
    drifted = [column.name for column in report.columns if column.drifted]
    told = {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak, "drifted": drifted}
    sys.stdout.write(json.dumps(told))
    return 0


def _profile(path: Path) -> Profile:
    found = Profile()
    for batch in pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20).iter_batches(65_536):
        found.update(batch)
    return found


if __name__ == "__main__":
    sys.exit(main())
