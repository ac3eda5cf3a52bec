"""The log and the labels around a real server: killed, full, removed, private, asked by SQL."""

import io
import json
import os
import shutil
import signal
import threading
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairway.app.log import open_join, open_log, present, show_request
from fairway.app.settings import read_settings
from fairway.cli.main import main
from fairway.core.errors import NotFound
from tests.e2e.servers import Server, log_of, serving, until

pytestmark = pytest.mark.e2e
LINE = "/v2/models/line/infer"


def ask(server: Server, request_id: str, path: str = LINE, **headers: str) -> int:
    body = json.dumps([{"a": 1.0, "b": 2.0, "c": 3.0}]).encode()
    return server.ask(
        "POST", "/invocations", json.dumps({"dataframe_records": json.loads(body)}).encode(),
        content_type="application/json", x_fairway_model="line", x_request_id=request_id, **headers,
    )[0]  # fmt: skip


def fairway(home: Path, *arguments: str, code: int = 0) -> str:
    """What a command prints, in this process: a start of its own takes longer than what is tested."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as ended:
        main([*arguments, "--home", str(home)])
    assert (ended.value.code or 0) == code, printed.getvalue()
    return printed.getvalue()


def logged(home: Path) -> set[str]:
    return set(log_of(home, "line")["request_id"])


def test_a_killed_worker_loses_at_most_what_it_had_yet_to_flush(home_copy: Path) -> None:
    """In the durable mode nothing: what was answered is in the log, whenever its process is killed."""
    with serving(home_copy, environ={"FAIRWAY_LOG_DURABLE": "true"}) as server:
        answered: list[str] = []
        stop = threading.Event()

        def caller(number: int) -> None:
            for i in range(10_000):
                name = f"c{number}-{i}"
                try:
                    if ask(server, name) == 200:
                        answered.append(name)
                except OSError:
                    continue
                if stop.is_set():
                    return

        callers = [threading.Thread(target=caller, args=(n,)) for n in range(3)]
        for thread in callers:
            thread.start()
        for _ in range(2):
            seen = len(answered)
            until(partial(more_than, answered, seen + 30))
            os.kill(server.workers()[0], signal.SIGKILL)
            until(lambda: len(server.workers()) == 1)
        stop.set()
        for thread in callers:
            thread.join()
        assert set(answered) <= logged(home_copy)
    settings = read_settings(home_copy)
    [version] = present(settings)["line"]
    assert version.rows >= len(answered)


def test_labels_that_were_answered_survive_kill_9(home_copy: Path) -> None:
    with serving(home_copy) as server:
        assert ask(server, "r-1", x_fairway_key="ann") == 200
        taken = server.post([{"request_id": "r-1", "label": 4.5, "model": "line"}], "/feedback")
        assert (taken[0], taken[2]["accepted"]) == (200, 1)
        os.kill(server.workers()[0], signal.SIGKILL)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
    log = open_log(read_settings(home_copy))
    assert [text for b in log.labels("line") for text in b.column("label").to_pylist()] == ["4.5"]


def test_a_log_that_is_removed_full_or_read_only_leaves_serving_untouched(home_copy: Path) -> None:
    with serving(home_copy) as server:
        folder = home_copy / "log"
        assert ask(server, "before") == 200
        until(lambda: "before" in logged(home_copy))
        shutil.rmtree(folder)
        assert ask(server, "after") == 200
        until(lambda: "after" in logged(home_copy))  # it was made again
        shutil.rmtree(folder)
        folder.write_text("not a folder")  # cannot be written, also by root
        assert ask(server, "lost") == 200
        until(lambda: health(server)["log"]["recording"] is False)
        told = health(server)
        assert told["ready"] is True
        assert str(folder) in told["log"]["reason"]
        assert server.metric("fairway_log_dropped_rows_total") == 1
        assert server.metric("fairway_log_failing") == 1
        folder.unlink()
        assert ask(server, "again") == 200
        until(lambda: health(server)["log"]["recording"] is True)
        until(lambda: "again" in logged(home_copy))
        assert server.metric("fairway_log_failing") == 0


def more_than(answered: list[str], count: int) -> bool:
    return len(answered) > count


def health(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.ask("GET", "/v2/health/ready")[2])
    return found


def test_private_fields_are_in_no_file_as_they_are(home_copy: Path) -> None:
    contract = fairway(home_copy, "contract", "show", "shop")
    contract = contract.replace("[inputs.country]", '[inputs.country]\nprivate = "token"', 1)
    contract = contract.replace("[inputs.amount]", '[inputs.amount]\nprivate = "drop"', 1)
    contract = contract.replace("[inputs.items]", '[inputs.items]\nprivate = "hash"', 1)
    (home_copy / "edited.toml").write_text(contract)
    fairway(home_copy, "contract", "edit", "shop", "--file", str(home_copy / "edited.toml"), "--live")
    row = {"amount": 4711.25, "items": 3, "member": True, "country": "Wakanda", "at": "2026-01-02T03:04:05Z"}
    with serving(home_copy) as server:
        status, _, _ = server.post(
            {"dataframe_records": [row]}, "/invocations", x_fairway_model="shop", x_request_id="private-1"
        )
        assert status == 200
        until(lambda: len(log_of(home_copy, "shop")) == 1)
    frame = log_of(home_copy, "shop")
    assert "input.amount" not in frame
    assert len(frame["input.items"][0]) == 32
    fairway(home_copy, "log", "compact")
    files = [
        path for path in (*home_copy.glob("log/**/*"), *home_copy.glob("archive/**/*")) if path.is_file()
    ]
    assert any(path.suffix == ".parquet" for path in files)
    assert all(b"Wakanda" not in path.read_bytes() for path in files)
    assert (home_copy / "log.secret").stat().st_mode & 0o077 == 0
    settings = read_settings(home_copy)
    assert show_request(settings, "private-1")["rows"][0]["input.country"].startswith("fwt1.")
    assert show_request(settings, "private-1", reveal=True)["rows"][0]["input.country"] == "Wakanda"


def test_from_a_prediction_to_its_label_by_every_command(home_copy: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    with serving(home_copy) as server:
        for i in range(5):
            assert ask(server, f"q-{i}", x_fairway_key="ann" if i == 4 else "bob") == 200
        until(lambda: len(logged(home_copy)) == 5)
        found = json.loads(fairway(home_copy, "log", "query", "select count(*) n from predictions", "--json"))
        assert found == [{"n": 5}]  # while it is being written
        labels.write_text("request_id,label\nq-0,1\nq-1,2\nq-2,\n")
        fairway(
            home_copy, "feedback", str(labels), "--url", f"http://{server.address}", "--model", "line", code=1
        )
    fairway(home_copy, "feedback", str(labels), "--model", "line", code=1)  # sent again: no harm
    more = tmp_path / "labels.parquet"
    pd.DataFrame({"key": ["ann"], "label": ["seen"]}).to_parquet(more)
    fairway(home_copy, "feedback", str(more), "--model", "line")
    done = json.loads(fairway(home_copy, "log", "compact", "--json"))
    assert (done["rows"], done["left"]) == (10, 0)
    sql = "select request_id, label from labelled order by request_id"
    expected = [("q-0", "1"), ("q-1", "2"), ("q-4", "seen")]
    rows = json.loads(fairway(home_copy, "log", "query", sql, "--json", "--model", "line"))
    assert [(row["request_id"], row["label"]) for row in rows] == expected
    assert fairway(home_copy, "log", "query", sql, "--csv").splitlines()[1:] == [
        ",".join(r) for r in expected
    ]
    assert "q-4" in fairway(home_copy, "log", "query", sql)
    assert len(fairway(home_copy, "log", "tail", "line", "-n", "3", "--json").splitlines()) == 3
    assert "q-0" in fairway(home_copy, "log", "show", "q-0")
    assert "line" in fairway(home_copy, "log", "list")
    settings = read_settings(home_copy)
    join = open_join(open_log(settings), "line", settings.log)
    assert join.step().matched == 3
    assert (
        sum(b.num_rows for start in join.changed()[0] for b in join.joined(start, start + pd.Timedelta("1h")))
        == 3
    )
    assert json.loads(fairway(home_copy, "log", "forget", "--key", "ann", "--json"))["rows"] == 2
    with pytest.raises(NotFound):
        show_request(settings, "q-4")
    for bad, code in (
        ("copy (select 1) to '/tmp/x'", 4),
        ("select * from read_csv('/etc/passwd')", 4),
        ("select 1; select 2", 4),
    ):
        fairway(home_copy, "log", "query", bad, code=code)
