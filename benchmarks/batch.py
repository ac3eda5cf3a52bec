"""Batch scoring beside a bare loop of pyarrow and ONNX Runtime on the same rows, and its memory.

python -m benchmarks.batch                        1,000,000 rows x 30, Parquet to Parquet; memory at 1 and 10 million
python -m benchmarks.batch --rows 100000 --csv-rows 200000 --rounds 1     a quick look
python -m benchmarks --only batch                 the same as a section of RESULTS.md
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.app.batch import run_batch
from fairway.app.home import open_home
from fairway.batch.ledger import Ledger
from fairway.batch.run import Run

FEATURES = 30
_CHUNK = 65_536
_THREADS = 2
_NAMES = [f"f{i}" for i in range(FEATURES)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--csv-rows", type=int, default=10_000_000, help="and a tenth of it; 0: no memory")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairway-batch-") as scratch:
        print("\n".join(measure(Path(scratch), given.rows, given.csv_rows, given.rounds)))
    return 0


def measure(folder: Path, rows: int, csv_rows: int, rounds: int) -> list[str]:
    """Tables of speed, of what a GIL-bound model is scored by, and of memory (`csv_rows` 0: none)."""
    folder.mkdir(parents=True, exist_ok=True)
    _deploy(folder / "home")
    return [
        *speed(folder, rows, rounds, ["lr", "forest"]),
        *scorers(folder, rows // 5),
        *(memory(folder, csv_rows) if csv_rows else []),
    ]


def speed(folder: Path, rows: int, rounds: int, models: list[str]) -> list[str]:
    """Seconds and ratios, the medians of `rounds`; all take turns, so that they meet the same machine. One row in a
    hundred has a null where none may be: it is left out, so rejects are written too."""
    source, spoiled = folder / "in.parquet", folder / "spoiled.parquet"
    data = table(rows)
    pq.write_table(data, source)
    nulls = pa.array(
        np.where(np.arange(rows) % 100, data.column(0).to_numpy(), np.nan), mask=np.arange(rows) % 100 == 0
    )
    pq.write_table(data.set_column(0, "f0", nulls), spoiled)
    lines = [
        f"{rows:,} rows x {FEATURES}, Parquet to Parquet, {_THREADS} threads. The tuned loop writes scores without a "
        "dictionary, as Fairway does. Ledger: its transactions; with 1% of the rows rejected, those too.",
        "",
        "| model | bare loop | tuned bare loop | fairway batch | bare / Fairway | tuned / Fairway | ledger | ledger and rejects |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in models:
        onnx = _onnx(folder / "home", model)
        seconds: dict[str, list[float]] = {"bare": [], "tuned": [], "own": [], "ledger": [], "rejects": []}
        for number in range(rounds + 1):
            out = folder / f"{model}-{number}.parquet"
            found = {
                "bare": timed(partial(bare, onnx, source, folder / "bare.parquet")),
                "tuned": timed(partial(bare, onnx, source, folder / "bare.parquet", tuned=True)),
            }
            with Clock() as clock:
                found["own"] = run_batch(model, source, out, home=folder / "home", workers=_THREADS).seconds
            found["ledger"] = clock.seconds / found["own"]
            same(folder / "bare.parquet", out)
            with Clock() as clock:
                report = run_batch(
                    model,
                    spoiled,
                    folder / f"{model}-{number}-s.parquet",
                    home=folder / "home",
                    workers=_THREADS,
                )
            assert report.rejected == -(-rows // 100), report
            found["rejects"] = clock.seconds / report.seconds
            for name, value in found.items():
                if number:  # the first round warms the machine
                    seconds[name].append(value)
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        ratios = [
            statistics.median(a / b for a, b in zip(seconds[n], seconds["own"], strict=True))
            for n in ("bare", "tuned")
        ]
        lines.append(
            f"| {model} | {middle['bare']:.2f} s | {middle['tuned']:.2f} s | {middle['own']:.2f} s | {ratios[0]:.2f} "
            f"| {ratios[1]:.2f} | {middle['ledger']:.1%} | {middle['rejects']:.1%} |"
        )
    return [*lines, ""]


class Clock:
    """Seconds that the writing thread spends on the ledger and on rejects. It waits for scorers most of the time, so
    less than that is lost."""

    def __enter__(self) -> Clock:
        self.seconds = 0.0
        self._before = [(owner, name, getattr(owner, name)) for owner, name in _ACCOUNTS]
        for owner, name, method in self._before:
            setattr(owner, name, self._timed(method))
        return self

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return call

    def __exit__(self, *error: object) -> None:
        for owner, name, method in self._before:
            setattr(owner, name, method)


_ACCOUNTS = [
    (Ledger, "commit"),
    (Ledger, "end_file"),
    (Ledger, "end"),
    (Ledger, "files"),
    (Ledger, "parts"),
    (Run, "_write_rejects"),
]

_PREPARE = """
def prepare(frame):
    frame["f0"] = [sum(ord(letter) for letter in 100 * repr(value)) / 1000 for value in frame["f0"]]
    return frame
