"""Evidence and sizes for a column of categories, from the rows of both sides in each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairway.core.columns import Array
from fairway.monitoring.drift import effects
from fairway.monitoring.drift.evidence import Form, ScoreTest
from fairway.monitoring.drift.levels import MISSING, Side

MOST = 64
"""Most categories compared one by one; the rest are one together."""


EXPECTED = 2.0
"""Rows to be expected on the smaller side of a category that is compared on its own."""


def choose(counts: dict[str, float]) -> tuple[str, ...]:
    """The categories that are compared one by one, by their rows on both sides together."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(name for name, rows in ordered[:MOST] if rows > 0)


def category_scores(reference: Side, current: Side) -> tuple[Array, tuple[ScoreTest, ...]]:
    """(scores `[levels + 3, features]`, tests). Categories of which less than EXPECTED rows are to be expected on the smaller
    side are one together, which stays out of Pearson's chi-square (1900) while it is as rare itself."""
    pooled = reference.known + current.known
    rows = max(reference.rows + current.rows, 1)
    smaller = min(reference.rows, current.rows) / rows
    common = np.flatnonzero(pooled * smaller >= EXPECTED)
    rare = np.flatnonzero((pooled * smaller < EXPECTED) & (pooled > 0))
    size = len(common) + (1 if len(rare) else 0)
    table = np.zeros((len(pooled) + 3, size + 1))
    for i, level in enumerate(common):
        table[level, i] = 1.0
    table[rare, size - 1] = 1.0
    table[len(pooled) + MISSING, size] = 1.0
    squared = size if pooled[rare].sum() * smaller >= EXPECTED else len(common)
    # With weights 1 - p the sum of squares is Pearson's.
    weights = tuple(1.0 - (pooled[:, None] * table[:-3, :squared]).sum(axis=0) / rows)
    tests = (
        ScoreTest("mix", tuple(range(squared)), Form.squares, 0.6, weights),
        ScoreTest("one category", tuple(range(size)), Form.largest, 0.25),
        ScoreTest("missing", (size,), Form.linear, 0.15),
    )
    return table, tuple(test for test in tests if test.features)


def category_effects(reference: Side, current: Side) -> dict[str, float]:
    return {
        "total_variation": effects.total_variation(reference.known, current.known),
        "psi": effects.category_stability(reference.known, current.known),
        "jensen_shannon": effects.jensen_shannon(reference.known, current.known),
        "missing_rate_change": current.rate(MISSING) - reference.rate(MISSING),
        "new_category_rate": float(current.shares[reference.known == 0].sum()),
    }


def sides_of(
    before: Mapping[str | None, float], after: Mapping[str | None, float], other: str | None = None
) -> tuple[tuple[Side, Side], tuple[str, ...]]:
    """Both sides at the categories that `choose` takes, and those. `other` names rows of which the category is not known."""
    pooled: dict[str, float] = {}
    for counts in (before, after):
        for value, rows in counts.items():
            if value is not None and value != other:
                pooled[value] = pooled.get(value, 0.0) + rows
    chosen = choose(pooled)
    return (_side(before, chosen), _side(after, chosen)), chosen


def _side(counts: Mapping[str | None, float], chosen: tuple[str, ...]) -> Side:
    known = np.array([counts.get(value, 0.0) for value in chosen] + [0.0])
    missing = counts.get(None, 0.0)
    known[-1] = sum(counts.values()) - missing - known.sum()
    return Side(known, np.array([missing, 0.0, 0.0]))
