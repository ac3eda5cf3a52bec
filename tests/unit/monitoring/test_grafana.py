"""The dashboards, read by Grafana's own model of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from fairway.app.monitor_files import server_codes, write_dashboards
from fairway.core.errors import StorageFull
from fairway.monitoring.grafana import dashboards
from fairway.monitoring.prometheus_rules import metric_names
from fairway.serving.metrics import described_metrics

FOUND = dashboards(described_metrics(), server_codes())


@pytest.mark.parametrize("name", list(FOUND))
def test_grafana_reads_it_as_we_mean_it(name: str) -> None:
    written = json.loads(json.dumps(FOUND[name]))
    read = Dashboard.from_json(written)
    assert read.title == written["title"]
    assert len(read.panels or []) == len(written["panels"])
    again = json.loads(json.dumps(read.to_json(), default=lambda value: value.to_json()))
    for key in ("uid", "title", "tags", "schemaVersion", "refresh", "time"):
        assert again[key] == written[key], key
    for panel, back in zip(written["panels"], again["panels"], strict=True):
        for key in ("id", "type", "title", "description", "datasource", "gridPos"):
            assert back[key] == panel[key], key
        assert [target["expr"] for target in back["targets"]] == [t["expr"] for t in panel["targets"]]
    variables = [variable["name"] for variable in again["templating"]["list"]]
    assert variables == [variable["name"] for variable in written["templating"]["list"]]


@pytest.mark.parametrize("name", list(FOUND))
def test_panels_lie_beside_each_other_and_say_what_they_show(name: str) -> None:
    panels = FOUND[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert panel["title"]
        assert panel["description"]


def test_they_ask_only_for_what_servers_count() -> None:
    asked = {name for _, expression in expressions() for name in metric_names(expression)}
    assert asked <= set(described_metrics())
    assert len(asked) > 12
    with pytest.raises(KeyError):
        dashboards({}, [])


def expressions() -> list[tuple[str, str]]:
    return [
        (f"{name}: {panel['title']}", target["expr"])
        for name, dashboard in FOUND.items()
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert [path.name for path in write_dashboards(folder)] == list(FOUND)
    read: dict[str, Any] = json.loads((folder / "fairway-model.json").read_text())
    assert read["uid"] == "fairway-model"
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFull, match="cannot be written"):
        write_dashboards(tmp_path / "file" / "below")
