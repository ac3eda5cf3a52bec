"""Trains a logistic regression on scikit-learn's bundled breast-cancer data (569 real patients, Wisconsin 1995).

    python -m examples.diagnosis.train --out .run/diagnosis

Writes `model.joblib`, `train.parquet` (with the target column `malignant`) and `rows.csv`, twenty rows that
the model has not seen, without the target.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TARGET = "malignant"


def load() -> pd.DataFrame:
    """Thirty measurements per patient, and whether the tumour was malignant (0 or 1)."""
    bunch = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = bunch.frame.rename(columns=lambda name: name.replace(" ", "_"))
    return frame.drop(columns="target").assign(**{TARGET: 1 - bunch.frame["target"]})


def train(out: Path, *, seed: int = 7) -> float:
    """Writes the files; returns the AUC on the quarter of patients that was held out."""
    known, unseen = train_test_split(load(), test_size=0.25, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(known.drop(columns=TARGET), known[TARGET])
    score = model.predict_proba(unseen.drop(columns=TARGET))[:, 1]
    out.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, out / "model.joblib")
    known.to_parquet(out / "train.parquet", index=False)
    unseen.drop(columns=TARGET).head(20).to_csv(out / "rows.csv", index=False)
    return float(roc_auc_score(unseen[TARGET], score))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train the diagnosis model on scikit-learn's breast-cancer data."
    )
    parser.add_argument("--out", type=Path, default=Path(".run/diagnosis"))
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    print(f"AUC {train(given.out, seed=given.seed):.3f} on held-out patients")
    print(f"wrote model.joblib, train.parquet and rows.csv below {given.out}")


if __name__ == "__main__":
    main()
