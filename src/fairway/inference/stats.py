"""What the request path counts, per version: requests by outcome, rows, time by stage, broken rules."""

from __future__ import annotations

from bisect import bisect_left

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
STAGES = ("parse", "validate", "run", "encode")


class VersionStats:
    """Counters of one version of one model."""

    def __init__(self, counters: Counters, model: str, version: int, digest: str) -> None:
        self._counters = counters
        self._values = counters.values
        self._lock = counters.lock
        self._labels = (("model", model), ("version", str(version)))
        self._answered: dict[str, int] = {}
        self._broken: dict[tuple[str, str], int] = {}
        self._rows = counters.slot("fairway_rows_total", self._labels)
        self._buckets = [
            counters.slot("fairway_request_seconds_bucket", (*self._labels, ("le", str(bound))))
            for bound in BUCKETS
        ]
        self._buckets.append(counters.slot("fairway_request_seconds_bucket", (*self._labels, ("le", "+Inf"))))
        self._sum = counters.slot("fairway_request_seconds_sum", self._labels)
        self._stages = [
            counters.slot("fairway_stage_seconds_total", (*self._labels, ("stage", stage)))
            for stage in STAGES
        ]
        counters.values[counters.slot("fairway_model_info", (*self._labels, ("digest", digest)))] = 1.0

    def answered(self, protocol: str, rows: int, stages: tuple[float, float, float, float]) -> None:
        """One request answered. `stages` are seconds in STAGES order."""
        slot = self._answered.get(protocol)
        if slot is None:
            slot = self._answered[protocol] = self._counters.slot(
                "fairway_requests_total", (*self._labels, ("protocol", protocol), ("code", "ok"))
            )
        parse, validate, run, encode = stages
        total = parse + validate + run + encode
        values = self._values
        with self._lock:
            values[slot] += 1.0
            values[self._rows] += rows
            values[self._buckets[bisect_left(BUCKETS, total)]] += 1.0
            values[self._sum] += total
            first = self._stages[0]  # stages stand in consecutive slots
            values[first] += parse
            values[first + 1] += validate
            values[first + 2] += run
            values[first + 3] += encode

    def broken(self, field: str, rule: str, rows: int) -> None:
        """`rows` values of `field` broke `rule` and were let through, clipped or imputed."""
        slot = self._broken.get((field, rule))
        if slot is None:
            labels = (*self._labels, ("field", field), ("rule", rule))
            slot = self._broken[field, rule] = self._counters.slot("fairway_field_violations_total", labels)
        with self._lock:
            self._values[slot] += rows

    def rejected(self, field: str, rows: int) -> None:
        self.broken(field, "rejected", rows)


def count_failure(counters: Counters, model: str, version: str, protocol: str, code: str) -> None:
    """One request refused or failed."""
    labels = (("model", model), ("version", version), ("protocol", protocol), ("code", code))
    counters.add(counters.slot("fairway_requests_total", labels))


def count_dropped(counters: Counters, model: str, rows: int) -> None:
    """Rows that did not reach the prediction log."""
    counters.add(counters.slot("fairway_log_dropped_rows_total", (("model", model),)), rows)
