"""Infers a data contract from sample data: types, what was seen, and rules that refuse nothing of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from fairway.core.columns import Array, Columns
from fairway.core.conform import EXACT_IN_FLOAT64, conform, frame_arrays, gather, nulls_of
from fairway.core.contract import Category, Contract, DType, Field, Output, Task
from fairway.core.errors import ContractViolation, UnsupportedContent
from fairway.packaging.profile import FieldProfile, profile_field
from fairway.packaging.rules import Refusals, default_rules
from fairway.packaging.source import Sample

TEXT_CATEGORIES = 1000
"""Text with more distinct values than this is free text, not a category."""
ROWS_PER_CATEGORY = 5
"""Text is a category when its values repeat this often on average, or when there are FEW_CATEGORIES."""
FEW_CATEGORIES = 20
INTEGER_CATEGORIES = 20
"""A whole-number field with at most this many values, each seen ten times on average, is a category too."""
REFUSED_CATEGORIES = 100_000
"""Most categories listed for a field in which the model refuses all others."""
_AT = (0, 5, 25, 50, 75, 95, 100)


def infer_contract(
    sample: Sample,
    *,
    outputs: tuple[Output, ...] = (),
    task: Task = Task.other,
    target: str | None = None,
    refused: Refusals | None = None,
) -> Contract:
    """The contract of `sample`: scalar fields in column order, then tensors.

    `refused` names what the original model cannot work with; those rules reject even what was seen.
    """
    refused = refused or Refusals()
    arrays = sample_arrays(sample)
    inputs = [
        _scalar_field(
            name, field_dtype(sample, name, arrays[name]), arrays[name], sample.frame[name], refused
        )
        for name in map(str, sample.frame.columns)
    ]
    inputs += [_tensor_field(name, sample.tensors[name]) for name in sample.tensors]
    return Contract(inputs=tuple(inputs), outputs=outputs, task=task, target=target)


def sample_arrays(sample: Sample) -> dict[str, Array]:
    """The sample's inputs as arrays by name, not yet conformed to a contract."""
    return frame_arrays(sample.frame) | sample.tensors


def sample_columns(contract: Contract, sample: Sample) -> Columns:
    """The sample as canonical columns of `contract`, nulls included even where its rules would reject them.

    Raises ContractViolation when the sample's types do not fit.
    """
    arrays, problems = [], []
    given = sample_arrays(sample)
    for field in contract:
        values, found = conform(field, given[field.name])
        arrays.append(values)
        problems += found
    if problems:
        raise ContractViolation("The sample data does not fit the contract.", tuple(problems[:100]))
    return gather(contract, arrays)


def field_dtype(sample: Sample, name: str, values: Array) -> DType:
    """The contract's dtype of a column; `values` are its canonical array."""
    dtype: Any = sample.frame[name].dtype
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    known = sample.dtypes.get(name)
    if known is None:
        kind = getattr(dtype, "kind", "O")
        if kind == "M":
            known = DType.timestamp
        elif kind in "biuf":
            known = DType(np.dtype(getattr(dtype, "numpy_dtype", dtype)).name)
        else:
            known = DType.string
    if known.is_integer and _is_beyond_float(values):
        return DType.float64  # nulls make it float64, which no longer tells such whole numbers apart
    return known


def _is_beyond_float(values: Array) -> bool:
    if values.dtype.kind != "f":
        return False
    return bool((np.abs(values[np.isfinite(values)]) > EXACT_IN_FLOAT64).any())


