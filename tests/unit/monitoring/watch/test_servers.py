"""Errors and saturation against their own history."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from fairway.app.servers import ServerWatch
from fairway.control.jobs import Turn
from fairway.core.clock import utc_text
from fairway.core.settings import MonitoringSettings, ServingSettings, Settings
from fairway.monitoring.watch.servers import MOST_STEPS, Step, add_step, count_models, server_window
from fairway.stores.counters import Counters
from fairway.stores.opening import open_windows

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NO_TURN = cast(Turn, None)


def steps(
    count: int, *, failed: float = 1.0, last: float | None = None, full: float = 0.0
) -> tuple[Step, ...]:
    made = tuple(
        Step(
            end=utc_text(NOON + timedelta(hours=i)),
            requests=1000.0 + i % 5,
            failed=failed + i % 2,
            saturation=0.01,
        )
        for i in range(count)
    )
    end = utc_text(NOON + timedelta(hours=count))
    return (*made, Step(end=end, requests=1000.0, failed=failed if last is None else last, saturation=full))


def test_counters_by_model() -> None:
    totals = {
        ("fairway_requests_total", (("model", "m"), ("version", "1"), ("code", "ok"))): 90.0,
        ("fairway_requests_total", (("model", "m"), ("version", "1"), ("code", "model_failed"))): 4.0,
        ("fairway_requests_total", (("model", "m"), ("version", "2"), ("code", "contract_violation"))): 6.0,
        ("fairway_requests_total", (("model", ""), ("code", "not_found"))): 5.0,
        ("fairway_queue_requests", (("model", "m"), ("version", "1"))): 3.0,
        ("fairway_rows_total", (("model", "m"),)): 1000.0,
        ("fairway_log_dropped_rows_total", (("model", "m"), ("version", "1"))): 7.0,
    }
    counted = count_models(totals, {"model_failed"})
    assert list(counted) == ["m"]
    assert (counted["m"].requests, counted["m"].failed, counted["m"].waiting) == (100.0, 4.0, 3.0)
    assert counted["m"].dropped == 7.0


def test_failures_and_a_full_queue_are_found_and_said() -> None:
    quiet = server_window("m", "here", utc_text(NOON), steps(40))
    assert quiet.kinds == ("operations", "log")
    assert quiet.findings == ()
    bad = server_window("m", "here", utc_text(NOON), steps(40, last=120.0, full=0.9))
    told = {finding.field: finding for finding in bad.findings}
    assert set(told) == {"errors", "saturation"}
    assert told["errors"].severity == "critical"
    assert told["errors"].text == "12% of requests failed; 0.19% is usual."
    assert bad.digest == "server here"


def test_too_little_history_judges_nothing() -> None:
    window = server_window("m", "here", utc_text(NOON), steps(3, last=900.0))
    assert window.kinds == ("log",)
    assert window.findings == ()


def test_rows_that_the_log_lacks_are_told() -> None:
    window = server_window("m", "here", utc_text(NOON), steps(3), dropped=1700.0)
    [finding] = window.findings
    assert (finding.kind, finding.severity) == ("log", "warning")
    assert finding.text == "1,700 rows did not reach the prediction log; what is watched is without them."


def test_series_are_bounded() -> None:
    series: tuple[Step, ...] = ()
    for step in steps(MOST_STEPS + 10):
        series = add_step(series, step)
    assert len(series) == MOST_STEPS


def test_the_job_makes_a_step_a_window_and_an_incident_of_failures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(
        home=str(tmp_path),
        monitoring=MonitoringSettings(window_seconds=60),
        serving=ServingSettings(queue=10, workers=1),
    )
    counters = Counters(tmp_path / "counters")
    labels = (("model", "m"), ("version", "1"), ("protocol", "v2"))
    good = counters.slot("fairway_requests_total", (*labels, ("code", "ok")))
    bad = counters.slot("fairway_requests_total", (*labels, ("code", "model_failed")))
    depth = counters.slot("fairway_queue_requests", (("model", "m"), ("version", "1")))
    now = [NOON.timestamp() + 1]
    watch: Any = ServerWatch(settings, tmp_path / "counters", {}, clock=lambda: now[0])
    for minute in range(44):
        counters.add(good, 1000.0)
        counters.add(bad, 300.0 if minute >= 40 else 1.0)
        counters.values[depth] = 5.0 if minute == 30 else 0.0
        watch.run(NO_TURN)
        now[0] += 60
    store = open_windows(tmp_path, settings.registry)
    assert watch._server.endswith(":8080")  # another server of this machine has a series of its own
    assert store.mark(f"server {watch._server} of m").count('"requests":') == 43
    assert '"saturation":0.5' in store.mark(f"server {watch._server} of m")
    incidents = watch._alerts.alerts.incidents()
    assert len(incidents) == 1
    assert "failed requests" in incidents[0].title
    now[0] -= 3600  # the clock is put back: a new beginning, nothing is made up
    watch.run(NO_TURN)
    assert store.mark(f"server {watch._server} of m").count('"requests":') == 43
    store.close()
    watch.close(NO_TURN)
    counters.close()
