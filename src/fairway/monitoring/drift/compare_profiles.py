"""Two profiles -> `DriftReport`: windows of which only sketches are kept, or the reference that a bundle carries.

The tests are those of `compare`, from counts at common levels. What quantile sketches may err by is added to the
variance of every sum, so a large window does not take the sketch's error for drift. No rows are kept, so columns
are calibrated as if they were independent (which only makes alarms rarer when they are not), and drift that no
single column shows is not looked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import datasketches as ds
import numpy as np
from scipy import stats

from fairway.core.columns import Array
from fairway.core.contract import DType
from fairway.core.settings import DriftSettings
from fairway.monitoring.drift import category, numeric, scores
from fairway.monitoring.drift.evidence import (
    Evidence,
    Form,
    ScoreTest,
    joined,
    keep_varying,
    matched_moments,
    standardise,
)
from fairway.monitoring.drift.judge import Seen, judge
from fairway.monitoring.drift.levels import Side, shares_of
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.drift.sketches import ColumnSketch
from fairway.monitoring.drift.text import VOCABULARY
from fairway.monitoring.drift.values import DriftReport, Kind
from fairway.packaging.profile import FieldProfile
from fairway.packaging.profile import Profile as PackagedProfile

_POINTS = (np.arange(200) + 0.5) / 200
_GAINS = np.array([2.6, 2.4, 1.4, 1.1, 2.1, 1.1, 2.6, 1.3, 0.7, 0.7])
"""Standard deviation of a score's mean when ranks err by 1: of location, scale, the six polynomials, the tails. Measured on
60 sketches of 300,000 normal numbers, with a tenth added."""


class _Numbers(Protocol):
    """A side's numbers, of which counts below any cut can be asked. `cuts` where only those are known."""

    rows: int
    known: int
    special: Array
    cuts: Array | None
    error: float

    def quantiles(self, shares: Array) -> Array: ...
    def counts(self, edges: Array) -> Array: ...


def compare_profiles(
    reference: Profile | PackagedProfile, current: Profile, settings: DriftSettings | None = None
) -> DriftReport:
    """Every column of `reference` in `current`. A `packaging.profile.Profile` (a bundle's profile.json) is compared by
    its inputs and outputs, of which tensors are passed over and texts are compared by their lengths' gaps alone."""
    settings = settings or DriftSettings()
    rows = (reference.rows, current.rows)
    seen = []
    if isinstance(reference, Profile):
        names = set(reference.columns)
        for name, sketch in reference.columns.items():
            seen.append(_sketches(name, sketch, current.columns.get(name)))
    else:
        fields = (*reference.inputs, *(o for o in reference.outputs if o.name in current.columns))
        names = {field.name for field in fields}
        for field in fields:
            seen.append(_packaged(field, current.columns.get(field.name)))
    notes = [
        f"Column {name!r} is new: the reference has none." for name in current.columns if name not in names
    ]
    return judge(seen, None, settings, rows, notes)


def _sketches(name: str, before: ColumnSketch, after: ColumnSketch | None) -> Seen:
    if after is None:
        return Seen(name, before.kind, status="absent from the current window", drifted=True)
    rows = (before.rows, after.rows)
    texts = (Kind.text, Kind.identifier)
    if before.kind is not after.kind and not (before.kind in texts and after.kind in texts):
        status = f"of another type: {before.kind.value} before, {after.kind.value} now"
        return Seen(name, before.kind, rows=rows, status=status, drifted=True)
    if before.kind is Kind.number:
        return _numbers(name, before.kind, _Sketched(before), _Sketched(after))
    if before.kind in (Kind.category, Kind.boolean):
        return _categories(name, before.kind, _counts(before), _counts(after))
    if before.kind in texts:
        return _texts(name, before, after)
    if before.kind is Kind.tensor:
        return _tensors(name, before, after)
    status = "not compared: it moves on by itself" if before.kind is Kind.time else "not compared"
    return Seen(name, before.kind, rows=rows, status=status)


