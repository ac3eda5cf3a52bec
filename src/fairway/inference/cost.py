"""What an engine call costs by its rows, learned while serving, and how far merging calls pays."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec

_DOWN = 0.5
_UP = 0.01
_SETTLE = 64
"""Calls after which the limits are worked out again."""
_FORGET = 16
"""Settlings after which a size that was not seen again is forgotten, so that it is tried again."""
_WORSE = 1.3
"""A size pays as long as a row costs at most this many times what it costs at the best smaller size: as much as a
noisy machine may make it look dearer than it is."""


class _Size(msgspec.Struct, gc=False):
    """Calls of 2**(k-1) to 2**k - 1 rows: their mean rows, and a low moving average of their seconds."""

    rows: float
    seconds: float
    settled: int


class CostCurve:
    """Seconds per call by rows: a low moving average for each power of two of rows.

    It falls fast and rises slowly, because what makes a call take longer than usual is nearly always the machine
    and not the model; believing it would send quick calls to threads, where they take longer still.
    """

    def __init__(self, *, inline_seconds: float = math.inf, most_rows: int = 1024) -> None:
        """`inline_seconds`: how long a call may take that keeps everybody waiting; `most_rows`: of a merged call."""
        self._inline_seconds = inline_seconds
        self._most_rows = most_rows
        self._sizes: dict[int, _Size] = {}
        self._calls = 0
        self._settled = 0
        self.inline_rows = 2**62
        """Most rows of a call that is expected to be over within `inline_seconds`."""
        self.pays_rows = most_rows
        """Most rows that it pays to merge into one call; 1: never. Sizes not tried yet are thought to pay."""

    def learn(self, rows: int, seconds: float) -> None:
        """One call of `rows` rows took `seconds`."""
        key = rows.bit_length()
        size = self._sizes.get(key)
        if size is None:
            self._sizes[key] = _Size(float(rows), seconds, self._settled)
            self._settle()
            return
        share = _UP if seconds * size.rows > size.seconds * rows else _DOWN
        size.seconds += share * (seconds - size.seconds)
        size.rows += share * (rows - size.rows)
        size.settled = self._settled
        self._calls += 1
        if self._calls >= _SETTLE:
            self._settle()

    def expect(self, rows: int) -> float:
        """Expected seconds: between the sizes seen, on a line; beyond them, as many times the nearest."""
        sizes = sorted(self._sizes.values(), key=lambda size: size.rows)
        if not sizes:
            return 0.0
        if rows <= sizes[0].rows:
            return sizes[0].seconds
        for low, high in pairwise(sizes):
            if rows <= high.rows:
                along = (rows - low.rows) / (high.rows - low.rows)
                return low.seconds + along * (high.seconds - low.seconds)
        return sizes[-1].seconds * rows / sizes[-1].rows

    def _settle(self) -> None:
        self._calls = 0
        self._settled += 1
        for key in [k for k, size in self._sizes.items() if self._settled - size.settled > _FORGET]:
            if key > 1:
                del self._sizes[key]
        self.inline_rows = self._within(self._inline_seconds)
        self.pays_rows = min(self._pays(), self._most_rows)

    def _within(self, seconds: float) -> int:
        """Most rows, to the power of two and beyond it on a line, of a call expected to last so long."""
        if self.expect(1) > seconds:
            return 0
        rows = 1
        while rows < 2**30 and self.expect(2 * rows) <= seconds:
            rows *= 2
        step = rows // 2
        while step:
            if self.expect(rows + step) <= seconds:
                rows += step
            step //= 2
        return rows

    def _pays(self) -> int:
        """The largest size at which a row costs about what it costs at the best, with no size below it dearer than
        its rows alone; or the next size, if nothing is known of it yet."""
        each: list[tuple[int, float]] = []
        for key in sorted(self._sizes):
            size = self._sizes[key]
            cost = size.seconds / size.rows
            if each and cost > each[0][1]:
                break
            each.append((key, cost))
        best = min(cost for _, cost in each)
        key = max(key for key, cost in each if cost <= _WORSE * best)
        return int(2 ** (key + (key + 1 not in self._sizes))) - 1
