"""What is drawn: no more than there is, never outside, nothing unescaped."""

from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.control.web.dashboard.charts import (
    Mark,
    bar,
    bounded,
    histogram,
    interval,
    metric_chart,
    simple,
    spark,
    state_of_bucket,
    wake,
)
from fairway.control.web.dashboard.series import buckets, read_windows
from fairway.monitoring.watch.values import Point, Shape
from fairway.stores.windows_memory import MemoryWindows
from tests.unit.control.web.dashboard.seen_windows import report, window

VALUES = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=60)


@given(values=VALUES)
def test_a_spark_stays_in_its_frame(values: list[float | None]) -> None:
    drawn = spark(values, width=100, height=30)
    if all(value is None for value in values):
        assert drawn == ""
        return
    root = ElementTree.fromstring(drawn)
    pairs = [pair.split(",") for line in root.iter("polyline") for pair in line.attrib["points"].split()]
    assert all(0 <= float(x) <= 100 and 0 <= float(y) <= 30 for x, y in pairs)


@given(
    shares=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30),
    low=st.floats(-1e6, 1e6),
    step=st.floats(1e-3, 1e3),
)
def test_a_histogram_stays_in_its_frame(shares: list[tuple[float, float]], low: float, step: float) -> None:
    edges = tuple(low + step * index for index in range(len(shares) + 1))
    shape = Shape(edges=edges, reference=tuple(a for a, _ in shares), current=tuple(b for _, b in shares))
    root = ElementTree.fromstring(histogram(shape))
    for drawn in (*root.iter("polygon"), *root.iter("polyline")):
        for pair in drawn.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert -0.1 <= x <= 320.1
            assert 0 <= y <= 110


def test_shapes_that_cannot_be_drawn_are_not() -> None:
    assert histogram(Shape(labels=("a",), reference=(1.0,), current=(1.0,))) == ""
    assert histogram(Shape(edges=(0.0, 1.0), reference=(0.5, 0.5), current=(1.0,))) == ""
    assert "NaN" not in histogram(Shape(edges=(1.0, 1.0), reference=(0.0,), current=(0.0,)))
    assert interval(None, None, None, (0, 1)) == ""
    assert 'width="0.0"' in bar(0.5, 0.0, "current")
    assert "&lt;" in bar(0.5, 1.0, "<")


@pytest.fixture
def points() -> tuple[object, ...]:
    store = MemoryWindows()
    store.put([window(report(hours)) for hours in range(1, 5)])
    store.put([window(report(5, rows=0))])
    return buckets(read_windows(store, "churn", 2))


def test_a_metric_is_drawn_as_measured_and_as_estimated(points: tuple) -> None:  # type: ignore[type-arg]
    chart = metric_chart("roc_auc", "ROC AUC", points)
    assert [(line.label, line.role) for line in chart.lines] == [
        ("Estimated", "estimate"),
        ("Measured", "main"),
    ]
    assert chart.lines[1].values[-1] == 0.6
    assert chart.lines[1].alert[-1]
    assert chart.usual_upper[-1] == 1.0, "an AUC does not go beyond 1"
    assert msgspec.json.decode(chart.json)["times"] == list(chart.times)
    assert metric_chart("nothing", "Nothing", points).is_empty


def test_marks_outside_of_the_time_are_left_out(points: tuple) -> None:  # type: ignore[type-arg]
    inside = points[0].start + 5
    chart = simple(
        "Rows", "count", points, ("Rows", "main", lambda p: p.rows), marks=(Mark(0.0, "x"), Mark(inside, "y"))
    )
    assert [mark.label for mark in chart.marks] == ["y"]


def test_the_wake_tells_in_words_what_it_draws(points: tuple) -> None:  # type: ignore[type-arg]
    assert [state_of_bucket(point) for point in points] == ["quiet", "poor", "poor", "poor", "poor"]
    root = ElementTree.fromstring(wake(points))
    assert (
        root.attrib["aria-label"]
        == "The last 5 windows: 4 with performance outside of what is usual, 1 without traffic"
    )
    assert len(list(root)) == 5


def test_what_is_usual_has_the_metrics_limits() -> None:
    assert bounded("roc_auc", (-0.2, 1.3)) == (0.0, 1.0)
    assert bounded("rmse", (-0.2, 1.3)) == (-0.2, 1.3)
    assert bounded("f1", None) is None
    assert Point(1.0).usual is None