def _packaged(field: FieldProfile, after: ColumnSketch | None) -> Seen:
    if after is None:
        return Seen(field.name, Kind.other, status="absent from the current window", drifted=True)
    rows = (field.rows, after.rows)
    if after.kind is Kind.number and field.dtype is not DType.string:
        return _numbers(field.name, after.kind, _Packaged(field), _Sketched(after))
    if after.kind in (Kind.category, Kind.boolean):
        known: dict[str | None, float] = {_name(value): float(count) for value, count in field.categories}
        before = dict(known)
        before[None] = float(field.nulls)
        if field.other:
            before[_OTHER] = float(field.other)
        return _categories(field.name, after.kind, before, _counts(after))
    if after.kind in (Kind.text, Kind.identifier):
        reference, current = _gaps(field.rows, field.nulls), _gaps(after.rows, after.missing)
        table, tests = numeric.number_scores(reference, current)
        evidence = numeric.evidence_of(field.name, table, tests, reference, current, codes=None)
        change = current.rate(0) - reference.rate(0)
        return Seen(field.name, after.kind, evidence, {"missing_rate_change": change}, rows)
    why = "it moves on by itself" if after.kind is Kind.time else "the bundle's profile does not say enough"
    return Seen(field.name, after.kind, rows=rows, status=f"not compared: {why}")


_OTHER = "\0other"


