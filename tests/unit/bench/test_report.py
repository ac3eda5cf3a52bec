"""Figures and warnings from measurements made up here; the plots and the page made of them."""

import html
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bench.page import drawing, page
from fairway.bench.plan import Payload, Plan, Target
from fairway.bench.plot import chart, duration, plots
from fairway.bench.recording import OK, TIMEOUT, Recorder, Tally, added_up
from fairway.bench.report import CLOSED_NOTE, Report, make_report
from fairway.bench.schedule import Arrivals


def plan(**changes: Any) -> Plan:
    target = Target(protocol="http", host="h", port=80, path="/<b>")
    payload = Payload(bodies=[b"1234", b"12"], content_type="a/b", rows=64, source="rows.csv")
    return Plan(**{"target": target, "payload": payload, "rate": 100.0, "seconds": 10.0, **changes})


def tally(
    latencies: Any = 0.001, requests: int = 1000, outcomes: dict[str, int] | None = None, **changes: Any
) -> Tally:
    """Requests due evenly over 10 s after a warm-up of 2 s."""
    recorder = Recorder(2.0, 10 / 60)
    took = np.broadcast_to(np.asarray(latencies, dtype=float), (requests,))
    for i in range(requests):
        due = 2.0 + i * 10 / requests
        recorder.note(due, due, due + float(took[i]), OK)
    for outcome, count in (outcomes or {}).items():
        for _ in range(count):
            recorder.note(3.0, None, 3.5, outcome)
    recorder.waited = changes.pop("waited", 0)
    recorder.reconnected = changes.pop("reconnected", 0)
    for lag in changes.pop("lags", []):
        recorder.note_lag(3.0, lag)
    return recorder.tally(changes.pop("busy", 0.1))


def test_the_figures() -> None:
    report = make_report(plan(), tally(np.linspace(0.001, 0.1, 1000)))
    assert report.loop == "open"
    assert report.address == "http://h:80/<b>"
    assert (report.body_bytes, report.rows) == (3, 64)
    assert report.requests == report.ok == 1000
    assert report.achieved_rate == pytest.approx(1000 / 10.09, rel=0.001)
    assert report.rows_rate == pytest.approx(report.achieved_rate * 64)
    assert report.latency.p50 == pytest.approx(0.0505, rel=0.01)
    assert report.latency.p99 == pytest.approx(0.099, rel=0.01)
    assert report.latency.max == pytest.approx(0.1)
    assert report.latency.mean == pytest.approx(0.0505)
    assert len(report.over_time) == 60
    assert report.over_time[30].rate == pytest.approx(100, abs=5)
    assert report.errors == {}


def test_a_quiet_run_has_no_warnings() -> None:
    assert make_report(plan(), tally()).warnings == []
    assert make_report(plan(), tally()).notes == []


def test_the_closed_loop_says_what_it_does_not_measure() -> None:
    report = make_report(plan(rate=None), tally(0.5))
    assert report.notes == [CLOSED_NOTE]
    assert report.warnings == []
    assert report.wanted_rate is None
    assert report.arrivals is None


@pytest.mark.parametrize(
    ("plan_changes", "tally_changes", "says"),
    [
        ({}, {"outcomes": {"503": 10}}, "10 of 1,010 requests failed (0.99%)"),
        ({}, {"outcomes": {TIMEOUT: 5}}, "Timeouts are counted in the latencies at 10 s"),
        ({}, {"busy": 0.97}, "used 97% of a core"),
        ({"rate": None}, {"busy": 0.97}, "The client was the bottleneck"),
        ({}, {"lags": [0.0] * 90 + [0.02] * 10}, "sent 20.0 ms or more after it was due"),
        ({}, {"latencies": np.linspace(0.001, 5, 1000)}, "Saturated: its latency kept growing"),
        ({}, {"outcomes": {"503": 500}}, "Saturated: it answered 100 of 150 requests a second"),
        ({}, {"latencies": np.linspace(1, 9, 1000)}, "Saturated"),
        ({}, {"waited": 100}, "10.0% of the requests were due when all 32 connections were busy"),
        ({}, {"reconnected": 200}, "200 connections had to be made again"),
        ({}, {"requests": 0}, "No request fell into the measured time"),
    ],
)
def test_warnings(plan_changes: dict[str, Any], tally_changes: dict[str, Any], says: str) -> None:
    told = make_report(plan(**plan_changes), tally(**tally_changes)).warnings
    assert any(says in text for text in told), told


