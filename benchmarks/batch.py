"""Batch scoring beside a bare loop of pyarrow and ONNX Runtime on the same rows, and its memory.

python -m benchmarks.batch                        1,000,000 rows x 30, Parquet to Parquet; memory at 1 and 10 million
python -m benchmarks.batch --rows 100000 --csv-rows 200000 --rounds 1     a quick look
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
from pathlib import Path

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

FEATURES = 30
_CHUNK = 65_536
_THREADS = 2
_NAMES = [f"f{i}" for i in range(FEATURES)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--csv-rows", type=int, default=10_000_000, help="and a tenth of it; 0: no memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="lr,forest")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairway-batch-") as scratch:
        folder = Path(scratch)
        _deploy(folder / "home")
        for line in [
            *speed(folder, given.rows, given.rounds, given.models.split(",")),
            *(memory(folder, given.csv_rows) if given.csv_rows else []),
        ]:
            print(line)
    return 0


def speed(folder: Path, rows: int, rounds: int, models: list[str]) -> list[str]:
    """A table of seconds and ratios; the two take turns, so that they meet the same machine."""
    source = folder / "in.parquet"
    pq.write_table(table(rows), source)
    lines = [
        f"| {rows:,} x {FEATURES}, Parquet to Parquet | bare loop | fairway batch | ratio |",
        "|---|---|---|---|",
    ]
    for model in models:
        onnx = _onnx(folder / "home", model)
        bare_seconds, own_seconds = [], []
        for number in range(rounds):
            bare_seconds.append(timed(lambda onnx=onnx: bare(onnx, source, folder / "bare.parquet")))
            out = folder / f"{model}-{number}.parquet"
            own_seconds.append(run_batch(model, source, out, home=folder / "home", workers=_THREADS).seconds)
            same(folder / "bare.parquet", out)
        low, own = statistics.median(bare_seconds), statistics.median(own_seconds)
        lines.append(f"| {model} | {low:.2f} s | {own:.2f} s | {low / own:.2f} |")
    return [*lines, ""]


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
    return lines


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


def bare(onnx: Path, source: Path, out: Path) -> None:
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
            writer = writer or pq.ParquetWriter(out, scored.schema)
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
