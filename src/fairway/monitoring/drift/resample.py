"""Alarms calibrated by resampling: what the strongest of all columns shows when nothing has changed.

Rows of both sides are pooled and dealt out anew; every column takes the same rows, so columns that move together
are counted as what they are. The adjusted p-value of a column is how often the strongest column of such a window
shows as much: the step-down procedure of Westfall and Young (1993, "Resampling-based multiple testing", algorithm
4.1), which holds the chance of any false alarm at alpha, whatever the columns' distributions. Where both sides are
large the sums are drawn from the normal distribution with the correlation that the features have, to which dealing
out converges (Hajek 1960).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairway.core.columns import Array
from fairway.monitoring.drift.evidence import Evidence, combined, log_p

NORMAL_FROM = 2000
"""From so many rows on the smaller side, sums are drawn from a normal distribution."""
_FIRST = 400
_SURE = 0.25


def adjusted(
    evidence: Sequence[Evidence], rows: int, *, resamples: int, seed: int
) -> tuple[Array, Array]:
    """(own p-values, adjusted p-values), `[columns]`. `rows` is the number of rows of the smaller side.

    Fewer draws are made when the first few hundred show that nothing is near an alarm."""
    observed = np.array([float(combined(e.tests, log_p(e.tests, e.z, e.skew))) for e in evidence])
    own = np.exp(np.minimum(observed, 0.0))
    if not evidence:
        return own, own
    rng = np.random.default_rng(seed)
    order = np.argsort(observed, kind="stable")
    exceeded, drawn = np.zeros(len(evidence)), 0
    for draws in (min(_FIRST, resamples), resamples - min(_FIRST, resamples)):
        if draws <= 0:
            break
        strongest = _by_chance(evidence, rows, draws, rng)[:, order]
        # Column i stands against itself and every weaker one.
        least = np.minimum.accumulate(strongest[:, ::-1], axis=1)[:, ::-1]
        exceeded += (least <= observed[order]).sum(axis=0)
        drawn += draws
        if (1 + exceeded[0]) / (1 + drawn) > _SURE:
            break
    found = np.maximum.accumulate((1 + exceeded) / (1 + drawn))
    # Beyond what was drawn, own p-values times the columns that are left go on ordering what is seen.
    left = np.arange(len(evidence), 0, -1)
    beyond = np.maximum.accumulate(np.minimum(own[order] * left, 1.0))
    found = np.where(exceeded == 0, np.minimum(found, beyond), found)
    result = np.empty(len(evidence))
    result[order] = np.maximum.accumulate(found)
    return own, result


def _by_chance(evidence: Sequence[Evidence], rows: int, draws: int, rng: np.random.Generator) -> Array:
    """`combined` of every column in windows without drift, `[draws, columns]`."""
    together = [e for e in evidence if e.rows is not None]
    alone = [e for e in evidence if e.rows is None]
    z: dict[str, Array] = {}
    skew: dict[str, Array] = {}
    if together:
        joined = np.concatenate([e.rows for e in together if e.rows is not None], axis=1)
        if rows >= NORMAL_FROM or rows > len(joined) // 2:
            correlation = np.corrcoef(joined, rowvar=False).reshape(joined.shape[1], -1)
            sums, bent = _normal(correlation, draws, rng), np.zeros(joined.shape[1])
        else:
            sums, bent = _dealt(joined, rows, draws, rng)
        at = 0
        for e in together:
            part = slice(at, at + len(e.z))
            z[e.name], at = sums[:, part], part.stop
            skew[e.name] = bent[part]
    for e in alone:
        if rows >= NORMAL_FROM or e.levels is None:
            z[e.name], skew[e.name] = _normal(e.correlation, draws, rng), np.zeros(len(e.z))
        else:
            z[e.name], skew[e.name] = _drawn(*e.levels, rows, draws, rng)
    return np.column_stack([combined(e.tests, log_p(e.tests, z[e.name], skew[e.name])) for e in evidence])


def _normal(correlation: Array, draws: int, rng: np.random.Generator) -> Array:
    size = len(correlation)
    factor = np.linalg.cholesky(np.nan_to_num(correlation) * (1 - 1e-6) + np.eye(size) * 2e-6)
    return np.asarray(rng.standard_normal((draws, size)) @ factor.T)


def _dealt(scores: Array, rows: int, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Standardised sums over `rows` rows dealt out at random, `[draws, features]`, and their skewness. One shuffle
    gives as many windows as there is room for."""
    total = len(scores)
    centred = scores - scores.mean(axis=0)
    variance = np.square(centred).mean(axis=0)
    third = (centred**3).mean(axis=0)
    spread = np.sqrt(rows * (total - rows) / (total - 1) * variance)
    safe = np.where(spread > 0, spread, 1.0)
    skew = rows * (total - rows) * (total - 2 * rows) / ((total - 1) * (total - 2)) * third / safe**3
    each = total // rows
    sums = np.empty((draws, scores.shape[1]))
    for start in range(0, draws, each):
        some = min(each, draws - start)
        dealt = centred[rng.permutation(total)[: some * rows]]
        sums[start : start + some] = dealt.reshape(some, rows, -1).sum(axis=1)
    return sums / safe, np.where(spread > 0, skew, 0.0)


def _drawn(counts: Array, scores: Array, rows: int, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """As `_dealt`, for a column of which only the rows at each level are known."""
    share = counts / counts.sum()
    centred = scores - share @ scores
    variance = share @ np.square(centred)
    safe = np.where(variance > 0, variance, 1.0)
    sums = rng.multinomial(rows, share, size=draws) @ centred / np.sqrt(rows * safe)
    return sums, share @ centred**3 / safe**1.5 / np.sqrt(rows)
