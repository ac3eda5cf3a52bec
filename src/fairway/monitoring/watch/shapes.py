"""Columns as histograms, reference and window on the same bins."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.columns import Array
from fairway.monitoring.drift.columns import as_floats, as_text, is_numeric
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.watch.values import Shape

BINS = 24
LABELS = 12
OTHER = "(other)"
_INNER = (0.005, 0.995)
_FARTHEST = 8e307
"""Edges lie no farther from 0, so that they can be subtracted."""


def shape_of(reference: pa.ChunkedArray, current: pa.ChunkedArray, kind: Kind | None) -> Shape | None:
    """None for columns that cannot be drawn: tensors, texts of many values."""
    missing = (_missing(reference), _missing(current))
    numeric = is_numeric(reference.type) and is_numeric(current.type)
    if numeric and kind not in (Kind.category, Kind.boolean):
        before, after = (_finite(as_floats(side)) for side in (reference, current))
        if len(before) == 0 and len(after) == 0:
            return Shape(missing=missing)
        edges = _edges(before if len(before) else after)
        return Shape(
            edges=tuple(float(edge) for edge in edges),
            reference=_shares(before, edges),
            current=_shares(after, edges),
            missing=missing,
            mean=(_mean(before), _mean(after)),
        )
    if pa.types.is_nested(reference.type) or pa.types.is_temporal(reference.type):
        return None
    before_counts, after_counts = (_counts(side) for side in (reference, current))
    if kind is Kind.boolean:
        before_counts, after_counts = _as_words(before_counts), _as_words(after_counts)
    if kind in (Kind.text, Kind.identifier) and len(before_counts) > 100:
        return None
    together = {
        name: before_counts.get(name, 0) / max(len(reference), 1)
        + after_counts.get(name, 0) / max(len(current), 1)
        for name in {*before_counts, *after_counts}
    }
    named = sorted(together, key=lambda name: (-together[name], name))[:LABELS]
    rest = len(together) > len(named)
    return Shape(
        labels=(*named, *((OTHER,) if rest else ())),
        reference=_of_labels(before_counts, named, rest),
        current=_of_labels(after_counts, named, rest),
        missing=missing,
    )


def _edges(values: Array) -> Array:
    """Bins over nearly all of the reference; the first and the last take what lies outside."""
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        middle = (distinct[1:] + distinct[:-1]) / 2
        ends = (distinct[0] - 0.5, distinct[-1] + 0.5)
        if len(distinct) > 1:
            ends = (
                distinct[0] - (distinct[1] - distinct[0]) / 2,
                distinct[-1] + (distinct[-1] - distinct[-2]) / 2,
            )
        return np.array([ends[0], *middle, ends[1]])
    low, high = np.quantile(values, _INNER)
    if low == high:
        low, high = float(values.min()), float(values.max())
    low, high = max(low, -_FARTHEST), min(high, _FARTHEST)
    return np.linspace(low, high, BINS + 1)


def _shares(values: Array, edges: Array) -> tuple[float, ...]:
    if len(values) == 0:
        return (0.0,) * (len(edges) - 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return tuple(round(float(share), 5) for share in counts / len(values))


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]


def _mean(values: Array) -> float | None:
    return float((values / len(values)).sum()) if len(values) else None  # the sum itself may be too large


def _missing(column: pa.ChunkedArray) -> float:
    if len(column) == 0:
        return 0.0
    gaps = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
    return round(float(pc.sum(gaps).as_py()) / len(column), 5)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    if pa.types.is_floating(column.type):
        column = column.filter(pc.invert(pc.is_nan(column)))  # is missing, and told as that
    counted = pc.value_counts(as_text(column).drop_null())
    return dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))


def _as_words(counts: dict[str, int]) -> dict[str, int]:
    """Booleans that may be null are numbers in the log."""
    return {{"0": "false", "1": "true"}.get(name, name): count for name, count in counts.items()}


def _of_labels(counts: dict[str, int], named: list[str], rest: bool) -> tuple[float, ...]:
    total = max(sum(counts.values()), 1)
    shares = [counts.get(name, 0) / total for name in named]
    if rest:
        shares.append(max(0.0, 1.0 - sum(shares)) if counts else 0.0)
    return tuple(round(share, 5) for share in shares)
