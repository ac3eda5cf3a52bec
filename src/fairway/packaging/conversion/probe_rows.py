"""Rows that a wrong conversion would get wrong, made from the sample and from the model's own split thresholds.

Kinds: `sample`; `threshold-edge`, with values at, one float32 step and one float64 step to either side of split
thresholds, mapped back through the preparation before the model; `null`; `unseen-category`; `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.core.columns import Array, Columns
from fairway.core.conform import canonical_dtype, gather
from fairway.core.contract import Contract, DType, Field

NULL_ROWS = 20
UNSEEN_ROWS = 20
UNSEEN_TEXT = "\u2426 never seen"
"""Begins with the sign for "substitute", so that no real category is likely to be equal."""
_SEARCH_STEPS = 64


@dataclass(frozen=True)
class Crossing:
    """How thresholds of a tree model are reached from the columns: feature `i` of the model is
    `transform(columns)[:, i]`, rounded to float32 first where `compares` says so. `transform` None means that
    feature i is the column `direct[i]` itself."""

    thresholds: Sequence[Array]
    direct: tuple[str, ...] = ()
    transform: Callable[[Columns], Array] | None = None
    compares: str = "float32"


def edge_values(
    contract: Contract, crossing: Crossing, sample: Columns, *, seed: int, limit: int
) -> dict[str, Array]:
    """Per field, the values around the places where the model changes branch; at most `limit` places a field."""
    rng = np.random.default_rng(seed)
    if crossing.transform is None:
        places = {
            name: _some(thresholds, limit, rng)
            for name, thresholds in zip(crossing.direct, crossing.thresholds, strict=True)
        }
    else:
        places = _search(contract, crossing, sample, limit=limit, rng=rng)
    fields = {field.name: field for field in contract}
    edges = {name: _around(fields[name], values) for name, values in places.items() if len(values)}
    return {name: values for name, values in edges.items() if len(values)}


def edge_rows(
    contract: Contract, sample: Columns, edges: dict[str, Array], *, seed: int, max_rows: int
) -> Columns | None:
    """Sample rows with edge values put in: half of them in every column at once, half in one column."""
    if not edges or max_rows < 2:
        return None
    rng = np.random.default_rng(seed)
    longest = max(len(values) for values in edges.values())
    together = min(longest, max_rows // 2)
    alone = min(sum(len(values) for values in edges.values()), max_rows - together)
    base = sample.take(rng.integers(0, sample.rows, together + alone))
    arrays = {name: np.array(base[name]) for name in base.names}
    pool = {name: rng.permutation(values) for name, values in edges.items()}
    for name, values in pool.items():
        arrays[name][:together] = np.resize(values, together)
    names = list(pool)
    share = np.array([len(pool[name]) for name in names], float)
    counts = np.floor(alone * share / share.sum()).astype(int)
    row = together
    for name, count in zip(names, counts, strict=True):
        arrays[name][row : row + count] = pool[name][::-1][:count]
        row += count
    return gather(contract, [arrays[field.name] for field in contract])


def null_rows(contract: Contract, sample: Columns, field: Field, *, seed: int) -> Columns:
    """Sample rows with nulls in `field`, which must be able to hold them."""
    dtype = canonical_dtype(field)
    null = None if dtype.kind == "O" else np.datetime64("NaT", "us") if dtype.kind == "M" else np.nan
    return _with(contract, sample, field, null, NULL_ROWS, seed)


def unseen_rows(contract: Contract, sample: Columns, field: Field, *, seed: int) -> Columns | None:
    """Sample rows with a category in `field` that the training data did not have; None when there is none left."""
    if field.dtype is DType.string:
        return _with(contract, sample, field, UNSEEN_TEXT, UNSEEN_ROWS, seed)
    seen = [float(category.value) for category in field.categories]
    unseen = max(seen) + 1
    if field.dtype is DType.bool or not field.dtype.is_numeric:
        return None
    if field.dtype.is_integer and unseen > np.iinfo(field.dtype.value).max:
        return None
    return _with(contract, sample, field, unseen, UNSEEN_ROWS, seed)


def text_rows(contract: Contract, sample: Columns, field: Field, *, seed: int) -> Columns:
    """Free text as users vary it: other case, punctuation, accents, repeated and unknown words, nothing at all."""
    rng = np.random.default_rng(seed)
    texts = [value for value in sample[field.name][:1000] if value]
    words = " ".join(texts[:200]).split() or ["word"]
    made = [
        "",
        " ",
        "...",
        "don't we'd it's",
        "caf\u00e9 na\u00efve \u00dcber",
        "a b c",
        "x" * 300,
        "1.5 2,000 #tag @you",
    ]
    made += ["\u6f22\u5b57 \u0440\u0443\u0441 \U0001f600", "tab\there\nnew-line under_score", UNSEEN_TEXT]
    for text in texts[:50]:
        made += [text.upper(), text.title(), text.replace(" ", "  "), text.replace(" ", ", ") + "!"]
    for _ in range(50):
        made.append(" ".join(rng.choice(words, size=rng.integers(1, 12))))
    base = sample.take(rng.integers(0, sample.rows, len(made)))
    arrays = {name: np.array(base[name]) for name in base.names}
    arrays[field.name] = np.array(made, dtype=object)
    return gather(contract, [arrays[name] for name in base.names])


def concatenate(contract: Contract, parts: Sequence[Columns]) -> Columns:
    """All rows of all parts in order."""
    return gather(contract, [np.concatenate([part[field.name] for part in parts]) for field in contract])


def _with(contract: Contract, sample: Columns, field: Field, value: object, rows: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    base = sample.take(rng.integers(0, sample.rows, min(rows, sample.rows)))
    arrays = {name: np.array(base[name]) for name in base.names}
    arrays[field.name][...] = value
    return gather(contract, [arrays[other.name] for other in contract])


def _some(values: Array, limit: int, rng: np.random.Generator) -> Array:
    return values if len(values) <= limit else rng.choice(values, limit, replace=False)


def _around(field: Field, places: Array) -> Array:
    """The values a field can take at and next to each place."""
    if field.shape or not field.dtype.is_numeric or field.dtype is DType.bool:
        return np.zeros(0)
    places = places[np.isfinite(places)]
    if field.dtype.is_integer:
        limits = np.iinfo(field.dtype.value)
        whole = np.concatenate([np.floor(places), np.ceil(places), np.floor(places) + 1])
        inside: Array = whole[(whole >= limits.min) & (whole <= limits.max)]
        return np.unique(inside)
    narrow = np.float32 if field.dtype is not DType.float16 else np.float16
    with np.errstate(over="ignore", under="ignore"):
        near = places.astype(narrow)
        steps = [near, np.nextafter(near, narrow(np.inf)), np.nextafter(near, narrow(-np.inf))]
        if field.dtype is DType.float64:
            steps += [places, np.nextafter(places, np.inf), np.nextafter(places, -np.inf)]
    values: Array = np.unique(np.concatenate([step.astype(np.float64) for step in steps]))
    finite: Array = values[np.isfinite(values)]
    return finite


def _search(
    contract: Contract, crossing: Crossing, sample: Columns, *, limit: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Where columns cross thresholds behind the preparation, found by bisection on all of them at once.

    A column counts for the features that change when it alone moves from its lowest to its highest value;
    bisection runs on the bits of the float64, so that it ends at two neighbouring numbers.
    """
    assert crossing.transform is not None
    movable = [f for f in contract if not f.shape and f.dtype.is_numeric and f.dtype is not DType.bool]
    if not movable or all(len(values) == 0 for values in crossing.thresholds):
        return {}
    base = sample.take(np.array([_complete_row(sample)]))
    spans = [_span(sample[field.name]) for field in movable]
    ends = _moved(contract, base, movable, np.repeat(np.arange(len(movable)), 2), np.array(spans).reshape(-1))
    seen = crossing.transform(ends)
    jobs: list[tuple[int, int, float]] = []
    for i in range(len(movable)):
        low, high = seen[2 * i], seen[2 * i + 1]
        for moved in np.flatnonzero((low != high) & ~(np.isnan(low) | np.isnan(high))):
            low_value, high_value = sorted((low[moved], high[moved]))
            known = crossing.thresholds[int(moved)]
            inside = known[(known >= low_value) & (known <= high_value)]
            share = max(limit // len(movable), 1)
            jobs += [(i, int(moved), float(value)) for value in _some(inside, share, rng)]
    if not jobs:
        return {}
    column, feature, threshold = (np.array(part) for part in zip(*jobs, strict=True))
    low = np.array([spans[i][0] for i in column])
    high = np.array([spans[i][1] for i in column])

    def below(values: Array) -> Any:
        features = crossing.transform(_moved(contract, base, movable, column, values))  # type: ignore[misc]
        reached = features[np.arange(len(column)), feature]
        return (reached.astype(np.float32) if crossing.compares == "float32" else reached) <= threshold

    starts_below = below(low)
    low_bits, high_bits = _to_ordered(low), _to_ordered(high)
    for _ in range(_SEARCH_STEPS):
        middle = (low_bits >> 1) + (high_bits >> 1) + (low_bits & high_bits & 1)
        same = below(_from_ordered(middle)) == starts_below
        low_bits, high_bits = np.where(same, middle, low_bits), np.where(same, high_bits, middle)
        if (high_bits <= low_bits + 1).all():
            break
    found = {}
    for i, field in enumerate(movable):
        mine = column == i
        if mine.any():
            sides = [_from_ordered(low_bits[mine]), _from_ordered(high_bits[mine])]
            found[field.name] = np.unique(np.concatenate(sides))
    return found


def _moved(contract: Contract, base: Columns, movable: list[Field], column: Array, values: Array) -> Columns:
    """One row per value: the base row with that value in that column."""
    arrays = {name: np.repeat(base[name], len(values)) for name in base.names}
    for i, field in enumerate(movable):
        mine = column == i
        whole = np.floor(values[mine]) if field.dtype.is_integer else values[mine]
        arrays[field.name][mine] = whole
    return gather(contract, [arrays[field.name] for field in contract])


def _complete_row(sample: Columns) -> int:
    """The first row without a missing number, or the first of all."""
    complete = np.ones(sample.rows, bool)
    for name in sample.names:
        values = sample[name]
        if values.dtype.kind == "f" and values.ndim == 1:
            complete &= ~np.isnan(values)
        elif values.dtype.kind == "O":
            complete &= np.array([value is not None for value in values], bool)
    return int(np.argmax(complete))


def _span(values: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _to_ordered(values: Array) -> Array:
    """float64 as int64 in the same order (IEEE 754: negative numbers count backwards)."""
    bits = np.ascontiguousarray(values, np.float64).view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _from_ordered(bits: Array) -> Array:
    return np.asarray(np.where(bits < 0, np.int64(-(2**63)) - bits, bits).astype(np.int64).view(np.float64))
