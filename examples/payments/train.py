"""Trains the fraud model on simulated payments and writes `model.joblib`, `train.parquet` and `later.parquet`.

    python -m examples.payments.train --out .run/payments

A plain scikit-learn pipeline, written as anybody would write it: imputers, one-hot encoding and a random
forest. `later.parquet` are payments after the training's, with their labels, that the model has not seen: what later
traffic is compared with. Nothing here knows Fairway. Fraud labels come late, so the newest days are left out of the training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from examples.payments.simulate import FEATURES, TARGET, Simulation, payments

NUMBERS = ["amount", "card_age_days", "payments_last_day", "minutes_since_last", "hour"]
WORDS = ["merchant_category", "country", "device"]
FLAGS = ["card_present", "abroad"]


def pipeline(*, trees: int = 80, seed: int = 7) -> Pipeline:
    """The untrained model. `paid_at` is part of the data and deliberately not used: time is for watching."""
    prepare = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median"), NUMBERS),
            ("flags", SimpleImputer(strategy="most_frequent"), FLAGS),
            (
                "words",
                make_pipeline(
                    SimpleImputer(strategy="constant", fill_value="unknown"),
                    OneHotEncoder(handle_unknown="ignore"),
                ),
                WORDS,
            ),
        ],
        remainder="drop",
    )
    # Balanced: one payment in sixty is fraud, and a plain forest would never say so.
    forest = RandomForestClassifier(
        n_estimators=trees,
        min_samples_leaf=8,
        max_depth=12,
        class_weight="balanced_subsample",
        random_state=seed,
    )
    return make_pipeline(prepare, forest)


def train(out: Path, *, rows: int = 40_000, seed: int = 7, trees: int = 80) -> float:
    """Writes `model.joblib`, `train.parquet` and `later.parquet` below `out`; returns the AUC on the later, unseen
    payments."""
    simulation = Simulation(seed=seed, per_day=1000)
    past = payments(simulation, rows=rows)
    later = payments(simulation, first=rows, rows=rows // 4)
    model = pipeline(trees=trees, seed=seed).fit(past[list(FEATURES)], past[TARGET])
    score = model.predict_proba(later[list(FEATURES)])[:, 1]
    out.mkdir(parents=True, exist_ok=True)
    data: pd.DataFrame = past[[*FEATURES, TARGET]]
    data.to_parquet(out / "train.parquet", index=False)
    unseen: pd.DataFrame = later[[*FEATURES, TARGET]]
    unseen.to_parquet(out / "later.parquet", index=False)
    joblib.dump(model, out / "model.joblib", compress=3)
    return float(roc_auc_score(later[TARGET], score))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the fraud model on simulated payments.")
    parser.add_argument("--out", type=Path, default=Path(".run/payments"))
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--trees", type=int, default=80)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    auc = train(given.out, rows=given.rows, seed=given.seed, trees=given.trees)
    print(f"AUC {auc:.3f} on payments after the training period")
    print(
        f"wrote {given.out / 'model.joblib'}, {given.out / 'train.parquet'} and {given.out / 'later.parquet'}"
    )


if __name__ == "__main__":
    main()
