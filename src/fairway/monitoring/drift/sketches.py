"""What one column of a window looked like, in a few kilobytes that add up: over workers, machines, devices and time.

Sources: quantiles by KLL (Karnin, Lang and Liberty 2016, "Optimal quantile approximation in streams"), frequent items
by Misra and Gries as merged by Agarwal et al. 2013 ("Mergeable summaries"), distinct values by HyperLogLog (Flajolet et
al. 2007), all from Apache DataSketches; moments merged by Chan, Golub and LeVeque 1983.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import datasketches as ds
import msgspec
import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import MalformedInput
from fairway.monitoring.drift.text import words_of
from fairway.monitoring.drift.values import Kind

QUANTILES_K = 1024
"""Accuracy of quantiles: 0.27% of rank, 24 kB (a window of up to a thousand values is exact)."""
_FREQUENT_LG = 12
_WORDS_LG = 11
_DISTINCT_LG = 12
_TEXTS = 2000
"""Most texts of one update whose words are looked at; their lengths all count."""
DIRECTIONS = 64
"""Tensors of more elements are projected on so many random directions, the same ones everywhere."""
_ELEMENTS = 1 << 20
_CATEGORY_CHARACTERS = 256


class SketchState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A `ColumnSketch` as it is kept and sent."""

    kind: Kind
    rows: int = 0
    missing: int = 0
    above: int = 0
    below: int = 0
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    quantiles: bytes = b""
    frequent: bytes = b""
    distinct: bytes = b""
    words: bytes = b""
    texts: int = 0
    shape: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()
    square_sums: tuple[float, ...] = ()
    earliest: int | None = None
    latest: int | None = None


