"""Counters of every worker as one Prometheus text page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fairway.stores.counters import Counters, Key, read_totals

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "fairway_requests": "Requests by model, version, protocol and outcome.",
    "fairway_rows": "Rows predicted.",
    "fairway_stage_seconds": "Seconds spent per stage of the request path.",
    "fairway_field_violations": "Values that broke a contract rule, by field and rule.",
    "fairway_log_dropped_rows": "Rows that did not reach the prediction log.",
    "fairway_log_passed_over_rows": "Rows not recorded because more came than log.bytes_per_second.",
    "fairway_log_rows": "Rows written to the prediction log.",
    "fairway_log_bytes": "Bytes written to the prediction log.",
    "fairway_log_removed_segments": "Segments of the prediction log that made room before they were compacted.",
    "fairway_log_failing": "Workers that cannot write the prediction log now.",
    "fairway_feedback_labels": "Labels that came as feedback, by outcome: accepted or rejected.",
    "fairway_counters_overflow": "Counts that found no free counter.",
    "fairway_request_seconds": "Time from a request's last byte to its answer's first, seconds.",
    "fairway_batch_rows": "Rows of an engine call.",
    "fairway_merged_requests": "Requests that were answered by an engine call made for several.",
    "fairway_queue_requests": "Requests that wait for a model now.",
    "fairway_cache_hits": "Requests answered from the response cache.",
    "fairway_cache_misses": "Requests that the response cache had no answer to.",
    "fairway_cache_evicted": "Answers the response cache let go to make room.",
    "fairway_cache_bytes": "Bytes the response cache holds now.",
    "fairway_answers": "Requests of models with precomputed answers, by who answered.",
    "fairway_answers_missed": "Requests that were not simply given their stored answer, by why.",
    "fairway_answers_overload": "Requests that a stored answer was given to because the model was overloaded.",
    "fairway_answers_age_seconds": "Age of the stored answers that were given, seconds.",
    "fairway_answers_store_up": "Whether the store of precomputed answers can be asked: 1 or 0, added up over the workers.",
    "fairway_node_seconds": "Seconds a node of a pipeline took, without the nodes it read.",
    "fairway_node_rows": "Rows that a node of a pipeline was run for.",
    "fairway_model_info": "Versions loaded, with their digest.",
    "fairway_model_loads": "Versions loaded, by all workers together.",
    "fairway_model_unloads": "Versions unloaded, by all workers together.",
    "fairway_model_memory_bytes": "Memory that loading a version was seen to take, in all workers together.",
    "fairway_reload_failures": "Times that a worker could not serve a model as the registry has it.",
    "fairway_registry_up": "Whether the registry can be seen: 1, or 0 while serving goes on without it.",
}
_FLAGS = frozenset(["fairway_model_info", "fairway_registry_up"])
"""Gauges that every worker sets to 1 for the same thing."""


def described_metrics() -> Mapping[str, str]:
    """What there is on the page, without the suffix of its kind, and what it means."""
    return _HELP


def page(counters: Counters, directory: Path | None) -> bytes:
    """The /metrics page: this process's counters, or every worker's below `directory`."""
    totals = counters.totals() if directory is None else read_totals(directory)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Totals(totals))
    return generate_latest(registry)


class _Totals:
    def __init__(self, totals: Mapping[Key, float]) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        families: dict[str, list[tuple[dict[str, str], float]]] = {}
        for (name, pairs), value in self._totals.items():
            families.setdefault(name, []).append((dict(pairs), value))
        for name in [name for name in families if name.endswith("_bucket")]:
            base = name.removesuffix("_bucket")
            yield _histogram(base, families.pop(name), families.pop(f"{base}_sum", []))
        for name, samples in sorted(families.items()):
            base = name.removesuffix("_total")
            names = sorted({label for labels, _ in samples for label in labels})
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(base, _HELP.get(base, base), labels=names)
            for labels, value in samples:
                amount = min(value, 1.0) if name in _FLAGS else value
                family.add_metric([labels.get(label, "") for label in names], amount)
            yield family


def _histogram(
    name: str,
    buckets: list[tuple[dict[str, str], float]],
    sums: list[tuple[dict[str, str], float]],
) -> HistogramMetricFamily:
    names = sorted({label for labels, _ in buckets for label in labels if label != "le"})
    family = HistogramMetricFamily(name, _HELP.get(name, name), labels=names)

    def key(labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(labels[name] for name in names)

    totals = {key(labels): value for labels, value in sums}
    groups: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for labels, value in buckets:
        groups.setdefault(key(labels), []).append((labels["le"], value))
    for which, counts in groups.items():
        reached, cumulative = 0.0, []
        for bound, count in sorted(counts, key=lambda pair: float(pair[0])):
            reached += count
            cumulative.append((bound, reached))
        family.add_metric(list(which), cumulative, totals.get(which, 0.0))
    return family