def _scalar_field(name: str, dtype: DType, values: Array, series: Any, refused: Refusals) -> Field:
    nullable = bool(nulls_of(values).any())
    conformed, problems = conform(Field(name=name, dtype=dtype, nullable=nullable), values)
    if problems:
        raise UnsupportedContent(
            f"column {name!r} holds values of several kinds: row {problems[0].row}: {problems[0].reason}."
        )
    profile = profile_field(name, dtype, conformed)
    categories = _categories(profile, conformed, series, must_list=name in refused.categories)
    numeric = dtype.is_integer or dtype.is_float
    ranged = (numeric or dtype is DType.timestamp) and bool(profile.quantiles)
    return Field(
        name=name,
        dtype=dtype,
        nullable=nullable,
        minimum=profile.minimum if ranged else None,
        # Time moves on: a limit on the latest moment would warn about every request from tomorrow on.
        maximum=profile.maximum if ranged and dtype is not DType.timestamp else None,
        quantiles=tuple(profile.quantiles[i] for i in _AT) if ranged else (),
        fence=outlier_fence(profile.quantiles) if numeric and not categories else None,
        categories=categories,
        missing_rate=profile.nulls / profile.rows if profile.rows else 0.0,
        rules=default_rules(
            profile,
            refuses_null=name in refused.nulls,
            refuses_unseen=name in refused.categories and len(categories) > 0,
        ),
    )


def _tensor_field(name: str, values: Array) -> Field:
    dtype = DType(values.dtype.name)
    profile = profile_field(name, dtype, values)
    rows = len(values)
    missing = nulls_of(values).reshape(rows, -1).any(axis=1).sum() if profile.nulls else 0
    ranged = bool(profile.quantiles) and dtype is not DType.bool
    return Field(
        name=name,
        dtype=dtype,
        shape=tuple(values.shape[1:]),
        nullable=profile.nulls > 0,
        minimum=profile.minimum if ranged else None,
        maximum=profile.maximum if ranged else None,
        quantiles=tuple(profile.quantiles[i] for i in _AT) if ranged else (),
        missing_rate=float(missing) / rows if rows else 0.0,
        rules=default_rules(profile, refuses_null=False, refuses_unseen=False),
    )


def outlier_fence(quantiles: tuple[float, ...]) -> tuple[float, float] | None:
    """Tukey's outer fence: three interquartile ranges beyond the quartiles. `quantiles` are percentiles, 0 to 100.

    Where half the values are equal the interquartile range is 0 and the fence would flag everything else;
    then the range from the 5th to the 95th percentile stands in, and if that is 0 too there is no fence.
    Source: J. W. Tukey, Exploratory Data Analysis, Addison-Wesley 1977, section 2D.
    """
    if not quantiles:
        return None
    for low, high in ((25, 75), (5, 95)):
        spread = quantiles[high] - quantiles[low]
        if spread > 0:
            fence = (quantiles[low] - 3 * spread, quantiles[high] + 3 * spread)
            return fence if bool(np.isfinite(fence).all()) else None
    return None


def _categories(
    profile: FieldProfile, values: Array, series: Any, *, must_list: bool
) -> tuple[Category, ...]:
    """Categories with their share of the non-null values, most frequent first; empty for what is no category."""
    known = profile.rows - profile.nulls
    if profile.dtype is DType.bool:
        if not known:
            return ()
        share = float(np.nanmean(values.astype(np.float64)))
        both = (Category(value=True, frequency=share), Category(value=False, frequency=1.0 - share))
        return tuple(sorted(both, key=lambda category: -category.frequency))
    levels = series.cat.categories.tolist() if isinstance(series.dtype, pd.CategoricalDtype) else []
    if not (profile.dtype is DType.string or profile.dtype.is_integer):
        return ()
    most = REFUSED_CATEGORIES if must_list else TEXT_CATEGORIES
    listed = bool(levels) or must_list or _repeats(profile, known)
    if not listed or max(profile.distinct, len(levels)) > most:
        return ()
    read: type[int] | type[str] = int if profile.dtype.is_integer else str
    counted: Counter[int | str] = Counter(map(read, values[~nulls_of(values)].tolist()))
    shares = {value: count / known for value, count in counted.items()}
    shares |= {level: 0.0 for level in levels if level not in shares}
    ordered = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Category(value=value, frequency=share) for value, share in ordered)


def _repeats(profile: FieldProfile, known: int) -> bool:
    if profile.dtype.is_integer:
        return 0 < profile.distinct <= INTEGER_CATEGORIES and known >= 10 * profile.distinct
    return 0 < profile.distinct <= FEW_CATEGORIES or known >= ROWS_PER_CATEGORY * profile.distinct > 0
