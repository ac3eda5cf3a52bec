"""Runs the benchmarks and prints tables of ratios.

python -m benchmarks                       everything, all peers; writes benchmarks/RESULTS.md
python -m benchmarks --only batch --write  one section of it anew
python -m benchmarks --only serving --peers bare --rounds 1 --seconds 2    a quick look
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import (
    batch,
    batch_peers,
    batching,
    dashboard,
    grpc,
    hybrid,
    library,
    monitoring,
    peers,
    recording,
    reload,
    serving,
    weights,
)
from benchmarks.results import merge, sections_of
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
    parser.add_argument(
        "--quick", action="store_true", help="small models and few requests where it takes long"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write what was made into RESULTS.md; of everything, that is done anyway",
    )
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
    everything = not given.quick and given.only == ",".join(SECTIONS) and given.peers == ",".join(peers.PEERS)
    if given.write or everything:
        by = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `python -m benchmarks {' '.join(_told(given))}`"
        results = HERE / "RESULTS.md"
        results.write_text(merge(results, _heading(), sections_of(text), by=by))
    return 0


def _told(given: argparse.Namespace) -> list[str]:
    """The options that change what was measured."""
    told = [f"--only {given.only}"] if given.only != ",".join(SECTIONS) else []
    told += [f"--peers {given.peers}"] if given.peers != ",".join(peers.PEERS) else []
    return [
        *told,
        f"--rounds {given.rounds}",
        f"--seconds {given.seconds}",
        *(["--quick"] if given.quick else []),
    ]


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
        *(row for kind in merged.mlps for row in _mlp_rows(kind, merged)),
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


def _mlp_rows(kind: str, merged: batching.Merged) -> Iterator[list[str]]:
    offline = merged.mlps_offline[kind]
    yield [f"MLP 4 x 1024 ({kind}), bare engine at its best batch size", f"{offline:,.0f} rows/s", ""]
    for n, rate in merged.mlps[kind].items():
        what = f"the same served, {batching.CONNECTIONS} connections, {n} row{'s' if n > 1 else ''} a request, binary"
        yield [what, f"{rate:,.0f} rows/s", f"{rate / offline:.2f} of the bare engine"]


def _batch_section(folder: Path, given: argparse.Namespace) -> list[str]:
    rows, csv_rows = (100_000, 200_000) if given.quick else (1_000_000, 10_000_000)
    lines = batch.measure(folder / "batch", rows, csv_rows, rounds=given.rounds)
    chosen = ("local", "spark_by_hand", "ray_by_hand") if given.quick else tuple(batch_peers.NAMES)
    lines += batch_peers.compare(
        folder / "batch-peers", rows, Path(given.environments).absolute(), chosen=chosen
    )
    return ["## Batch", "", *lines]


def _grpc_section(folder: Path, given: argparse.Namespace) -> list[str]:
    subject = Subject(_made(folder / "grpc"))
    environments = Path(given.environments).absolute()
    servers = [peers.fairway(subject.home, subject.key)]
    servers += [
        peers.PEERS[name](subject.onnx, environments)
        for name in given.peers.split(",")
        if name in ("triton", "mlserver")
    ]
    called = grpc.measure(
        servers, subject.bodies, rounds=given.rounds, seconds=given.seconds, log=folder / "servers.log"
    )
    head = ["server", "1 row", "p50", "p99", "CPU a call", "64 rows", "CPU a call"]
    rows = [
        [
            c.name,
            f"{c.rate[1]:,.0f}/s",
            f"{c.p50_ms[1]:.2f} ms",
            f"{c.p99_ms[1]:.1f} ms",
            f"{c.cpu_us[1]:.0f} us",
            f"{c.rate[64]:,.0f}/s",
            f"{c.cpu_us[64]:.0f} us",
        ]
        for c in called
    ]
    ours = called[0]
    rows += [
        [
            f"Fairway / {c.name}",
            f"{ours.rate[1] / c.rate[1]:.2f}",
            f"{ours.p50_ms[1] / c.p50_ms[1]:.2f}",
            f"{ours.p99_ms[1] / c.p99_ms[1]:.2f}",
            f"{ours.cpu_us[1] / c.cpu_us[1]:.2f}",
            f"{ours.rate[64] / c.rate[64]:.2f}",
            f"{ours.cpu_us[64] / c.cpu_us[64]:.2f}",
        ]
        for c in called[1:]
    ]
    intro = f"V2 ModelInfer, raw contents, {grpc.IN_FLIGHT} calls in flight on one connection; Fairway with everything on."
    return ["## gRPC", "", intro, "", *_table(head, rows), ""]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _reload_section(folder: Path, given: argparse.Namespace) -> list[str]:
    quick = given.quick
    lines = reload.soak(folder / "soak", 10 if quick else 100, 10 if quick else 200)
    lines += reload.under_load(
        folder / "reload", 50.0 if quick else 500.0, 5_000 if quick else 100_000, 1000.0, 10.0
    )
    return ["## Reloading", "", *lines, ""]


def _weights_section(folder: Path, given: argparse.Namespace) -> list[str]:
    return [
        "## Weights",
        "",
        *weights.weights(folder / "weights", 100.0 if given.quick else 1024.0, [1, 4]),
        "",
    ]


def _hybrid_section(folder: Path, given: argparse.Namespace) -> list[str]:
    keys = 50_000 if given.quick else 1_000_000
    log = folder / "servers.log"
    seen = hybrid.measure(
        _made(folder / "hybrid"), rounds=given.rounds, seconds=given.seconds, keys=keys, log=log
    )
    intro = (
        f"{keys:,} precomputed answers, keys drawn at random, beside the live model in the same server. `key and features`: "
        "the features are not those of the key, so the model answers after a look-up."
    )
    return ["## Precomputed answers", "", intro, "", *hybrid.table(seen), ""]


def _library_section(folder: Path, given: argparse.Namespace) -> list[str]:
    return _library_table(library.one_row(folder, rounds=15), library.forest_deploy_seconds(folder))


def _recording_section(folder: Path, given: argparse.Namespace) -> list[str]:
    found = recording.measure(
        _made(folder / "recording"), rounds=given.rounds, seconds=given.seconds, log=folder / "servers.log"
    )
    head = ["load", "off", "on", "durable", "on / off", "durable / off", "CPU a request", "p50"]
    labels = [
        [f"{n} conn", f"{rate:,.0f}/s", f"{found.labels_p50_ms[n]:.2f} ms"]
        for n, rate in found.labels.items()
    ]
    return [
        "## Recording",
        "",
        *_table(head, recording.table(found)),
        "",
        "Labels, one a request, answered when they are on the disk:",
        "",
        *_table(["connections", "labels", "p50"], labels),
        "",
    ]


def _dashboard_section(folder: Path, given: argparse.Namespace) -> list[str]:
    hours = 24 * 14 if given.quick else dashboard.HOURS
    timed = dashboard.measure(folder, hours, rounds=max(given.rounds, 2))
    return [
        f"## Pages of the dashboard, {hours:,} windows of {dashboard.COLUMNS} columns",
        "",
        *_table(
            ["page", "median ms", "worst ms", "processor ms", "KiB"],
            [
                [
                    page.page,
                    f"{page.median * 1000:,.0f}",
                    f"{page.worst * 1000:,.0f}",
                    f"{page.processor * 1000:,.0f}",
                    f"{page.size / 1024:,.0f}",
                ]
                for page in timed
            ],
        ),
    ]


def _monitoring_section(folder: Path, given: argparse.Namespace) -> list[str]:
    rows = 100_000 if given.quick else 1_000_000
    place = _made(folder / "monitoring")
    checks = monitoring.check(place, rows)
    found = monitoring.measure(place, rounds=given.rounds, seconds=given.seconds, log=folder / "servers.log")
    head = ["load", "off", "on", "every 10 s", "on / off", "every 10 s / off", "CPU a request", "p50"]
    seen = [
        [
            how,
            f"{told.seconds:.2f} s",
            f"{told.cpu_seconds:.2f} s",
            f"{told.peak_mb:.0f} MB",
            ", ".join(told.drifted),
        ]
        for how, told in checks.items()
    ]
    return [
        "## Watching",
        "",
        "Recording and the monitor, on the server's core, against both off; and with a window looked at every ten seconds.",
        "",
        *_table(head, monitoring.table(found)),
        "",
        f"A drift check of {rows:,} rows x {monitoring.COLUMNS} columns against as many, one process, its peak of memory:",
        "",
        *_table(["from", "time", "processor", "memory", "drifted"], seen),
        "",
    ]


SECTIONS: dict[str, Callable[[Path, argparse.Namespace], list[str]]] = {
    "serving": _serving_section,
    "grpc": _grpc_section,
    "batching": _batching_section,
    "batch": _batch_section,
    "weights": _weights_section,
    "reload": _reload_section,
    "hybrid": _hybrid_section,
    "recording": _recording_section,
    "monitoring": _monitoring_section,
    "library": _library_section,
    "dashboard": _dashboard_section,
}


def _heading() -> str:
    parts = [
        f"{name} {version(name)}" for name in ("fairway", "onnxruntime", "uvicorn", "numpy", "scikit-learn")
    ]
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
        f"Python {platform.python_version()}, {', '.join(parts)}; {processor}, shared. One core for each "
        "server, one for the load generator (wrk). Absolute figures move with the machine; the ratios are what counts.\n"
        "Made by `make bench`, or a section at a time; each says when and how.\n\n"
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
