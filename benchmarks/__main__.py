"""Runs the benchmarks and prints tables of ratios.

python -m benchmarks                       everything, all peers; writes benchmarks/RESULTS.md
python -m benchmarks --only serving --peers bare --rounds 1 --seconds 2    a quick look
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import batching, library, peers, serving
from benchmarks.serving import LOADS
from benchmarks.subject import Subject

HERE = Path(__file__).parent
ONE, MANY, ROWS_64, BINARY_64 = LOADS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--peers", default=",".join(peers.PEERS), help="which to measure beside Fairway")
    parser.add_argument("--environments", default=str(HERE / ".peers"), help="where peers are installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of load, for each point")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md even when not everything ran")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "wrk", "libb64-0d"], check=True, stdout=subprocess.DEVNULL
        )
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fairway-bench-") as scratch:
        folder = Path(scratch)
        for name in given.only.split(","):
            try:
                lines += SECTIONS[name](folder, given)
            except RuntimeError as error:
                log = folder / "servers.log"
                print(log.read_text(errors="replace")[-4000:] if log.exists() else "", file=sys.stderr)
                print(f"error: {error}", file=sys.stderr)
                return 1
    text = "\n".join(lines)
    print(text)
    everything = given.only == ",".join(SECTIONS) and given.peers == ",".join(peers.PEERS)
    if given.write or everything:
        (HERE / "RESULTS.md").write_text(_heading() + text)
    return 0


def _serving_section(folder: Path, given: argparse.Namespace) -> list[str]:
    subject = Subject(folder)
    environments = Path(given.environments).absolute()
    servers = [peers.fairway(subject.home, subject.key)]
    servers += [peers.PEERS[name](subject.onnx, environments) for name in given.peers.split(",") if name]
    measured = serving.measure(
        servers, subject.bodies, rounds=given.rounds, seconds=given.seconds, log=folder / "servers.log"
    )
    return _serving_tables(measured)


def _batching_section(folder: Path, given: argparse.Namespace) -> list[str]:
    merged = batching.measure(folder, rounds=given.rounds, seconds=given.seconds, log=folder / "servers.log")
    rows = [
        ["MLP 4 x 1024, bare engine at its best batch size", f"{merged.mlp_offline:,.0f} rows/s", ""],
        *(
            [
                f"MLP, {batching.CONNECTIONS} connections, {n} row{'s' if n > 1 else ''} a request, binary",
                f"{rate:,.0f} rows/s",
                f"{rate / merged.mlp_offline:.2f} of the bare engine",
            ]
            for n, rate in merged.mlp.items()
        ),
        [
            f"200 trees, {batching.CONNECTIONS} connections, merging on / off",
            f"{merged.forest['auto']:,.0f} / {merged.forest['off']:,.0f} requests/s",
            f"{merged.forest['auto'] / merged.forest['off']:.2f}",
        ],
        [
            "200 trees, 1 connection, p50, merging on / off",
            f"{merged.idle_p50_ms['auto']:.3f} / {merged.idle_p50_ms['off']:.3f} ms",
            f"{merged.idle_p50_ms['auto'] - merged.idle_p50_ms['off']:+.3f} ms",
        ],
    ]
    return ["## Merging calls", "", *_table(["what", "seen", "ratio"], rows), ""]


def _library_section(folder: Path, given: argparse.Namespace) -> list[str]:
    return _library_table(library.one_row(folder, rounds=15), library.forest_deploy_seconds(folder))


SECTIONS: dict[str, Callable[[Path, argparse.Namespace], list[str]]] = {
    "serving": _serving_section,
    "batching": _batching_section,
    "library": _library_section,
}


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
        "64 rows binary, 8 conn",
        "ready",
        "worker",
        "all",
    ]
    rows = [
        [
            m.name,
            f"{m.p50_ms[ONE]:.2f} ms",
            f"{m.rate[MANY]:,.0f}/s",
            f"{m.p99_ms[MANY]:.1f} ms",
            f"{m.rate[ROWS_64]:,.0f}/s",
            f"{m.rate[BINARY_64]:,.0f}/s" if BINARY_64 in m.rate else "",
            f"{m.ready_seconds:.2f} s",
            f"{m.worker_mb:.0f} MB",
            f"{m.total_mb:.0f} MB",
        ]
        for m in measured
    ]
    ratios = [
        [
            f"Fairway / {m.name}",
            f"{ours.p50_ms[ONE] / m.p50_ms[ONE]:.2f}",
            f"{ours.rate[MANY] / m.rate[MANY]:.2f}",
            f"{ours.p99_ms[MANY] / m.p99_ms[MANY]:.2f}",
            f"{ours.rate[ROWS_64] / m.rate[ROWS_64]:.2f}",
            f"{ours.rate[BINARY_64] / m.rate[BINARY_64]:.2f}" if BINARY_64 in m.rate else "",
            f"{ours.ready_seconds / m.ready_seconds:.2f}",
            f"{ours.worker_mb / m.worker_mb:.2f}",
            f"{ours.total_mb / m.total_mb:.2f}",
        ]
        for m in measured[1:]
    ]
    intro = (
        "Logistic regression on 30 features, V2 JSON (BentoML: its own JSON); Fairway with everything on: API key, "
        "contract check, recording, metrics."
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
    return ["## Library", "", *_table(["what", "time", "faster than native"], rows), ""]


def _times(one_row: library.OneRow, ours_us: float) -> str:
    return f"{one_row.native_us / ours_us:.0f}x"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    sys.exit(main())
