"""Control processes as people run them: schedules that fire, leaders that are killed or paused, and serving beside them."""

import collections
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairway import deploy
from fairway.core.schedule import ScheduleRun
from fairway.core.settings import RegistrySettings
from fairway.stores.control import ControlStore
from fairway.stores.opening import open_control
from tests.e2e.controlling import Control, controlling, fairway, schedule
from tests.e2e.servers import FAIRWAY, alive, numeric_data, serving, until

pytestmark = pytest.mark.e2e
EVERY_SECOND = "* * * * * *"
NEVER_SOON = "0 0 1 1 *"


@pytest.fixture
def place(home_copy: Path) -> Path:
    """A home with models, and rows.parquet beside it."""
    numeric_data(2000).drop(columns="y").to_parquet(home_copy.parent / "rows.parquet")
    return home_copy


def store_of(home: Path) -> ControlStore:
    return open_control(home, RegistrySettings())


def runs(home: Path, name: str) -> list[ScheduleRun]:
    store = store_of(home)
    try:
        return list(store.runs(name, limit=1000))
    finally:
        store.close()


def succeeded(home: Path, name: str, count: int = 1) -> bool:
    return sum(run.state == "succeeded" for run in runs(home, name)) >= count


def test_a_schedule_fires_and_its_output_is_what_the_model_says(place: Path) -> None:
    rows = place.parent / "rows.parquet"
    out = place.parent / "out"
    made: Any = schedule(
        place, "line", "--cron", EVERY_SECOND, "--input", str(rows), "--output", f"{out}/{{utc}}.parquet"
    )
    assert made["next"]
    with controlling(place) as control:
        until(lambda: succeeded(place, "line"), 60)
        fairway(place, "schedules", "pause", "line")
        status, told = control.ask("/api/v1/schedules")
        assert (status, told[0]["paused"]) == (200, True)
        until(lambda: not any(run.is_active for run in runs(place, "line")), 60)
        first = [run for run in runs(place, "line") if run.state == "succeeded"][-1]
        report = control.ask(f"/api/v1/batch/runs/{first.batch_run}")[1]
        assert report["report"]["rows"] == first.rows == 2000
        assert b"line" in control.ask("/")[1]
        assert control.ask("/health") == (200, {"status": "ok"})
    written = sorted(out.glob("*.parquet"))
    assert len(written) == sum(run.state == "succeeded" for run in runs(place, "line"))
    frame = pd.read_parquet(rows)
    expected = frame[["a", "b", "c"]].to_numpy() @ [1.0, -2.0, 0.5] + 3
    for path in written:
        np.testing.assert_allclose(pd.read_parquet(path).to_numpy()[:, -1], expected, rtol=1e-4, atol=1e-4)
    dues = [run.due for run in runs(place, "line")]
    assert len(dues) == len(set(dues))
    assert control.process.returncode == 0


ROWS = 40_000
SLOW = "import time\n\ndef predict(frame):\n    time.sleep(len(frame) * 1e-4)\n    return {'y': frame['a'].to_numpy() * 2}\n"


def slow_schedule(place: Path) -> Path:
    """A schedule of a model that takes four seconds for its rows, in several parts; gives the folder it writes to."""
    rows, out = place.parent / "slow", place.parent / "out"
    rows.mkdir()
    frame = pd.DataFrame({"a": np.arange(ROWS) / 7, "id": np.arange(ROWS)})
    for number, part in enumerate(np.array_split(np.arange(ROWS), 4)):
        frame.iloc[part].to_csv(rows / f"{number}.csv", index=False)
    (place.parent / "slow.py").write_text(SLOW)
    deploy(f"{place.parent}/slow.py:predict", frame[["a"]].head(50), name="slow", home=place)
    arguments = (
        "--input",
        str(rows),
        "--output",
        f"{out}/",
        "--keep",
        "id",
        "--workers",
        "1",
        "--rows-per-file",
        "2000",
    )
    schedule(place, "slow", "--cron", NEVER_SOON, *arguments, "--retry-seconds", "0.2")
    return out


