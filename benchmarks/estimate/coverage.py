"""How often 95% intervals hold the true value, over many windows drawn from a known population."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from fairway.core.columns import Array
from fairway.monitoring.performance.classification import METRICS, measure_classification
from fairway.monitoring.performance.ranking import measure_ranking
from fairway.monitoring.performance.regression import measure_regression
from fairway.monitoring.performance.values import Classified, Ranked, Regressed
from fairway.monitoring.told import Measured

Draw = Callable[[np.random.Generator, int], object]
SIZES = (50, 200, 1_000, 5_000)
POPULATION = 1_000_000
VALUE = np.array([[0.0, -1.0], [-8.0, 3.0]])
NAMES = tuple(name for name in METRICS if name != "business_value")


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def binary(rng: np.random.Generator, rows: int, *, shift: float = -0.8) -> Classified:
    """A model that is a little too sure of itself; about a third of rows are positive."""
    score = rng.normal(shift, 1.6, rows)
    actual = (rng.random(rows) < _sigmoid(0.8 * score + 0.15)).astype(np.int64)
    p = _sigmoid(score)
    return Classified(("0", "1"), np.column_stack([1 - p, p]), (p > 0.5).astype(np.int64), actual)


def rare(rng: np.random.Generator, rows: int) -> Classified:
    """One row in twenty is positive; rows are flagged at 0.2."""
    window = binary(rng, rows, shift=-4.3)
    return Classified(
        window.classes,
        window.probabilities,
        (window.probabilities[:, 1] > 0.2).astype(np.int64),
        window.actual,
    )


def tied(rng: np.random.Generator, rows: int) -> Classified:
    """Scores with heavy tails, told in whole hundredths, so that many are equal; one row in six is positive, and the model too shy."""
    score = rng.standard_t(4, rows) * 0.9 - 1.9
    actual = (rng.random(rows) < _sigmoid(1.3 * score + 0.2)).astype(np.int64)
    p = np.round(_sigmoid(score), 2).clip(0.005, 0.995)
    return Classified(("0", "1"), np.column_stack([1 - p, p]), (p > 0.3).astype(np.int64), actual)


def multiclass(rng: np.random.Generator, rows: int) -> Classified:
    scores = rng.normal(0, 1.4, (rows, 4)) + np.array([0.5, 0.0, -0.3, -0.6])
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    truth = np.exp(0.8 * scores) / np.exp(0.8 * scores).sum(axis=1, keepdims=True)
    actual = (rng.random((rows, 1)) > truth.cumsum(axis=1)).sum(axis=1)
    return Classified(tuple("abcd"), p, p.argmax(axis=1), np.minimum(actual, 3))


def regression(rng: np.random.Generator, rows: int) -> Regressed:
    """Errors that grow with the value, a bias, tails heavier than normal: the largest errors are six deviations and more."""
    predicted = rng.gamma(4.0, 25.0, rows) + 20
    return Regressed(predicted, predicted * (1 + 0.06 * np.maximum(rng.standard_t(5, rows), -12)) - 2)


def light(rng: np.random.Generator, rows: int) -> Regressed:
    """Normal errors. (Here as below nothing comes near zero: errors as shares of it would have no mean.)"""
    predicted = rng.gamma(4.0, 25.0, rows) + 100
    return Regressed(predicted, predicted + rng.normal(1.0, 10.0, rows))


def laplace(rng: np.random.Generator, rows: int) -> Regressed:
    """Laplace's errors, of one spread."""
    predicted = rng.gamma(4.0, 25.0, rows) + 200
    return Regressed(predicted, predicted + rng.laplace(1.0, 8.0, rows))


def lopsided(rng: np.random.Generator, rows: int) -> Regressed:
    """Skewed errors: mostly a little too high, now and then far too low."""
    predicted = rng.gamma(4.0, 25.0, rows) + 20
    return Regressed(predicted, predicted + rng.gamma(1.5, 8.0, rows) - 15)


def ranking(rng: np.random.Generator, rows: int) -> Ranked:
    """`rows` queries of ten items."""
    relevance = rng.binomial(3, 0.25, rows * 10).astype(np.float64)
    return Ranked(np.repeat(np.arange(rows), 10), relevance + rng.normal(0, 1.2, rows * 10), relevance)


def _classification(window: Classified) -> tuple[Measured, ...]:
    value = VALUE if window.binary else None
    return measure_classification(window, METRICS if window.binary else NAMES, value=value)


CASES: dict[str, tuple[Draw, Callable[..., tuple[Measured, ...]]]] = {
    "binary": (binary, _classification),
    "binary, 5% positive": (rare, _classification),
    "binary, ties": (tied, _classification),
    "four classes": (multiclass, _classification),
    "regression": (light, measure_regression),
    "regression, Laplace errors": (laplace, measure_regression),
    "regression, heavy tails": (regression, measure_regression),
    "regression, skewed errors": (lopsided, measure_regression),
    "ranking": (ranking, measure_ranking),
}


def cover(case: str, rows: int, windows: int, seed: int = 20261122) -> dict[str, tuple[float, float]]:
    """Per metric: share of windows with an interval that holds the truth, and the share without an interval."""
    draw, measure = CASES[case]
    truth = _truth(case)
    rng = np.random.default_rng(seed)
    held: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(windows):
        for m in measure(draw(rng, rows)):
            wanted = truth[m.name]
            if m.lower is not None and m.upper is not None and wanted is not None:
                held[m.name].append(m.lower <= wanted <= m.upper)
    return {
        name: (float(np.mean(h)) if h else float("nan"), 1 - len(h) / windows) for name, h in held.items()
    }


@cache
def _truth(case: str) -> dict[str, float]:
    """Of ten large windows, so that the truth is surer than any window."""
    draw, measure = CASES[case]
    rows = POPULATION // (10 if case == "ranking" else 1)
    rng = np.random.default_rng(99)
    drawn = [{m.name: m.value or 0.0 for m in measure(draw(rng, rows))} for _ in range(10)]
    return {name: float(np.mean([one[name] for one in drawn])) for name in drawn[0]}


def table(windows: int) -> list[str]:
    lines = [
        "| | metric | " + " | ".join(f"{rows:,}" for rows in SIZES) + " |",
        "|---|---|" + "---|" * len(SIZES),
    ]
    for case in CASES:
        found = [cover(case, rows, windows) for rows in SIZES]
        for name in found[0]:
            cells = (_cell(*one[name]) for one in found)
            lines.append(f"| {case} | {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(held: float, without: float) -> str:
    if without > 0.9:
        return "–"
    return f"{100 * held:.1f}" + ("*" if without > 0.001 else "")
