"""Nodes of a pipeline that is served are counted apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairway.core.settings import Settings
from fairway.inference.live import load_version
from fairway.inference.stats import VersionStats
from fairway.packaging.pipeline import package_pipeline
from fairway.stores.counters import Counters

FUNCTIONS = """
def half(rows: dict):
    return rows["x"] / 2
"""
PIPELINE = """
outputs = "second"
[inputs]
x = "float64"
[nodes.first]
function = "functions.py:half"
inputs = ["x"]
[nodes.second]
function = "functions.py:half"
inputs = { x = "first.prediction" }
"""


def counted(counters: Counters, name: str) -> dict[str, float]:
    return {
        dict(labels)["node"]: value for (found, labels), value in counters.totals().items() if found == name
    }


def test_rows_and_seconds_add_up_by_node() -> None:
    counters = Counters()
    stats = VersionStats(counters, "m", 2, "sha256:0")
    stats.node("a", 3, 0.5)
    stats.node("a", 4, 0.25)
    stats.node("b", 1, 1.0)
    assert counted(counters, "fairway_node_rows_total") == {"a": 7, "b": 1}
    assert counted(counters, "fairway_node_seconds_total") == {"a": 0.75, "b": 1.0}
    labels = (("model", "m"), ("version", "2"), ("node", "a"))
    assert ("fairway_node_rows_total", labels) in counters.totals()


def test_a_served_pipeline_counts_what_it_answers_and_not_its_golden_rows(tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "p.toml").write_text(PIPELINE)

    def find(reference: str) -> None:
        raise AssertionError(reference)

    data = pd.DataFrame({"x": np.arange(20.0)})
    made = package_pipeline(tmp_path / "p.toml", find=find, data=data, out=tmp_path / "bundle")  # type: ignore[arg-type]
    counters = Counters()
    version = load_version("m", 1, made.directory, counters, Settings(home=str(tmp_path)))
    assert counted(counters, "fairway_node_rows_total") == {}
    answer = version.run(version.validate({"x": [8.0, 4.0]}))
    assert answer["prediction"] == pytest.approx([2.0, 1.0])
    assert counted(counters, "fairway_node_rows_total") == {"first": 2, "second": 2}
    assert all(seconds > 0 for seconds in counted(counters, "fairway_node_seconds_total").values())