def _name(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gaps(rows: int, missing: int) -> Side:
    return Side(np.array([float(rows - missing)]), np.array([float(missing), 0.0, 0.0]), np.zeros(1))


class _Sketched:
    """The numbers of a sketch."""

    cuts: Array | None = None

    def __init__(self, sketch: ColumnSketch) -> None:
        self.sketch = sketch
        self.rows, self.known = sketch.rows, int(sketch.quantiles.n)
        self.special = np.array([sketch.missing, sketch.above, sketch.below], dtype=float)
        # The stated error holds in 99 of 100 cases: 2.58 standard deviations.
        exact = not sketch.quantiles.is_estimation_mode()
        self.error = 0.0 if exact else sketch.quantiles.normalized_rank_error(False) / 2.58

    def quantiles(self, shares: Array) -> Array:
        return np.array(self.sketch.quantiles.get_quantiles(shares.tolist())) if self.known else np.zeros(0)

    def counts(self, edges: Array) -> Array:
        if not self.known:
            return np.zeros(len(edges) + 1)
        if not len(edges):
            return np.array([float(self.known)])
        below = np.array(self.sketch.quantiles.get_cdf(edges.tolist(), True))
        return np.maximum(np.diff(np.concatenate([[0.0], below])), 0.0) * self.known


class _Packaged:
    """The numbers of a field in a bundle's profile: exact counts between its own cuts."""

    error = 0.0

    def __init__(self, field: FieldProfile) -> None:
        self.rows, self.known = field.rows, field.rows - field.nulls - field.infinite
        self.special = np.array([field.nulls, field.infinite, 0.0])
        self._quantiles = np.array(field.quantiles)
        if field.categories and not field.other:
            pairs = sorted((float(value), count) for value, count in field.categories)
            self.cuts: Array | None = np.array([value for value, _ in pairs[:-1]])
            self._counts = np.array([float(count) for _, count in pairs])
        else:
            self.cuts, self._counts = np.array(field.edges), np.array(field.counts, dtype=float)

    def quantiles(self, shares: Array) -> Array:
        if not len(self._quantiles):
            return np.zeros(0)
        places = np.linspace(0, 1, len(self._quantiles))
        return np.asarray(np.interp(shares, places, self._quantiles))

    def counts(self, edges: Array) -> Array:
        return self._counts if len(self._counts) else np.zeros(len(edges) + 1)


def _edges(before: _Numbers, after: _Numbers, tail: float) -> Array:
    """Common cuts, from both sides together unless one side knows only its own."""
    if before.cuts is not None:
        return before.cuts
    assert isinstance(before, _Sketched)
    assert isinstance(after, _Sketched)
    pooled = ds.kll_doubles_sketch(max(before.sketch.quantiles.k, after.sketch.quantiles.k))
    pooled.merge(before.sketch.quantiles)
    pooled.merge(after.sketch.quantiles)
    if pooled.is_empty():
        return np.zeros(0)
    found = np.unique(pooled.get_quantiles(shares_of(tail).tolist(), True))
    return np.asarray(found[found < pooled.get_max_value()])


def _side(numbers: _Numbers, edges: Array) -> Side:
    counts = numbers.counts(edges)
    points = numbers.quantiles(_POINTS)
    values = np.full(len(counts), np.nan)
    if len(points):  # each level stands at the mean of the quantiles in it, or else near its end
        codes = np.searchsorted(edges, points, side="left")
        weights = np.bincount(codes, minlength=len(counts))
        with np.errstate(all="ignore"):
            values = np.bincount(codes, weights=points, minlength=len(counts)) / weights
        ends = np.concatenate([edges, [max(points[-1], edges[-1] if len(edges) else points[-1])]])
        values = np.where(np.isfinite(values), values, ends)
    return Side(counts, numbers.special, values)


def _numbers(name: str, kind: Kind, before: _Numbers, after: _Numbers) -> Seen:
    edges = _edges(before, after, scores.tail_share(min(before.rows, after.rows)))
    reference, current = _side(before, edges), _side(after, edges)
    if isinstance(before, _Packaged) and after.rows:  # the packager does not tell +infinity from -infinity
        current = Side(
            current.known, np.array([current.special[0], current.special[1:].sum(), 0.0]), current.values
        )
    table, tests = numeric.number_scores(reference, current)
    noise = np.full(table.shape[1], 1.0)
    noise[: len(_GAINS)] = _GAINS
    noise = np.square(noise) * (before.error**2 + after.error**2)
    noise[len(_GAINS) : len(_GAINS) + 3] = 0.0  # gaps and infinities are counted exactly
    evidence = numeric.evidence_of(name, table, tests, reference, current, codes=None, noise=noise)
    sizes = numeric.number_effects(reference, current)
    if reference.known.sum() and current.known.sum():
        spread = float(np.std(before.quantiles(_POINTS))) or 1.0
        if isinstance(before, _Sketched):
            spread = before.sketch.deviation or spread
        with np.errstate(all="ignore"):
            far = stats.wasserstein_distance(before.quantiles(_POINTS), after.quantiles(_POINTS))
        sizes["wasserstein"] = far / spread if math.isfinite(far) else float(np.finfo(float).max)
    return Seen(name, kind, evidence, sizes, (before.rows, after.rows))


def _counts(sketch: ColumnSketch) -> dict[str | None, float]:
    found: dict[str | None, float] = dict(sketch.categories().items())
    found[None] = float(sketch.missing)
    left = sketch.rows - sum(found.values())
    if left > 0:
        found[_OTHER] = left
    return found


def _categories(
    name: str, kind: Kind, before: Mapping[str | None, float], after: Mapping[str | None, float]
) -> Seen:
    sides, _ = category.sides_of(before, after, other=_OTHER)
    table, tests = category.category_scores(*sides)
    evidence = numeric.evidence_of(name, table, tests, *sides, codes=None)
    complete = _OTHER not in before
    new = sorted(
        (v for v in after if v not in before and v not in (None, _OTHER)), key=lambda v: (-after[v], str(v))
    )
    sizes = category.category_effects(*sides)
    rows = (int(sum(before.values())), int(sum(after.values())))
    sizes["new_category_rate"] = sum(after[v] for v in new) / max(rows[1], 1) if complete else 0.0
    shown = tuple(str(v) for v in new[:20]) if complete else ()
    return Seen(name, kind, evidence, sizes, rows, new_categories=shown)


def _texts(name: str, before: ColumnSketch, after: ColumnSketch) -> Seen:
    seen = _numbers(name, before.kind, _Sketched(before), _Sketched(after))
    sizes = {
        "length_wasserstein": seen.sizes["wasserstein"],
        "length_ks": seen.sizes["ks"],
        "length_psi": seen.sizes["psi"],
        "missing_rate_change": seen.sizes["missing_rate_change"],
    }
    evidence = seen.evidence
    if before.kind is Kind.text and before.texts and after.texts:
        old, new = before.word_counts(), after.word_counts()
        sizes["word_change"] = max(
            (abs(new.get(word, 0) / after.texts - old.get(word, 0) / before.texts) for word in {*old, *new}),
            default=0.0,
        )
        evidence = joined(evidence, _words(name, old, new, before.texts, after.texts))
    return Seen(name, before.kind, evidence, sizes, seen.rows)


def _words(
    name: str, before: Mapping[str, float], after: Mapping[str, float], m: int, n: int
) -> Evidence | None:
    """Each frequent word's texts, before and after, as if words came independently of each other."""
    pooled = {word: before.get(word, 0.0) + after.get(word, 0.0) for word in {*before, *after}}
    least = max(5 * (n + m) / max(min(n, m), 1), 5)
    chosen = sorted(
        (w for w, texts in pooled.items() if least <= texts < n + m), key=lambda w: (-pooled[w], w)
    )[:VOCABULARY]
    if not chosen:
        return None
    shares = np.array([pooled[word] / (n + m) for word in chosen])
    sums = np.array([after.get(word, 0.0) for word in chosen]) - n * shares
    z, skew = standardise(sums, shares * (1 - shares), shares * (1 - shares) * (1 - 2 * shares), n, m)
    each = tuple(range(len(chosen)))
    tests = (ScoreTest("vocabulary", each, Form.squares, 0.3), ScoreTest("one word", each, Form.largest, 0.7))
    return _free(name, tests, z, skew)


def _tensors(name: str, before: ColumnSketch, after: ColumnSketch) -> Seen:
    if before.shape and after.shape and before.shape != after.shape:
        status = f"of another shape: {list(before.shape)} before, {list(after.shape)} now"
        return Seen(name, Kind.tensor, rows=(before.rows, after.rows), status=status, drifted=True)
    seen = _numbers(name, Kind.tensor, _Sketched(before), _Sketched(after))
    sizes = {
        "length_wasserstein": seen.sizes["wasserstein"],
        "missing_rate_change": seen.sizes["missing_rate_change"],
    }
    m, n = before.count, after.count
    evidence = seen.evidence
    if m > 1 and n > 1:
        old, new = before.sums / m, after.sums / n
        spread = np.maximum(before.square_sums / m - old**2, 0.0)
        error = spread / m + np.maximum(after.square_sums / n - new**2, 0.0) / n
        z = np.where(error > 0, (new - old) / np.sqrt(np.where(error > 0, error, 1.0)), 0.0)
        moved = np.abs(new - old) / np.sqrt(np.where(spread > 0, spread, 1.0))
        sizes["mean_shift"] = float(moved.max(initial=0.0))
        each = tuple(range(len(z)))
        tests = (
            ScoreTest("directions", each, Form.squares, 0.5),
            ScoreTest("one direction", each, Form.largest, 0.5),
        )
        evidence = joined(evidence, _free(name, tests, z, np.zeros(len(z))))
    return Seen(name, Kind.tensor, evidence, sizes, seen.rows)


def _free(name: str, tests: tuple[ScoreTest, ...], z: Array, skew: Array) -> Evidence:
    """Evidence of features that are taken to be independent."""
    kept_tests, _ = keep_varying(tests, np.ones(len(z), bool))
    correlation = np.eye(len(z))
    return Evidence(name, tuple(matched_moments(t, correlation) for t in kept_tests), z, skew, correlation)
