"""What is worked out from a claim before the careful model sees it: the same code in training and in the pipeline."""

from __future__ import annotations

import numpy as np


def ratios(rows: dict) -> dict:  # type: ignore[type-arg]
    """The claim beside the premium, and claims per year insured. One array a field in, one a feature out."""
    years = np.maximum(rows["days_insured"] / 365.25, 0.1)
    return {
        "amount_to_premium": rows["amount"] / np.maximum(rows["premium"], 1.0),
        "claims_per_year": rows["earlier_claims"] / years,
    }
