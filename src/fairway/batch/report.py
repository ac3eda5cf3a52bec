"""What a run is told about: counts, times, rejects by reason, the columns against the training data."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from fairway.batch.ledger import FileRecord, Part, State
from fairway.core.columns import Array
from fairway.core.contract import Contract, Field

_REASONS = 50
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\d.e+-]*|\bnan\b|\binf\b")
_FAR = sys.float_info.max
"""In place of infinity, which JSON has no form for."""
_LOW, _HIGH = 1, 5
"""Places of the 5% and 95% quantiles in `Field.quantiles`."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A numeric column of the input, by about 500 rows a chunk, beside the training data. `outside` is the share below
    the training data's 5% or above its 95% quantile, which is 0.1 there."""

    name: str
    rows: int
    nulls: float
    training_nulls: float
    mean: float | None
    minimum: float | None
    maximum: float | None
    outside: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`checksum` is the digest of the digests of all parts in order. `rejects_by_reason` and `broken_rules` are
    "field: what" and how many rows; `failed_files` are paths and reasons."""

    run: str
    model: str
    version: int
    digest: str
    state: State
    reason: str
    input: str
    output: str
    rejects: str
    rows: int
    scored: int
    rejected: int
    files: int
    failed_files: tuple[tuple[str, str], ...]
    parts: int
    bytes: int
    checksum: str
    seconds: float
    rows_per_second: float
    engine: str
    rejects_by_reason: dict[str, int]
    broken_rules: dict[str, int]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def reason_kind(field: str | None, reason: str) -> str:
    """The reason without the values in it, so that alike ones are counted together."""
    plain = _VALUES.sub("...", reason)
    return f"{field}: {plain}" if field else plain


def fields_seen(contract: Contract) -> list[Field]:
    """Fields that `see` sums up, in its order."""
    return list(contract) if contract.is_matrix else []


def see(contract: Contract, sample: Array) -> list[list[float]]:
    """`[rows, nulls, sum, minimum, maximum, outside]` of each column of `sample` `[s, fields]`; sums that add up."""
    rows = len(sample)
    nulls = np.isnan(sample)
    known = np.where(nulls, 0.0, sample).astype(np.float64)
    low = np.where(nulls, _FAR, sample.astype(np.float64)).min(axis=0, initial=_FAR)
    high = np.where(nulls, -_FAR, sample.astype(np.float64)).max(axis=0, initial=-_FAR)
    seen = []
    for i, field in enumerate(contract):
        outside = 0
        if len(field.quantiles) > _HIGH:
            column = sample[:, i]
            outside = int(((column < field.quantiles[_LOW]) | (column > field.quantiles[_HIGH])).sum())
        total = np.nan_to_num(known[:, i]).sum()
        seen.append(
            [
                rows,
                int(nulls[:, i].sum()),
                float(total),
                max(float(low[i]), -_FAR),
                min(float(high[i]), _FAR),
                outside,
            ]
        )
    return seen


def add_seen(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> list[list[float]]:
    if not one or not other:
        return [list(each) for each in one or other]
    return [
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4]), a[5] + b[5]]
        for a, b in zip(one, other, strict=True)
    ]


def summarise(contract: Contract, parts: Iterable[Part]) -> tuple[Column, ...]:
    total: list[list[float]] = []
    for part in parts:
        total = add_seen(total, part.seen)
    columns = []
    for field, (rows, nulls, sums, low, high, outside) in zip(fields_seen(contract), total, strict=False):
        known = rows - nulls
        columns.append(
            Column(
                name=field.name,
                rows=int(rows),
                nulls=nulls / rows if rows else 0.0,
                training_nulls=field.missing_rate,
                mean=sums / known if known else None,
                minimum=low if low < _FAR else None,
                maximum=high if high > -_FAR else None,
                outside=outside / known if known and len(field.quantiles) > _HIGH else None,
            )
        )
    return tuple(columns)


def checksum(parts: Sequence[Part]) -> str:
    return hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()


def counts(parts: Iterable[Part], name: str) -> dict[str, int]:
    """`rejected` or `broken` of all parts, the most frequent first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(getattr(part, name))
    return dict(total.most_common(_REASONS))


def failed(files: Iterable[FileRecord]) -> tuple[tuple[str, str], ...]:
    return tuple((record.file.path, record.reason) for record in files if record.state == "failed")
