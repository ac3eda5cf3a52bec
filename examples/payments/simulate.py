"""A seeded simulator of card payments. **Synthetic data**: it imitates shapes, not any real population.

Payment number `i` is always the same for the same configuration, however the stream is cut into pieces:
random numbers are drawn per block of 1,024 payments from a generator seeded with (seed, block).

    payments(Simulation(seed=7), first=0, rows=1000)          a DataFrame
    stream(Simulation(drift=Drift(amount_shift=0.7)))         DataFrames without end

Fraud is drawn from a logistic model of the columns plus noise that no column shows, so the best model
there is still errs. `label_at` is when the truth becomes known: frauds after days (the holder notices),
honest payments when the window for complaints closes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Floats = np.ndarray[Any, np.dtype[np.float64]]

BLOCK = 1024
HOUR = 3600 * 1_000_000  # microseconds
DAY = 24 * HOUR

FEATURES = (
    "amount",
    "merchant_category",
    "country",
    "device",
    "card_age_days",
    "payments_last_day",
    "minutes_since_last",
    "card_present",
    "abroad",
    "hour",
    "paid_at",
)
TARGET = "is_fraud"

CATEGORIES = (
    "grocery",
    "fuel",
    "restaurant",
    "travel",
    "electronics",
    "fashion",
    "gaming",
    "pharmacy",
    "transfer",
)
CATEGORY_SHARE = np.array([0.28, 0.12, 0.17, 0.06, 0.09, 0.11, 0.06, 0.07, 0.04])
CATEGORY_LOG_AMOUNT = np.array([3.4, 3.7, 3.3, 5.3, 4.9, 4.1, 3.0, 2.9, 5.0])
CATEGORY_RISK = np.array([-0.9, -0.6, -0.6, 0.4, 0.9, 0.1, 0.8, -0.7, 1.2])
NEW_CATEGORY = "crypto"
NEW_CATEGORY_LOG_AMOUNT = 5.2
NEW_CATEGORY_RISK = 1.6

COUNTRIES = ("DE", "FR", "NL", "IT", "ES", "PL", "GB", "US", "TR", "BR")
COUNTRY_SHARE = np.array([0.34, 0.14, 0.10, 0.09, 0.09, 0.08, 0.07, 0.05, 0.02, 0.02])
DRIFTED_COUNTRY_SHARE = np.array([0.10, 0.06, 0.04, 0.06, 0.06, 0.08, 0.12, 0.22, 0.12, 0.14])
COUNTRY_RISK = np.array([-0.3, -0.2, -0.2, 0.0, 0.0, 0.1, 0.1, 0.5, 0.6, 0.7])

DEVICES = ("terminal", "ios", "android", "web")

# Payments per hour of the day, as shares of a day: quiet nights, a lunch and an evening peak.
HOURLY = np.array(
    [1, 1, 1, 1, 1, 2, 3, 5, 7, 8, 9, 11, 13, 11, 9, 8, 9, 11, 13, 13, 11, 8, 5, 2], dtype=float
)
_DAY_EDGES = np.concatenate([[0.0], np.cumsum(HOURLY) / HOURLY.sum()])


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What changes, how much, and when. Every switch is off at 0.

    The change begins `start_hours` after the first payment and reaches its full size `ramp_hours` later.

    amount_shift    added to the natural logarithm of the amount (0.7 doubles amounts)
    new_category    share of payments, 0..1, in a merchant category never seen before
    country_mix     0..1: how far the countries move to another mix
    missing_rate    share of card ages and devices, 0..1, that additionally go missing
    concept         0..1: how far fraud moves to a pattern the old model does not know; columns stay as they are
    """

    start_hours: float = 0.0
    ramp_hours: float = 0.0
    amount_shift: float = 0.0
    new_category: float = 0.0
    country_mix: float = 0.0
    missing_rate: float = 0.0
    concept: float = 0.0

    def __post_init__(self) -> None:
        for name in ("new_category", "country_mix", "missing_rate", "concept"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share: give a number from 0 to 1, not {getattr(self, name)}")
        if self.ramp_hours < 0:
            raise ValueError("ramp_hours must not be negative")

    def strength(self, hours: Floats) -> Floats:
        """0 before the start, 1 after the ramp, a straight line between. `hours` since the first payment."""
        if self.ramp_hours == 0:
            return (hours >= self.start_hours).astype(np.float64)
        return np.clip((hours - self.start_hours) / self.ramp_hours, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """One stream of payments. `per_day` payments a day on average; the first one falls on `start`'s midnight."""

    seed: int = 7
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    per_day: int = 1000
    fraud_label_days: float = 4.0
    """Median days until a fraud is reported."""
    honest_label_days: float = 30.0
    """Days after which a payment nobody complained about counts as honest."""
    drift: Drift = Drift()

    def __post_init__(self) -> None:
        if self.per_day < 1:
            raise ValueError("per_day must be at least 1")


def payments(simulation: Simulation, *, first: int = 0, rows: int) -> pd.DataFrame:
    """Payments `first` to `first + rows - 1`, in time order.

    Columns: `payment_id`, FEATURES, `is_fraud` (bool) and `label_at`, when that becomes known. Times are UTC.
    """
    if rows <= 0:
        return _block(simulation, 0).iloc[:0]
    blocks = range(first // BLOCK, (first + rows - 1) // BLOCK + 1)
    frame = pd.concat([_block(simulation, block) for block in blocks], ignore_index=True)
    skipped = first - blocks.start * BLOCK
    return frame.iloc[skipped : skipped + rows].reset_index(drop=True)


def stream(simulation: Simulation, *, first: int = 0, chunk: int = BLOCK) -> Iterator[pd.DataFrame]:
    """The payments from number `first` on, without end, `chunk` at a time."""
    while True:
        yield payments(simulation, first=first, rows=chunk)
        first += chunk


def _block(simulation: Simulation, block: int) -> pd.DataFrame:
    random = np.random.default_rng([simulation.seed, block])
    drift = simulation.drift
    number = block * BLOCK + np.arange(BLOCK)

    days = (number + random.random(BLOCK)) / simulation.per_day
    whole = np.floor(days)
    in_day = np.interp(days - whole, _DAY_EDGES, np.arange(25) / 24)
    hours = (whole + in_day) * 24
    strength = drift.strength(hours)
    start = np.datetime64(simulation.start.astimezone(UTC).replace(tzinfo=None), "us")
    paid_at = start + (hours * HOUR).astype("timedelta64[us]")
    hour = (in_day * 24).astype(np.int64)

    category = random.choice(len(CATEGORIES), BLOCK, p=CATEGORY_SHARE)
    is_new = random.random(BLOCK) < drift.new_category * strength
    log_mean = np.where(is_new, NEW_CATEGORY_LOG_AMOUNT, CATEGORY_LOG_AMOUNT[category])
    amount = np.round(
        np.exp(log_mean + 0.7 * random.standard_normal(BLOCK) + drift.amount_shift * strength), 2
    )

    old_country = random.choice(len(COUNTRIES), BLOCK, p=COUNTRY_SHARE)
    new_country = random.choice(len(COUNTRIES), BLOCK, p=DRIFTED_COUNTRY_SHARE)
    country = np.where(random.random(BLOCK) < drift.country_mix * strength, new_country, old_country)
    abroad = random.random(BLOCK) < np.where(np.isin(country, (7, 8, 9)), 0.55, 0.08)

    online = random.random(BLOCK) < np.where(np.isin(category, (4, 5, 6, 8)) | is_new, 0.75, 0.2)
    device = np.where(online, random.choice([1, 2, 3], BLOCK, p=[0.35, 0.4, 0.25]), 0)
    card_age = np.minimum(random.exponential(700.0, BLOCK).astype(np.int64), 5000)
    last_day = random.poisson(np.exp(0.4 * random.standard_normal(BLOCK)) * 1.6)
    since_last = np.round(random.exponential(420.0, BLOCK), 1)
    hidden = random.standard_normal(BLOCK)  # what the fraudster knows and no column shows

    known = (
        -7.3
        + np.where(is_new, NEW_CATEGORY_RISK, CATEGORY_RISK[category])
        + COUNTRY_RISK[country]
        + 0.9 * (np.log(amount) - 4.0)
        + 1.5 * abroad
        + 1.1 * online
        + 1.3 * (card_age < 120)
        + 0.45 * np.minimum(last_day, 8)
        + 1.2 * (since_last < 20)
        + 1.0 * ((hour < 6) & online)
    )
    moved = (
        -6.1
        - 0.9 * (np.log(amount) - 4.0)
        + 1.6 * (device == 2)
        + 1.5 * (card_age > 900)
        - 0.9 * abroad
        + 1.2 * np.isin(category, (0, 1, 7))
    )
    concept = drift.concept * strength
    logit = (1 - concept) * known + concept * moved + 0.8 * hidden
    fraud = random.random(BLOCK) < 1 / (1 + np.exp(-logit))

    fraud_days = simulation.fraud_label_days * np.exp(0.6 * random.standard_normal(BLOCK))
    label_days = np.where(
        fraud, np.minimum(fraud_days, simulation.honest_label_days), simulation.honest_label_days
    )

    vanishes = drift.missing_rate * strength
    no_age = (random.random(BLOCK) < 0.07) | (random.random(BLOCK) < vanishes)
    no_device = (random.random(BLOCK) < 0.04) | (random.random(BLOCK) < vanishes)
    no_abroad = random.random(BLOCK) < 0.03

    devices = np.array([*DEVICES, None], dtype=object)
    names = np.array([*CATEGORIES, NEW_CATEGORY], dtype=object)
    return pd.DataFrame(
        {
            "payment_id": [f"p{simulation.seed}-{i:09d}" for i in number],
            "amount": amount,
            "merchant_category": names[np.where(is_new, len(CATEGORIES), category)],
            "country": np.array(COUNTRIES, dtype=object)[country],
            "device": devices[np.where(no_device, len(DEVICES), device)],
            "card_age_days": pd.arrays.IntegerArray(card_age, no_age),
            "payments_last_day": last_day.astype(np.int64),
            "minutes_since_last": np.where(last_day == 0, np.nan, since_last),
            "card_present": ~online,
            "abroad": pd.arrays.BooleanArray(abroad, no_abroad),
            "hour": hour,
            "paid_at": pd.DatetimeIndex(paid_at).tz_localize("UTC"),
            "is_fraud": fraud,
            "label_at": pd.DatetimeIndex(paid_at + (label_days * DAY).astype("timedelta64[us]")).tz_localize(
                "UTC"
            ),
        }
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write simulated card payments (synthetic) to a Parquet file."
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first payment")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--per-day", type=int, default=1000)
    for name, meaning in (
        ("start-hours", "when drift begins, in hours after the first payment"),
        ("ramp-hours", "how long it takes to reach full size"),
        ("amount-shift", "added to the logarithm of the amount"),
        ("new-category", "share of payments in an unknown merchant category"),
        ("country-mix", "how far the countries move, 0..1"),
        ("missing-rate", "share of values that additionally go missing"),
        ("concept", "how far fraud moves to a new pattern, 0..1"),
    ):
        parser.add_argument(f"--{name}", type=float, default=0.0, help=meaning)
    given = parser.parse_args(arguments)
    drift = Drift(
        start_hours=given.start_hours,
        ramp_hours=given.ramp_hours,
        amount_shift=given.amount_shift,
        new_category=given.new_category,
        country_mix=given.country_mix,
        missing_rate=given.missing_rate,
        concept=given.concept,
    )
    simulation = Simulation(seed=given.seed, per_day=given.per_day, drift=drift)
    frame = payments(simulation, first=given.first, rows=given.rows)
    frame.to_parquet(given.output, index=False)
    print(f"{given.output}: {len(frame)} simulated payments, {frame[TARGET].mean():.2%} fraud")


if __name__ == "__main__":
    main()
