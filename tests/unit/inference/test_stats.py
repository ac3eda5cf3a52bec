from fairway.inference.stats import (
    BUCKETS,
    STAGES,
    LogCounts,
    Spent,
    VersionStats,
    count_failure,
    queue_depth,
)
from fairway.stores.counters import Counters

LABELS = (("model", "m"), ("version", "1"))


def test_an_answer_is_counted_with_its_rows_time_and_stages() -> None:
    counters = Counters()
    stats = VersionStats(counters, "m", 1, "sha256:x")
    stats.answered("rest", 5, Spent(0.0001, 0.0002, 0.1, 0.0005, 0.0001), [0.00095, 0.00005])
    stats.answered("rest", 1, Spent(0.0, 0.0, 0.0, 99.0, 0.0), [99.0])
    stats.answered("python", 1, Spent(0.0, 0.0, 0.0, 0.0, 0.0), [0.0])
    totals = counters.totals()
    assert totals["fairway_requests_total", (*LABELS, ("protocol", "rest"), ("code", "ok"))] == 3
    assert totals["fairway_requests_total", (*LABELS, ("protocol", "python"), ("code", "ok"))] == 1
    rest = (*LABELS, ("protocol", "rest"))
    assert totals["fairway_rows_total", rest] == 6
    buckets = {
        le: totals["fairway_request_seconds_bucket", (*rest, ("le", le))]
        for le in [*map(str, BUCKETS), "+Inf"]
    }
    assert {le: count for le, count in buckets.items() if count} == {"0.0001": 1, "0.001": 1, "+Inf": 1}
    stages = {stage: totals["fairway_stage_seconds_total", (*rest, ("stage", stage))] for stage in STAGES}
    assert stages == {"parse": 0.0001, "validate": 0.0002, "queue": 0.1, "run": 99.0005, "encode": 0.0001}
    assert abs(totals["fairway_request_seconds_sum", rest] - 99.001) < 1e-9
    assert totals["fairway_model_info", (*LABELS, ("digest", "sha256:x"))] == 1


def test_stages_keep_their_slots_whatever_else_is_counted_meanwhile() -> None:
    counters = Counters()
    first, second = VersionStats(counters, "m", 1, "x"), VersionStats(counters, "m", 2, "y")
    first.answered("rest", 1, Spent(1.0, 2.0, 3.0, 4.0, 5.0), [1.0])
    second.answered("rest", 1, Spent(10.0, 20.0, 30.0, 40.0, 50.0), [1.0])
    totals = counters.totals()
    for version, scale in (("1", 1.0), ("2", 10.0)):
        labels = (("model", "m"), ("version", version), ("protocol", "rest"))
        for i, stage in enumerate(STAGES, 1):
            assert totals["fairway_stage_seconds_total", (*labels, ("stage", stage))] == scale * i


def test_broken_rules_and_refusals_by_field() -> None:
    counters = Counters()
    stats = VersionStats(counters, "m", 1, "x")
    stats.broken("amount", "on_range", 3)
    stats.broken("amount", "on_range", 1)
    stats.rejected("amount", 2)
    totals = counters.totals()
    assert totals["fairway_field_violations_total", (*LABELS, ("field", "amount"), ("rule", "on_range"))] == 4
    assert totals["fairway_field_violations_total", (*LABELS, ("field", "amount"), ("rule", "rejected"))] == 2


def test_failures_and_drops() -> None:
    counters = Counters()
    count_failure(counters, "m", "", "rest", "malformed_input")
    LogCounts(counters).dropped("m", 7)
    totals = counters.totals()
    labels = (("model", "m"), ("version", ""), ("protocol", "rest"), ("code", "malformed_input"))
    assert totals["fairway_requests_total", labels] == 1
    assert totals["fairway_log_dropped_rows_total", (("model", "m"),)] == 7


def test_engine_calls_by_their_rows_and_requests() -> None:
    counters = Counters()
    stats = VersionStats(counters, "m", 1, "x")
    for rows, requests in ((1, 1), (2, 1), (3, 3), (16384, 1), (16385, 1)):
        stats.called(rows, requests)
    totals = counters.totals()
    buckets = {
        dict(labels)["le"]: count
        for (name, labels), count in totals.items()
        if name == "fairway_batch_rows_bucket" and count
    }
    assert buckets == {"1": 1, "2": 1, "4": 1, "16384": 1, "+Inf": 1}
    assert totals["fairway_batch_rows_sum", LABELS] == 1 + 2 + 3 + 16384 + 16385
    assert totals["fairway_merged_requests_total", LABELS] == 3


def test_the_depth_of_a_queue_goes_up_and_down() -> None:
    counters = Counters()
    changed = queue_depth(counters, "m", 1)
    for change in (1, 1, -1):
        changed(change)
    assert counters.totals()["fairway_queue_requests", LABELS] == 1
