"""The same rows scored by Fairway on each engine, by hand on Spark and on Ray Data, and by `mlflow models predict`.

python -m benchmarks.batch_peers                                    1,000,000 rows x 30, logistic regression
python -m benchmarks.batch_peers --rows 100000 --peers local,spark_by_hand

Each in a process of its own, from its start to its end: a session or a cluster has to be started before it scores, and
a user waits for that. `scoring` is without it. MLflow reads CSV and writes JSON, for it has nothing else, and only the
labels, for it cannot write an ONNX output of several columns; the others read and write Parquet. By hand is what the
documentation of Spark and Ray shows: no checks, no rejects, no resuming. Ray's own workers are nice by 15: on a machine
that does other work, too, both ways on Ray wait for it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fairway.batch.plan import EngineName

HERE = Path(__file__).parent
MLFLOW = "mlflow==3.17.2"
NAMES = {
    "local": "fairway batch run",
    "spark": "fairway batch run --engine spark",
    "spark_by_hand": "Spark mapInArrow by hand",
    "ray": "fairway batch run --engine ray",
    "ray_by_hand": "Ray Data map_batches by hand",
    "mlflow": "mlflow models predict",
}
"""Peers, as they are chosen and as they are shown."""


def compare(
    folder: Path, rows: int, environments: Path, rounds: int = 1, chosen: tuple[str, ...] = tuple(NAMES)
) -> list[str]:
    """A table of medians; the peers take turns. `folder` is scratch, `environments` where MLflow is installed."""
    from benchmarks.batch import _deploy, _onnx, table

    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "home"
    if not home.exists():
        _deploy(home)
    onnx = _onnx(home, "lr")
    source = folder / "in.parquet"
    pq.write_table(table(rows), source, row_group_size=max(1, rows // 16))
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
    labels: dict[str, int] = {}
    for number in range(rounds):
        for name in chosen:
            out = folder / f"{name}-{number}"
            if name == "mlflow":
                found[name].append(mlflow(onnx, source, out.with_suffix(".json"), environments))
            else:
                found[name].append(_apart(name, home, onnx, source, out))
            labels[name] = _positive(out, name)
    assert len(set(labels.values())) == 1, f"the answers differ: {labels}"
    lines = [
        f"| {rows:,} x 30, logistic regression, 2 cores | start to end | scoring | rows/s | peak RSS |",
        "|---|---|---|---|---|",
    ]
    for name, times in found.items():
        whole, scoring, peak = (float(np.median([each[i] for each in times])) for i in range(3))
        lines.append(
            f"| {NAMES[name]} | {whole:.1f} s | {scoring:.1f} s | {rows / scoring:,.0f} | {peak:,.0f} MB |"
        )
    return [*lines, ""]


def by_fairway(engine: EngineName, home: Path, source: Path, out: Path) -> float:
    """Seconds of the run itself."""
    import fairway

    address = "local[2]" if engine == "spark" else ""
    report = fairway.run_batch("lr", source, out, home=home, workers=2, engine=engine, address=address)
    assert report.state == "finished", report.reason
    return report.seconds


def spark_by_hand(onnx: Path, source: Path, out: Path) -> float:
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    session.range(1).collect()
    model = str(onnx)

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predict = _predictor(model)
        for batch in batches:
            yield from predict(pa.Table.from_batches([batch])).to_batches()

    began = time.perf_counter()
    frame = session.read.parquet(str(source))
    frame.mapInArrow(score, "label long, probabilities array<float>").write.parquet(str(out))
    seconds = time.perf_counter() - began
    session.stop()
    return seconds


def ray_by_hand(onnx: Path, source: Path, out: Path) -> float:
    import ray
    import ray.data

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    model = str(onnx)

    class Scorer:
        def __init__(self) -> None:
            self.predict = _predictor(model)

        def __call__(self, table: pa.Table) -> pa.Table:
            return self.predict(table)

    began = time.perf_counter()
    # One actor of two CPUs: with two, the tasks that read have none, and nothing moves.
    dataset = ray.data.read_parquet(str(source))
    dataset.map_batches(Scorer, batch_format="pyarrow", batch_size=65_536, concurrency=1).write_parquet(
        str(out)
    )
    seconds = time.perf_counter() - began
    ray.shutdown()
    return seconds


def mlflow(onnx: Path, source: Path, out: Path, environments: Path) -> tuple[float, float, float]:
    """(start to end, scoring, peak MB); loading is not told apart from scoring by its command, so both are the same."""
    from benchmarks import peers

    site = peers.installed(environments / "mlflow", MLFLOW, "onnx", "onnxruntime", "numpy")
    python = site.parents[2] / "bin" / "python"
    model, rows = out.with_suffix(".model"), out.with_suffix(".csv")
    if not model.exists():
        subprocess.run([python, "-c", _SAVE, onnx, model], check=True, capture_output=True)
    pyarrow.csv.write_csv(pq.read_table(source), rows)
    command = [python, "-m", "mlflow", "models", "predict", "-m", model, "-i", rows, "-t", "csv"]
    whole, peak = _timed([*map(str, command), "-o", str(out), "--env-manager", "local"])
    return whole, whole, peak


_SAVE = """
import sys, onnx, mlflow.onnx
model = onnx.load(sys.argv[1])
del model.graph.output[1:]
mlflow.onnx.save_model(model, sys.argv[2])
"""


def _predictor(onnx: str) -> Callable[[pa.Table], pa.Table]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())

    def predict(table: pa.Table) -> pa.Table:
        matrix = np.column_stack([column.to_numpy() for column in table.columns])
        label, probabilities = session.run(None, {name: matrix})
        ends = np.arange(0, probabilities.size + 1, probabilities.shape[1], dtype=np.int32)
        lists = pa.ListArray.from_arrays(ends, pa.array(probabilities.reshape(-1)))
        return pa.table([pa.array(label), lists], names=["label", "probabilities"])

    return predict


def _apart(name: str, home: Path, onnx: Path, source: Path, out: Path) -> tuple[float, float, float]:
    """A peer in a process of its own."""
    note = out.with_suffix(".seconds")
    words = ["--one", name, "--places", *map(str, (home, onnx, source, out, note))]
    whole, peak = _timed([sys.executable, "-m", "benchmarks.batch_peers", *words])
    return whole, float(note.read_text()), peak


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds, and the most memory of the process and all that it has started, looked at ten times a second."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=HERE.parent,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={
                **os.environ,
                "PYSPARK_PYTHON": sys.executable,
            },  # Spark's workers otherwise take what PATH says
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - began
        log.seek(0)
        assert process.returncode == 0, log.read()[-4000:].decode(errors="replace")
    return seconds, peak


def _memory(session: int) -> float:
    """MB of all processes of a session, shared pages counted once for all that share them."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                found = re.search(r"^Pss:\s+(\d+)", (place / "smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) if found else 0
        except (OSError, IndexError):
            continue
    return total / 1024


