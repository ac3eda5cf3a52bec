"""The claims: the same every time, and the function one row at a time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.claims.features import ratios
from examples.claims.train import NUMBERS, RATIOS, TARGET, claims, train, with_ratios


def test_claims_are_the_same_for_a_seed_and_some_are_fraud() -> None:
    one = claims(500, seed=1)
    pd.testing.assert_frame_equal(one, claims(500, seed=1))
    assert not one.equals(claims(500, seed=2))
    assert 0.05 < one[TARGET].mean() < 0.4


def test_ratios_are_of_each_claim_by_itself() -> None:
    frame = claims(20, seed=3)
    given = with_ratios(frame)
    assert list(given) == [*NUMBERS, *RATIOS]
    for row in range(20):
        alone = ratios({name: frame[name].to_numpy()[row : row + 1] for name in NUMBERS})
        assert [alone[name][0] for name in RATIOS] == given.loc[row, RATIOS].tolist()
    assert ratios(
        {
            "amount": np.array([100.0]),
            "premium": np.array([50.0]),
            "days_insured": np.array([730.5]),
            "earlier_claims": np.array([4]),
        }
    ) == {"amount_to_premium": [2.0], "claims_per_year": [2.0]}


def test_training_writes_what_the_pipeline_names(tmp_path: Path) -> None:
    scores = train(tmp_path, rows=600)
    assert set(scores) == {"quick", "careful"}
    assert all(score > 0.55 for score in scores.values())
    for name in ("unusual", "quick", "careful"):
        assert (tmp_path / f"{name}.joblib").exists()
        assert (tmp_path / f"{name}.parquet").exists()
    assert list(pd.read_csv(tmp_path / "claims.csv")) == NUMBERS
    assert list(pd.read_parquet(tmp_path / "claims.parquet")) == [*NUMBERS, TARGET]


@pytest.mark.parametrize("days", [0, 1, 36])
def test_a_contract_of_a_few_days_is_no_division_by_zero(days: int) -> None:
    one = np.array([1.0])
    given = ratios(
        {"amount": one, "premium": one * 0, "days_insured": np.array([days]), "earlier_claims": one}
    )
    assert given["claims_per_year"].tolist() == [10.0]
    assert given["amount_to_premium"].tolist() == [1.0]
