"""The models that are measured, deployed to a scratch home, and the request bodies sent to every server."""

from __future__ import annotations

import json
from pathlib import Path

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

ROWS = (1, 64)


class Subject:
    """A home with `lr` deployed, its ONNX file for the peers, and V2 bodies by number of rows."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        features, labels = load_breast_cancer(return_X_y=True)
        features = features.astype(np.float32)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, labels)
        fairway.deploy(model, features, name="lr", home=self.home)
        bundles = self.home / "bundles"
        fairway.load("lr", home=self.home, record=False).close()  # unpacks the bundle
        self.onnx = next(bundles.glob("*/engine/model.onnx"))
        self.bodies = {rows: _body(folder / f"rows-{rows}.json", features[:rows]) for rows in ROWS}


def _body(path: Path, rows: np.ndarray) -> Path:
    tensor = {
        "name": "X",
        "shape": list(rows.shape),
        "datatype": "FP32",
        "data": [float(v) for v in rows.ravel()],
    }
    path.write_text(json.dumps({"inputs": [tensor]}))
    return path


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
