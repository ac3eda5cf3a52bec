"""How often intervals of estimates, made before labels come, hold what the labels then say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.estimate.coverage import multiclass
from fairway.core.columns import Array
from fairway.monitoring.performance.cbpe import fit_cbpe
from fairway.monitoring.performance.classification import measure_classification
from fairway.monitoring.performance.dle import fit_dle
from fairway.monitoring.performance.regression import METRICS, measure_regression
from fairway.monitoring.performance.values import Classified, Regressed
from fairway.monitoring.told import Measured

SIZES = (500, 5_000)
REFERENCE_ROWS = 5_000
PER_REFERENCE = 4
"""Windows of each size that are estimated by what one reference taught."""
SHIFT = 0.5
Estimated = list[tuple[Measured, Measured]]


def table(references: int) -> list[str]:
    """Each case as it was, and with an input moved by `SHIFT`: what depends on inputs moves, what follows from them does not."""
    lines = [
        "| | metric | " + " | ".join(f"{rows:,}, {what}" for what in ("as before", "moved") for rows in SIZES) + " |",
        "|---|---|" + "---|" * (2 * len(SIZES)),
    ]  # fmt: skip
    for case, one in CASES.items():
        held: dict[str, dict[tuple[float, int], list[bool]]] = {}
        for shift in (0.0, SHIFT):
            for reference in range(references):
                for rows, found in one(np.random.default_rng([reference, int(10 * shift)]), shift):
                    for estimate, realised in found:
                        if estimate.lower is None or estimate.upper is None or realised.value is None:
                            continue
                        cell = held.setdefault(estimate.name, {}).setdefault((shift, rows), [])
                        cell.append(estimate.lower <= realised.value <= estimate.upper)
        for name, cells in held.items():
            shown = (f"{100 * np.mean(cells[shift, rows]):.1f}" for shift in (0.0, SHIFT) for rows in SIZES)
            lines.append(f"| {case} | {name} | " + " | ".join(shown) + " |")
    return lines


def _binary(rng: np.random.Generator, rows: int, shift: float) -> Classified:
    """A model that is a little too sure of itself, of two inputs of which the first moves."""
    first, second = rng.normal(shift, 1, rows), rng.normal(0, 1, rows)
    score = 1.2 * first + 0.9 * second - 0.8
    p = _sigmoid(score)
    actual = (rng.random(rows) < _sigmoid(0.8 * score + 0.15)).astype(np.int64)
    features = {"first": first, "second": second}
    return Classified(("0", "1"), np.column_stack([1 - p, p]), (p > 0.5).astype(np.int64), actual, features)


def _four(rng: np.random.Generator, rows: int, shift: float) -> Classified:
    """Of the rows drawn, those whose first score is high are taken more often."""
    drawn = multiclass(rng, 3 * rows)
    odds = np.exp(shift * np.log(drawn.probabilities[:, 0]))
    return drawn.take(np.sort(rng.choice(3 * rows, rows, replace=False, p=odds / odds.sum())))


def _regression(rng: np.random.Generator, rows: int, shift: float) -> Regressed:
    """Errors that are larger where the first input is."""
    first, second = rng.normal(shift, 1, rows), rng.normal(0, 1, rows)
    predicted = 150 + 10 * first + 5 * second
    errors = rng.normal(0, 1, rows) * (5 + 3 * _sigmoid(2 * first)) - 1
    return Regressed(predicted, predicted + errors, {"first": first, "second": second})


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _of_classifier(
    draw: Callable[[np.random.Generator, int, float], Classified],
) -> Callable[[np.random.Generator, float], list[tuple[int, Estimated]]]:
    def one(rng: np.random.Generator, shift: float) -> list[tuple[int, Estimated]]:
        fitted = fit_cbpe(draw(rng, REFERENCE_ROWS, 0.0))
        found = []
        for rows in SIZES * PER_REFERENCE:
            window = draw(rng, rows, shift)
            estimates = fitted.estimate(window)
            realised = measure_classification(window, [estimate.name for estimate in estimates])
            found.append((rows, list(zip(estimates, realised, strict=True))))
        return found

    return one


def _of_regression(rng: np.random.Generator, shift: float) -> list[tuple[int, Estimated]]:
    fitted = fit_dle(_regression(rng, REFERENCE_ROWS, 0.0))
    found = []
    for rows in SIZES * PER_REFERENCE:
        window = _regression(rng, rows, shift)
        realised = measure_regression(window, METRICS)
        found.append((rows, list(zip(fitted.estimate(window, METRICS), realised, strict=True))))
    return found


CASES = {
    "binary": _of_classifier(_binary),
    "four classes": _of_classifier(_four),
    "regression": _of_regression,
}
