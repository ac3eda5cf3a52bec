"""`fairway stream`: one measure, value by value, as rows come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from fairway.core.errors import InvalidInput, MalformedInput
from fairway.monitoring.drift.online import Stream
from fairway.monitoring.tables import open_table

_ROWS = 10_000
_LONGEST = 1024 * 1024


class Told(msgspec.Struct, frozen=True):
    """A change that a detector told: at which row, counted from 0, by which value."""

    row: int
    value: float


def changes(stream: Stream, values: Iterable[float | None]) -> Iterator[Told]:
    """What `stream` tells while `values` come. A row without a number is counted and passed over. InvalidInput at the end
    when no row had one."""
    for row, value in enumerate(values):
        if value is not None and stream.update(value):
            yield Told(row, value)
    if not stream.seen:
        raise InvalidInput("no row has a number in that column.")


def values_in(path: Path, column: str) -> Iterator[float | None]:
    """Of a file: Parquet, Arrow, CSV or JSON Lines. InvalidInput where there is no such column."""
    table = open_table(path)
    if column not in table.names:
        raise InvalidInput(f"{path} has no column {column!r}; it has: {', '.join(table.names[:30])}.")
    found = table.column(column)
    for start in range(0, len(found), _ROWS):
        yield from map(_number, found.slice(start, _ROWS).to_pylist())


def values_read(lines: IO[bytes], column: str) -> Iterator[float | None]:
    """Of JSON objects as they come, one a line. MalformedInput for a line that is none."""
    number = 0
    while line := lines.readline(_LONGEST):
        number += 1
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise MalformedInput(f"line {number} is no JSON object: {error}.") from error
        yield _number(row.get(column))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
