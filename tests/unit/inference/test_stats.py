from fairway.inference.stats import BUCKETS, VersionStats, count_dropped, count_failure
from fairway.stores.counters import Counters

LABELS = (("model", "m"), ("version", "1"))


def test_an_answer_is_counted_with_its_rows_time_and_stages() -> None:
    counters = Counters()
    stats = VersionStats(counters, "m", 1, "sha256:x")
    stats.answered("rest", 5, (0.0001, 0.0002, 0.0005, 0.0001))
    stats.answered("rest", 1, (0.0, 0.0, 99.0, 0.0))
    stats.answered("python", 1, (0.0, 0.0, 0.0, 0.0))
    totals = counters.totals()
    assert totals["fairway_requests_total", (*LABELS, ("protocol", "rest"), ("code", "ok"))] == 2
    assert totals["fairway_requests_total", (*LABELS, ("protocol", "python"), ("code", "ok"))] == 1
    assert totals["fairway_rows_total", LABELS] == 7
    buckets = {
        le: totals["fairway_request_seconds_bucket", (*LABELS, ("le", le))]
        for le in [*map(str, BUCKETS), "+Inf"]
    }
    assert {le: count for le, count in buckets.items() if count} == {"0.0001": 1, "0.001": 1, "+Inf": 1}
    stages = {
        stage: totals["fairway_stage_seconds_total", (*LABELS, ("stage", stage))]
        for stage in ("parse", "validate", "run", "encode")
    }
    assert stages == {"parse": 0.0001, "validate": 0.0002, "run": 99.0005, "encode": 0.0001}
    assert abs(totals["fairway_request_seconds_sum", LABELS] - 99.0009) < 1e-9
    assert totals["fairway_model_info", (*LABELS, ("digest", "sha256:x"))] == 1


def test_stages_keep_their_slots_whatever_else_is_counted_meanwhile() -> None:
    counters = Counters()
    first, second = VersionStats(counters, "m", 1, "x"), VersionStats(counters, "m", 2, "y")
    first.answered("rest", 1, (1.0, 2.0, 3.0, 4.0))
    second.answered("rest", 1, (10.0, 20.0, 30.0, 40.0))
    totals = counters.totals()
    for version, scale in (("1", 1.0), ("2", 10.0)):
        labels = (("model", "m"), ("version", version))
        for i, stage in enumerate(("parse", "validate", "run", "encode"), 1):
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
    count_dropped(counters, "m", 7)
    totals = counters.totals()
    labels = (("model", "m"), ("version", ""), ("protocol", "rest"), ("code", "malformed_input"))
    assert totals["fairway_requests_total", labels] == 1
    assert totals["fairway_log_dropped_rows_total", (("model", "m"),)] == 7
