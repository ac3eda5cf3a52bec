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
    "fairway_counters_overflow": "Counts that found no free counter.",
    "fairway_request_seconds": "Time from a request's last byte to its answer's first, seconds.",
    "fairway_model_info": "Versions loaded, with their digest.",
}


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
        sums = {_key(labels): value for labels, value in families.pop("fairway_request_seconds_sum", [])}
        yield _histogram(families.pop("fairway_request_seconds_bucket", []), sums)
        for name, samples in sorted(families.items()):
            base = name.removesuffix("_total")
            names = sorted({label for labels, _ in samples for label in labels})
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(base, _HELP.get(base, base), labels=names)
            for labels, value in samples:
                amount = min(value, 1.0) if kind is GaugeMetricFamily else value
                family.add_metric([labels.get(label, "") for label in names], amount)
            yield family


def _key(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels["model"], labels["version"]


def _histogram(
    buckets: list[tuple[dict[str, str], float]], sums: Mapping[tuple[str, str], float]
) -> HistogramMetricFamily:
    name = "fairway_request_seconds"
    family = HistogramMetricFamily(name, _HELP[name], labels=["model", "version"])
    groups: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for labels, value in buckets:
        groups.setdefault(_key(labels), []).append((labels["le"], value))
    for key, counts in groups.items():
        reached, cumulative = 0.0, []
        for bound, count in sorted(counts, key=lambda pair: float(pair[0])):
            reached += count
            cumulative.append((bound, reached))
        family.add_metric(list(key), cumulative, sums.get(key, 0.0))
    return family
