"""Alert rules for Prometheus over what servers count. Pure; `fairway monitor rules` prints them.

Drift, quality and performance are not here: they become incidents, which the Alertmanager channel tells Alertmanager of.
These are for what a server itself can no longer tell: that it fails, is slow, or is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import msgspec

_METRIC = re.compile(r"\bfairway_[a-z_]+")
_TEXT = re.compile(r'"[^"]*"')
_SUFFIXES = ("_total", "_bucket", "_sum", "_count")


class PrometheusAlert(msgspec.Struct, frozen=True):
    name: str
    expression: str
    minutes: int
    """How long the expression must hold."""
    severity: str
    summary: str
    """May use the labels: `{{ $labels.model }}`."""
    mend: str
    """What to do."""


def metric_names(expression: str) -> tuple[str, ...]:
    """Fairway's metrics in a PromQL expression, as `serving.metrics` names them: without the suffix of their kind."""
    found = (_base(name) for name in _METRIC.findall(_TEXT.sub("", expression)))
    return tuple(dict.fromkeys(found))


def _base(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def alerts(server_codes: Iterable[str], job: str = "fairway") -> tuple[PrometheusAlert, ...]:
    """`server_codes` are the error codes that are the server's fault and not the caller's; `job` is what the scrape job is
    called in prometheus.yml."""
    return (_down(job), _failures(server_codes), *_TRAFFIC, *_SERVERS)


def _down(job: str) -> PrometheusAlert:
    return PrometheusAlert(
        "FairwayDown",
        f'up{{job="{job}"}} == 0',
        2,
        "critical",
        "{{ $labels.instance }} does not answer Prometheus",
        "Look at its log; `fairway doctor` on its machine names what is wrong.",
    )


def _failures(server_codes: Iterable[str]) -> PrometheusAlert:
    failures = "|".join(sorted(server_codes))
    return PrometheusAlert(
        "FairwayFailures",
        f'sum by (model) (rate(fairway_requests_total{{code=~"{failures}"}}[5m]))'
        " / sum by (model) (rate(fairway_requests_total[5m])) > 0.02",
        5,
        "critical",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} fail through no fault of their callers",
        "`fairway_requests_total` by `code` says how; the log has the request ids.",
    )


_TRAFFIC = (
    PrometheusAlert(
        "FairwayOverloaded",
        'sum by (model) (rate(fairway_requests_total{code="overloaded"}[5m]))'
        " / sum by (model) (rate(fairway_requests_total[5m])) > 0.01",
        5,
        "warning",
        "{{ $labels.model }} turns away {{ $value | humanizePercentage }} of its requests",
        "Start more workers (serving.workers) or machines.",
    ),
    PrometheusAlert(
        "FairwaySlow",
        "histogram_quantile(0.99, sum by (model, le) (rate(fairway_request_seconds_bucket[10m]))) > 0.05"
        " and histogram_quantile(0.99, sum by (model, le) (rate(fairway_request_seconds_bucket[10m])))"
        " > 3 * histogram_quantile(0.99, sum by (model, le) (rate(fairway_request_seconds_bucket[1d] offset 1h)))",
        10,
        "warning",
        "the slowest hundredth of {{ $labels.model }} takes {{ $value | humanizeDuration }}, three times what it took in the day before",
        "`fairway_stage_seconds_total` says in which stage; `Server-Timing` says it of one request.",
    ),
    PrometheusAlert(
        "FairwayQueueing",
        "sum by (model) (fairway_queue_requests) > 100",
        5,
        "warning",
        "{{ $value }} requests wait for {{ $labels.model }}",
        "Start more workers (serving.workers) or machines.",
    ),
    PrometheusAlert(
        "FairwayNoTraffic",
        "sum by (model) (rate(fairway_requests_total[15m])) == 0"
        " and sum by (model) (rate(fairway_requests_total[1h] offset 1d)) > 0.1",
        15,
        "warning",
        "nobody asks {{ $labels.model }}, which was asked at this time yesterday",
        "Look at its callers and at what stands between.",
    ),
    PrometheusAlert(
        "FairwayContractBroken",
        "sum by (model, field) (rate(fairway_field_violations_total[15m]))"
        " / on (model) group_left sum by (model) (rate(fairway_rows_total[15m])) > 0.05",
        15,
        "warning",
        "{{ $value | humanizePercentage }} of the values of {{ $labels.field }} sent to {{ $labels.model }} break its contract",
        "Ask who sends them; `fairway contract show` says what is expected.",
    ),
)
"""Of each model: what callers notice, and what they send."""
_SERVERS = (
    PrometheusAlert(
        "FairwayLogDropsRows",
        "sum by (model) (increase(fairway_log_dropped_rows_total[10m])) > 0",
        0,
        "warning",
        "the prediction log of {{ $labels.model }} lost {{ $value | humanize }} rows",
        "The disk is too slow or full; log.queue_rows, log.disk_bytes.",
    ),
    PrometheusAlert(
        "FairwayRegistryAway",
        "min by (instance) (fairway_registry_up) == 0",
        5,
        "warning",
        "{{ $labels.instance }} has not seen the registry; it serves on with what it has",
        "Look at the database of registry.database_url.",
    ),
    PrometheusAlert(
        "FairwayCannotLoad",
        "sum by (instance) (increase(fairway_reload_failures_total[15m])) > 0",
        0,
        "critical",
        "{{ $labels.instance }} cannot serve a model as the registry has it",
        "Its log says which and why; `fairway rollback` gives the traffic back.",
    ),
    PrometheusAlert(
        "FairwayCountersFull",
        "sum by (instance) (increase(fairway_counters_overflow_total[1h])) > 0",
        0,
        "warning",
        "{{ $labels.instance }} counts more different things than it has counters for",
        "Restart it when versions that are gone still take counters.",
    ),
)
"""Of each server: what it can no longer do as it should."""


def rules_yaml(known: Mapping[str, str], server_codes: Iterable[str], job: str = "fairway") -> str:
    """The file of rules. `known` are the metrics that servers have; KeyError for a rule about another, which a test
    rules out. A JSON string is a YAML string, so nothing needs to be escaped twice."""
    lines = [
        "# Alert rules for servers of Fairway, by `fairway monitor rules`.",
        "groups:",
        "  - name: fairway",
        "    rules:",
    ]
    for alert in alerts(server_codes, job):
        for name in metric_names(alert.expression):
            known[name]
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expression)}",
            *([f"        for: {alert.minutes}m"] if alert.minutes else []),
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          description: {json.dumps(alert.mend)}",
        ]
    return "\n".join(lines) + "\n"