def _positive(out: Path, name: str) -> int:
    """How many rows got the label 1."""
    if name == "mlflow":
        answers: Any = json.loads(out.with_suffix(".json").read_text())
        rows = answers["predictions"] if isinstance(answers, dict) else answers
        if isinstance(rows, dict):
            return int(sum(next(iter(rows.values()))))
        return int(sum(row[next(iter(row))] if isinstance(row, dict) else row for row in rows))
    files = [out] if out.is_file() else sorted(out.rglob("*.parquet"))
    return sum(int(np.sum(pq.read_table(path).column(0).to_numpy())) for path in files)


def _one(name: str, home: Path, onnx: Path, source: Path, out: Path) -> float:
    if name == "spark_by_hand":
        return spark_by_hand(onnx, source, out)
    if name == "ray_by_hand":
        return ray_by_hand(onnx, source, out)
    engine: EngineName = "spark" if name == "spark" else "ray" if name == "ray" else "local"
    return by_fairway(engine, home, source, out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_peers", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peers", default=",".join(NAMES))
    parser.add_argument("--environments", default=str(HERE / ".peers"), help="where MLflow is installed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--places", nargs=5, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        home, onnx, source, out, note = given.places
        note.write_text(str(_one(given.one, home, onnx, source, out)))
        return 0
    with tempfile.TemporaryDirectory(prefix="fairway-peers-") as scratch:
        environments = Path(given.environments).absolute()
        chosen = tuple(given.peers.split(","))
        print("\n".join(compare(Path(scratch), given.rows, environments, given.rounds, chosen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
