"""A column cut into levels, and how many rows of each side are at each.

Levels are the one form in which every column is compared: parts of the number line of about equal weight (finer in
the tails), categories, and besides them the rows without a value and the infinite ones. Where the cuts are depends on
both sides together and not on which row is whose, so that dealing rows out anew is a fair comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fairway.core.columns import Array

MISSING, ABOVE, BELOW = 0, 1, 2
"""Positions of the special counts: no value, +infinity, -infinity."""
_MIDDLE = np.linspace(0.01, 0.99, 99)
_OUT = np.array([0.0005, 0.001, 0.002, 0.004, 0.007])
_CELLS = 4096
_MANY = 20_000
DISTINCT = 200
"""Up to so many different numbers each is a level of its own."""


@dataclass(frozen=True)
class Side:
    """Rows of one side. `known` `[levels]`; `special` `[3]`, see MISSING; `values` `[levels]` the mean of the numbers at
    each level (NaN where there are none), for numbers only."""

    known: Array
    special: Array
    values: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def rows(self) -> int:
        return int(self.known.sum() + self.special.sum())

    @property
    def shares(self) -> Array:
        """Of the rows with a finite value."""
        return np.asarray(self.known / max(self.known.sum(), 1))

    def rate(self, special: int) -> float:
        return float(self.special[special] / max(self.rows, 1))


def cuts(sample: Array, tail: float) -> Array:
    """Upper ends of all levels but the last, from finite numbers of both sides together. `tail` is a share at which
    a level ends on either side."""
    if len(sample) == 0:
        return np.zeros(0)
    distinct = np.unique(sample)
    if len(distinct) <= DISTINCT:
        return distinct[:-1]
    found = np.unique(np.quantile(sample, shares_of(tail), method="inverted_cdf"))
    return np.asarray(found[found < distinct[-1]])


def shares_of(tail: float) -> Array:
    """Shares of the rows below each cut: hundredths, finer in the tails."""
    return np.unique(np.concatenate([_MIDDLE, _OUT, 1 - _OUT, [tail, 1 - tail]]))


def codes_of(values: Array, edges: Array) -> Array:
    """Level of each number; `len(edges) + 1` and up for the special ones. Level i ends at edges[i], which belongs to it."""
    codes = _place(values, edges)
    finite = np.isfinite(values)
    if not finite.all():
        first = len(edges) + 1
        codes[np.isnan(values)] = first + MISSING
        codes[values == np.inf] = first + ABOVE
        codes[values == -np.inf] = first + BELOW
    return codes


def _place(values: Array, edges: Array) -> Array:
    """`np.searchsorted(edges, values)`, three times as quick for many values: a grid of equal cells says the level at
    once, but for values in a cell in which a level ends."""
    width = float(edges[-1]) - float(edges[0]) if len(edges) else 0.0
    scale = _CELLS / width if 0 < width < np.inf else np.inf
    if len(values) < _MANY or not np.isfinite(scale):
        return np.searchsorted(edges, values, side="left")
    with np.errstate(all="ignore"):
        ends = np.bincount(_cells(edges, edges[0], scale), minlength=_CELLS + 3)
        some = values[:: max(1, len(values) // 1000)]
        if (ends > 0)[
            _cells(some, edges[0], scale)
        ].mean() > 0.3:  # whole numbers, long tails: the grid tells too little
            return np.searchsorted(edges, values, side="left")
    first = np.cumsum(ends) - ends
    with np.errstate(all="ignore"):
        cells = _cells(values, edges[0], scale)
    codes = first[cells]
    unsure = np.flatnonzero((ends > 0)[cells])
    codes[unsure] = np.searchsorted(edges, values[unsure], side="left")
    return np.asarray(codes)


def _cells(values: Array, start: float, scale: float) -> Array:
    """Never falls as values rise, so whatever lies in a higher cell is larger. NaN comes last."""
    place = (values - start) * scale
    np.fmin(place, _CELLS + 1, out=place)
    np.fmax(place, -1, out=place)
    return place.astype(np.int32) + 1


def count(values: Array, codes: Array, levels: int) -> Side:
    """`codes` of all `values` of one side, counted."""
    counts = np.bincount(codes, minlength=levels + 3).astype(float)
    finite = values if counts[levels:].sum() == 0 else np.where(codes < levels, values, 0.0)
    with np.errstate(all="ignore"):
        sums = np.bincount(codes, weights=finite, minlength=levels + 3)[:levels]
        means = sums / counts[:levels]
    return Side(counts[:levels], counts[levels : levels + 3], means)
