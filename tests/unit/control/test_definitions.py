"""What a schedule must be, and how fairway.toml's become the registry's."""

from pathlib import Path

import msgspec
import pytest

from fairway.control.definitions import (
    FILE,
    absolute,
    check_changeable,
    check_schedule,
    schedule_of,
    synchronise,
)
from fairway.core.errors import Conflict, InvalidInput
from fairway.core.schedule import BatchWork, PrecomputeWork, Schedule, ScheduleState
from fairway.core.settings import ScheduleSettings
from fairway.stores.control_memory import MemoryControlStore

WORK = BatchWork(model="churn", input="in.parquet", output="out/{date}/")
GOOD = Schedule(name="nightly", cron="0 2 * * *", work=WORK, time_zone="Europe/Berlin")
TABLE = ScheduleSettings(name="nightly", cron="0 2 * * *", model="churn", input="in.parquet", output="out/")
replace = msgspec.structs.replace


def work(**values: object) -> BatchWork:
    return replace(WORK, **values)


def test_a_good_one_is_let_through() -> None:
    check_schedule(GOOD)
    check_schedule(replace(GOOD, work=PrecomputeWork(model="churn@champion", files="c.csv", key="id")))
    check_schedule(replace(GOOD, allow_overlap=True, work=work(max_errors="0.5%")))


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"name": "no spaces"}, "name", "is not a name"),
        ({"cron": "0 0 31 2 *"}, "cron", "is never due"),
        ({"cron": "soon"}, "cron", "is not cron"),
        ({"time_zone": "Berlin"}, "time_zone", "is not a time zone"),
        ({"work": work(model="a b")}, "model", "is not a model name"),
        ({"work": work(output="")}, "work", "needs input and output"),
        ({"work": work(input="x" * 5000)}, "work", "at most 4096"),
        ({"work": work(output="out/{when}")}, "work", "is not a placeholder"),
        ({"work": work(max_errors="some")}, "work", "neither a share"),
        ({"work": work(format="xlsx")}, "work", "is none of parquet"),
        ({"work": work(output="out/"), "allow_overlap": True}, "work", "would write to one output"),
        ({"work": PrecomputeWork(model="m", files="", key="id")}, "work", "needs files and key"),
        ({"work": PrecomputeWork(model="m", files="f", key="id"), "allow_overlap": True}, "work", "cannot overlap"),
        ({"retries": -1}, "retries", "give 0 to 100"),
        ({"retry_seconds": 0.0}, "retry_seconds", "give up to 3600"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(values: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        check_schedule(replace(GOOD, **values))
    assert [problem.field for problem in caught.value.problems] == [field]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidInput, match="3 things") as caught:
        check_schedule(replace(GOOD, name="", cron="x", retries=999))
    assert [problem.field for problem in caught.value.problems] == ["name", "cron", "retries"]


def test_a_table_of_the_file_is_a_batch_or_answers_and_not_both() -> None:
    assert schedule_of(TABLE).work == BatchWork(model="churn", input="in.parquet", output="out/")
    answers = ScheduleSettings(name="a", cron="@daily", model="m", files="c.csv", key="id", ttl_seconds=60.0)
    assert schedule_of(answers).work == PrecomputeWork(model="m", files="c.csv", key="id", ttl_seconds=60.0)
    for wrong in (replace(TABLE, files="c.csv"), ScheduleSettings(name="a", cron="@daily", model="m")):
        with pytest.raises(InvalidInput, match="either input and output, or files and key"):
            schedule_of(wrong)


def test_relative_paths_are_made_to_hold_everywhere() -> None:
    here = Path("/data")
    assert absolute(work(input="in/*.csv", output="out/"), here) == work(
        input="/data/in/*.csv", output="/data/out/"
    )
    urls = work(input="s3://b/x", output="postgresql://h/d?table=t")
    assert absolute(urls, here) == urls
    assert absolute(PrecomputeWork(model="m", files="c.csv", key="k"), here).files == "/data/c.csv"  # type: ignore[union-attr]


# fairway.toml


def test_the_files_schedules_come_change_and_go(tmp_path: Path) -> None:
    store = MemoryControlStore()
    assert synchronise(store, [TABLE], tmp_path) == []
    first = store.schedule("nightly")
    assert first.schedule.source == FILE
    assert first.schedule.work == BatchWork(
        model="churn", input=f"{tmp_path}/in.parquet", output=f"{tmp_path}/out/"
    )
    store.pause_schedule("nightly")
    synchronise(store, [TABLE], tmp_path)
    assert store.schedule("nightly") == replace(first, paused=True)  # the same, so nothing was written
    synchronise(store, [replace(TABLE, cron="0 3 * * *")], tmp_path)
    changed = store.schedule("nightly")
    assert (changed.schedule.cron, changed.paused) == ("0 3 * * *", True)
    assert changed.settled > first.settled
    assert synchronise(store, [], tmp_path) == []
    assert store.schedules() == ()


def test_what_is_wrong_in_the_file_is_told_and_the_rest_holds(tmp_path: Path) -> None:
    store = MemoryControlStore()
    store.add_schedule(replace(GOOD, name="mine"), settled="2026-01-01T00:00:00.000000Z")
    other = replace(TABLE, name="other")
    synchronise(store, [other], tmp_path)
    wrong = synchronise(
        store,
        [TABLE, replace(TABLE, name="mine"), replace(other, cron="0 0 30 2 *"), replace(TABLE, name="x"), replace(TABLE, name="x")],
        tmp_path,
    )  # fmt: skip
    assert len(wrong) == 4
    assert "fairway schedules remove mine" in wrong[0]
    assert "is never due" in wrong[1]
    assert "more than one schedule 'x'" in wrong[2]
    known: dict[str, ScheduleState] = {state.name: state for state in store.schedules()}
    assert sorted(known) == ["mine", "nightly", "other"]
    assert known["mine"].schedule.source == "registry"
    assert known["other"].schedule.cron == "0 2 * * *"


def test_the_files_schedules_are_removed_in_the_file() -> None:
    check_changeable(GOOD)
    with pytest.raises(Conflict, match="Change it there"):
        check_changeable(replace(GOOD, source=FILE))
