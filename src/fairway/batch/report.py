"""What a run is told about: counts, times, rejects by reason, the columns against the training data."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from fairway.batch.ledger import FileRecord, Part, State
from fairway.batch.seen import Column
from fairway.packaging.profile import Profile

_REASONS = 50
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![\w-])[-+]?\d[\d.e+-]*|\bnan\b|\binf\b")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`checksum` is the digest of the digests of all parts in order. `rejects_by_reason` and `broken_rules` are
    "field: what" and how many rows; `logged` went to the prediction log; `failed_files` are paths and reasons; `columns` are the rows beside the training
    data, and `profile` is what they were made of: of the same kind as the reference profile of a bundle."""

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
    profile: Profile | None = None
    logged: int = 0
    notes: tuple[str, ...] = ()


def reason_kind(field: str | None, reason: str) -> str:
    """The reason without the values in it, so that alike ones are counted together."""
    plain = _VALUES.sub("...", reason)
    return f"{field}: {plain}" if field else plain


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
