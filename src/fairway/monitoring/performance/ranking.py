"""Ranking metrics with confidence intervals over queries, from judged items."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.classification import check_metrics
from fairway.monitoring.performance.regression import measure_losses
from fairway.monitoring.performance.values import Ranked
from fairway.monitoring.told import Measured

METRICS = ("ndcg", "map")
GAINS = ("linear", "exponential")


def measure_ranking(
    window: Ranked,
    metrics: Iterable[str] = METRICS,
    *,
    at: int | None = None,
    gain: str = "linear",
    confidence: float = 0.95,
) -> tuple[Measured, ...]:
    """NDCG (Järvelin and Kekäläinen 2002) and MAP, means over queries; `rows` of the result are queries.

    `at` cuts each list. `gain` of relevance r is r, or 2^r - 1. For MAP an item is relevant when its relevance is
    above 0. Items of equal score count as in any order, on average. Queries without a relevant item have neither
    metric and are left out and told. Raises InvalidInput for unknown names, `at` < 1 and negative relevance.
    """
    names = check_metrics(metrics, METRICS)
    if gain not in GAINS:
        raise InvalidInput(f"there is no gain {gain!r}; there are: {', '.join(GAINS)}.")
    if at is not None and at < 1:
        raise InvalidInput(f"a list cannot be cut at {at}: give 1 or more.")
    judged = np.isfinite(window.relevance) & np.isfinite(window.score)
    relevance, score = window.relevance[judged].astype(np.float64), window.score[judged]
    if len(relevance) and relevance.min() < 0:
        raise InvalidInput("relevance must not be negative.")
    _, query = np.unique(window.query[judged], return_inverse=True)
    queries = int(query.max()) + 1 if len(query) else 0
    found = []
    for name in names:
        if name == "ndcg":
            values = ndcg_of_queries(query, score, relevance if gain == "linear" else 2**relevance - 1, at)
        else:
            values = average_precision_of_queries(query, score, relevance > 0, at)
        used = values[np.isfinite(values)]
        measured = measure_losses(name, used, confidence)
        left = queries - len(used)
        note = f"{left:,} of {queries:,} queries left out: no relevant item" if left else measured.note
        upper = None if measured.upper is None else min(measured.upper, 1.0)
        lower = None if measured.lower is None else max(measured.lower, 0.0)
        found.append(
            Measured(
                name=name,
                value=measured.value,
                lower=lower,
                upper=upper,
                rows=measured.rows,
                error=measured.error,
                note=note,
            )
        )
    return tuple(found)


def ndcg_of_queries(query: Array, score: Array, gains: Array, at: int | None) -> Array:
    """One value per query (0, 1, ... in `query`); NaN where no item has a gain."""
    reached = _discounted(query, score, gains, at)
    best = _discounted(query, gains, gains, at)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(best > 0, reached / best, np.nan)


def average_precision_of_queries(query: Array, score: Array, relevant: Array, at: int | None) -> Array:
    """One value per query: mean over its relevant items (at most `at`) of the precision down to their place.

    Items of equal score are taken at once, as scikit-learn's average_precision_score does; with `at`, by place.
    """
    order = np.lexsort((-score, query))
    hits = relevant[order].astype(np.float64)
    lists = query[order]
    place = _places(lists)
    first = _firsts(lists)
    total = np.bincount(query, weights=relevant.astype(np.float64))
    seen = np.cumsum(hits)
    before = (seen - hits)[first]  # hits of the lists before
    if at is None:
        tie = _ties(lists, score[order])
        last = np.flatnonzero(np.diff(tie, append=tie[-1:] + 1)) if len(tie) else np.zeros(0, dtype=np.intp)
        ends = last[tie] if len(tie) else tie
        reached = (seen[ends] - before) / (place[ends] + 1)
        counted = hits
    else:
        reached = (seen - before) / (place + 1)
        counted = hits * (place < at)
        total = np.minimum(total, at)
    summed = np.bincount(lists, weights=reached * counted, minlength=len(total))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, summed / total, np.nan)


def _discounted(query: Array, score: Array, gains: Array, at: int | None) -> Array:
    """Discounted cumulative gain per query; items of equal score share the mean of their gains."""
    if len(query) == 0:
        return np.zeros(0)
    order = np.lexsort((-score, query))
    lists = query[order]
    tie = _ties(lists, score[order])
    shared = (np.bincount(tie, weights=gains[order]) / np.bincount(tie))[tie]
    place = _places(lists)
    discount = 1 / np.log2(place + 2)
    if at is not None:
        discount[place >= at] = 0.0
    return np.asarray(np.bincount(lists, weights=shared * discount))


def _firsts(lists: Array) -> Array:
    """For each item (lists one after the other) where its list begins."""
    begins = np.flatnonzero(np.diff(lists, prepend=-1))
    return np.asarray(np.repeat(begins, np.diff(begins, append=len(lists))))


def _places(lists: Array) -> Array:
    return np.asarray(np.arange(len(lists)) - _firsts(lists))


def _ties(lists: Array, score: Array) -> Array:
    """A number per run of equal scores within a list: 0, 1, ..."""
    new = (np.diff(lists, prepend=-1) != 0) | (np.diff(score, prepend=np.nan) != 0)
    return np.asarray(np.cumsum(new) - 1)
