"""CBPE on NannyML's synthetic car loans, beside NannyML: chunks of 5,000, ROC AUC and the rest, labels from its targets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np

import fairway

METRICS = ("roc_auc", "pr_auc", "accuracy", "precision", "recall", "f1")
_THEIRS = {"pr_auc": "average_precision"}
_RUN = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import nannyml as nml
folder, metrics = sys.argv[1], sys.argv[2].split(",")
reference, analysis, targets = nml.load_synthetic_car_loan_dataset()
reference.to_parquet(folder + "/reference.parquet")
analysis.merge(targets, on="id").to_parquet(folder + "/analysis.parquet")
start = time.perf_counter()
cbpe = nml.CBPE(y_pred_proba="y_pred_proba", y_pred="y_pred", y_true="repaid", timestamp_column_name="timestamp",
                metrics=metrics, chunk_size=5000, problem_type="classification_binary")
frame = cbpe.fit(reference).estimate(analysis).to_df()
seconds = time.perf_counter() - start
analysis = frame[frame[("chunk", "period")] == "analysis"]
print(json.dumps({"version": nml.__version__, "seconds": seconds,
    "values": {m: analysis[(m, "value")].tolist() for m in metrics},
    "alerts": {m: [bool(a) for a in analysis[(m, "alert")]] for m in metrics}}))
"""


def compare(python: Path, folder: Path) -> list[str]:
    """Runs NannyML in its own environment, which also writes its data into `folder`, then Fairway; a Markdown table."""
    theirs_names = [_THEIRS.get(name, name) for name in METRICS]
    done = subprocess.run(
        [python, "-c", _RUN, folder, ",".join(theirs_names)], capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    report = fairway.estimate(
        str(folder / "reference.parquet"),
        str(folder / "analysis.parquet"),
        proba="y_pred_proba",
        prediction="y_pred",
        target="repaid",
        chunk=5_000,
        metrics=METRICS,
    )
    chunks = [chunk for chunk in report.chunks if chunk.period == "analysis"]
    lines = [
        f"| metric | NannyML {theirs['version']} | Fairway | flagged by NannyML | flagged by Fairway | labels within interval |",
        "|---|---|---|---|---|---|",
    ]
    for name, other in zip(METRICS, theirs_names, strict=True):
        own = [chunk.metrics[name] for chunk in chunks]
        truth = np.array([metric.realised for metric in own], dtype=np.float64)
        error = np.abs(np.array([metric.value for metric in own], dtype=np.float64) - truth).mean()
        their_error = np.abs(np.array(theirs["values"][other]) - truth).mean()
        within = sum((m.lower or 0) <= (m.realised or 0) <= (m.upper or 0) for m in own)
        flags = _numbers([metric.alert for metric in own])
        lines.append(
            f"| {name} | {their_error:.6f} | {error:.6f} | {_numbers(theirs['alerts'][other])} | {flags} | {within} of {len(own)} |"
        )
    return lines


def _numbers(flags: list[bool]) -> str:
    return " ".join(str(number + 1) for number, flag in enumerate(flags) if flag) or "none"