"""


def scorers(folder: Path, rows: int) -> list[str]:
    """A model whose preparation is a loop in Python: what threads and processes make of it, and what is chosen."""
    (folder / "prepare.py").write_text(_PREPARE)
    random = np.random.default_rng(2)
    x = pd.DataFrame(random.normal(size=(1000, FEATURES)), columns=_NAMES)
    fitted = LogisticRegression().fit(x, (x["f1"] > 0).astype(int))
    fairway.deploy(fitted, x, name="slow", home=folder / "home", prepare=f"{folder / 'prepare.py'}:prepare")
    source = folder / "few.parquet"
    pq.write_table(table(rows), source)
    seconds = {}
    for kind in ("threads", "processes"):
        with mock.patch("fairway.app.batch.wants_processes", return_value=kind == "processes"):
            out = folder / f"slow-{kind}.parquet"
            report = run_batch(
                "slow", source, out, home=folder / "home", workers=_THREADS, rows_per_file=rows // 20
            )
        seconds[kind] = report.seconds
    chosen = run_batch(
        "slow",
        source,
        folder / "slow.parquet",
        home=folder / "home",
        workers=_THREADS,
        rows_per_file=rows // 20,
    )
    return [
        f"| preparation in Python, {rows:,} rows | {_THREADS} threads | {_THREADS} processes | chosen |",
        "|---|---|---|---|",
        f"| | {seconds['threads']:.1f} s | {seconds['processes']:.1f} s | {chosen.engine.removeprefix('local, ')} |",
        "",
    ]


def memory(folder: Path, rows: int) -> list[str]:
    """Peak resident memory of a run in a process of its own, at a tenth of the rows and at all."""
    lines = ["| CSV to Parquet, logistic regression | peak RSS | seconds |", "|---|---|---|"]
    for count in (rows // 10, rows):
        source = folder / "in.csv"
        with pyarrow.csv.CSVWriter(source, table(1).schema) as writer:
            for begin in range(0, count, 100_000):
                writer.write_table(table(min(100_000, count - begin), seed=begin))
        command = [
            sys.executable,
            "-c",
            _RUN,
            str(folder / "home"),
            str(source),
            str(folder / f"{count}.parquet"),
        ]
        peak, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        lines.append(f"| {count:,} | {int(peak) / 1024:.0f} MB | {float(seconds):.1f} |")
        source.unlink()
    return [*lines, ""]


_RUN = r"""
import re, sys
from fairway.app.batch import run_batch
report = run_batch("lr", sys.argv[2], sys.argv[3], home=sys.argv[1])
peak = re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]  # getrusage counts the parent's too
print(peak, report.seconds)
"""


def table(rows: int, seed: int = 0) -> pa.Table:
    values = np.random.default_rng(seed).normal(size=(FEATURES, rows)).astype(np.float32)
    return pa.table(dict(zip(_NAMES, values, strict=True)))


def bare(onnx: Path, source: Path, out: Path, *, tuned: bool = False) -> None:
    """What somebody who knows both libraries writes by hand: no checks, no rejects, no resuming."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    outputs = [value.name for value in session.get_outputs()]

    def score(batch: pa.RecordBatch) -> pa.Table:
        matrix = np.column_stack([column.to_numpy() for column in batch.columns])
        label, probabilities = session.run(outputs, {name: matrix})
        flat = pa.array(probabilities.reshape(-1))
        return pa.table(
            [label, pa.FixedSizeListArray.from_arrays(flat, probabilities.shape[1])], names=outputs
        )

    writer: pq.ParquetWriter | None = None
    waiting: deque[object] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:

        def write() -> None:
            nonlocal writer
            scored = waiting.popleft().result()  # type: ignore[attr-defined]
            writer = writer or pq.ParquetWriter(
                out, scored.schema, use_dictionary=outputs[:1] if tuned else True
            )
            writer.write_table(scored)

        for batch in pq.ParquetFile(source).iter_batches(_CHUNK):
            waiting.append(pool.submit(score, batch))
            if len(waiting) > 2 * _THREADS:
                write()
        while waiting:
            write()
    assert writer is not None
    writer.close()


def same(one: Path, other: Path) -> None:
    """The quickest wrong answer is no match."""
    a, b = (pq.read_table(path) for path in (one, other))
    assert np.array_equal(*(t.column(0).to_numpy() for t in (a, b))), "labels differ"


def timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _deploy(home: Path) -> None:
    random = np.random.default_rng(1)
    x = pd.DataFrame(random.normal(size=(5000, FEATURES)).astype(np.float32), columns=_NAMES)
    y = (x.iloc[:, :5].sum(axis=1) + random.normal(size=5000) > 0).astype(int)
    fairway.deploy(LogisticRegression().fit(x, y), x, name="lr", home=home)
    forest = RandomForestClassifier(200, max_depth=8, n_jobs=2, random_state=0).fit(x, y)
    fairway.deploy(forest, x, name="forest", home=home)


def _onnx(home: Path, model: str) -> Path:
    with open_home(home) as place:
        ((version,),) = (m.versions for m in place.registry.snapshot((model,)).models)
        return Path(version.directory) / "engine" / "model.onnx"


if __name__ == "__main__":
    sys.exit(main())
