"""Prometheus text that Prometheus reads, added up over workers."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fairway.inference.stats import BUCKETS, LogCounts, Spent, VersionStats, count_failure
from fairway.serving.metrics import page
from fairway.stores.counters import Counters


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def count(counters: Counters, requests: int) -> None:
    stats = VersionStats(counters, "m", 1, "sha256:x")
    for _ in range(requests):
        stats.answered("rest", 2, Spent(0.0001, 0.0001, 0.0, 0.0001, 0.0), [0.0003])
    stats.broken('we"ird\\field', "on_range", 3)
    count_failure(counters, "", "", "rest", "model_not_found")
    LogCounts(counters).dropped("m", 4)


def test_an_empty_page_is_a_page() -> None:
    assert samples(page(Counters(), None)) == {("fairway_counters_overflow_total", ()): 0.0}


def test_every_count_has_its_name_labels_and_help() -> None:
    counters = Counters()
    count(counters, 3)
    text = page(counters, None)
    found = samples(text)
    version = (("model", "m"), ("version", "1"))
    assert (
        found["fairway_requests_total", (("code", "ok"), *version[:1], ("protocol", "rest"), *version[1:])]
        == 3
    )
    assert (
        found[
            "fairway_requests_total",
            (("code", "model_not_found"), ("model", ""), ("protocol", "rest"), ("version", "")),
        ]
        == 1
    )
    assert found["fairway_rows_total", (*version[:1], ("protocol", "rest"), *version[1:])] == 6
    assert (
        found[
            "fairway_field_violations_total",
            (("field", 'we"ird\\field'), *version[:1], ("rule", "on_range"), *version[1:]),
        ]
        == 3
    )
    assert found["fairway_log_dropped_rows_total", version[:1]] == 4
    assert found["fairway_model_info", (("digest", "sha256:x"), *version)] == 1
    assert b"# HELP fairway_requests_total Requests by model" in text


def test_the_histogram_is_cumulative_and_ends_in_the_count() -> None:
    counters = Counters()
    stats = VersionStats(counters, "m", 1, "x")
    for seconds in (0.00005, 0.0003, 0.3, 100.0):
        stats.answered("rest", 1, Spent(0.0, 0.0, 0.0, seconds, 0.0), [seconds])
    found = samples(page(counters, None))
    buckets = [
        found[
            "fairway_request_seconds_bucket",
            (("le", le), ("model", "m"), ("protocol", "rest"), ("version", "1")),
        ]
        for le in [*map(str, BUCKETS), "+Inf"]
    ]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[2], buckets[-2], buckets[-1]) == (1, 2, 3, 4)
    assert (
        found["fairway_request_seconds_count", (("model", "m"), ("protocol", "rest"), ("version", "1"))] == 4
    )
    assert (
        abs(
            found["fairway_request_seconds_sum", (("model", "m"), ("protocol", "rest"), ("version", "1"))]
            - 100.30035
        )
        < 1e-9
    )


def test_workers_add_up_except_for_what_is_there_or_not(tmp_path: Path) -> None:
    workers = [Counters(tmp_path) for _ in range(3)]
    for worker in workers:
        count(worker, 2)
    found = samples(page(workers[0], tmp_path))
    version = (("model", "m"), ("version", "1"))
    assert found["fairway_rows_total", (*version[:1], ("protocol", "rest"), *version[1:])] == 12
    assert found["fairway_log_dropped_rows_total", version[:1]] == 12
    assert found["fairway_model_info", (("digest", "sha256:x"), *version)] == 1
    for worker in workers:
        worker.close()
