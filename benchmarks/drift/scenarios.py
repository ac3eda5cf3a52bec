"""Windows of fifteen columns: without drift, and with one kind of it. Needs numpy alone.

Eleven numeric columns of different shapes, some of them correlated and two with gaps, three categorical ones, one boolean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Columns = dict[str, Any]
REFERENCE_ROWS = 10_000
SIZES = (50, 200, 500, 1_000, 5_000, 50_000)
CATEGORIES = {
    "plan": (["free", "basic", "pro", "team", "trial"], [0.4, 0.3, 0.15, 0.1, 0.05]),
    "country": ([f"c{i:02}" for i in range(20)], [1 / (i + 1) for i in range(20)]),
    "device": (["phone", "desktop", "tablet"], [0.6, 0.3, 0.1]),
}


def rows(count: int, rng: np.random.Generator) -> Columns:
    """`count` rows without drift."""
    normal = rng.standard_normal((count, 6))
    found: Columns = {
        "n0": normal[:, 0],
        "n1": normal[:, 1],
        "n2": 0.6 * normal[:, 1] + 0.8 * normal[:, 2],
        "n3": normal[:, 3],
        "n4": -0.5 * normal[:, 3] + np.sqrt(0.75) * normal[:, 4],
        "amount": np.exp(3 + normal[:, 5]),
        "wait": rng.exponential(10.0, count),
        "heavy": rng.standard_t(3, count),
        "share": rng.beta(2, 5, count),
        "visits": rng.poisson(3, count).astype(float),
        "age": rng.integers(18, 90, count).astype(float),
    }
    found["amount"][rng.random(count) < 0.02] = np.nan
    found["age"][rng.random(count) < 0.1] = np.nan
    for name, (values, weights) in CATEGORIES.items():
        share = np.array(weights) / np.sum(weights)
        found[name] = np.array(values, dtype=object)[rng.choice(len(values), count, p=share)]
    found["returning"] = rng.random(count) < 0.3
    return found


def _shift(by: float) -> Callable[[Columns, np.random.Generator], None]:
    def change(window: Columns, rng: np.random.Generator) -> None:
        window["n0"] = window["n0"] + by

    return change


def _scale(window: Columns, rng: np.random.Generator) -> None:
    window["n0"] = window["n0"] * 1.2


def _tail(window: Columns, rng: np.random.Generator) -> None:
    far = rng.random(len(window["n0"])) < 0.02
    window["n0"] = np.where(far, 4 + rng.exponential(1.0, len(far)), window["n0"])


def _mix(window: Columns, rng: np.random.Generator) -> None:
    plan = window["plan"]
    plan[(plan == "free") & (rng.random(len(plan)) < 0.15)] = "pro"


def _missing(window: Columns, rng: np.random.Generator) -> None:
    window["n0"][rng.random(len(window["n0"])) < 0.02] = np.nan


def _correlation(window: Columns, rng: np.random.Generator) -> None:
    """n2 goes with n1 at 0.3 instead of 0.6; each alone is as it was."""
    window["n2"] = 0.3 * window["n1"] + np.sqrt(1 - 0.09) * rng.standard_normal(len(window["n1"]))


def _new_category(window: Columns, rng: np.random.Generator) -> None:
    device = window["device"]
    device[rng.random(len(device)) < 0.02] = "watch"


SCENARIOS: dict[str, tuple[str, Callable[[Columns, np.random.Generator], None] | None]] = {
    "none": ("no drift", None),
    "shift-0.15": ("mean + 0.15 sd", _shift(0.15)),
    "shift-0.5": ("mean + 0.5 sd", _shift(0.5)),
    "scale": ("scale x 1.2", _scale),
    "tail": ("2% of rows beyond 4 sd", _tail),
    "mix": ("6% of rows change category", _mix),
    "new-category": ("2% in a new category", _new_category),
    "missing": ("2% of values missing", _missing),
    "correlation": ("a correlation 0.6 -> 0.3", _correlation),
}
"""Name -> what it is called in the tables, and what it does to a window."""
CHANGED = {"mix": "plan", "new-category": "device", "correlation": ""}
"""The column that changed, where it is not n0; "" for none alone."""


def pair(
    scenario: str, size: int, repetition: int, reference_rows: int = REFERENCE_ROWS
) -> tuple[Columns, Columns]:
    """A reference and a window, the same ones whenever they are asked for, and never those of another repetition."""
    rng = np.random.default_rng([size, repetition, sorted(SCENARIOS).index(scenario)])
    reference, window = rows(reference_rows, rng), rows(size, rng)
    change = SCENARIOS[scenario][1]
    if change is not None:
        change(window, rng)
    return reference, window
