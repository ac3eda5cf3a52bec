"""Simulated customers of a subscription. **The data is synthetic**: no figure says anything about real people.

A customer is the same every time it is drawn with the same seed, and a day older the next day: so a table that is filled
again for a later day is what a company's would be the next night.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

TARGET = "churned"
KEY = "customer_id"
FEATURES = ["tenure_days", "plan", "monthly_fee", "support_calls", "days_since_login", "country", "autopay"]
_PLANS = np.array(["basic", "plus", "family"], dtype=object)
_COUNTRIES = np.array(["DE", "FR", "PL", "ES"], dtype=object)


def customers(rows: int, *, day: int = 0, seed: int = 11) -> pd.DataFrame:
    """`rows` customers as they are on a day, 0 being the first, with whether each left in the month after."""
    random = np.random.default_rng(seed)
    plan = random.choice(_PLANS, rows, p=[0.5, 0.35, 0.15])
    fee = np.select([plan == "basic", plan == "plus"], [9.9, 19.9], 34.9) + random.choice([0.0, 2.0], rows)
    born = random.integers(0, 1500, rows)
    autopay = random.random(rows) < 0.6
    country = random.choice(_COUNTRIES, rows)
    country[random.random(rows) < 0.03] = None
    today = np.random.default_rng([seed, day])
    calls = pd.array(today.poisson(0.8, rows), dtype="Int64")
    calls[today.random(rows) < 0.05] = pd.NA
    idle = today.gamma(1.5, 9.0, rows).round()
    tenure = born + day
    odds = (
        -2.4 + 0.045 * idle - 0.0009 * tenure + 0.5 * np.asarray(calls.fillna(0), dtype=float) - 0.7 * autopay
    )
    return pd.DataFrame(
        {
            KEY: np.arange(1, rows + 1),
            "tenure_days": tenure,
            "plan": plan,
            "monthly_fee": fee,
            "support_calls": calls,
            "days_since_login": idle,
            "country": country,
            "autopay": autopay,
            TARGET: (today.random(rows) < 1 / (1 + np.exp(-odds))).astype(int),
        }
    )
