"""Requests on their way, alone and together. Values, and how requests are parted into calls."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import FairwayError
from fairway.core.request import Request
from fairway.inference.live import LiveVersion
from fairway.inference.microbatch import Waiting
from fairway.inference.precomputed import Found

now = time.perf_counter


class Work(msgspec.Struct, gc=False):
    """A request on its way. Times are `perf_counter` seconds; `columns` are there once it is validated."""

    request: Request
    version: LiveVersion
    received: float
    parsed: float
    columns: Columns | None = None
    validated: float = 0.0
    origin: Any = None
    """What an entrance wants to find again with the answer."""
    found: Found | None = None
    """Who answers, once that was looked up; None for models without precomputed answers."""
    overloaded: bool = False
    """The model could not be run: what was computed ahead is asked for instead."""

    @property
    def rows(self) -> Columns:
        assert self.columns is not None
        return self.columns


class Ran(msgspec.Struct, frozen=True, gc=False):
    """Requests of one version that one engine call answered. `counts` are each one's rows of `columns` and
    `outputs`, in order."""

    version: LiveVersion
    works: Sequence[Work]
    counts: Sequence[int]
    columns: Columns
    outputs: Outputs
    begun: float
    validated: float
    ended: float
    waited: float = 0.0
    """Seconds between `validated` and the engine's start."""


class Together(msgspec.Struct, frozen=True, gc=False):
    """Requests of one version, validated as one, whose call takes long: to `begin_together`. `columns` holds
    `counts` rows of each, in order; the moments are when validating began and ended."""

    version: LiveVersion
    works: Sequence[Work]
    counts: Sequence[int]
    columns: Columns
    begun: float
    validated: float

    def answered(self, waiting: Waiting, answered: Sequence[bool]) -> Ran:
        """What the queue gave, for those of the requests that are to be answered."""
        works, counts, columns, outputs = self.works, self.counts, self.columns, waiting.outputs
        assert outputs is not None
        if not all(answered):
            kept = np.repeat(np.array(answered), counts).nonzero()[0]
            columns, outputs = columns.take(kept), {name: values[kept] for name, values in outputs.items()}
            counts = [count for count, wanted in zip(counts, answered, strict=True) if wanted]
            works = [work for work, wanted in zip(works, answered, strict=True) if wanted]
        waited = waiting.began - self.validated
        return Ran(
            self.version, works, counts, columns, outputs, self.begun, self.validated, waiting.ended, waited
        )


Outcome = Ran | Together | Work | tuple[Work, FairwayError]
"""What became of requests: answered by one call, to `begin_together`, to `begin` alone, or an error."""


def share_out(works: Sequence[Work], columns: Columns, counts: Sequence[int], validated: float) -> None:
    """Gives each request its rows of what was validated together."""
    begin = 0
    for work, count in zip(works, counts, strict=True):
        work.columns = columns.take(slice(begin, begin + count))
        work.validated = validated
        begin += count


def calls_of(
    version: LiveVersion,
    works: Sequence[Work],
    columns: Columns,
    counts: Sequence[int],
    begun: float,
    validated: float,
) -> Iterator[Together]:
    """The calls to make for requests that were validated as one: in order, as many together as it pays."""
    most = version.merge_rows()
    first = begin = end = 0
    for place, count in enumerate([*counts, most + 1]):
        if place > first and end - begin + count > most:
            rows = columns if end - begin == columns.rows else columns.take(slice(begin, end))
            yield Together(version, works[first:place], counts[first:place], rows, begun, validated)
            first, begin = place, end
        end += count


def groups_of(works: Sequence[Work], most_rows: int) -> list[list[Work]]:
    """Works in order, as many together as have at most `most_rows` rows."""
    groups: list[list[Work]] = []
    rows = math.inf
    for work in works:
        rows += work.rows.rows
        if rows > most_rows:
            groups.append([])
            rows = work.rows.rows
        groups[-1].append(work)
    return groups
