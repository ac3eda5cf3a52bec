"""Evidence and sizes for a column of numbers, from the rows of both sides at its levels."""

from __future__ import annotations

import numpy as np

from fairway.core.columns import Array
from fairway.monitoring.drift import category, effects, scores
from fairway.monitoring.drift.evidence import (
    Evidence,
    Form,
    ScoreTest,
    keep_varying,
    matched_moments,
    standardise,
)
from fairway.monitoring.drift.levels import ABOVE, BELOW, MISSING, Side

_FEW = 20

_TESTS: tuple[ScoreTest, ...] = (
    ScoreTest("location", (0,), Form.linear, 0.34),
    ScoreTest("scale", (1,), Form.linear, 0.18),
    ScoreTest("shape", tuple(range(2, 8)), Form.squares, 0.2, tuple(scores.ANDERSON_DARLING)),
    ScoreTest("lower tail", (8,), Form.linear, 0.06),
    ScoreTest("upper tail", (9,), Form.linear, 0.06),
    ScoreTest("missing", (10,), Form.linear, 0.12),
    ScoreTest("infinite", (11, 12), Form.largest, 0.04),
)


def number_scores(reference: Side, current: Side) -> tuple[Array, tuple[ScoreTest, ...]]:
    """(scores `[levels + 3, features]`, tests). Rows without a number score the average of those that have one."""
    pooled = reference.known + current.known
    levels = len(pooled)
    location, scale = scores.normal_scores(pooled) if pooled.sum() else (np.zeros(levels), np.ones(levels))
    ranks = scores.mid_ranks(pooled)
    low, high = scores.tails(pooled, scores.tail_share(min(reference.rows, current.rows)))
    features = [location, scale, *scores.legendre(ranks).T, low, high]
    tests = _TESTS
    smaller = min(reference.rows, current.rows) / max(reference.rows + current.rows, 1)
    # Few different numbers: each may become commoner without the order telling. Rare ones would make squares wild.
    occupied = np.flatnonzero(pooled)
    common = np.flatnonzero(pooled * smaller >= category.EXPECTED)
    if 2 < len(occupied) <= _FEW and len(common) > 1:
        first = len(features) + 3
        weights = tuple(1 - pooled[common] / max(pooled.sum(), 1.0))
        tests = (
            *tests,
            ScoreTest("mix", tuple(range(first, first + len(common))), Form.squares, 0.1, weights),
        )
    else:
        common = common[:0]
    table = np.zeros((levels + 3, len(features) + 3 + len(common)))
    for i, feature in enumerate(features):
        known = pooled @ feature / max(pooled.sum(), 1.0)
        table[:levels, i] = feature - known
    for i, special in enumerate((MISSING, ABOVE, BELOW)):
        table[levels + special, len(features) + i] = 1.0
    for i, level in enumerate(common):
        table[level, len(features) + 3 + i] = 1.0
    return table, tests


def evidence_of(
    name: str,
    table: Array,
    tests: tuple[ScoreTest, ...],
    reference: Side,
    current: Side,
    *,
    codes: Array | None,
    noise: Array | None = None,
) -> Evidence | None:
    """Evidence from the scores of levels. `codes` are the levels of the rows kept for resampling; without them the
    counts serve. `noise` `[features]` is the variance that sketches add to the mean score of a side. None where nothing varies."""
    n, m = float(current.rows), float(reference.rows)
    counts = np.concatenate([reference.known + current.known, reference.special + current.special])
    ours = np.concatenate([current.known, current.special])
    centred = table - counts @ table / max(counts.sum(), 1.0)
    variance = counts @ np.square(centred) / max(counts.sum(), 1.0)
    tests, kept = keep_varying(tests, variance > 1e-12)
    if not tests or n == 0 or m == 0:
        return None
    centred, variance = centred[:, kept], variance[kept]
    third = counts @ centred**3 / counts.sum()
    z, skew = standardise(ours @ centred, variance, third, n, m)
    if noise is not None:
        z = z / np.sqrt(1 + noise[kept] / (variance * (1 / n + 1 / m)))
    weighted = centred * np.sqrt(counts / counts.sum())[:, None] / np.sqrt(variance)
    correlation = weighted.T @ weighted
    tests = tuple(matched_moments(test, correlation) for test in tests)
    rows = centred[codes].astype(np.float32) if codes is not None else None
    return Evidence(name, tests, z, skew, correlation, rows, None if rows is not None else (counts, centred))


def number_effects(reference: Side, current: Side) -> dict[str, float]:
    """Every size of a numeric column, by name."""
    spread = effects.spread_of(reference)
    tail = 0.01
    low, high = scores.tails(reference.known, tail)
    found = {
        "wasserstein": effects.wasserstein(reference, current, spread),
        "mean_shift": (effects.mean_of(current) - effects.mean_of(reference)) / (spread or 1.0),
        "scale_ratio": effects.spread_of(current) / spread if spread > 0 else 1.0,
        "ks": effects.kolmogorov_smirnov(reference.known, current.known),
        "psi": effects.population_stability(reference.known, current.known),
        "jensen_shannon": effects.jensen_shannon_of_numbers(reference.known, current.known),
        "missing_rate_change": current.rate(MISSING) - reference.rate(MISSING),
    }
    if reference.known.sum() and current.known.sum():
        found["tail_rate_change"] = float((low + high) @ (current.shares - reference.shares))
    for special, name in ((ABOVE, "infinite_rate_change"), (BELOW, "negative_infinite_rate_change")):
        if reference.special[special] or current.special[special]:
            found[name] = current.rate(special) - reference.rate(special)
    if not (reference.known.sum() and current.known.sum()):
        found["mean_shift"], found["scale_ratio"] = 0.0, 1.0
    return found
