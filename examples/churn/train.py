"""Trains the churn model and writes `model.joblib` and `train.parquet`.

python -m examples.churn.train --out .run/churn
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from examples.churn.simulate import FEATURES, TARGET, customers

NUMBERS = ["tenure_days", "monthly_fee", "support_calls", "days_since_login"]
WORDS = ["plan", "country"]


def pipeline(*, trees: int = 60, seed: int = 11) -> Pipeline:
    """The untrained model."""
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="unknown"), OneHotEncoder(handle_unknown="ignore")
    )
    prepare = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median"), NUMBERS),
            ("flags", "passthrough", ["autopay"]),
            ("words", words, WORDS),
        ]
    )
    return make_pipeline(
        prepare, GradientBoostingClassifier(n_estimators=trees, max_depth=3, random_state=seed)
    )


def train(out: Path, *, rows: int = 8000, trees: int = 60, seed: int = 11) -> float:
    """Writes the files below `out`; returns the AUC on other customers a month later."""
    known, later = customers(rows, seed=seed), customers(rows, day=30, seed=seed + 1)
    known["support_calls"] = known["support_calls"].astype("float64")
    later["support_calls"] = later["support_calls"].astype("float64")
    model = pipeline(trees=trees, seed=seed).fit(known[FEATURES], known[TARGET])
    out.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, out / "model.joblib")
    known[[*FEATURES, TARGET]].to_parquet(out / "train.parquet", index=False)
    return float(roc_auc_score(later[TARGET], model.predict_proba(later[FEATURES])[:, 1]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the churn model on simulated customers.")
    parser.add_argument("--out", type=Path, default=Path(".run/churn"))
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--trees", type=int, default=60)
    given = parser.parse_args(arguments)
    print(f"AUC {train(given.out, rows=given.rows, trees=given.trees):.3f} on other customers, a month later")
    print("wrote model.joblib and train.parquet")


if __name__ == "__main__":
    main()
