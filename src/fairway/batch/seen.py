"""What a run's rows look like, counted into the bins and categories of the reference profile.

A chunk's counts are one vector, and vectors add up: over chunks, over parts, over machines. About 512 rows of a chunk
are counted, so that it costs next to nothing; a chunk of a slow model is smaller than that, and counted whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.conform import nulls_of
from fairway.core.contract import Contract, DType
from fairway.packaging.profile import FieldProfile, Profile, output_parts

_MOST_FIELDS = 200
"""So many inputs and outputs are looked at: what is kept of a part stays small for models of any width."""
_ROWS, _NULLS, _INFINITE, _SUM, _SQUARES, _LOW, _HIGH, _COUNTS = range(8)
"""Places in a field's stretch of the vector; counts of bins (or of categories, then of others) follow."""
_FAR = 8e307
"""In place of infinity, which JSON has no form for; two of them can be added."""
_NOTICEABLE = 0.1
_LEAST_ROWS = 100
_SELDOM = 3.0902
"""Standard normal quantile of 0.999."""


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input, or a number of the answer (`is_output`), by about 500 rows of each chunk, beside the training data.

    Text has neither mean nor limits. `unknown` is the share of values that are none of the training data's categories.
    `psi` is the population stability index against the training data; `drifted` says that it is above 0.1, and more
    than chance gives once in a thousand runs without drift."""

    name: str
    is_output: bool = False
    rows: int
    nulls: float
    training_nulls: float
    mean: float | None = None
    training_mean: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    unknown: float | None = None
    psi: float | None = None
    drifted: bool = False


class Watch:
    """Counts rows of a model, and reads what was counted. Called from several threads."""

    def __init__(self, contract: Contract, reference: Profile) -> None:
        self._contract = contract
        inputs = reference.inputs[:_MOST_FIELDS]
        outputs = reference.outputs[: _MOST_FIELDS - len(inputs)]
        self._fields = [*inputs, *outputs]
        self._inputs = len(inputs)
        sizes = [_COUNTS + _bins(field) for field in self._fields]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self._lows, self._highs = self._starts[:-1] + _LOW, self._starts[:-1] + _HIGH
        widest = max((len(field.edges) for field in inputs), default=0)
        self._edges = np.full((len(inputs), widest), np.inf)
        for i, field in enumerate(inputs):
            self._edges[i, : len(field.edges)] = field.edges

    def see(self, columns: Columns, outputs: Outputs, sampled: int = 512) -> Array:
        """The vector of rows that were scored, `columns` and the answers to them, by about `sampled` of them."""
        step = max(1, columns.rows // sampled)
        total = self.nothing()
        if columns.packed is not None:
            self._see_matrix(total, columns.packed[::step, : self._inputs])
        else:
            for i, field in enumerate(self._fields[: self._inputs]):
                if field.name in columns.names:
                    self._see_one(total, i, columns[field.name][::step])
        parts = (
            part
            for output in self._contract.outputs
            if output.name in outputs
            for part in output_parts(output, outputs[output.name][::step])
        )
        places = {self._fields[i].name: i for i in range(self._inputs, len(self._fields))}
        for name, _, values in parts:
            if name in places:
                self._see_one(total, places[name], values)
        return total

    def nothing(self) -> Array:
        total = np.zeros(int(self._starts[-1]))
        total[self._lows], total[self._highs] = _FAR, -_FAR
        return total

    def add(self, one: Array, other: Array) -> Array:
        total = np.clip(one + other, -_FAR, _FAR)
        total[self._lows] = np.minimum(one[self._lows], other[self._lows])
        total[self._highs] = np.maximum(one[self._highs], other[self._highs])
        return cast(Array, total)

    def total(self, parts: Iterable[Sequence[float]]) -> Array:
        """The sum of what parts of a run have kept. Parts of another form, or none, count nothing."""
        total = self.nothing()
        for part in parts:
            if len(part) == len(total):
                total = self.add(total, np.array(part))
        return total

    def _see_matrix(self, total: Array, sample: Array) -> None:
        """All columns of a numeric table `[s, fields]` at once: one by one would take as long as a small model does."""
        values = sample.astype(np.float64)
        nulls = np.isnan(values)
        infinite = np.isinf(values)
        left = ~(nulls | infinite)
        known = np.where(left, values, 0.0)
        starts = self._starts[: self._inputs]
        total[starts + _ROWS] = len(values)
        total[starts + _NULLS] = nulls.sum(axis=0)
        total[starts + _INFINITE] = infinite.sum(axis=0)
        with np.errstate(over="ignore"):
            total[starts + _SUM] = np.clip(known.sum(axis=0), -_FAR, _FAR)
            total[starts + _SQUARES] = np.minimum((known * known).sum(axis=0), _FAR)
        total[starts + _LOW] = np.where(left, values, _FAR).min(axis=0, initial=_FAR)
        total[starts + _HIGH] = np.where(left, values, -_FAR).max(axis=0, initial=-_FAR)
        above = (np.where(left, values, -np.inf)[:, :, None] > self._edges).sum(axis=0)
        there = left.sum(axis=0)
        for i, field in enumerate(self._fields[: self._inputs]):
            begin = starts[i] + _COUNTS
            edges = above[i, : len(field.edges)]
            if _by_category(field):
                self._see_one(total, i, sample[:, i])
            elif _bins(field):
                total[begin : begin + len(edges) + 1] = -np.diff([there[i], *edges, 0])

    def _see_one(self, total: Array, i: int, values: Array) -> None:
        field = self._fields[i]
        mine = total[self._starts[i] : self._starts[i + 1]]
        mine[:] = 0
        mine[_LOW], mine[_HIGH] = _FAR, -_FAR
        flat = values.reshape(-1)
        nulls = nulls_of(flat)
        known = flat[~nulls]
        mine[_ROWS], mine[_NULLS] = len(flat), int(nulls.sum())
        if field.dtype is not DType.string:
            known = known.astype("datetime64[us]").astype(np.int64) if known.dtype.kind == "M" else known
            numbers = known.astype(np.float64)
            finite = numbers[np.isfinite(numbers)]
            mine[_INFINITE] = len(numbers) - len(finite)
            if len(finite):
                with np.errstate(over="ignore"):
                    mine[_SUM] = np.clip(finite.sum(), -_FAR, _FAR)
                    mine[_SQUARES] = min(float((finite * finite).sum()), _FAR)
                mine[_LOW], mine[_HIGH] = finite.min(), finite.max()
            known = finite
        if _by_category(field):
            found = Counter(map(_category, known.tolist()))
            counts = [found.pop(_category(value), 0) for value, _ in field.categories]
            mine[_COUNTS:] = [*counts, sum(found.values())]
        elif _bins(field):
            places = np.searchsorted(np.array(field.edges), known, side="left")
            mine[_COUNTS:] = np.bincount(places, minlength=len(field.edges) + 1)

    def summarise(self, total: Array) -> tuple[Column, ...]:
        """Every field of which rows were seen."""
        return tuple(
            self._column(i, field, total[self._starts[i] : self._starts[i + 1]])
            for i, field in enumerate(self._fields)
            if total[self._starts[i] + _ROWS]
        )

    def _column(self, i: int, field: FieldProfile, mine: Array) -> Column:
        rows, nulls, infinite = (int(mine[place]) for place in (_ROWS, _NULLS, _INFINITE))
        known = rows - nulls - infinite
        numeric = field.dtype is not DType.string and known > 0
        counts = mine[_COUNTS:]
        by_category = _by_category(field)
        # A time moves on by itself: it is counted, and no drift.
        moves = field.dtype is DType.timestamp
        psi, drifted = (None, False) if moves else _stability(_reference_counts(field), counts)
        return Column(
            name=field.name,
            is_output=i >= self._inputs,
            rows=rows,
            nulls=nulls / rows,
            training_nulls=field.nulls / field.rows if field.rows else 0.0,
            mean=float(mine[_SUM]) / known if numeric else None,
            training_mean=field.mean if field.dtype is not DType.string else None,
            minimum=float(mine[_LOW]) if numeric else None,
            maximum=float(mine[_HIGH]) if numeric else None,
            unknown=float(counts[-1]) / known if by_category and known and not field.other else None,
            psi=psi,
            drifted=drifted,
        )

    def profile(self, total: Array) -> Profile:
        """The same kind of profile as the reference, with its bins and categories; without quantiles."""
        fields = [
            _profile(field, total[self._starts[i] : self._starts[i + 1]])
            for i, field in enumerate(self._fields)
        ]
        inputs, outputs = tuple(fields[: self._inputs]), tuple(fields[self._inputs :])
        return Profile(rows=max((field.rows for field in fields), default=0), inputs=inputs, outputs=outputs)


def _by_category(field: FieldProfile) -> bool:
    return bool(field.categories) and field.dtype in (DType.string, DType.bool)


def _category(value: object) -> object:
    """Booleans are counted as numbers where a table of numbers holds them."""
    return float(value) if isinstance(value, bool | int | float) else value


def _bins(field: FieldProfile) -> int:
    if _by_category(field):
        return len(field.categories) + 1
    return len(field.edges) + 1 if field.counts else 0


def _reference_counts(field: FieldProfile) -> Array:
    if _by_category(field):
        return np.array([*(rows for _, rows in field.categories), field.other], dtype=float)
    return np.array(field.counts, dtype=float)


def _stability(reference: Array, current: Array) -> tuple[float | None, bool]:
    """Population stability index of two histograms, half a row in place of none, and whether it is both large and
    no chance: without drift it is (1/n + 1/m) times chi-square of bins - 1 degrees of freedom (B. Yurdakul, Statistical
    Properties of the Population Stability Index, 2018); the quantile by E. Wilson and M. Hilferty (1931)."""
    there = (reference > 0) | (current > 0)
    n, m = reference.sum(), current.sum()
    if not n or not m:
        return None, False
    a, b = (np.maximum(counts[there], 0.5) for counts in (reference, current))
    a, b = a / a.sum(), b / b.sum()
    psi = float(((a - b) * np.log(a / b)).sum())
    free = int(there.sum()) - 1
    if free < 1:
        return psi, False
    spread = 2 / (9 * free)
    chance = free * (1 - spread + _SELDOM * spread**0.5) ** 3 * (1 / n + 1 / m)
    return psi, bool(m >= _LEAST_ROWS and psi > max(_NOTICEABLE, chance))


def _profile(field: FieldProfile, mine: Array) -> FieldProfile:
    rows, nulls, infinite = (int(mine[place]) for place in (_ROWS, _NULLS, _INFINITE))
    known = rows - nulls - infinite
    counts = tuple(int(count) for count in mine[_COUNTS:])
    plain = FieldProfile(name=field.name, dtype=field.dtype, rows=rows, nulls=nulls, infinite=infinite)
    if field.dtype is not DType.string and known > 0:
        mean = float(mine[_SUM]) / known
        variance = max(0.0, float(mine[_SQUARES]) / known - mean * mean)
        plain = msgspec.structs.replace(plain, mean=mean, deviation=variance**0.5)
    if _by_category(field):
        named = [(value, rows) for (value, _), rows in zip(field.categories, counts, strict=False)]
        return msgspec.structs.replace(plain, categories=tuple(named), other=counts[-1])
    return msgspec.structs.replace(plain, edges=field.edges, counts=counts)
