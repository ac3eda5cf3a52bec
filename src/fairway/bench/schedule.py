"""When each request of an open loop is due. Pure: the same seed gives the same moments."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import numpy as np

_CHUNK = 4096


class Arrivals(StrEnum):
    fixed = "fixed"
    """Evenly spaced."""
    poisson = "poisson"
    """Independent of each other, as those of many unrelated callers are: short bursts and gaps."""


def schedule(
    arrivals: Arrivals, rate: float, seconds: float, *, share: int = 0, shares: int = 1, seed: int = 0
) -> Iterator[float]:
    """Seconds from the start, ascending, all below `seconds`, at `rate` a second over all shares.

    `share` of `shares` is one client process's part: every `shares`-th moment of an even schedule, or a Poisson process
    of its own at a `shares`-th of the rate (Poisson processes added up are one again).
    """
    if arrivals is Arrivals.fixed:
        yield from _fixed(rate, seconds, share, shares)
        return
    generator = np.random.default_rng([seed, share])
    last = 0.0
    while True:
        moments = last + np.cumsum(generator.exponential(shares / rate, _CHUNK))
        for moment in moments.tolist():
            if moment >= seconds:
                return
            yield moment
        last = float(moments[-1])


def _fixed(rate: float, seconds: float, share: int, shares: int) -> Iterator[float]:
    number = share
    while (moment := number / rate) < seconds:  # not a running sum, whose error would grow
        yield moment
        number += shares
