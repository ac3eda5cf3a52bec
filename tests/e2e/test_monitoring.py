"""The whole loop around a real server: predictions are logged, windows looked at, drift becomes an incident with its cause,
labels prove it; a monitor that is killed comes back and misses nothing, and a log that is lost stops nothing."""

import json
import os
import shutil
import signal
import threading
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import fairway
from fairway.app.log import open_log
from fairway.app.settings import read_settings
from fairway.core.clock import moment_of
from fairway.core.settings import RegistrySettings
from fairway.monitoring.watch.kept import report_in, summary_in
from fairway.monitoring.watch.values import Report
from fairway.stores.opening import open_alerts, open_windows
from fairway.stores.windows import WatchedWindow
from tests.e2e.servers import Server, serving, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
WATCHING = {
    "FAIRWAY_CONTROL_ENABLED": "true",
    "FAIRWAY_CONTROL_PORT": "0",
    "FAIRWAY_CONTROL_NICE": "0",
    "FAIRWAY_CONTROL_LEASE_SECONDS": "60",
    "FAIRWAY_CONTROL_INTERVAL_SECONDS": "0.2",
    "FAIRWAY_MONITORING_WINDOW_SECONDS": "3",
    "FAIRWAY_MONITORING_INTERVAL_SECONDS": "0.5",
    "FAIRWAY_MONITORING_GRACE_SECONDS": "1.5",
    "FAIRWAY_MONITORING_MIN_ROWS": "100",
    "FAIRWAY_MONITORING_LONGEST_SECONDS": "9",
}
ROWS = 25
"""Of a request."""


def people(rows: int, seed: int, *, shift: float = 0.0, honest: bool = True) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    age = random.normal(shift, 1.0, rows)
    income = random.normal(0.0, 1.0, rows)
    p = 1 / (1 + np.exp(-1.6 * age + 0.3 * income))
    bought = random.random(rows) < (p if honest else 1 - p)
    return pd.DataFrame({"age": age, "income": income, "bought": bought.astype(int)})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("loop") / "home"
    frame = people(1500, 1)
    model = LogisticRegression().fit(frame[["age", "income"]], frame["bought"])
    fairway.deploy(model, frame, target="bought", reference=people(3000, 2), name="buyers", home=home)
    return home


class Traffic(threading.Thread):
    """Requests of some rows each, without a pause longer than a moment; of each tenth request labels come at once."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self.shift = 0.0
        self.refused: list[Any] = []
        self.answered = 0

    def run(self) -> None:
        number = 0
        while not self._over.wait(0.05):
            number += 1
            frame = people(ROWS, 1000 + number, shift=self.shift, honest=not self.shift)
            name = f"r-{number}"
            rows = json.loads(frame[["age", "income"]].to_json(orient="records"))
            try:
                status, _, told = self._server.post(
                    {"dataframe_records": rows}, "/invocations", x_fairway_model="buyers", x_request_id=name
                )
            except OSError as error:
                self.refused.append(error)
                return
            if status != 200:
                self.refused.append(told)
                continue
            self.answered += ROWS
            if number % 4 == 0:
                labels = [
                    {"model": "buyers", "request_id": name, "row": row, "label": int(value)}
                    for row, value in enumerate(frame["bought"])
                ]
                self._server.post(labels, "/feedback")

    def stop(self) -> None:
        self._over.set()
        self.join()


class Looked:
    """What the monitor has kept so far."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def windows(self) -> tuple[WatchedWindow, ...]:
        store = open_windows(self._home, RegistrySettings())
        try:
            return store.summaries("buyers")
        finally:
            store.close()

    def report(self, window: WatchedWindow) -> Report:
        store = open_windows(self._home, RegistrySettings())
        try:
            whole = store.window(window.key)
        finally:
            store.close()
        assert whole is not None
        found = report_in(whole)
        assert found is not None
        return found

    def incidents(self) -> tuple[Any, ...]:
        store = open_alerts(self._home, RegistrySettings())
        try:
            with store.reading() as rows:
                return tuple(rows.incidents(states=("open",), model="buyers", limit=10))
        finally:
            store.close()


def monitors(server: Server) -> list[int]:
    """The monitor's processes below a server."""
    parents, commands = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            commands[int(place.name)] = (place / "cmdline").read_text()
            stat = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] != "Z":
            parents[int(place.name)] = int(stat[1])
    below = {server.process.pid}
    for _ in range(4):
        below |= {pid for pid, parent in parents.items() if parent in below}
    return [pid for pid in below if "fairway.app.watch" in commands.get(pid, "") and pid in parents]


def test_the_loop_from_traffic_to_a_cause_and_back_after_a_kill(home: Path) -> None:
    looked = Looked(home)
    with serving(home, environ=WATCHING) as server:
        traffic = Traffic(server)
        traffic.start()

        # As it should be: windows with estimates and, of a part of the rows, labels; nobody is told anything.
        until(lambda: sum(window.rows > 0 for window in looked.windows()) >= 2, 180)
        assert looked.incidents() == ()
        calm = looked.report(looked.windows()[0])
        assert calm.reference == "the rows in its bundle"
        assert {"drift", "quality", "estimate"} <= set(calm.judged)
        assert not any(column.drift is not None and column.drift.drifted for column in calm.columns)
        until(lambda: looked.report(looked.windows()[0]).labels > 0, 60)

        # Age moves by a standard deviation, and what it means turns round.
        changed = looked.windows()[-1].end
        traffic.shift = 1.0
        until(
            lambda: "age" in {cause.field for incident in looked.incidents() for cause in incident.causes},
            120,
        )
        [incident] = looked.incidents()
        until(lambda: any(after.performance for after in summaries(looked, changed)), 120)
        until(
            lambda: any(
                point.alert for after in summaries(looked, changed) for point in after.performance.values()
            ),
            120,
        )

        # Killed in the middle of its work, it is back and goes on where it was.
        before = len(looked.windows())
        [monitor] = monitors(server)
        os.kill(monitor, signal.SIGKILL)
        until(lambda: len(looked.windows()) >= before + 2, 180)
        assert monitor not in monitors(server)
        assert len(looked.incidents()) == 1
        assert looked.incidents()[0].id == incident.id
        assert [entry.what for entry in looked.incidents()[0].history].count("opened") == 1
        traffic.stop()
        assert traffic.refused == []

        # Each row was looked at once: windows lie side by side and hold what the log holds.
        until(lambda: len(logged(home)) == traffic.answered)
        last = max(logged(home))
        until(lambda: moment_of(looked.windows()[-1].end) > last, 120)
        windows = looked.windows()
        assert sum(window.rows for window in windows) == traffic.answered
        assert all(first.end == second.key.start for first, second in pairwise(windows))

        # The log's folder goes away while serving: rows of then are lost, what comes is watched again.
        shutil.rmtree(home / "log")
        again = Traffic(server)
        again.start()
        gone = looked.windows()[-1].end
        until(lambda: any(w.rows for w in looked.windows() if w.key.start >= gone), 180)
        again.stop()
        assert again.refused == []


def logged(home: Path) -> list[datetime]:
    """When each row of the log was predicted."""
    batches = open_log(read_settings(home)).windows("buyers", columns=["time"])
    return [moment for batch in batches for moment in batch.column("time").to_pylist()]


def summaries(looked: Looked, since: str) -> list[Any]:
    return [summary_in(window) for window in looked.windows() if window.key.start >= since]
