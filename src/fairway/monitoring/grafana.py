"""Dashboards for Grafana over what servers count. Pure; `fairway monitor grafana` writes them.

Source of the form: grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model
(schemaVersion 39, Grafana 10 and newer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from fairway.monitoring.prometheus_rules import metric_names

_COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_SCHEMA = 39
_ALL = '{model=~"$model"}'
_OK = 'code="ok"'
_NOT_OK = 'code!="ok"'
_ONE = '{model=~"$model", version=~"$version"}'
_VERSION = "v{{version}}"


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    queries: tuple[tuple[str, str], ...]
    """PromQL, and the legend."""
    unit: str = "short"
    """A unit as Grafana names it: `s`, `reqps`, `percentunit`, `bytes`."""
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 12
    height: int = 8
    stack: bool = False
    top: float | None = None


def _rate(metric: str, by: str, labels: str = "", *, where: str = _ALL) -> str:
    inside = where[:-1] + (f", {labels}" if labels else "") + "}"
    return f"sum by ({by}) (rate({metric}{inside}[$__rate_interval]))"


def _quantile(share: float, by: str, where: str) -> str:
    return f"histogram_quantile({share}, {_rate('fairway_request_seconds_bucket', f'{by}, le', where=where)})"


def overview(server_codes: Sequence[str]) -> tuple[Panel, ...]:
    return (*_now(server_codes), *_all_models(), *_all_servers())


def _now(server_codes: Sequence[str]) -> tuple[Panel, ...]:
    """One number each, in a row."""
    failures = f'code=~"{"|".join(sorted(server_codes))}"'
    total = f"sum(rate(fairway_requests_total{_ALL}[$__rate_interval]))"
    failed = f"sum(rate(fairway_requests_total{_ALL[:-1]}, {failures}}}[$__rate_interval]))"
    slowest = f"sum by (le) (rate(fairway_request_seconds_bucket{_ALL}[$__rate_interval]))"
    return (
        _number("Requests", total, unit="reqps"),
        _number("Failures of the server", f"({failed} or vector(0)) / {total}", unit="percentunit"),
        _number("Slowest hundredth", f"histogram_quantile(0.99, {slowest})", unit="s"),
        _number("Registry seen", "min(fairway_registry_up)"),
    )


def _all_models() -> tuple[Panel, ...]:
    return (
        _lines(
            "Requests by model",
            (_rate("fairway_requests_total", "model"), "{{model}}"),
            unit="reqps",
            stack=True,
        ),
        _lines(
            "Refused and failed, by reason",
            (_rate("fairway_requests_total", "model, code", _NOT_OK), "{{model}} {{code}}"),
            unit="reqps",
        ),
        _lines(
            "Latency: slowest hundredth by model", (_quantile(0.99, "model", _ALL), "{{model}}"), unit="s"
        ),
        _lines("Requests that wait", (f"sum by (model) (fairway_queue_requests{_ALL})", "{{model}}")),
        Panel(
            title="Versions that are loaded",
            kind="table",
            queries=((f"max by (model, version, digest) (fairway_model_info{_ALL}) == 1", ""),),
        ),
        _lines(
            "Memory of loaded versions",
            (f"sum by (model, version) (fairway_model_memory_bytes{_ALL})", "{{model}}:{{version}}"),
            unit="bytes",
            stack=True,
        ),
    )


def _all_servers() -> tuple[Panel, ...]:
    """What servers could not do."""
    reloads = "sum by (instance) (increase(fairway_reload_failures_total[$__rate_interval]))"
    return (
        _lines(
            "Rows that did not reach the prediction log",
            (_rate("fairway_log_dropped_rows_total", "model"), "{{model}}"),
            unit="rowsps",
        ),
        _lines("Reloads that failed", (reloads, "{{instance}}")),
    )


def model() -> tuple[Panel, ...]:
    return (*_answers(), *_requests(), *_work())


def _answers() -> tuple[Panel, ...]:
    """What callers notice."""
    answered = _rate("fairway_requests_total", "version", _OK, where=_ONE)
    asked = _rate("fairway_requests_total", "version", where=_ONE)
    quantiles = [
        (_quantile(share, "version", _ONE), f"v{{{{version}}}} p{share * 100:g}")
        for share in (0.5, 0.95, 0.99)
    ]
    return (
        _lines("Requests by version", (asked, _VERSION), unit="reqps", stack=True),
        _lines(
            "Share of requests that were answered",
            (f"{answered} / {asked}", _VERSION),
            unit="percentunit",
            top=1.0,
        ),
        _lines("Latency", *quantiles, unit="s"),
        _lines(
            "Time by stage, seconds a second",
            (_rate("fairway_stage_seconds_total", "stage", where=_ONE), "{{stage}}"),
            unit="s",
            stack=True,
        ),
    )


def _requests() -> tuple[Panel, ...]:
    """What callers send."""
    violations = _rate("fairway_field_violations_total", "field, rule", where=_ONE)
    return (
        _lines(
            "Refused and failed, by reason",
            (_rate("fairway_requests_total", "code", _NOT_OK, where=_ONE), "{{code}}"),
            unit="reqps",
            stack=True,
        ),
        _lines(
            "Requests by protocol",
            (_rate("fairway_requests_total", "protocol", where=_ONE), "{{protocol}}"),
            unit="reqps",
            stack=True,
        ),
        _lines("Values that broke the contract", (violations, "{{field}} {{rule}}"), unit="rowsps"),
    )


def _work() -> tuple[Panel, ...]:
    """What the answers take."""
    rows, calls = (_rate(f"fairway_batch_rows_{of}", "version", where=_ONE) for of in ("sum", "count"))
    hits, misses = (_rate(f"fairway_cache_{of}_total", "model") for of in ("hits", "misses"))
    return (
        _lines("Rows an engine call", (f"{rows} / {calls}", _VERSION)),
        _lines("Requests that wait", (f"sum by (version) (fairway_queue_requests{_ONE})", _VERSION)),
        _lines(
            "Answers from the response cache",
            (f"{hits} / ({hits} + {misses})", "{{model}}"),
            unit="percentunit",
            top=1.0,
        ),
        _lines(
            "Nodes of a pipeline, seconds a second",
            (_rate("fairway_node_seconds_total", "node", where=_ONE), "{{node}}"),
            unit="s",
            stack=True,
        ),
        _lines("Memory", (f"sum by (version) (fairway_model_memory_bytes{_ONE})", _VERSION), unit="bytes"),
    )


def _number(title: str, query: str, unit: str = "short") -> Panel:
    return Panel(title=title, kind="stat", queries=((query, ""),), unit=unit, width=6, height=4)


def _lines(
    title: str,
    *queries: tuple[str, str],
    unit: str = "short",
    stack: bool = False,
    top: float | None = None,
) -> Panel:
    return Panel(title=title, queries=queries, unit=unit, stack=stack, top=top)


def dashboards(known: Mapping[str, str], server_codes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """File name -> dashboard. `known` are the metrics that servers have, with what they mean; KeyError for a panel about
    another, which a test rules out."""
    model_variable = _variable("model", "label_values(fairway_requests_total, model)")
    version = _variable("version", 'label_values(fairway_requests_total{model=~"$model"}, version)')
    return {
        "fairway-overview.json": _dashboard(
            "fairway-overview", "Fairway", overview(server_codes), [model_variable], known
        ),
        "fairway-model.json": _dashboard(
            "fairway-model", "Fairway: one model", model(), [model_variable, version], known
        ),
    }


def _dashboard(
    uid: str, title: str, panels: Sequence[Panel], variables: list[dict[str, Any]], known: Mapping[str, str]
) -> dict[str, Any]:
    datasource = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "refresh": 1,
        "current": {},
        "options": [],
    }
    return {
        "uid": uid,
        "title": title,
        "tags": ["fairway"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "templating": {"list": [datasource, *variables]},
        "annotations": {"list": []},
        "links": [
            {
                "title": "Fairway",
                "type": "dashboards",
                "tags": ["fairway"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "dashboard",
                "tooltip": "",
                "url": "",
            }
        ],
        "panels": _placed(panels, known),
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "hide": 0,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def _placed(panels: Sequence[Panel], known: Mapping[str, str]) -> list[dict[str, Any]]:
    """The panels in rows, from left to right."""
    found, x, y, lowest = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _COLUMNS:
            x, y = 0, lowest
        found.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}, known))
        x, lowest = x + panel.width, max(lowest, y + panel.height)
    return found


def _panel(number: int, panel: Panel, place: dict[str, int], known: Mapping[str, str]) -> dict[str, Any]:
    names = dict.fromkeys(name for query, _ in panel.queries for name in metric_names(query))
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.top is not None:
        defaults["max"] = panel.top
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stack else "none", "group": "A"}
        defaults["custom"] = {"stacking": stacking, "fillOpacity": 30 if panel.stack else 0}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        options = {"reduceOptions": reduced, "colorMode": "none", "graphMode": "area"}
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(known[name] for name in names),
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place_in),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
                **({"format": "table", "instant": True} if panel.kind == "table" else {}),
            }
            for place_in, (query, legend) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "table":
        hidden = {"excludeByName": {"Time": True, "Value": True}}
        made["transformations"] = [{"id": "organize", "options": hidden}]
    return made