def test_poisson_arrivals_are_measured_against_what_was_due() -> None:
    """A schedule that happened to hold a tenth less than its rate is not a server that did not keep up."""
    report = make_report(plan(arrivals=Arrivals.poisson), tally(requests=900))
    assert report.warnings == []
    assert report.arrivals == "poisson"


def test_tallies_add_up() -> None:
    one = tally(0.001, 500, {"503": 2}, waited=1, reconnected=2, busy=0.2)
    two = tally(0.003, 250, {"503": 1, TIMEOUT: 1}, busy=0.9)
    total = added_up([one, two])
    assert total.outcomes == {OK: 750, "503": 3, TIMEOUT: 1}
    assert (total.waited, total.reconnected, total.busiest) == (1, 2, 0.9)
    assert sum(slot.failed for slot in total.slots) == 4
    assert sum(sum(slot.latency.counts) for slot in total.slots) == 751
    assert make_report(plan(), total).latency.p50 == pytest.approx(0.001, rel=0.01)
    assert added_up([one]) == one


def test_the_report_is_json_for_programs() -> None:
    report = make_report(plan(), tally(outcomes={"503": 1}))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_plots_show_the_stall() -> None:
    latencies = np.full(1000, 0.001)
    latencies[400:500] = np.linspace(1.0, 0.01, 100)
    lines = plots(make_report(plan(), tally(latencies)), width=60, height=8)
    assert lines[0] == "latency by percentile"
    assert all(len(line) <= 60 + 13 for line in lines)
    assert any(line.startswith("      1 s |") for line in lines)
    assert "   1 ms |" in "\n".join(lines).replace("1.01 ms", "1 ms")
    axis = next(line for line in lines if "50%" in line)
    assert re.findall(r"\S+%", axis) == ["0%", "50%", "90%", "99%"]
    over = lines[lines.index("") + 1 :]
    assert "o" in over[1]  # the stall stands at the top of the picture over time
    assert 20 <= over[1].index("o") - 11 <= 30


def test_nothing_answered_gives_no_plot() -> None:
    assert plots(make_report(plan(), tally(requests=0))) == []


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(1e-6, 1e3)), min_size=1, max_size=40),
    st.integers(10, 90),
    st.integers(3, 20),
)
def test_a_chart_has_its_size_whatever_the_points(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    lines = chart([points], [(0.0, "0"), (50.0, "fifty")], width, height)
    assert len(lines) == height + 2
    assert sum(line.count(".") for line in (text.partition("|")[2] for text in lines[:height])) >= 1
    assert all(len(line) <= width + 12 for line in lines[:-1])


def test_durations() -> None:
    assert [duration(s) for s in (0.0, 0.000012, 0.0345, 12.0)] == ["0 us", "12 us", "34.5 ms", "12 s"]


def test_the_page_is_one_file_and_escapes() -> None:
    report = make_report(plan(), tally(outcomes={"<script>": 3}))
    text = page(report, "what <was> done", "the client")
    assert "what &lt;was&gt; done" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http://h:80/&lt;b&gt;" in text
    assert not re.search(r"(src|href)=|@import|url\(", text)
    assert text.count("<svg") == 2
    assert text.count("<polyline") == 4
    for warning in report.warnings:
        assert html.escape(warning, quote=False) in text.replace("&#39;", "'").replace("&#34;", '"')
    assert "sent to answered" in text
    assert "Nothing was answered" in page(make_report(plan(), tally(requests=0)), "", "")


def test_a_drawing_stays_inside_its_frame() -> None:
    text = str(drawing([("p50", [(0.0, 1e-6), (5.0, 0.5), (10.0, 700.0)])], [(0.0, "0"), (99.0, "out")]))
    [points] = re.findall(r'points="([^"]+)"', text)
    for pair in points.split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 860
        assert 0 <= y <= 300
    assert "out" not in text
