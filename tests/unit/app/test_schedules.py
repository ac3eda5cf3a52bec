"""Schedules of a home, and the process that works on their runs, without starting it."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway.app.batch import run_batch
from fairway.app.precompute import precompute
from fairway.app.scheduled import Worker
from fairway.app.schedules import add_schedule, open_desk, run_schedule
from fairway.cli.main import main
from fairway.control.leadership import machine_clock
from fairway.control.process import Order, Said
from fairway.core.errors import AlreadyExists, NotFound, Unavailable
from fairway.core.schedule import BatchWork, PrecomputeWork, Schedule, ScheduleRun, Work
from fairway.core.settings import ScheduleSettings
from tests.e2e.servers import numeric_data, numeric_model

DUE = "2026-05-02T00:30:00.000000Z"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the model `line`, and rows.csv beside it."""
    home = tmp_path_factory.mktemp("schedules") / "home"
    frame = numeric_data(60)
    fairway.deploy(numeric_model(frame), frame, target="y", name="line", home=home)
    frame["id"] = range(60)
    frame.drop(columns="y").to_csv(home.parent / "rows.csv", index=False)
    return home


@pytest.fixture(autouse=True)
def beside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.parent)


def schedule(name: str, work: Work | None = None, **values: Any) -> Schedule:
    work = work or BatchWork(model="line", input="rows.csv", output="out/{date}-{hour}.csv")
    return Schedule(name=name, cron="30 2 * * *", work=work, time_zone="Europe/Berlin", **values)


def worked(home: Path, wanted: Schedule, **values: Any) -> tuple[list[Said], Any]:
    """What the process of a run says, and its outcome."""
    run = ScheduleRun(schedule=wanted.name, model="line", due=DUE, kind="due", state="running", created=DUE, next_attempt=DUE, attempt=values.pop("attempt", 1), **values)  # fmt: skip
    said: list[Said] = []
    order = Order(home=str(home), schedule=wanted, run=run, held_until=machine_clock() + 60)
    return said, Worker(order, said.append).work()


def test_what_can_be_scheduled_is_what_batch_and_precompute_can_do() -> None:
    """An option that one of them gets is one that schedules need."""
    inside = {"name", "home", "tell", "started", "fresh", "resume", "rejects"}
    assert (
        set(BatchWork.__struct_fields__) - {"model"} == set(inspect.signature(run_batch).parameters) - inside
    )
    ahead = set(inspect.signature(precompute).parameters) - inside
    assert set(PrecomputeWork.__struct_fields__) - {"model"} == ahead
    own = {*BatchWork.__struct_fields__, *PrecomputeWork.__struct_fields__, "name", "cron", "time_zone"}
    assert set(ScheduleSettings.__struct_fields__) == own | {"allow_overlap", "retries", "retry_seconds"}


def test_relative_paths_are_meant_from_where_the_user_stands(home: Path) -> None:
    made = add_schedule(schedule("placed"), home)
    assert isinstance(made.schedule.work, BatchWork)
    assert made.schedule.work.input == str(home.parent / "rows.csv")
    with pytest.raises(AlreadyExists):
        add_schedule(schedule("placed"), home)


@pytest.mark.parametrize("model", ["nothing", "line@nobody", "line:9"])
def test_a_model_that_is_not_there_is_refused(home: Path, model: str) -> None:
    with pytest.raises(NotFound):
        add_schedule(schedule("x", BatchWork(model=model, input="i", output="o")), home)


def test_a_run_that_nobody_does_is_not_waited_for_for_ever(home: Path) -> None:
    add_schedule(schedule("alone"), home)
    run, leads = run_schedule("alone", home=home)
    assert (run.state, run.kind, leads) == ("waiting", "manual", False)
    with pytest.raises(Unavailable, match="A control process must run"):
        run_schedule("alone", wait_seconds=0.0, home=home)


