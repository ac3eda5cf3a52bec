"""Evidence for tensors and embeddings: directions, their spread, lengths.

Rows are projected on the principal components of both sides together (Pearson 1901), those of more than 64 elements
first on 64 random directions (Johnson and Lindenstrauss 1984), and each direction is compared by its ranks.
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from fairway.core.columns import Array
from fairway.monitoring.drift.evidence import Evidence, Form, ScoreTest
from fairway.monitoring.drift.text import of_rows

DIRECTIONS = 16
_PROJECTED = 64

_ALONG = tuple(range(DIRECTIONS))
_SPREAD = tuple(range(DIRECTIONS, 2 * DIRECTIONS))


def tensor_evidence(name: str, before: Array, after: Array) -> tuple[Evidence | None, dict[str, float]]:
    """From rows `[rows, elements]` of both sides, NaN throughout where there is no value; and the sizes."""
    both = np.concatenate([before, after]).astype(float)
    missing = np.isnan(both).any(axis=1)
    infinite = ~missing & np.isinf(both).any(axis=1)
    usable = ~missing & ~infinite
    scores, first = np.zeros((len(both), 2 * DIRECTIONS + 4), np.float32), len(before)
    shift = ratio = change = 0.0
    if usable[:first].any() and usable[first:].any():
        along = _components(both[usable])
        with np.errstate(all="ignore"):
            length = np.sqrt(np.square(both[usable] / max(np.abs(both[usable]).max(), 1e-300)).sum(axis=1))
        ours = np.flatnonzero(usable) >= first
        spread = along[~ours].std(axis=0)
        moved = np.abs(along[ours].mean(axis=0) - along[~ours].mean(axis=0)) / np.where(
            spread > 0, spread, 1.0
        )
        shift = float(moved.max(initial=0.0))
        ratio = float(np.max(along[ours].std(axis=0) / np.where(spread > 0, spread, 1.0), initial=0.0))
        base = length[~ours].std() or 1.0
        change = float((length[ours].mean() - length[~ours].mean()) / base)
        ranked = normal_ranks(along)
        scores[np.ix_(usable, range(ranked.shape[1]))] = ranked
        scores[np.ix_(usable, [DIRECTIONS + i for i in range(ranked.shape[1])])] = np.square(ranked) - 1
        lengths = normal_ranks(length[:, None])
        scores[usable, 2 * DIRECTIONS] = lengths[:, 0]
        scores[usable, 2 * DIRECTIONS + 1] = np.square(lengths[:, 0]) - 1
    scores[missing, 2 * DIRECTIONS + 2] = 1.0
    scores[infinite, 2 * DIRECTIONS + 3] = 1.0
    tests = (
        ScoreTest("directions", _ALONG, Form.squares, 0.35),
        ScoreTest("one direction", _ALONG, Form.largest, 0.2),
        ScoreTest("spread", _SPREAD, Form.squares, 0.2),
        ScoreTest("length", (2 * DIRECTIONS, 2 * DIRECTIONS + 1), Form.largest, 0.15),
        ScoreTest("missing", (2 * DIRECTIONS + 2, 2 * DIRECTIONS + 3), Form.largest, 0.1),
    )
    found = {
        "mean_shift": shift,
        "scale_ratio": ratio,
        "length_shift": change,
        "missing_rate_change": float(missing[first:].mean() - missing[:first].mean())
        if first < len(both)
        else 0.0,
        "infinite_rate_change": float(infinite[first:].mean() - infinite[:first].mean())
        if first < len(both)
        else 0.0,
    }
    return of_rows(name, tests, scores, first), found


def _components(rows: Array) -> Array:
    """At most DIRECTIONS principal components, of unit variance each."""
    rows = rows / max(np.abs(rows).max(), 1e-300)
    if rows.shape[1] > _PROJECTED:
        rng = np.random.default_rng(0)
        rows = rows @ rng.standard_normal((rows.shape[1], _PROJECTED)) / np.sqrt(_PROJECTED)
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    order = np.argsort(values)[::-1][:DIRECTIONS]
    order = order[values[order] > 1e-12 * max(values.max(), 1e-300)]
    return np.asarray(centred @ vectors[:, order] / np.sqrt(values[order]))


def normal_ranks(values: Array) -> Array:
    """Each column's ranks as standard normal deviates (van der Waerden 1952)."""
    ranks = stats.rankdata(values, axis=0)
    return np.asarray(special.ndtri((ranks - 0.5) / len(values)))
