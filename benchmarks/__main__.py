"""Runs the benchmarks and prints tables of ratios.

python -m benchmarks                       everything, all peers; writes benchmarks/RESULTS.md
python -m benchmarks --peers bare --rounds 1 --seconds 2    a quick look
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import library, peers, serving
from benchmarks.subject import Subject

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", default="bare,triton,mlserver", help="which to measure beside Fairway")
    parser.add_argument("--environments", default=str(HERE / ".peers"), help="where peers are installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of load, for each point")
    parser.add_argument("--no-library", action="store_true", help="servers only")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md even when not everything ran")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "wrk", "libb64-0d"], check=True, stdout=subprocess.DEVNULL
        )
    chosen = [name for name in given.peers.split(",") if name]
    with tempfile.TemporaryDirectory(prefix="fairway-bench-") as scratch:
        folder = Path(scratch)
        subject = Subject(folder)
        environments = Path(given.environments).absolute()
        servers = [peers.ALL[name](subject.home, subject.onnx, environments) for name in ("fairway", *chosen)]
        log = folder / "servers.log"
        try:
            measured = serving.measure(
                servers, subject.bodies, rounds=given.rounds, seconds=given.seconds, log=log
            )
        except RuntimeError as error:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            print(f"error: {error}", file=sys.stderr)
            return 1
        lines = _serving_tables(measured)
        if not given.no_library:
            lines += _library_table(library.one_row(folder, rounds=15), library.forest_deploy_seconds(folder))
    text = "\n".join(lines)
    print(text)
    if given.write or (not given.no_library and set(chosen) == set(peers.ALL) - {"fairway"}):
        (HERE / "RESULTS.md").write_text(_heading() + text + "\n")
    return 0


def _heading() -> str:
    parts = [
        f"{name} {version(name)}" for name in ("fairway", "onnxruntime", "uvicorn", "numpy", "scikit-learn")
    ]
    moment = datetime.now(UTC).strftime("%Y-%m-%d")
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        "# Measured\n\n"
        f"{moment}, Python {platform.python_version()}, {', '.join(parts)}; {processor}, shared. One core for each "
        "server, one for the load generator (wrk). Absolute figures move with the machine; the ratios are what counts.\n"
        "Made by: `make bench`\n\n"
    )


def _serving_tables(measured: list[serving.Measured]) -> list[str]:
    ours = measured[0]
    head = [
        "server",
        "1 row, 1 conn: p50",
        "1 row, 32 conn",
        "p99",
        "64 rows, 8 conn",
        "ready",
        "worker",
        "all",
    ]
    rows = [
        [
            m.name,
            f"{m.p50_ms[1, 1]:.2f} ms",
            f"{m.rate[1, 32]:,.0f}/s",
            f"{m.p99_ms[1, 32]:.1f} ms",
            f"{m.rate[64, 8]:,.0f}/s",
            f"{m.ready_seconds:.2f} s",
            f"{m.worker_mb:.0f} MB",
            f"{m.total_mb:.0f} MB",
        ]
        for m in measured
    ]
    ratios = [
        [
            f"Fairway / {m.name}",
            f"{ours.p50_ms[1, 1] / m.p50_ms[1, 1]:.2f}",
            f"{ours.rate[1, 32] / m.rate[1, 32]:.2f}",
            f"{ours.p99_ms[1, 32] / m.p99_ms[1, 32]:.2f}",
            f"{ours.rate[64, 8] / m.rate[64, 8]:.2f}",
            f"{ours.ready_seconds / m.ready_seconds:.2f}",
            f"{ours.worker_mb / m.worker_mb:.2f}",
            f"{ours.total_mb / m.total_mb:.2f}",
        ]
        for m in measured[1:]
    ]
    intro = (
        "Logistic regression on 30 features, V2 JSON; Fairway with contract check, recording and metrics on."
    )
    return ["## Serving", "", intro, "", *_table(head, [*rows, *ratios]), ""]


def _library_table(one_row: library.OneRow, deploy_seconds: float) -> list[str]:
    rows = [
        ["native pipeline, one-row DataFrame", f"{one_row.native_us:,.0f} us", ""],
        [
            "fairway.load().predict, the same DataFrame",
            f"{one_row.frame_us:,.0f} us",
            _times(one_row, one_row.frame_us),
        ],
        ["fairway.load().predict, a dict", f"{one_row.dict_us:,.0f} us", _times(one_row, one_row.dict_us)],
        ["fairway deploy, 200 trees, 20,000 rows", f"{deploy_seconds:.1f} s", ""],
    ]
    return ["## Library", "", *_table(["what", "time", "faster than native"], rows)]


def _times(one_row: library.OneRow, ours_us: float) -> str:
    return f"{one_row.native_us / ours_us:.0f}x"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    sys.exit(main())