def test_a_batch_is_run_and_when_asked_again_gone_on_with(home: Path) -> None:
    wanted = schedule(
        "batch", BatchWork(model="line", input="rows.csv", output="out/{date}-{hour}.csv", keep=("id",))
    )
    said, outcome = worked(home, wanted)
    assert (outcome.state, outcome.rows, outcome.rejected) == ("succeeded", 60, 0)
    assert said[0] == Said(event="begun", batch_run=outcome.batch_run)
    assert len((home.parent / "out" / "2026-05-02-02.csv").read_text().splitlines()) == 61
    _, again = worked(home, wanted, batch_run=outcome.batch_run, attempt=2)
    assert again == outcome
    _, lost = worked(home, wanted, batch_run="line-0000000000", attempt=2)
    assert lost == outcome


def test_answers_are_computed_ahead(home: Path) -> None:
    wanted = schedule("ahead", PrecomputeWork(model="line", files="rows.csv", key="id"))
    _, outcome = worked(home, wanted)
    assert (outcome.state, outcome.rows, outcome.rejected) == ("succeeded", 60, 0)
    assert worked(home, wanted, attempt=2)[1].state == "succeeded"


def test_what_fails_says_why_and_whether_trying_again_may_help(home: Path) -> None:
    _, late = worked(home, schedule("late", BatchWork(model="line", input="not-yet.csv", output="out/x.csv")))
    assert (late.state, late.retry) == ("failed", True)
    assert "not-yet.csv" in late.reason
    (home.parent / "out").mkdir(exist_ok=True)
    (home.parent / "out" / "taken.csv").write_text("somebody's")
    _, taken = worked(
        home, schedule("taken", BatchWork(model="line", input="rows.csv", output="out/taken.csv"))
    )
    assert (taken.state, taken.retry) == ("failed", False)
    bad = home.parent / "bad.csv"
    bad.write_text("a,b,c\n1,2,3\nx,y,z\n")
    limited = BatchWork(model="line", input="bad.csv", output="out/limited.csv", max_errors="0")
    _, outcome = worked(home, schedule("limited", limited))
    assert (outcome.state, outcome.retry, outcome.rejected) == ("failed", False, 1)
    assert "rejected" in outcome.reason


def verb(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        main([*arguments, "--home", str(home)])
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, *capsys.readouterr()


def test_the_verbs_for_people_and_for_programs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--cron", "0 2 * * *", "--input", "rows.csv", "--output", "out/{utc}.csv", "--name", "verbs")
    code, out, err = verb(capsys, home, "batch", "schedule", "line", *options)
    assert (code, out.splitlines()[0]) == (0, "verbs  0 2 * * *  UTC")
    assert "fairway control" in err
    assert verb(capsys, home, "batch", "schedule", "line", *options)[0] == 6
    assert verb(capsys, home, "batch", "schedule", "line", *options, "--time-zone", "Mars")[0] == 4
    code, out, _ = verb(capsys, home, "schedules", "precompute", "line", "rows.csv", "--key", "id", "--cron", "@daily", "--name", "ahead2", "--json")  # fmt: skip
    assert (code, json.loads(out)["schedule"]["work"]["type"]) == (0, "precompute")
    assert "verbs" in verb(capsys, home, "schedules", "list")[1]
    assert {view["schedule"]["name"] for view in json.loads(verb(capsys, home, "schedules", "list", "--json")[1])} >= {"verbs"}  # fmt: skip
    assert "is paused" in verb(capsys, home, "schedules", "pause", "verbs")[1]
    assert "paused" in verb(capsys, home, "schedules", "show", "verbs")[1]
    assert "is due next at" in verb(capsys, home, "schedules", "resume", "verbs")[1]
    code, out, err = verb(capsys, home, "schedules", "run", "verbs")
    assert code == 0
    assert "No control process has ever run here" in err
    assert "manual" in verb(capsys, home, "schedules", "history", "verbs")[1]
    assert len(json.loads(verb(capsys, home, "schedules", "history", "--json")[1])) >= 1
    assert "is removed" in verb(capsys, home, "schedules", "remove", "verbs")[1]
    assert verb(capsys, home, "schedules", "show", "verbs")[0] == 3
    with open_desk(home) as (desk, _):
        assert "verbs" not in {view.schedule.name for view in desk.list()}