def wait_for_rows(home: Path, name: str, *, attempt: int) -> ScheduleRun:
    """Until the process of that try has begun to score."""

    def found() -> list[ScheduleRun]:
        return [
            run for run in runs(home, name) if run.attempt == attempt and run.state == "running" and run.rows
        ]

    until(lambda: found() != [], 90)
    return found()[0]


def test_what_is_killed_is_gone_on_with_and_nothing_is_scored_twice(place: Path) -> None:
    """Two control processes on one registry. First the process that scores is killed with SIGKILL, then the leader."""
    out = slow_schedule(place)
    with controlling(place) as first, controlling(place) as second:
        until(lambda: first.leads or second.leads, 60)
        leader, other = (first, second) if first.leads else (second, first)
        fairway(place, "schedules", "run", "slow")
        begun = wait_for_rows(place, "slow", attempt=1)
        assert other.jobs() == []
        for pid in leader.jobs():
            os.kill(pid, signal.SIGKILL)
        again = wait_for_rows(place, "slow", attempt=2)
        assert again.batch_run == begun.batch_run
        jobs = leader.jobs()
        leader.process.kill()
        until(lambda: other.leads, 30)
        until(lambda: not any(alive(pid) for pid in jobs))
        until(lambda: succeeded(place, "slow"), 120)
    [run] = runs(place, "slow")
    assert (run.attempt, run.interruptions, run.batch_run) == (3, 1, begun.batch_run)
    assert run.token > begun.token
    assert "SIGKILL" in leader.errors.read_text()
    ids = np.concatenate(
        [pd.read_parquet(path)["id"].to_numpy(dtype=int) for path in sorted(out.rglob("*.parquet"))]
    )
    np.testing.assert_array_equal(np.sort(ids), np.arange(ROWS))


def pause(leader: Control, other: Control) -> list[int]:
    """Stops the leader until the other leads; the processes it had started. One that is stopped in the middle of a write
    holds SQLite's lock, and then nobody can write: it is stopped again at another moment."""
    for _ in range(6):
        jobs = leader.jobs()
        leader.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        while time.monotonic() < begun + 12:
            if other.leads:
                return jobs
            time.sleep(0.05)
        leader.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
    raise AssertionError("nobody followed")


def test_a_leader_that_is_paused_is_followed_and_does_nothing_when_it_wakes(place: Path) -> None:
    """SIGSTOP, as a machine that swaps or a virtual machine that is moved: its lease runs out while it believes to lead."""
    out = place.parent / "out"
    schedule(place, "line", "--cron", EVERY_SECOND, "--input", str(place.parent / "rows.parquet"), "--output", f"{out}/{{utc}}.parquet")  # fmt: skip
    with controlling(place) as first, controlling(place) as second:
        until(lambda: first.leads or second.leads, 30)
        leader, other = (first, second) if first.leads else (second, first)
        until(lambda: any(run.state == "running" for run in runs(place, "line")), 60)
        jobs = pause(leader, other)
        before = store_of(place).lease()
        assert before is not None
        until(lambda: not any(alive(pid) for pid in jobs))  # they heard nothing more, and ended themselves
        leader.process.send_signal(signal.SIGCONT)
        until(lambda: not leader.leads, 30)
        assert other.leads
        count = len([run for run in runs(place, "line") if run.state == "succeeded"])
        until(lambda: succeeded(place, "line", count + 2), 60)
        after = store_of(place).lease()
        assert after is not None
        assert after.token == before.token
    counted = collections.Counter(run.due for run in runs(place, "line"))
    assert max(counted.values()) == 1


