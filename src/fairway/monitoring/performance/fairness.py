"""Demographic parity and equalised odds between groups, with intervals.

Demographic parity: groups are chosen equally often. Equalised odds (Hardt et al. 2016, "Equality of opportunity in supervised
learning"): rows of one label are chosen equally often in every group. Differences are greatest minus least, ratios least over
greatest, as Fairlearn has them (Bird et al. 2020). The greatest of several differences seems greater than it is: its lower limit
counts all pairs of groups (Bonferroni); its upper one need not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import intervals
from fairway.monitoring.performance.intervals import Interval
from fairway.monitoring.performance.values import Classified
from fairway.monitoring.told import Fairness, Group, Measured

SMALLEST = 30
GROUPS = 50
"""Most groups compared: the largest."""
_Counts = tuple[float, float]


def measure_fairness(
    window: Classified,
    groups: Array,
    *,
    positive: str | None = None,
    smallest: int = SMALLEST,
    confidence: float = 0.95,
) -> Fairness:
    """`groups` `[n]` names the group of each row. `positive` is the class that is wished for (default: the second of two).

    Rows without a label count for demographic parity. Groups with fewer than `smallest` rows are left out and told. Raises
    InvalidInput for a class that is not there and for more than two classes without `positive`.
    """
    wanted = _class(window, positive)
    names, code, counts = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    if len(code) != window.rows:
        raise InvalidInput(f"a window of {window.rows} rows has {len(code)} groups.")
    large = [int(g) for g in np.argsort(-counts, kind="stable") if counts[g] >= smallest]
    notes = []
    if len(large) < len(names):
        left = [str(names[g]) for g in range(len(names)) if g not in large]
        notes.append(f"fewer than {smallest} rows, left out: {', '.join(left[:20])}")
    if len(large) > GROUPS:
        notes.append(f"the {GROUPS} largest of {len(large)} groups are compared")
    kept = sorted(large[:GROUPS])
    chosen = window.predicted == wanted
    answered = window.predicted >= 0
    labelled = answered & (window.actual >= 0)
    right = window.actual == wanted

    def rates(among: Array) -> list[_Counts]:
        rows = np.bincount(code[among], minlength=len(names))
        hits = np.bincount(code[among & chosen], minlength=len(names))
        return [(float(hits[g]), float(rows[g])) for g in kept]

    selected, hits, alarms = rates(answered), rates(labelled & right), rates(labelled & ~right)
    measures = [
        _worst("demographic_parity_difference", _difference, [selected], confidence),
        _worst("demographic_parity_ratio", _ratio, [selected], confidence),
        _worst("equalized_odds_difference", _difference, [hits, alarms], confidence),
        _worst("equalized_odds_ratio", _ratio, [hits, alarms], confidence),
        _worst("equal_opportunity_difference", _difference, [hits], confidence),
    ]
    return Fairness(
        groups=tuple(
            Group(
                name=str(names[g]),
                rows=int(counts[g]),
                selection_rate=_rate("selection_rate", selected[i], confidence),
                true_positive_rate=_rate("true_positive_rate", hits[i], confidence),
                false_positive_rate=_rate("false_positive_rate", alarms[i], confidence),
            )
            for i, g in enumerate(kept)
        ),
        measures={measure.name: measure for measure in measures},
        notes=tuple(notes),
    )


def _class(window: Classified, positive: str | None) -> int:
    if positive is None:
        if not window.binary:
            raise InvalidInput(
                f"which of the classes {', '.join(window.classes)} is wished for? Say positive=."
            )
        return 1
    if positive not in window.classes:
        raise InvalidInput(f"there is no class {positive!r}; there are: {', '.join(window.classes)}.")
    return window.classes.index(positive)


def _rate(name: str, counts: _Counts, confidence: float) -> Measured:
    hits, rows = counts
    if rows == 0:
        return Measured(name=name, value=None, note="no rows")
    lower, upper = intervals.wilson(hits, rows, confidence)
    return Measured(name=name, value=hits / rows, lower=lower, upper=upper, rows=int(rows))


_Compared = tuple[float, Interval, Interval]  # the value, its interval, its interval for many comparisons


def _difference(a: _Counts, b: _Counts, confidence: float, strict: float) -> _Compared:
    def apart(level: float) -> Interval:
        low, high = intervals.newcombe(a, b, level)
        return (max(low, -high, 0.0), max(high, -low)) if low * high > 0 else (0.0, max(high, -low))

    return abs(a[0] / a[1] - b[0] / b[1]), apart(confidence), apart(strict)


def _ratio(a: _Counts, b: _Counts, confidence: float, strict: float) -> _Compared:
    """The smaller rate over the greater; negated inside, so that the worst is the greatest as with differences."""
    p, q = a[0] / a[1], b[0] / b[1]
    value = 1.0 if p == q else min(p, q) / max(p, q)

    def apart(level: float) -> Interval:
        low, high = intervals.ratio(a, b, level)
        if low > 1 or high < 1:
            ends = sorted(min(x, 1 / x if x > 0 else math.inf) for x in (low, high))
            return -ends[1], -ends[0]
        return -1.0, -min(low, 1 / high if high > 0 else 0.0)

    return -value, apart(confidence), apart(strict)


def _worst(
    name: str,
    compare: Callable[[_Counts, _Counts, float, float], _Compared],
    kinds: list[list[_Counts]],
    confidence: float,
) -> Measured:
    pairs = [
        pair
        for rates in kinds
        for pair in itertools.combinations([counts for counts in rates if counts[1] > 0], 2)
    ]
    rows = int(sum(counts[1] for rates in kinds for counts in rates))
    if not pairs:
        return Measured(name=name, value=None, rows=rows, note="fewer than two groups with such rows")
    strict = 1 - (1 - confidence) / len(pairs)
    compared = [compare(a, b, confidence, strict) for a, b in pairs]
    value = max(one[0] for one in compared)
    lower = max(one[2][0] for one in compared)
    upper = max(one[1][1] for one in compared)
    if compare is _ratio:
        value, lower, upper = -value, -upper, -lower
    return Measured(name=name, value=value, lower=min(lower, value), upper=max(upper, value), rows=rows)
