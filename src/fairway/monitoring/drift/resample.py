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
MOST_FEATURES = 2500
"""Beyond so many, columns are drawn independently of each other, which makes alarms rarer where they are not."""
_FIRST = 400
_SURE = 0.25


def adjusted(evidence: Sequence[Evidence], rows: int, *, resamples: int, seed: int) -> tuple[Array, Array]:
    """(own p-values, adjusted p-values), `[columns]`. `rows` is the number of rows of the smaller side.

    Fewer draws are made when the first few hundred show that nothing is near an alarm."""
    observed = np.array([float(combined(e.tests, log_p(e.tests, e.z, e.skew))) for e in evidence])
    own = np.exp(np.minimum(observed, 0.0))
    if not evidence:
        return own, own
    chance = _Chance(evidence, rows, seed)
    order = np.argsort(observed, kind="stable")
    exceeded, drawn = np.zeros(len(evidence)), 0
    for draws in (min(_FIRST, resamples), resamples - min(_FIRST, resamples)):
        if draws <= 0:
            break
        strongest = chance.draw(draws)[:, order]
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


class _Chance:
    """Windows without drift."""

    def __init__(self, evidence: Sequence[Evidence], rows: int, seed: int) -> None:
        self._evidence = evidence
        self._rows = rows
        self._rng = np.random.default_rng(seed)
        features = sum(len(e.z) for e in evidence if e.rows is not None)
        self._joint = features <= MOST_FEATURES
        kept = [e.rows for e in evidence if e.rows is not None] if self._joint else []
        self._joined = np.concatenate(kept, axis=1) if kept else np.zeros((0, 0), np.float32)
        self._joined -= self._joined.mean(axis=0) if kept else 0
        held = next((len(e.rows) for e in evidence if e.rows is not None), 0)
        self._normal = rows >= NORMAL_FROM or rows > held // 2
        self._factor = _factor(_correlation(self._joined)) if kept and self._normal else np.zeros((0, 0))

    def draw(self, draws: int) -> Array:
        """`combined` of every column, `[draws, columns]`."""
        z, skew = np.zeros((draws, 0)), np.zeros(0)
        if len(self._joined) and self._normal:
            z = (self._rng.standard_normal((draws, len(self._factor)), np.float32) @ self._factor).astype(
                float
            )
            skew = np.zeros(z.shape[1])
        elif len(self._joined):
            z, skew = _dealt(self._joined, self._rows, draws, self._rng)
        at, found = 0, []
        for e in self._evidence:
            if e.rows is not None and self._joint:
                part = slice(at, at + len(e.z))
                own, bent, at = z[:, part], skew[part], part.stop
            elif e.rows is not None and not self._normal:
                own, bent = _dealt(e.rows, self._rows, draws, self._rng)
            elif e.levels is None or self._rows >= NORMAL_FROM:
                own = self._rng.standard_normal((draws, len(e.z))) @ _factor(e.correlation)
                bent = np.zeros(len(e.z))
            else:
                own, bent = _drawn(*e.levels, self._rows, draws, self._rng)
            found.append(combined(e.tests, log_p(e.tests, own, bent)))
        return np.column_stack(found)


def _correlation(centred: Array) -> Array:
    spread = np.sqrt(np.square(centred).mean(axis=0))
    scaled = centred / np.where(spread > 0, spread, 1.0)
    return np.asarray(scaled.T @ scaled / len(centred), dtype=float)


def _factor(correlation: Array) -> Array:
    """What independent normal deviates are multiplied with, from the right, to have this correlation."""
    eased = (
        correlation * (1 - 1e-4) + np.eye(len(correlation)) * 1e-4
    )  # single precision and ties leave it singular
    return np.linalg.cholesky(eased).T.astype(np.float32)


def _dealt(centred: Array, rows: int, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Standardised sums over `rows` rows dealt out at random, `[draws, features]`, and their skewness. One shuffle
    gives as many windows as there is room for."""
    total = len(centred)
    variance = np.square(centred).mean(axis=0)
    third = (centred * centred * centred).mean(axis=0)
    spread = np.sqrt(rows * (total - rows) / (total - 1) * variance)
    safe = np.where(spread > 0, spread, 1.0)
    skew = rows * (total - rows) * (total - 2 * rows) / ((total - 1) * (total - 2)) * third / safe**3
    each = total // rows
    sums = np.empty((draws, centred.shape[1]))
    for start in range(0, draws, each):
        some = min(each, draws - start)
        dealt = centred[rng.permutation(total)[: some * rows]]
        sums[start : start + some] = dealt.reshape(some, rows, -1).sum(axis=1)
    return sums / safe, np.where(spread > 0, skew, 0.0)


def _drawn(
    counts: Array, scores: Array, rows: int, draws: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """As `_dealt`, for a column of which only the rows at each level are known."""
    share = counts / counts.sum()
    centred = scores - share @ scores
    variance = share @ np.square(centred)
    safe = np.where(variance > 0, variance, 1.0)
    sums = rng.multinomial(rows, share, size=draws) @ centred / np.sqrt(rows * safe)
    return sums, share @ centred**3 / safe**1.5 / np.sqrt(rows)