def test_failures_are_told_and_given_up_and_schedules_of_the_file_follow_it(place: Path) -> None:
    schedule(place, "line", "--cron", NEVER_SOON, "--input", "/nothing/here.csv", "--output", "/tmp/x.csv", "--retries", "1", "--retry-seconds", "0.2")  # fmt: skip
    rows, out, file = place.parent / "rows.parquet", place.parent / "out", place / "fairway.toml"
    table = f'[[schedules]]\nname = "often"\ncron = "{EVERY_SECOND}"\nmodel = "line"\ninput = "{rows}"\noutput = "{out}/{{utc}}.parquet"\n'
    file.write_text(table)
    with controlling(place) as control:
        fairway(place, "schedules", "run", "line")
        until(lambda: any(run.state == "failed" for run in runs(place, "line")), 60)
        until(lambda: succeeded(place, "often"), 60)
        file.write_text(table.replace(EVERY_SECOND, "0 0 31 2 *"))
        until(lambda: "is never due" in control.errors.read_text(), 60)
        file.write_text("")
        until(lambda: [state.name for state in store_of(place).schedules()] == ["line"], 60)
    [run] = runs(place, "line")
    assert run.attempt == 2
    assert "/nothing/here.csv" in run.reason


def test_serving_has_one_beside_it_that_may_die_and_is_back(place: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        "FAIRWAY_CONTROL_ENABLED": "true",
        "FAIRWAY_CONTROL_PORT": str(port),
        "FAIRWAY_CONTROL_NICE": "5",
    }
    with serving(place, "line", environ={**os.environ, **environ}) as server:
        beside = Control(server.process, f"127.0.0.1:{port}", server.errors)

        def answers() -> bool:
            try:
                return beside.ask("/health")[0] == 200
            except OSError:
                return False

        until(answers, 60)
        [pid] = server._children("fairway.app.control")
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 5
        os.kill(pid, signal.SIGKILL)
        assert server.post({"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}, {"name": "b", "shape": [1], "datatype": "FP64", "data": [1.0]}, {"name": "c", "shape": [1], "datatype": "FP64", "data": [1.0]}]}, "/v2/models/line/infer")[0] == 200  # fmt: skip
        until(lambda: server._children("fairway.app.control") not in ([], [pid]), 30)
        until(answers, 60)
        assert "the control process ended with -9" in server.errors.read_text()
        # A second server's finds the port taken: it says so in one line, and both serve.
        with serving(place, "line", environ={**os.environ, **environ}) as other:
            until(lambda: "no pages and no admin API for now" in other.errors.read_text(), 60)
            assert other.ask("GET", "/v2/health/ready")[0] == 200
            lines = [line for line in other.errors.read_text().splitlines() if "cannot listen" in line]
            assert len(lines) == 1


@pytest.mark.parametrize(("option", "environ"), [(["--no-control"], "true"), ([], "false")])
def test_serving_starts_none_where_it_is_told_so(place: Path, option: list[str], environ: str) -> None:
    with serving(
        place, "line", *option, environ={**os.environ, "FAIRWAY_CONTROL_ENABLED": environ}
    ) as server:
        until(lambda: server.watchers() != [])
        assert server._children("fairway.app.control") == []


def test_control_refuses_what_serving_refuses(place: Path) -> None:
    command = [FAIRWAY, "control", "--home", str(place), "--json", "--port", "0"]
    open_to_all = subprocess.run(
        [*command, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert open_to_all.returncode == 1
    assert "insecure_binding" in open_to_all.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = subprocess.run(
            [*command[:-1], port], capture_output=True, text=True, timeout=60, check=False
        )
    assert refused.returncode == 7
    assert "cannot listen on" in refused.stderr


def test_keys_are_asked_for_and_followed_while_it_runs(place: Path) -> None:
    with controlling(place) as control:
        assert control.ask("/api/v1/models")[0] == 200
        secret = fairway(place, "keys", "create", "ann", "--scope", "admin")["secret"]
        until(lambda: control.ask("/api/v1/models")[0] == 401)
        assert control.ask("/api/v1/models", key=secret)[0] == 200
        body = {
            "name": "x",
            "cron": "@daily",
            "work": {"type": "batch", "model": "line", "input": "/i", "output": "/o"},
        }
        assert control.ask("/api/v1/schedules", "POST", body, secret)[0] == 201
        fairway(place, "keys", "revoke", "ann")
        until(lambda: control.ask("/api/v1/models", key=secret)[0] == 401)
