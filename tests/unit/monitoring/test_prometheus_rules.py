"""The alert rules, loaded and run by Prometheus' own tool."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairway.app.monitor_files import prometheus_rules, server_codes
from fairway.monitoring.prometheus_rules import alerts, metric_names, rules_yaml
from fairway.serving.metrics import described_metrics
from tests.receivers import program


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "fairway.yml"
    path.write_text(prometheus_rules("fairway"))
    return path


def test_prometheus_loads_them(rules: Path) -> None:
    assert f"{len(alerts(server_codes()))} rules found" in promtool("check", "rules", "--lint-fatal", rules)


def test_they_ask_only_for_what_servers_count() -> None:
    for alert in alerts(server_codes()):
        assert set(metric_names(alert.expression)) <= set(described_metrics())
    with pytest.raises(KeyError):
        rules_yaml({}, server_codes())


def test_the_names_of_metrics_are_found() -> None:
    expression = 'sum(fairway_a_total{x="fairway_b"}) / fairway_c_bucket + fairway_c_sum - up'
    assert metric_names(expression) == ("fairway_a", "fairway_c")


def test_every_alert_says_what_and_what_to_do() -> None:
    found = yaml.safe_load(prometheus_rules('a job with "quotes" and a colon:'))["groups"][0]["rules"]
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in found)
    assert {rule["labels"]["severity"] for rule in found} == {"warning", "critical"}


def test_the_servers_own_failures_are_told_from_the_callers() -> None:
    codes = set(server_codes())
    assert {"model_failed", "overloaded", "registry_unavailable", "internal_error"} <= codes
    assert not codes & {
        "contract_violation",
        "unauthenticated",
        "rate_limited",
        "not_supported",
        "model_not_found",
    }


REQUESTS = 'fairway_requests_total{model="m",version="1",protocol="rest",code="%s"}'
FIRING: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "FairwayDown": ({'up{job="fairway",instance="a"}': "1 0x60"}, "10m", {"job": "fairway", "instance": "a"}),
    "FairwayFailures": (
        {REQUESTS % "ok": "0+90x60", REQUESTS % "model_failed": "0+10x60"},
        "20m",
        {"model": "m"},
    ),
    "FairwayOverloaded": (
        {REQUESTS % "ok": "0+900x60", REQUESTS % "overloaded": "0+15x60"},
        "20m",
        {"model": "m"},
    ),
    "FairwaySlow": (
        {
            'fairway_request_seconds_bucket{model="m",le="0.1"}': "0+100x300 30000+0x60",
            'fairway_request_seconds_bucket{model="m",le="1"}': "0+100x300 30100+100x60",
            'fairway_request_seconds_bucket{model="m",le="+Inf"}': "0+100x300 30100+100x60",
        },
        "340m",
        {"model": "m"},
    ),
    "FairwayQueueing": ({'fairway_queue_requests{model="m",version="1"}': "200x60"}, "10m", {"model": "m"}),
    "FairwayNoTraffic": (
        {REQUESTS % "ok": "0+60x1560 93600x100"},
        "1620m",
        {"model": "m"},
    ),
    "FairwayContractBroken": (
        {
            'fairway_field_violations_total{model="m",version="1",field="age",rule="range"}': "0+10x60",
            'fairway_rows_total{model="m",version="1",protocol="rest"}': "0+100x60",
        },
        "40m",
        {"model": "m", "field": "age"},
    ),
    "FairwayLogDropsRows": (
        {'fairway_log_dropped_rows_total{model="m"}': "0x5 10x60"},
        "10m",
        {"model": "m"},
    ),
    "FairwayRegistryAway": ({'fairway_registry_up{instance="a"}': "0x60"}, "10m", {"instance": "a"}),
    "FairwayCannotLoad": (
        {'fairway_reload_failures_total{instance="a",model="m"}': "0x5 1x60"},
        "10m",
        {"instance": "a"},
    ),
    "FairwayCountersFull": (
        {'fairway_counters_overflow_total{instance="a"}': "0x5 5x60"},
        "10m",
        {"instance": "a"},
    ),
}
HEALTHY = {
    'up{job="fairway",instance="a"}': "1x1700",
    REQUESTS % "ok": "0+600x1700",
    REQUESTS % "contract_violation": "0+300x1700",
    REQUESTS % "model_failed": "0+1x1700",
    'fairway_request_seconds_bucket{model="m",le="0.01"}': "0+600x1700",
    'fairway_request_seconds_bucket{model="m",le="+Inf"}': "0+600x1700",
    'fairway_queue_requests{model="m",version="1"}': "3x1700",
    'fairway_rows_total{model="m",version="1",protocol="rest"}': "0+600x1700",
    'fairway_field_violations_total{model="m",version="1",field="age",rule="range"}': "0+1x1700",
    'fairway_log_dropped_rows_total{model="m"}': "0x1700",
    'fairway_registry_up{instance="a"}': "1x1700",
    'fairway_reload_failures_total{instance="a",model="m"}': "2x1700",
    'fairway_counters_overflow_total{instance="a"}': "0x1700",
}


def test_each_fires_when_it_should_and_none_when_all_is_well(rules: Path, tmp_path: Path) -> None:
    """`promtool test rules`: series minute by minute, and the alerts at a time."""
    found = {rule["alert"]: rule for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]}
    assert set(FIRING) == set(found)
    tests = [_case(series, at, name, labels) for name, (series, at, labels) in FIRING.items()]
    tests.append(
        {
            "interval": "1m",
            "input_series": _series(HEALTHY),
            "alert_rule_test": [
                {"eval_time": at, "alertname": name, "exp_alerts": []}
                for name in found
                for at in ("60m", "1600m")
            ],
        }
    )
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "tests": tests}))
    assert "SUCCESS" in promtool("test", "rules", file)


def _series(series: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in series.items()]


def _case(series: dict[str, str], at: str, name: str, labels: dict[str, str]) -> dict[str, Any]:
    """That it fires for these labels."""
    count = f'count by ({", ".join(labels)}) (ALERTS{{alertname="{name}", alertstate="firing"}})'
    wanted = "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
    return {
        "interval": "1m",
        "input_series": _series(series),
        "promql_expr_test": [
            {"expr": count, "eval_time": at, "exp_samples": [{"labels": wanted, "value": 1}]}
        ],
    }