class ColumnSketch:
    """One column. `rows` counts every row, `missing` those without a value, `above` and `below` +-infinity. `quantiles` are
    of the numbers, of the lengths of texts (characters), or of the Euclidean lengths of tensors; `mean` and `squares`
    (sum of squared deviations) go with them. `frequent` are categories with their rows, `words` those of texts.
    `sums` and `square_sums` are of each element or direction of a tensor. `earliest` and `latest` are microseconds since
    1970-01-01 UTC, of timestamps."""

    def __init__(self, kind: Kind, k: int = QUANTILES_K) -> None:
        self.kind = kind
        self.rows = self.missing = self.above = self.below = self.count = self.texts = 0
        self.mean = self.squares = 0.0
        self.quantiles = ds.kll_doubles_sketch(k)
        self.frequent = ds.frequent_strings_sketch(_FREQUENT_LG)
        self.words = ds.frequent_strings_sketch(_WORDS_LG)
        self.distinct = ds.hll_sketch(_DISTINCT_LG)
        self.shape: tuple[int, ...] = ()
        self.sums = self.square_sums = np.zeros(0)
        self.earliest: int | None = None
        self.latest: int | None = None

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 where there is none."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def update_numbers(self, values: Array) -> None:
        """`values` `[rows]` float, NaN for no value."""
        values = np.ascontiguousarray(values, dtype=np.float64)
        finite = values[np.isfinite(values)]
        self.rows += len(values)
        self.missing += int(np.isnan(values).sum())
        self.above += int((values == np.inf).sum())
        self.below += int((values == -np.inf).sum())
        if len(finite):
            self.quantiles.update(finite)
            with np.errstate(all="ignore"):
                mean = float(finite.mean())
                self._add_moments(len(finite), mean, float(np.square(finite - mean).sum()))

    def update_categories(self, counts: Mapping[str | None, int]) -> None:
        """Rows of each category; None for no value."""
        for value, rows in counts.items():
            self.rows += rows
            if value is None:
                self.missing += rows
            else:
                name = value[:_CATEGORY_CHARACTERS]
                self.frequent.update(name, rows)
                self.distinct.update(name)

    def update_texts(self, values: Sequence[str | None]) -> None:
        known = [value for value in values if value is not None]
        self.rows += len(values)
        self.missing += len(values) - len(known)
        if not known:
            return
        lengths = np.fromiter(map(len, known), dtype=np.float64, count=len(known))
        self.quantiles.update(lengths)
        mean = float(lengths.mean())
        self._add_moments(len(lengths), mean, float(np.square(lengths - mean).sum()))
        for value in known:
            self.distinct.update(value)
        step = max(1, -(-len(known) // _TEXTS))
        some = known[::step]
        self.texts += len(some)
        if self.kind is Kind.text:
            for word, texts in Counter(word for text in some for word in words_of(text)).items():
                self.words.update(word[:_CATEGORY_CHARACTERS], texts)

    def update_tensors(self, values: Array) -> None:
        """`values` `[rows, ...]`; a row with NaN in it has no value. Another shape than before is an error."""
        shape = tuple(int(size) for size in values.shape[1:])
        if self.shape and shape != self.shape:
            raise MalformedInput(f"a window of {list(self.shape)} cannot take rows of {list(shape)}.")
        if math.prod(shape) > _ELEMENTS:
            raise MalformedInput(f"rows of {math.prod(shape):,} elements: at most {_ELEMENTS:,} are watched.")
        self.shape = shape
        flat = values.reshape(len(values), -1).astype(np.float64)
        missing = np.isnan(flat).any(axis=1)
        infinite = ~missing & np.isinf(flat).any(axis=1)
        self.rows += len(flat)
        self.missing += int(missing.sum())
        self.above += int(infinite.sum())
        flat = flat[~missing & ~infinite]
        if not len(flat):
            return
        with np.errstate(all="ignore"):
            lengths = np.sqrt(np.square(flat).sum(axis=1))
            lengths = np.minimum(lengths, np.finfo(float).max)
            self.quantiles.update(lengths)
            mean = float(lengths.mean())
            self._add_moments(len(lengths), mean, float(np.square(lengths - mean).sum()))
            along = _directions(flat)
            ours, squared = along.sum(axis=0), np.square(along).sum(axis=0)
        self.sums = self.sums + ours if len(self.sums) else ours
        self.square_sums = self.square_sums + squared if len(self.square_sums) else squared

    def update_times(self, values: Array) -> None:
        """`values` `[rows]` datetime64, NaT for no value."""
        micros = values.astype("datetime64[us]")
        missing = np.isnat(micros)
        self.rows += len(micros)
        self.missing += int(missing.sum())
        known = micros[~missing].astype(np.int64)
        if len(known):
            earliest, latest = int(known.min()), int(known.max())
            self.earliest = earliest if self.earliest is None else min(self.earliest, earliest)
            self.latest = latest if self.latest is None else max(self.latest, latest)

    def merge(self, other: ColumnSketch) -> None:
        """Adds the rows of `other`, which stays as it is."""
        if self.kind is not other.kind:
            raise MalformedInput(f"a window of {self.kind.value} cannot take one of {other.kind.value}.")
        if self.shape and other.shape and self.shape != other.shape:
            raise MalformedInput(f"a window of {list(self.shape)} cannot take one of {list(other.shape)}.")
        for name in ("rows", "missing", "above", "below", "texts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.count:
            self._add_moments(other.count, other.mean, other.squares)
        self.quantiles.merge(other.quantiles)
        self.frequent.merge(other.frequent)
        self.words.merge(other.words)
        union = ds.hll_union(_DISTINCT_LG)
        union.update(self.distinct)
        union.update(other.distinct)
        self.distinct = union.get_result(ds.tgt_hll_type.HLL_8)
        self.shape = self.shape or other.shape
        if len(other.sums):
            self.sums = self.sums + other.sums if len(self.sums) else other.sums.copy()
            self.square_sums = (
                self.square_sums + other.square_sums if len(self.square_sums) else other.square_sums.copy()
            )
        times = [time for time in (self.earliest, other.earliest) if time is not None]
        self.earliest = min(times) if times else None
        times = [time for time in (self.latest, other.latest) if time is not None]
        self.latest = max(times) if times else None

    def _add_moments(self, count: int, mean: float, squares: float) -> None:
        with np.errstate(all="ignore"):
            total = self.count + count
            apart = float(np.float64(mean) - self.mean)
            self.mean += apart * count / total
            self.squares = float(
                np.float64(self.squares) + squares + np.float64(apart) ** 2 * self.count * count / total
            )
        self.count = total

    def categories(self) -> dict[str, float]:
        """Rows of the categories, the commonest first; exact up to three thousand different ones."""
        items = self.frequent.get_frequent_items(ds.frequent_items_error_type.NO_FALSE_NEGATIVES)
        return {name: float(estimate) for name, estimate, _, _ in items}

    def word_counts(self) -> dict[str, float]:
        """Texts, of those that were looked at, with each word."""
        items = self.words.get_frequent_items(ds.frequent_items_error_type.NO_FALSE_NEGATIVES)
        return {name: float(estimate) for name, estimate, _, _ in items}

    def state(self) -> SketchState:
        """Parts that hold nothing are left out."""
        return SketchState(
            kind=self.kind, rows=self.rows, missing=self.missing, above=self.above, below=self.below,
            count=self.count, mean=_finite(self.mean), squares=_finite(self.squares), texts=self.texts,
            quantiles=b"" if self.quantiles.is_empty() else self.quantiles.serialize(),
            frequent=b"" if self.frequent.is_empty() else self.frequent.serialize(),
            words=b"" if self.words.is_empty() else self.words.serialize(),
            distinct=b"" if self.distinct.is_empty() else self.distinct.serialize_compact(),
            shape=self.shape, sums=tuple(self.sums.tolist()), square_sums=tuple(self.square_sums.tolist()),
            earliest=self.earliest, latest=self.latest,
        )  # fmt: skip

    @classmethod
    def of(cls, state: SketchState, k: int = QUANTILES_K) -> ColumnSketch:
        """The inverse of `state`. Raises MalformedInput for bytes that are no sketch."""
        found = cls(state.kind, k)
        for name in ("rows", "missing", "above", "below", "count", "mean", "squares", "texts", "shape",
                     "earliest", "latest"):  # fmt: skip
            setattr(found, name, getattr(state, name))
        found.sums, found.square_sums = np.array(state.sums), np.array(state.square_sums)
        if len(found.sums) != len(found.square_sums) or len(found.sums) > max(DIRECTIONS, 1):
            raise MalformedInput("a profile's sums of directions are damaged.")
        try:
            if state.quantiles:
                found.quantiles = ds.kll_doubles_sketch.deserialize(state.quantiles)
            if state.frequent:
                found.frequent = ds.frequent_strings_sketch.deserialize(state.frequent)
            if state.words:
                found.words = ds.frequent_strings_sketch.deserialize(state.words)
            if state.distinct:
                found.distinct = ds.hll_sketch.deserialize(state.distinct)
        except (IndexError, ValueError, RuntimeError, MemoryError) as error:
            raise MalformedInput(f"a profile's sketch is damaged: {error}.") from error
        return found


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.copysign(float(np.finfo(float).max), value)


def _directions(flat: Array) -> Array:
    if flat.shape[1] <= DIRECTIONS:
        return flat
    rng = np.random.default_rng(0)  # the same directions in every process
    return np.asarray(flat @ rng.standard_normal((flat.shape[1], DIRECTIONS)) / math.sqrt(DIRECTIONS))
