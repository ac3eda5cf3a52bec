"""What the request path counts, per version: requests by outcome, rows, time by stage, broken rules."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import msgspec

from fairway.stores.counters import Counters

BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the latency histogram, seconds."""
STAGES = ("parse", "validate", "queue", "run", "encode")
BATCH_ROWS = tuple(2**power for power in range(15))
"""Upper bounds of the histogram of rows an engine call has."""


class Spent(msgspec.Struct, frozen=True, gc=False):
    """Seconds of requests' time by stage, added up. `queue` is what a request waited for the others."""

    parse: float
    validate: float
    queue: float
    run: float
    encode: float


class _Slots(msgspec.Struct, frozen=True):
    """Where requests of one protocol are counted."""

    answered: int
    rows: int
    buckets: tuple[int, ...]
    sum: int
    stages: tuple[int, ...]


class VersionStats:
    """Counters of one version of one model."""

    def __init__(self, counters: Counters, model: str, version: int, digest: str) -> None:
        self._counters = counters
        self._values = counters.values
        self._lock = counters.lock
        self._labels = (("model", model), ("version", str(version)))
        self._protocols: dict[str, _Slots] = {}
        self._broken: dict[tuple[str, str], int] = {}
        self.noted: dict[tuple[str, str], int] = {}
        """Rows by field and broken rule that nobody has recorded yet; see `take_noted`."""
        self._nodes: dict[str, tuple[int, int]] = {}
        bounds = [*map(str, BATCH_ROWS), "+Inf"]
        self._calls = [
            counters.slot("fairway_batch_rows_bucket", (*self._labels, ("le", bound))) for bound in bounds
        ]
        self._call_rows = counters.slot("fairway_batch_rows_sum", self._labels)
        self._merged = counters.slot("fairway_merged_requests_total", self._labels)
        counters.values[counters.slot("fairway_model_info", (*self._labels, ("digest", digest)))] = 1.0

    def answered(self, protocol: str, rows: int, spent: Spent, seconds: Sequence[float]) -> None:
        """Requests answered: `seconds` is how long each took, `rows` and `spent` are those of all together."""
        slots = self._protocols.get(protocol)
        if slots is None:
            slots = self._protocols[protocol] = self._slots(protocol)
        values = self._values
        parse, validate, queue, run, encode = slots.stages
        buckets = slots.buckets
        with self._lock:
            values[slots.answered] += len(seconds)
            values[slots.rows] += rows
            for total in seconds:
                values[buckets[bisect_left(BUCKETS, total)]] += 1.0
            values[slots.sum] += sum(seconds)
            values[parse] += spent.parse
            values[validate] += spent.validate
            values[queue] += spent.queue
            values[run] += spent.run
            values[encode] += spent.encode

    def called(self, rows: int, requests: int) -> None:
        """One engine call of `rows` rows, merged from so many requests."""
        with self._lock:
            self._values[self._calls[(rows - 1).bit_length() if rows <= BATCH_ROWS[-1] else -1]] += 1.0
            self._values[self._call_rows] += rows
            if requests > 1:
                self._values[self._merged] += requests

    def merged(self, requests: int) -> None:
        """That many requests share an engine call that is counted for itself."""
        with self._lock:
            self._values[self._merged] += requests

    def _slots(self, protocol: str) -> _Slots:
        slot = self._counters.slot
        labels = (*self._labels, ("protocol", protocol))
        bounds = [*map(str, BUCKETS), "+Inf"]
        return _Slots(
            slot("fairway_requests_total", (*labels, ("code", "ok"))),
            slot("fairway_rows_total", labels),
            tuple(slot("fairway_request_seconds_bucket", (*labels, ("le", bound))) for bound in bounds),
            slot("fairway_request_seconds_sum", labels),
            tuple(slot("fairway_stage_seconds_total", (*labels, ("stage", stage))) for stage in STAGES),
        )

    def node(self, name: str, rows: int, seconds: float) -> None:
        """A node of a pipeline ran once, on `rows` rows."""
        slots = self._nodes.get(name)
        if slots is None:
            labels = (*self._labels, ("node", name))
            slots = self._nodes[name] = (
                self._counters.slot("fairway_node_seconds_total", labels),
                self._counters.slot("fairway_node_rows_total", labels),
            )
        with self._lock:
            self._values[slots[0]] += seconds
            self._values[slots[1]] += rows

    def broken(self, field: str, rule: str, rows: int) -> None:
        """`rows` values of `field` broke `rule` and were let through, clipped or imputed."""
        slot = self._broken.get((field, rule))
        if slot is None:
            labels = (*self._labels, ("field", field), ("rule", rule))
            slot = self._broken[field, rule] = self._counters.slot("fairway_field_violations_total", labels)
        with self._lock:
            self._values[slot] += rows
            self.noted[field, rule] = self.noted.get((field, rule), 0) + rows

    def take_noted(self) -> dict[tuple[str, str], int]:
        """The broken rules since the last time, for whoever records them."""
        with self._lock:
            noted, self.noted = self.noted, {}
        return noted

    def rejected(self, field: str, rows: int) -> None:
        self.broken(field, "rejected", rows)


def count_failure(counters: Counters, model: str, version: str, protocol: str, code: str) -> None:
    """One request refused or failed."""
    labels = (("model", model), ("version", version), ("protocol", protocol), ("code", code))
    counters.add(counters.slot("fairway_requests_total", labels))


class LogCounts:
    """What became of rows for the prediction log."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._failing = counters.slot("fairway_log_failing")

    def dropped(self, model: str, rows: int) -> None:
        self._add("fairway_log_dropped_rows_total", model, rows)

    def passed_over(self, model: str, rows: int) -> None:
        self._add("fairway_log_passed_over_rows_total", model, rows)

    def removed(self, model: str, segments: int) -> None:
        """Segments that had to make room for newer ones before they were compacted."""
        self._add("fairway_log_removed_segments_total", model, segments)

    def written(self, model: str, rows: int, size: int) -> None:
        self._add("fairway_log_rows_total", model, rows)
        self._add("fairway_log_bytes_total", model, size)

    def failing(self, failing: bool) -> None:
        self._counters.values[self._failing] = float(failing)

    def _add(self, name: str, model: str, amount: int) -> None:
        self._counters.add(self._counters.slot(name, (("model", model),)), amount)


def queue_depth(counters: Counters, model: str, version: int) -> Callable[[int], None]:
    """Told by how many the calls that wait for a version became more."""
    slot = counters.slot("fairway_queue_requests", (("model", model), ("version", str(version))))
    return lambda change: counters.add(slot, float(change))
