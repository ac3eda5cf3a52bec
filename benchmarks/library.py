"""One row through `fairway.load().predict` against the native pipeline, and how long a deploy takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

import fairway
from benchmarks.subject import forest, mixed_pipeline


@dataclass
class OneRow:
    """Median microseconds of one-row calls, native and served, taken in turn."""

    native_us: float
    frame_us: float
    dict_us: float


def one_row(folder: Path, *, rounds: int) -> OneRow:
    model, data = mixed_pipeline(folder / "payments")
    fairway.deploy(model, data, target="is_fraud", name="payments", home=folder / "payments-home")
    frame = data.drop(columns="is_fraud").iloc[:1]
    row = {name: values[0] for name, values in frame.to_dict("list").items()}
    with fairway.load("payments", home=folder / "payments-home") as served:
        times: dict[str, list[float]] = {"native": [], "frame": [], "dict": []}
        for _ in range(rounds):
            times["native"].append(_each(lambda: model.predict_proba(frame), 10))
            times["frame"].append(_each(lambda: served.predict(frame), 300))
            times["dict"].append(_each(lambda: served.predict(row), 300))
    return OneRow(*(statistics.median(values) * 1e6 for values in times.values()))


def forest_deploy_seconds(folder: Path) -> float:
    """Wall seconds of the `fairway deploy` command for 200 trees and 20,000 sample rows."""
    model, features, _ = forest()
    joblib.dump(model, folder / "forest.joblib")
    np.savetxt(folder / "forest.csv", features, delimiter=",", header=_names(features), comments="")
    binary = str(Path(sys.executable).with_name("fairway"))
    arguments = [
        "forest.joblib",
        "--data",
        "forest.csv",
        "--name",
        "forest",
        "--home",
        str(folder / "forest-home"),
    ]
    began = time.perf_counter()
    subprocess.run([binary, "deploy", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _names(features: np.ndarray) -> str:
    return ",".join(f"x{i}" for i in range(features.shape[1]))


def _each(call: Callable[[], object], times: int) -> float:
    call()
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times
