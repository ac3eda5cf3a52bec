"""Rows of a window: as sketches, and at most so many as they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from fairway.core.contract import Contract
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.watch.frame import Frame, frame_kinds, frame_of, together

_SEED = 7


class Sample:
    """At most `most` of the rows that it is given, each with the same chance, whatever batch it came in; the same ones of
    the same rows. Memory is bounded by `most` and one batch."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._random = np.random.default_rng(_SEED)
        self._share = 1.0
        self.batches: list[pa.RecordBatch] = []
        self.rows = 0

    def take(self, batch: pa.RecordBatch) -> None:
        if self._share < 1.0:
            batch = thinned(batch, self._share, self._random)
        if batch.num_rows == 0:
            return
        self.batches.append(batch)
        self.rows += batch.num_rows
        while self.rows > self._most:
            self._share /= 2
            self.batches = [kept for b in self.batches if (kept := thinned(b, 0.5, self._random)).num_rows]
            self.rows = sum(b.num_rows for b in self.batches)

    def frame(self, contract: Contract) -> Frame:
        if not self.batches:
            return Frame(pa.table({}), (), (), pa.table({}))
        return frame_of(together(self.batches), contract)


def thinned(batch: pa.RecordBatch, share: float, random: np.random.Generator) -> pa.RecordBatch:
    """Each row with this chance."""
    return batch.filter(pa.array(random.random(batch.num_rows) < share))


class Gathered:
    """A window's rows as they are read: at most `most` are held, and a `share` of all goes into the sketches."""

    def __init__(self, contract: Contract, most: int, share: float = 1.0) -> None:
        self._contract = contract
        self._sample = Sample(most)
        self._share = share
        self._random = np.random.default_rng(_SEED)
        self._profile: Profile | None = None
        self.rows = 0

    @property
    def profile(self) -> Profile:
        return Profile() if self._profile is None else self._profile

    def take(self, batches: Iterable[pa.RecordBatch]) -> None:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            self.rows += batch.num_rows
            self._sample.take(batch)
            part = batch if self._share >= 1 else thinned(batch, self._share, self._random)
            if part.num_rows == 0:
                continue
            frame = frame_of(pa.Table.from_batches([part]), self._contract)
            given = frame.given()
            if self._profile is None:
                self._profile = Profile({})
            self._profile.watch(frame_kinds(frame, self._contract))
            self._profile.update(given.table.select(frame.inputs), counted=False)
            self._profile.update(frame.table.select(frame.outputs), counted=False)
            self._profile.rows += part.num_rows

    def frame(self) -> Frame:
        return self._sample.frame(self._contract)
