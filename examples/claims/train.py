"""Trains the three models of the claims pipeline on simulated claims. **The data is synthetic.**

    python -m examples.claims.train --out .run/claims

Writes `unusual.joblib` (an isolation forest), `quick.joblib` (a logistic regression), `careful.joblib` (boosted trees
on ratios too), their training data, `claims.parquet` (whole claims, with the target `fraud`) and `claims.csv`, ten
new claims.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.claims.features import ratios

TARGET = "fraud"
NUMBERS = ["amount", "premium", "days_insured", "earlier_claims"]
RATIOS = ["amount_to_premium", "claims_per_year"]


def claims(rows: int, *, seed: int) -> pd.DataFrame:
    """Claims with a target. Fraud is likelier soon after the contract began, and where much is asked for little."""
    random = np.random.default_rng(seed)
    premium = random.gamma(4.0, 90.0, rows).round(2)
    frame = pd.DataFrame(
        {
            "amount": (premium * random.lognormal(0.3, 0.8, rows)).round(2),
            "premium": premium,
            "days_insured": random.integers(1, 4000, rows),
            "earlier_claims": random.poisson(0.8, rows),
        }
    )
    given = ratios({name: frame[name].to_numpy() for name in NUMBERS})
    risk = 1.1 * np.log(given["amount_to_premium"]) + 0.8 * np.minimum(given["claims_per_year"], 4.0)
    risk += 1.2 * (frame.days_insured < 120) - 3.6
    frame[TARGET] = random.random(rows) < 1 / (1 + np.exp(-risk))
    return frame


def train(out: Path, *, rows: int = 4000, seed: int = 7) -> dict[str, float]:
    """Writes the files; returns each classifier's AUC on claims it has not seen."""
    known, unseen = claims(rows, seed=seed), claims(rows, seed=seed + 1)
    out.mkdir(parents=True, exist_ok=True)
    scores = {}

    def keep(name: str, model: object, columns: pd.DataFrame) -> None:
        joblib.dump(model, out / f"{name}.joblib")
        columns.to_parquet(out / f"{name}.parquet", index=False)

    unusual = IsolationForest(n_estimators=50, contamination=0.05, random_state=seed).fit(known[NUMBERS])
    keep("unusual", unusual, known[NUMBERS])
    quick = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    quick.fit(known[NUMBERS], known[TARGET])
    keep("quick", quick, known[[*NUMBERS, TARGET]])
    scores["quick"] = float(roc_auc_score(unseen[TARGET], quick.predict_proba(unseen[NUMBERS])[:, 1]))
    careful = GradientBoostingClassifier(n_estimators=60, random_state=seed)
    careful.fit(with_ratios(known), known[TARGET])
    keep("careful", careful, with_ratios(known).assign(**{TARGET: known[TARGET]}))
    scores["careful"] = float(roc_auc_score(unseen[TARGET], careful.predict_proba(with_ratios(unseen))[:, 1]))
    known.to_parquet(out / "claims.parquet", index=False)
    asked_most = unseen.assign(ratio=unseen.amount / unseen.premium).nlargest(5, "ratio")
    pd.concat([unseen.head(5), asked_most])[NUMBERS].to_csv(out / "claims.csv", index=False)
    return scores


def with_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Claims without the target, and their ratios."""
    given = ratios({name: frame[name].to_numpy() for name in NUMBERS})
    return frame[NUMBERS].assign(**{name: given[name] for name in RATIOS})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the models of the claims pipeline.")
    parser.add_argument("--out", type=Path, default=Path(".run/claims"))
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    for name, auc in train(given.out, rows=given.rows, seed=given.seed).items():
        print(f"{name}: AUC {auc:.3f} on later claims")
    print(f"wrote three models, their data, claims.parquet and claims.csv below {given.out}")


if __name__ == "__main__":
    main()
