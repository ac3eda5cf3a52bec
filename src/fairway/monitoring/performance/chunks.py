"""Cutting a table into chunks by rows or by time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput

MOST = 10_000
"""Most chunks of one report."""
_LENGTHS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_NAMES = {"minute": "1m", "hour": "1h", "day": "1d", "week": "1w"}
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_SECOND = 1_000_000


class Chunk(msgspec.Struct, frozen=True):
    """Rows `first` up to, not including, `last`. `start` and `end` are the same as a person says them: the same
    numbers, or the times (ISO 8601, UTC) where chunks are periods."""

    first: int
    last: int
    start: int | str
    end: int | str

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last)


class Cut(msgspec.Struct, frozen=True):
    """`rows` of each chunk, or the `seconds` of a period; `month` is a calendar month."""

    rows: int = 0
    seconds: int = 0
    month: bool = False

    @property
    def by_time(self) -> bool:
        return self.rows == 0


def parse_cut(text: str | int) -> Cut:
    """`5000`, or `30m`, `6h`, `1d`, `2w`, `hour`, `day`, `week`, `month`. Raises InvalidInput for anything else."""
    said = str(text).strip().lower().replace(",", "").replace("_", "")
    if said.isdigit() and int(said) > 0:
        return Cut(rows=int(said))
    if said in ("month", "1mo"):
        return Cut(month=True)
    found = re.fullmatch(r"(\d+)([mhdw])", _NAMES.get(said, said))
    if found is None or int(found[1]) == 0:
        raise InvalidInput(
            f"chunks cannot be {text!r}: give a number of rows such as 5000, or a period such as 6h, 1d, week or month."
        )
    return Cut(seconds=int(found[1]) * _LENGTHS[found[2]])


def cut_rows(rows: int, size: int) -> list[Chunk]:
    """The last chunk holds what is left."""
    _check_number(-(-rows // size))
    return [Chunk(i, min(i + size, rows), i, min(i + size, rows)) for i in range(0, rows, size)]


def cut_time(times: Array, cut: Cut) -> list[Chunk]:
    """`times` `[n]` are datetime64, rising; periods begin at whole ones (weeks on Monday), in UTC. Periods without rows
    are left out."""
    if len(times) == 0:
        return []
    micros = times.astype("datetime64[us]").astype(np.int64)
    if cut.month:
        number = times.astype("datetime64[M]").astype(np.int64)
    else:
        begin = int(_MONDAY.timestamp()) * _SECOND
        number = (micros - begin) // (cut.seconds * _SECOND)
    kinds, first = np.unique(number, return_index=True)
    _check_number(len(kinds))
    ends = np.append(first[1:], len(times))
    return [
        Chunk(int(a), int(b), *(_said(edge) for edge in _edges(int(kind), cut)))
        for kind, a, b in zip(kinds, first, ends, strict=True)
    ]


def _edges(kind: int, cut: Cut) -> tuple[datetime, datetime]:
    if cut.month:
        return _month(kind), _month(kind + 1)
    start = _MONDAY + timedelta(seconds=kind * cut.seconds)
    return start, start + timedelta(seconds=cut.seconds)


def _month(number: int) -> datetime:
    return datetime(1970 + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _said(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _check_number(chunks: int) -> None:
    if chunks > MOST:
        raise InvalidInput(
            f"that makes {chunks:,} chunks; at most {MOST:,} fit a report: cut it into larger ones."
        )
