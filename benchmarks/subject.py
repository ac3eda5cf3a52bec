"""The models that are measured, deployed to a scratch home, and the request bodies sent to every server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import fairway
from examples.payments.train import train


class Body(NamedTuple):
    """A request body, and the headers that belong to it."""

    path: Path
    headers: tuple[str, ...]


Bodies = dict[tuple[str, int], Body]
"""By form (`json`, `binary`, `list`) and number of rows."""
JSON = ("Content-Type: application/json",)


class Subject:
    """A home with `lr` deployed and an API key made, the model's ONNX file for the peers, and bodies to send."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        features, labels = load_breast_cancer(return_X_y=True)
        features = features.astype(np.float32)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, labels)
        self.model, self.features = model, features
        fairway.deploy(model, features, name="lr", home=self.home)
        bundles = self.home / "bundles"
        fairway.load("lr", home=self.home, record=False).close()  # unpacks the bundle
        self.onnx = next(bundles.glob("*/engine/model.onnx"))
        self.key = _key(self.home)
        self.bodies: Bodies = {
            ("json", 1): json_body(folder / "rows-1.json", "X", features[:1]),
            ("json", 64): json_body(folder / "rows-64.json", "X", features[:64]),
            ("binary", 64): binary_body(folder / "rows-64.bin", "X", features[:64]),
            ("list", 1): _list(folder / "list-1.json", features[:1]),
            ("list", 64): _list(folder / "list-64.json", features[:64]),
        }


def _key(home: Path) -> str:
    command = [str(Path(sys.executable).with_name("fairway")), "keys", "create", "bench", "--scope", "infer"]
    made = subprocess.run(
        [*command, "--home", str(home), "--json"], capture_output=True, text=True, check=True
    )
    return str(json.loads(made.stdout)["secret"])


def json_body(path: Path, name: str, rows: np.ndarray) -> Body:
    """V2, numbers in JSON."""
    tensor = {
        "name": name,
        "shape": list(rows.shape),
        "datatype": "FP32",
        "data": [float(v) for v in rows.ravel()],
    }
    path.write_text(json.dumps({"inputs": [tensor]}))
    return Body(path, JSON)


def binary_body(path: Path, name: str, rows: np.ndarray) -> Body:
    """V2 with the binary tensor extension, answers binary too."""
    content = np.ascontiguousarray(rows, dtype=np.float32).tobytes()
    tensor = {
        "name": name,
        "shape": list(rows.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(content)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    path.write_bytes(head + content)
    length = f"Inference-Header-Content-Length: {len(head)}"
    return Body(path, ("Content-Type: application/octet-stream", length))


def _list(path: Path, rows: np.ndarray) -> Body:
    """What servers without V2 take."""
    path.write_text(json.dumps({"rows": rows.tolist()}))
    return Body(path, JSON)


def forest() -> tuple[RandomForestClassifier, np.ndarray, np.ndarray]:
    """200 trees of depth 12 and the 20,000 rows of 30 features they were fitted on."""
    features, labels = make_classification(20_000, 30, n_informative=15, random_state=0)
    features = features.astype(np.float32)
    model = RandomForestClassifier(200, max_depth=12, n_jobs=2, random_state=0).fit(features, labels)
    return model, features, labels


def mixed_pipeline(folder: Path, *, rows: int = 20_000) -> tuple[Pipeline, pd.DataFrame]:
    """The payments pipeline of the examples (imputers, one-hot encoder, trees) and its training frame."""
    train(folder, rows=rows)
    return joblib.load(folder / "model.joblib"), pd.read_parquet(folder / "train.parquet")
