"""What one client process measured, and how the measurements of several become one."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from fairway.bench.histogram import Counted, Histogram

_FLUSH = 4096
_SLOT_BITS = 6
"""Precision over time: 1.6 %, since only a picture is made of it."""

OK = "ok"
TIMEOUT = "timeout"
_TIMED = (OK, TIMEOUT)


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that were due in one stretch of time."""

    latency: Counted
    failed: int


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One process's measurements, or several processes' added up.

    latency           from when a request was due (open loop) or sent (closed loop) to its answer: every 2xx, and every
                      timeout at the time it was given up, since leaving those out would make a stall look short
    service           from when it was sent to its answer, every 2xx
    lag               how late the client itself was to send what was due, though a connection was free
    outcomes          requests by `ok`, status, `timeout` or the reason of a broken connection
    waited            requests that were due when no connection was free
    measured_seconds  from the start of the measured time to the last outcome
    busiest           the largest share of a CPU core that any client process used
    """

    latency: Counted
    service: Counted
    lag: Counted
    outcomes: dict[str, int]
    slots: list[Slot]
    waited: int
    reconnected: int
    measured_seconds: float
    busiest: float


class Recorder:
    """Takes every outcome of one process. `slot_seconds` long stretches make the picture over time. What was due in
    the first `warmup` seconds is not recorded; in a closed loop (`by_end`), what ended in them, or a server that hangs
    from its first seconds on would have nothing to show."""

    def __init__(self, warmup: float, slot_seconds: float, *, by_end: bool = False) -> None:
        self._warmup = warmup
        self._by_end = by_end
        self._slot_seconds = slot_seconds
        self._latency, self._service, self._lag = Histogram(), Histogram(), Histogram()
        self._slots: list[Histogram] = []
        self._slot_failures: list[int] = []
        self._outcomes: Counter[str] = Counter()
        self._due: list[float] = []
        self._latencies: list[float] = []
        self._services: list[float] = []
        self._lags: list[float] = []
        self._last = warmup
        self.waited = 0
        self.reconnected = 0

    def measures(self, due: float) -> bool:
        return due >= self._warmup

    def note(self, due: float, sent: float | None, ended: float, outcome: str) -> None:
        """One request's end. Times are seconds from the start; `sent` is None for one that never was,
        or has no answer."""
        if (ended if self._by_end else due) < self._warmup:
            return
        self._outcomes[outcome] += 1
        self._last = max(self._last, ended)
        if outcome in _TIMED:
            self._due.append(max(due, self._warmup))
            self._latencies.append(ended - due)
            if sent is not None:
                self._services.append(ended - sent)
            if len(self._due) >= _FLUSH:
                self.flush()
        if outcome != OK:
            self._slot_failures[self._reach(max(due, self._warmup))] += 1

    def note_lag(self, due: float, seconds: float) -> None:
        if due >= self._warmup:
            self._lags.append(seconds)

    def _reach(self, due: float) -> int:
        """The slot of a moment, which is made if it is the first there."""
        place = int((due - self._warmup) / self._slot_seconds)
        while len(self._slots) <= place:
            self._slots.append(Histogram(_SLOT_BITS))
            self._slot_failures.append(0)
        return place

    def flush(self) -> None:
        if self._due:
            due, latencies = np.array(self._due), np.array(self._latencies)
            self._latency.add(latencies)
            self._service.add(self._services)
            places = ((due - self._warmup) / self._slot_seconds).astype(int)
            for place in np.unique(places).tolist():
                self._reach(self._warmup + (place + 0.5) * self._slot_seconds)
                self._slots[place].add(latencies[places == place])
        self._lag.add(self._lags)
        for buffer in (self._due, self._latencies, self._services, self._lags):
            buffer.clear()

    def tally(self, busy_share: float) -> Tally:
        self.flush()
        return Tally(
            latency=self._latency.counted(),
            service=self._service.counted(),
            lag=self._lag.counted(),
            outcomes=dict(self._outcomes),
            slots=[
                Slot(latency=slot.counted(), failed=failed)
                for slot, failed in zip(self._slots, self._slot_failures, strict=True)
            ],
            waited=self.waited,
            reconnected=self.reconnected,
            measured_seconds=self._last - self._warmup,
            busiest=busy_share,
        )


def added_up(tallies: list[Tally]) -> Tally:
    """All processes' measurements as one."""
    outcomes: Counter[str] = Counter()
    for tally in tallies:
        outcomes.update(tally.outcomes)
    count = max(len(tally.slots) for tally in tallies)
    slots = [[tally.slots[i] for tally in tallies if i < len(tally.slots)] for i in range(count)]
    return Tally(
        latency=_sum([tally.latency for tally in tallies]),
        service=_sum([tally.service for tally in tallies]),
        lag=_sum([tally.lag for tally in tallies]),
        outcomes=dict(outcomes),
        slots=[
            Slot(latency=_sum([slot.latency for slot in same]), failed=sum(slot.failed for slot in same))
            for same in slots
        ],
        waited=sum(tally.waited for tally in tallies),
        reconnected=sum(tally.reconnected for tally in tallies),
        measured_seconds=max(tally.measured_seconds for tally in tallies),
        busiest=max(tally.busiest for tally in tallies),
    )


def _sum(parts: list[Counted]) -> Counted:
    total = Histogram.of(parts[0])
    for part in parts[1:]:
        total.merge(Histogram.of(part))
    return total.counted()
