"""The same metrics by slice, and the slices where a model does worst.

The search looks at every value (or quantile range) of every feature and at every pair of them, as SliceFinder (Chung et
al. 2019, "Slice finder: automated data slicing for model validation") does to its second level, so how many tests were made is known, and
Holm's (1979) correction for all of them holds: of slices that are no worse than the rest, any is named in at most 5% of
searches. Slices are compared with all rows outside by Welch's t test, one sided, the slice's variance taken to be no
less than that outside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fairway.core.columns import Array
from fairway.core.conform import nulls_of
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import influence, regression
from fairway.monitoring.performance.classification import DEFAULT, measure_classification
from fairway.monitoring.performance.values import Classified, Regressed
from fairway.monitoring.told import Condition, Measured, SliceMetrics, WorstSlice, WorstSlices

VALUES = 20
"""Most values of a feature that are slices of their own; rarer ones are together one."""
RANGES = 4
ROWS = 200_000
"""Most rows the search looks at; of more, a sample."""
FEATURES = 20
"""Most features whose pairs are searched: those whose own slices differ most."""
SMALLEST = 50
_SEED = 19


@dataclass(frozen=True)
class _Parts:
    """A feature cut into slices: `code` `[n]` numbers them as `texts` says."""

    feature: str
    code: Array
    texts: tuple[str, ...]


def measure_slices(
    window: Classified | Regressed,
    by: Sequence[str],
    metrics: Iterable[str] = (),
    *,
    smallest: int = SMALLEST,
    confidence: float = 0.95,
) -> tuple[SliceMetrics, ...]:
    """The metrics of each slice of the features in `by` that has at least `smallest` labelled rows.

    Raises InvalidInput for a feature that the window does not have.
    """
    found = []
    known = window.labelled()
    for parts in (_parts(name, _feature(known.features, name)) for name in by):
        for number, text in enumerate(parts.texts):
            rows = np.flatnonzero(parts.code == number)
            if len(rows) < smallest:
                continue
            measured = _measure(known.take(rows), tuple(metrics), confidence)
            found.append(
                SliceMetrics(
                    conditions=(Condition(parts.feature, text),),
                    rows=len(rows),
                    share=len(rows) / known.rows,
                    metrics=measured,
                )
            )
    return tuple(found)


def _measure(
    window: Classified | Regressed, metrics: tuple[str, ...], confidence: float
) -> tuple[Measured, ...]:
    if isinstance(window, Classified):
        return measure_classification(window, metrics or DEFAULT, confidence=confidence)
    return regression.measure_regression(window, metrics or regression.DEFAULT, confidence=confidence)


def losses_of(window: Classified | Regressed, loss: str = "") -> tuple[dict[str, Array], Array]:
    """Features and losses of the labelled rows, for `find_worst_slices`.

    `loss` is brier (default), error or log_loss of a classifier, absolute (default) or squared of a regression.
    """
    known = window.labelled()
    if isinstance(known, Regressed):
        table = {"absolute": "mae", "squared": "rmse"}
        if (loss or "absolute") not in table:
            raise InvalidInput(f"there is no loss {loss!r} of a regression; there are: {', '.join(table)}.")
        return known.features, regression.LOSSES[table[loss or "absolute"]](known.predicted, known.actual)
    rows = np.arange(known.rows)
    if loss in ("", "brier"):
        return known.features, influence.brier_losses(known.probabilities)[rows, known.actual]
    if loss == "log_loss":
        return known.features, influence.log_losses(known.probabilities)[rows, known.actual]
    if loss == "error":
        return known.features, (known.predicted != known.actual).astype(np.float64)
    raise InvalidInput(f"there is no loss {loss!r} of a classifier; there are: brier, error, log_loss.")


def find_worst_slices(
    features: Mapping[str, Array],
    losses: Array,
    *,
    most: int = 5,
    smallest: int | None = None,
    pairs: bool = True,
    confidence: float = 0.95,
) -> WorstSlices:
    """The slices of one or two features whose mean loss exceeds that of all other rows beyond chance.

    `features` are columns `[n]`, `losses` `[n]` are of any kind, from labels or expected of rows without. A slice has at least
    `smallest` rows (default: 1%, and not under 50). A slice that is only worse because it holds rows of a worse one is
    not named.
    """
    notes = []
    usable = np.flatnonzero(np.isfinite(losses))
    if len(usable) > ROWS:
        notes.append(f"searched in a sample of {ROWS:,} of {len(usable):,} rows")
        usable = np.sort(np.random.default_rng(_SEED).choice(usable, ROWS, replace=False))
    losses = losses[usable].astype(np.float64)
    rows = len(losses)
    smallest = max(SMALLEST, rows // 100) if smallest is None else max(smallest, 5)
    if rows < 2 * smallest:
        return WorstSlices(found=(), tested=0, rows=rows, notes=("too few rows to compare slices",))
    cut = [_parts(name, values[usable]) for name, values in features.items() if values.ndim == 1]
    whole = _sums_of(losses)
    tests: list[_Test] = []
    strength = []
    for position, parts in enumerate(cut):
        own = [
            _Test(((position, k),), sums, *_welch(sums, whole))
            for k, sums in enumerate(_sums(parts.code, len(parts.texts), losses))
            if smallest <= sums.rows <= rows - smallest
        ]
        tests += own
        strength.append(max((test.t for test in own), default=-math.inf))
    if pairs:
        strongest = sorted(np.argsort(strength, kind="stable")[::-1][:FEATURES].tolist())
        if len(cut) > FEATURES:
            notes.append(f"pairs of {FEATURES} of {len(cut)} features searched")
        for i, j in itertools.combinations(strongest, 2):
            wide = len(cut[j].texts)
            code = cut[i].code * wide + cut[j].code
            for k, sums in enumerate(_sums(code, len(cut[i].texts) * wide, losses)):
                if smallest <= sums.rows <= rows - smallest:
                    where = ((i, k // wide), (j, k % wide))
                    tests.append(_Test(where, sums, *_welch(sums, whole)))
    found = _significant(tests, cut, losses, most=most, smallest=smallest, confidence=confidence)
    return WorstSlices(found=tuple(found), tested=len(tests), rows=rows, notes=tuple(notes))


@dataclass(frozen=True)
class _Sums:
    rows: float
    loss: float
    squares: float

    @property
    def mean(self) -> float:
        return self.loss / self.rows

    @property
    def variance(self) -> float:
        return max(self.squares - self.loss**2 / self.rows, 0.0) / max(self.rows - 1, 1)


_Where = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Test:
    """`where` are (feature, value) by position; `t` with `freedom`, and the `error` of the difference."""

    where: _Where
    sums: _Sums
    t: float
    freedom: float
    error: float


def _sums(code: Array, kinds: int, losses: Array) -> list[_Sums]:
    rows = np.bincount(code, minlength=kinds)
    loss = np.bincount(code, weights=losses, minlength=kinds)
    squares = np.bincount(code, weights=losses**2, minlength=kinds)
    return [
        _Sums(float(a), float(b), float(c))
        for a, b, c in zip(rows.tolist(), loss.tolist(), squares.tolist(), strict=True)
    ]


def _welch(part: _Sums, whole: _Sums) -> tuple[float, float, float]:
    rest = _rest(part, whole)
    a = max(part.variance, rest.variance) / part.rows
    b = rest.variance / rest.rows
    error = math.sqrt(a + b)
    if error <= 0:
        return 0.0, 1.0, 0.0
    freedom = (a + b) ** 2 / (a**2 / (part.rows - 1) + b**2 / (rest.rows - 1))
    return (part.mean - rest.mean) / error, freedom, error


def _rest(part: _Sums, whole: _Sums) -> _Sums:
    return _Sums(whole.rows - part.rows, whole.loss - part.loss, whole.squares - part.squares)


def _significant(
    tests: list[_Test], cut: list[_Parts], losses: Array, *, most: int, smallest: int, confidence: float
) -> list[WorstSlice]:
    """Those with a corrected p-value below 1 - confidence, by the least excess that is certain."""
    whole = _sums_of(losses)
    level = (1 - confidence) / max(len(tests), 1)
    order = sorted(tests, key=lambda test: float(stats.t.sf(test.t, test.freedom)))
    named: dict[_Where, WorstSlice] = {}
    floor = 0.0
    for place, test in enumerate(order):
        floor = max(floor, min(float(stats.t.sf(test.t, test.freedom)) * (len(order) - place), 1.0))
        if floor >= 1 - confidence:
            break
        rest = _rest(test.sums, whole)
        quantile = float(stats.t.isf(level, test.freedom))
        excess = test.sums.mean - rest.mean
        named[test.where] = WorstSlice(
            conditions=tuple(Condition(cut[i].feature, cut[i].texts[k]) for i, k in test.where),
            rows=int(test.sums.rows),
            share=test.sums.rows / whole.rows,
            loss=test.sums.mean,
            elsewhere=rest.mean,
            excess=excess,
            lower=excess - quantile * test.error,
            p_value=floor,
        )
    return _apart(sorted(named.items(), key=lambda item: -item[1].lower), cut, losses, smallest, level)[:most]


def _apart(
    worst: list[tuple[_Where, WorstSlice]], cut: list[_Parts], losses: Array, smallest: int, level: float
) -> list[WorstSlice]:
    """Without those that are only worse because they hold rows of a slice named before."""
    left = np.ones(len(losses), dtype=bool)
    kept = []
    for where, one in worst:
        inside = left & np.logical_and.reduce([cut[i].code == k for i, k in where])
        if inside.sum() < smallest or (left & ~inside).sum() < smallest:
            continue
        part, both = _sums_of(losses[inside]), _sums_of(losses[left])
        t, freedom, _ = _welch(part, both)
        if stats.t.sf(t, freedom) < level:
            kept.append(one)
            left &= ~inside
    return kept


def _sums_of(losses: Array) -> _Sums:
    return _Sums(float(len(losses)), float(losses.sum()), float((losses**2).sum()))


def _feature(features: Mapping[str, Array], name: str) -> Array:
    if name not in features:
        raise InvalidInput(
            f"the window has no feature {name!r}; there are: {', '.join(list(features)[:30]) or 'none'}."
        )
    return features[name]


def _parts(name: str, values: Array) -> _Parts:
    """Values that are few stand for themselves, numbers that are many in quantile ranges, nulls apart."""
    nulls = nulls_of(values)
    code = np.zeros(len(values), dtype=np.int64)
    known = values[~nulls]
    if values.dtype.kind in "OUS":
        frequent, inverse = _frequent(known)
        texts = [f"{name} = {text}" if text is not None else f"{name} is rare" for text in frequent]
    else:
        numbers = known.astype("datetime64[us]").astype(np.int64) if known.dtype.kind == "M" else known
        distinct = np.unique(numbers[np.isfinite(numbers)])
        if len(distinct) <= 2 * RANGES:
            texts = [f"{name} = {_shown(value, known)}" for value in distinct]
            inverse = np.clip(np.searchsorted(distinct, numbers), 0, max(len(distinct) - 1, 0))
        else:
            cuts = np.unique(np.quantile(numbers[np.isfinite(numbers)], np.arange(1, RANGES) / RANGES))
            inverse = np.searchsorted(cuts, numbers, side="right")
            said = [_shown(value, known) for value in cuts]
            texts = [f"{name} < {said[0]}"]
            texts += [f"{a} <= {name} < {b}" for a, b in itertools.pairwise(said)]
            texts += [f"{name} >= {said[-1]}"]
    code[~nulls] = inverse
    if nulls.any():
        code[nulls] = len(texts)
        texts = [*texts, f"{name} is null"]
    return _Parts(name, code, tuple(texts))


def _frequent(known: Array) -> tuple[list[str | None], Array]:
    """The most frequent values, None for all others; and which each row has."""
    texts, inverse, counts = np.unique(known.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:VALUES]
    place = np.full(len(texts), len(order))
    place[order] = np.arange(len(order))
    names: list[str | None] = [str(texts[i]) for i in order]
    return (names if len(order) == len(texts) else [*names, None]), place[inverse]


def _shown(value: float, known: Array) -> str:
    if known.dtype.kind == "M":
        return f"{np.datetime64(int(value), 'us')}Z"
    return f"{value:.6g}"
