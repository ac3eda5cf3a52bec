"""Drift that no single column shows: how columns go together.

Two looks at rows of normal scores: their pairwise products, whose means are rank correlations (van der Waerden's
coefficient; Hajek, Sidak and Sen 1999), and the reconstruction error of the principal components of both sides
together (Jackson and Mudholkar 1979, "Control procedures for residuals associated with principal component
analysis"), which shows when rows leave the plane they used to lie in.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from fairway.core.columns import Array
from fairway.monitoring.drift.evidence import Evidence, Form, ScoreTest
from fairway.monitoring.drift.tensor import normal_ranks
from fairway.monitoring.drift.text import of_rows

NAME = "(columns together)"
MOST = 24
"""Most columns looked at together; numbers come first."""
_EXPLAINED = 0.8


def dependence_evidence(
    names: list[str], rows: Array, before: int
) -> tuple[Evidence | None, dict[str, float], str]:
    """From scores `[rows, columns]`, the first `before` rows the reference's: evidence, sizes, and the pair of columns
    whose correlation changed most."""
    rows = rows - rows.mean(axis=0)
    spread = rows.std(axis=0)
    keep = spread > 1e-9
    names = [name for name, kept in zip(names, keep, strict=True) if kept]
    rows = rows[:, keep] / spread[keep]
    pairs = list(combinations(range(len(names)), 2))
    if not pairs or not 2 <= before <= len(rows) - 2:
        return None, {}, ""
    error = _reconstruction_error(rows)
    table = np.empty((len(rows), len(pairs) + 2), np.float32)
    for i, (a, b) in enumerate(pairs):
        table[:, i] = rows[:, a] * rows[:, b]
    ranked = normal_ranks(error[:, None])[:, 0]
    table[:, -2], table[:, -1] = ranked, np.square(ranked)
    each = tuple(range(len(pairs)))
    tests = (
        ScoreTest("correlations", each, Form.squares, 0.35),
        ScoreTest("one correlation", each, Form.largest, 0.45),
        ScoreTest("reconstruction error", (len(pairs), len(pairs) + 1), Form.largest, 0.2),
    )
    changed = _correlations(rows[before:]) - _correlations(rows[:before])
    at = max(range(len(pairs)), key=lambda i: abs(changed[pairs[i]]))
    a, b = pairs[at]
    old, new = _correlations(rows[:before])[a, b], _correlations(rows[before:])[a, b]
    sizes = {
        "correlation_change": float(abs(changed[a, b])),
        "reconstruction_shift": float(ranked[before:].mean() - ranked[:before].mean()),
    }
    return (
        of_rows(NAME, tests, table, before),
        sizes,
        f"{names[a]} x {names[b]}: correlation {old:.2f} -> {new:.2f}",
    )


def _correlations(rows: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.nan_to_num(np.corrcoef(rows, rowvar=False)))


def _reconstruction_error(rows: Array) -> Array:
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    order = np.argsort(values)[::-1]
    shares = np.cumsum(values[order]) / values.sum()
    kept = order[: min(int(np.searchsorted(shares, _EXPLAINED)) + 1, len(order) - 1)]
    along = rows @ vectors[:, kept]
    return np.asarray(np.square(rows).sum(axis=1) - np.square(along).sum(axis=1))
