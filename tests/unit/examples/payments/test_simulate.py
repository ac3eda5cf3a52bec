"""The simulator does what its docstring says: repeatable, late labels, drift only where it is asked for."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scipy import stats

from examples.payments import simulate
from examples.payments.simulate import (
    BLOCK,
    CATEGORIES,
    FEATURES,
    NEW_CATEGORY,
    Drift,
    Simulation,
    payments,
    stream,
)

ROWS = 12_000
CALM = payments(Simulation(), rows=ROWS)


def drifted(**switches: float) -> pd.DataFrame:
    return payments(Simulation(drift=Drift(**switches)), rows=ROWS)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 1500), min_size=1, max_size=5), st.integers(0, 3000))
def test_any_way_of_cutting_gives_the_same_payments(pieces: list[int], first: int) -> None:
    simulation = Simulation(seed=3)
    whole = payments(simulation, first=first, rows=sum(pieces))
    starts = itertools.accumulate(pieces, initial=first)
    parts = [payments(simulation, first=at, rows=rows) for at, rows in zip(starts, pieces, strict=False)]
    assert_frame_equal(pd.concat(parts, ignore_index=True), whole)


def test_the_stream_is_the_same_payments_without_end() -> None:
    pieces = list(itertools.islice(stream(Simulation(), first=5, chunk=700), 3))
    assert_frame_equal(pd.concat(pieces, ignore_index=True), payments(Simulation(), first=5, rows=2100))


def test_another_seed_gives_other_payments() -> None:
    other = payments(Simulation(seed=8), rows=BLOCK)
    assert not np.array_equal(other["amount"], CALM["amount"][:BLOCK])
    assert set(other["payment_id"]).isdisjoint(CALM["payment_id"])


def test_columns_are_mixed_and_some_values_are_missing() -> None:
    kinds = {name: str(dtype) for name, dtype in CALM[list(FEATURES)].dtypes.items()}
    assert kinds["amount"] == "float64"
    assert kinds["card_age_days"] == "Int64"
    assert kinds["abroad"] == "boolean"
    assert kinds["card_present"] == "bool"
    assert kinds["paid_at"] == "datetime64[us, UTC]"
    missing = CALM[list(FEATURES)].isna().mean()
    assert missing["card_age_days"] == pytest.approx(0.07, abs=0.02)
    assert missing["device"] == pytest.approx(0.04, abs=0.02)
    assert missing[["amount", "country", "hour"]].eq(0).all()
    assert CALM["minutes_since_last"].isna().eq(CALM["payments_last_day"] == 0).all()


def test_payments_come_in_order_at_the_asked_rate_with_quiet_nights() -> None:
    assert CALM["paid_at"].is_monotonic_increasing
    days = CALM["paid_at"].dt.floor("D").value_counts()
    assert set(days) == {1000}
    assert CALM["hour"].equals(CALM["paid_at"].dt.hour.astype("int64"))
    by_hour = CALM["hour"].value_counts()
    assert by_hour[3] * 5 < by_hour[18]


def test_fraud_is_rare_and_depends_on_what_can_be_seen() -> None:
    rate = CALM["is_fraud"].mean()
    assert 0.01 < rate < 0.03
    table = pd.crosstab(CALM["card_present"], CALM["is_fraud"])
    assert stats.chi2_contingency(table).pvalue < 1e-6


def test_labels_come_late_frauds_before_the_all_clear() -> None:
    days = (CALM["label_at"] - CALM["paid_at"]).dt.total_seconds() / 86_400
    fraud = CALM["is_fraud"]
    assert (days > 0).all()
    assert days[fraud].median() == pytest.approx(4.0, rel=0.25)
    assert days[~fraud].eq(30.0).all()
    assert days[fraud].max() <= 30.0


def test_without_switches_two_halves_look_alike() -> None:
    half = ROWS // 2
    assert stats.ks_2samp(CALM["amount"][:half], CALM["amount"][half:]).pvalue > 0.01
    table = pd.crosstab(np.arange(ROWS) < half, CALM["merchant_category"])
    assert stats.chi2_contingency(table).pvalue > 0.01


def test_amount_shift_moves_the_log_amount_by_just_that() -> None:
    shift = np.log(drifted(amount_shift=0.7)["amount"]).mean() - np.log(CALM["amount"]).mean()
    assert shift == pytest.approx(0.7, abs=0.01)


def test_a_new_category_appears_at_its_share() -> None:
    frame = drifted(new_category=0.2)
    assert (frame["merchant_category"] == NEW_CATEGORY).mean() == pytest.approx(0.2, abs=0.02)
    assert set(CALM["merchant_category"]) == set(CATEGORIES)


def test_country_mix_moves_the_countries_and_leaves_amounts() -> None:
    frame = drifted(country_mix=1.0)
    counts = frame["country"].value_counts().reindex(list(simulate.COUNTRIES), fill_value=0)
    assert stats.chisquare(counts, simulate.DRIFTED_COUNTRY_SHARE * ROWS).pvalue > 0.001
    assert_frame_equal(frame[["amount"]], CALM[["amount"]])


def test_missing_rate_adds_to_what_is_missing_already() -> None:
    missing = drifted(missing_rate=0.3).isna().mean()
    assert missing["card_age_days"] == pytest.approx(1 - 0.93 * 0.7, abs=0.02)
    assert missing["device"] == pytest.approx(1 - 0.96 * 0.7, abs=0.02)


def test_concept_drift_changes_only_which_payments_are_fraud() -> None:
    frame = drifted(concept=1.0)
    assert_frame_equal(frame[list(FEATURES)], CALM[list(FEATURES)])
    fraud, old = frame["is_fraud"], CALM["is_fraud"]
    assert 0.005 < fraud.mean() < 0.05
    # Frauds were large before and are small now.
    assert (
        stats.mannwhitneyu(frame["amount"][old], frame["amount"][~old], alternative="greater").pvalue < 1e-6
    )
    assert (
        stats.mannwhitneyu(frame["amount"][fraud], frame["amount"][~fraud], alternative="less").pvalue < 1e-6
    )


def test_drift_starts_when_told_and_ramps_in_a_straight_line() -> None:
    drift = Drift(start_hours=48, ramp_hours=96, amount_shift=1.0)
    frame = payments(Simulation(drift=drift), rows=ROWS)
    before = frame["paid_at"] < pd.Timestamp("2026-01-03", tz="UTC")
    assert frame["amount"][before].equals(CALM["amount"][before])
    shift = np.log(frame["amount"]) - np.log(CALM["amount"])
    hours = (frame["paid_at"] - frame["paid_at"].dt.floor("D").iloc[0]).dt.total_seconds() / 3600
    np.testing.assert_allclose(shift, np.clip((hours - 48) / 96, 0, 1), atol=0.01)


@pytest.mark.parametrize("switch", ["new_category", "country_mix", "missing_rate", "concept"])
def test_a_share_outside_0_to_1_is_refused(switch: str) -> None:
    with pytest.raises(ValueError, match=switch):
        Drift(**{switch: 1.5})


def test_no_rows_is_an_empty_frame_with_the_same_columns() -> None:
    empty = payments(Simulation(), rows=0)
    assert empty.empty
    assert list(empty.columns) == list(CALM.columns)


def test_the_command_writes_what_the_function_returns(tmp_path, capsys) -> None:
    output = tmp_path / "payments.parquet"
    simulate.main([str(output), "--rows", "300", "--seed", "5", "--amount-shift", "0.5"])
    expected = payments(Simulation(seed=5, drift=Drift(amount_shift=0.5)), rows=300)
    assert_frame_equal(pd.read_parquet(output)[list(FEATURES)], expected[list(FEATURES)], check_dtype=False)
    assert "300 simulated payments" in capsys.readouterr().out


def test_the_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Simulation().seed = 1  # type: ignore[misc]
