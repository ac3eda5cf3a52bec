"""The reference profile: what each field and each output looked like when the model was packaged.

Enough to compare later traffic with: counts per quantile bin (population stability index), percentiles
(Kolmogorov-Smirnov), counts per category, share of nulls. Only numpy is needed to make one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.conform import nulls_of
from fairway.core.contract import Contract, DType, Output

BINS = 20
"""Most bins of a numeric field; each holds about the same number of training rows."""
CATEGORIES = 200
"""Most values counted one by one; the rest are `other`."""
ELEMENTS = 1_000_000
"""Most elements of a tensor that are looked at one by one."""
_PERCENT = np.linspace(0, 1, 101)


class FieldProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One field, or one number of an output row, over the sample.

    `rows` counts nulls and infinities too; all else is over the finite, non-null values. For timestamps the
    numbers are microseconds since 1970-01-01 UTC, for text the lengths in characters, for tensors all
    elements. `quantiles` are at 0, .01, ..., 1. Bin `i` of `counts` holds values above `edges[i - 1]` and up
    to `edges[i]`; the first and the last bin are open. `categories` are (value, rows), most frequent first.
    `importance` is an input's share of what the model heeds (see `importance.py`), None where it was not found out.
    """

    name: str
    dtype: DType
    rows: int
    nulls: int = 0
    infinite: int = 0
    distinct: int = 0
    mean: float | None = None
    deviation: float | None = None
    mode: str | int | float | bool | None = None
    quantiles: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    categories: tuple[tuple[str | int | float | bool, int], ...] = ()
    other: int = 0
    importance: float | None = None

    @property
    def minimum(self) -> float | None:
        return self.quantiles[0] if self.quantiles else None

    @property
    def maximum(self) -> float | None:
        return self.quantiles[-1] if self.quantiles else None


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole sample: its inputs by field, and what the served model answered."""

    rows: int
    inputs: tuple[FieldProfile, ...]
    outputs: tuple[FieldProfile, ...] = ()

    @property
    def importance(self) -> dict[str, float]:
        """By field; empty where it was not found out."""
        return {field.name: field.importance for field in self.inputs if field.importance is not None}

    def field(self, name: str) -> FieldProfile | None:
        return next((field for field in self.inputs if field.name == name), None)


def make_profile(
    contract: Contract, columns: Columns, outputs: Outputs, importance: Mapping[str, float] | None = None
) -> Profile:
    """Profile of the sample's canonical `columns` and of the answers to them (possibly to fewer rows)."""
    inputs = with_importance(
        tuple(profile_field(field.name, field.dtype, columns[field.name]) for field in contract), importance
    )
    found = [
        profile_field(*part)
        for output in contract.outputs
        for part in output_parts(output, outputs[output.name])
    ]
    return Profile(rows=columns.rows, inputs=inputs, outputs=tuple(found))


def with_importance(
    inputs: tuple[FieldProfile, ...], importance: Mapping[str, float] | None
) -> tuple[FieldProfile, ...]:
    """The inputs with what the model heeds of each."""
    if not importance:
        return inputs
    return tuple(msgspec.structs.replace(field, importance=importance.get(field.name)) for field in inputs)


def output_parts(output: Output, values: Array) -> list[tuple[str, DType, Array]]:
    """Name, type and values of each number of an output row, named `probabilities[fraud]` or `prediction[0]`."""
    if values.ndim == 1:
        return [(output.name, output.dtype, values)]
    flat = values.reshape(len(values), -1)
    if flat.shape[1] > CATEGORIES:
        return [(output.name, output.dtype, flat.reshape(-1))]
    labels = output.labels if len(output.labels) == flat.shape[1] else tuple(map(str, range(flat.shape[1])))
    return [(f"{output.name}[{label}]", output.dtype, flat[:, i]) for i, label in enumerate(labels)]


def profile_field(name: str, dtype: DType, values: Array) -> FieldProfile:
    """Profile of one canonical array; a tensor counts by its elements."""
    values = values.reshape(-1)
    nulls = nulls_of(values)
    known = values[~nulls] if nulls.any() else values
    rows, missing = len(values), len(values) - len(known)
    if dtype is DType.string:
        return _profile_text(name, rows, missing, known)
    if known.dtype.kind == "M":
        known = known.astype("datetime64[us]").astype(np.int64)
    if known.dtype.kind == "O":  # an output of mixed Python values
        known = known.astype(np.float64)
    return _profile_numbers(name, dtype, rows, missing, known)


def _profile_text(name: str, rows: int, nulls: int, known: Array) -> FieldProfile:
    counted = Counter(map(str, known.tolist()))
    frequent = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:CATEGORIES]
    lengths = np.fromiter(map(len, known.tolist()), dtype=np.float64, count=len(known))
    return FieldProfile(
        name=name,
        dtype=DType.string,
        rows=rows,
        nulls=nulls,
        distinct=len(counted),
        mode=frequent[0][0] if frequent else None,
        quantiles=_quantiles(lengths),
        categories=tuple(frequent),
        other=len(known) - sum(count for _, count in frequent),
    )


def _profile_numbers(name: str, dtype: DType, rows: int, nulls: int, known: Array) -> FieldProfile:
    finite = known[np.isfinite(known)] if known.dtype.kind == "f" else known
    infinite = len(known) - len(finite)
    if len(finite) > ELEMENTS:  # tensors only; a fixed seed keeps the profile the same
        limits = [finite.min(), finite.max()]
        some = np.random.default_rng(0).choice(finite, ELEMENTS - 2)
        finite = np.concatenate([some, np.array(limits, dtype=finite.dtype)])
    values, counts = np.unique(finite, return_counts=True)
    floats = finite.astype(np.float64)
    edges, bins = _bins(floats)
    few = 0 < len(values) <= CATEGORIES and not dtype.is_float and dtype is not DType.timestamp
    order = np.lexsort((values, -counts))
    with np.errstate(all="ignore"):
        mean = float(floats.mean()) if len(floats) else None
        deviation = float(floats.std()) if len(floats) else None
    return FieldProfile(
        name=name,
        dtype=dtype,
        rows=rows,
        nulls=nulls,
        infinite=infinite,
        distinct=len(values),
        mean=_finite(mean),
        deviation=_finite(deviation),
        mode=_plain(dtype, values[order[0]]) if len(values) else None,
        quantiles=_quantiles(floats),
        edges=edges,
        counts=bins,
        categories=tuple((_plain(dtype, values[i]), int(counts[i])) for i in order) if few else (),
    )


def _plain(dtype: DType, value: Any) -> int | float | bool:
    if dtype is DType.bool:
        return bool(value)
    return float(value) if dtype.is_float else int(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _quantiles(floats: Array) -> tuple[float, ...]:
    if len(floats) == 0:
        return ()
    with np.errstate(all="ignore"):
        values = np.quantile(floats, _PERCENT)
    if not np.isfinite(values).all():  # interpolation overflows between huge values
        values = np.quantile(floats, _PERCENT, method="inverted_cdf")
    # Interpolation may leave the extremes, and the order, by one rounding step.
    values = np.maximum.accumulate(np.clip(values, floats.min(), floats.max()))
    return tuple(values.tolist())


def _bins(floats: Array) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if len(floats) == 0:
        return (), ()
    cuts = np.quantile(floats, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = np.unique(cuts)
    edges = edges[edges < floats.max()]  # the last bin is never empty
    counts = np.bincount(np.searchsorted(edges, floats, side="left"), minlength=len(edges) + 1)
    return tuple(edges.tolist()), tuple(counts.tolist())
