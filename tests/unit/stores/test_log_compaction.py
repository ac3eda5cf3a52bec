"""Segments become Parquet: every row once, whatever happens meanwhile."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from fairway.core.errors import StorageFull, Unavailable
from fairway.core.settings import LogSettings
from fairway.stores import log_compaction
from fairway.stores.disk import file_lock
from fairway.stores.log_archive import LABELS, PREDICTIONS, Archive
from fairway.stores.log_compaction import Compacted, compact, forget
from fairway.stores.log_reading import log_id, model_lock
from fairway.stores.log_segments import SegmentLog
from tests.logs import (
    DAY,
    NOON,
    Row,
    ids,
    label,
    opened,
    prediction_batch,
    seconds,
    segment_log,
    write_labels,
    write_predictions,
)

SETTINGS = LogSettings()
T = seconds(NOON)
ROOT = Path(__file__).parents[3]


def names(prefix: str, count: int, start: float = T, step: float = 1.0) -> list[Row]:
    return [(f"{prefix}{i:05}", start + i * step) for i in range(count)]


def everything(folder: Path) -> list[str]:
    return ids(opened(folder).windows("m"))


def now() -> float:
    return T + 3 * DAY


def at(time: float) -> Callable[[], float]:
    return lambda: time


def test_rows_move_into_a_part_a_day_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 50, step=2000.0), names("b", 5))
    before = everything(folder)
    done = compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert (done.segments, done.parts, done.rows, done.left, done.errors) == (2, 2, 55, 0, ())
    assert everything(folder) == before == sorted(n for n, _ in [*names("a", 50), *names("b", 5)])
    assert not list(folder.glob("m/v1/*.arrows"))
    parts = opened(folder).archive.parts(PREDICTIONS, "m")
    assert [part.day for part in parts] == ["2026-01-31", "2026-02-01"]
    assert [part.rows for part in parts] == [27, 28]
    assert parts[0].digest == "1" * 12
    assert parts[0].first == round(T * 1e6)
    assert not list((folder / ".scratch").iterdir())


def test_the_archive_is_plain_parquet_for_everybody(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 50, step=2000.0))
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    where = tmp_path / "archive" / "predictions"
    frame = pd.read_parquet(where)
    assert sorted(frame["request_id"]) == [name for name, _ in names("a", 50)]
    assert set(frame["model"]) == {"m"}
    assert sorted(set(frame["day"].astype(str))) == ["2026-01-31", "2026-02-01"]
    assert set(frame["digest"]) == {"sha256:" + "1" * 64}
    assert str(frame["time"].dtype) == "datetime64[us, UTC]"
    lazy = pl.scan_parquet(str(where / "**" / "*.parquet"), hive_partitioning=True)
    assert lazy.filter(pl.col("version") == 1).select(pl.len()).collect().item() == 50


def test_versions_models_and_columns_have_parts_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 3))
    write_predictions(folder, names("b", 3), version=2)
    write_predictions(folder, names("c", 3), extra=True)
    write_predictions(folder, names("d", 3), model="other")
    log = opened(folder)
    assert compact(log, SETTINGS, everything=True, clock=now).parts == 4
    assert log.models() == ["m", "other"]
    assert ids(log.windows("m", versions=[1])) == sorted(n for n, _ in [*names("a", 3), *names("c", 3)])
    assert ids(log.windows("other")) == [n for n, _ in names("d", 3)]
    assert pq.ParquetDataset(str(tmp_path / "archive" / "predictions" / "model=other")).read().num_rows == 3


def test_what_is_being_written_waits(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    writing = segment_log(folder)
    writing.append(prediction_batch(names("a", 3)))
    done = compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert (done.segments, done.left) == (0, 1)
    assert len(everything(folder)) == 3
    writing.append(prediction_batch(names("b", 3)))
    writing.close()
    assert compact(opened(folder), SETTINGS, everything=True, clock=now).rows == 6


def test_it_is_done_when_there_is_enough_or_something_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 3))
    [path] = folder.glob("m/v1/*.arrows")
    age = path.stat().st_mtime
    patient = LogSettings(compact_seconds=60.0)
    assert compact(opened(folder), patient, clock=lambda: age + 30).left == 1
    assert compact(opened(folder), patient, clock=lambda: age + 61).segments == 1
    write_predictions(folder, names("b", 3))
    assert compact(opened(folder), LogSettings(compact_bytes=10), clock=lambda: age + 1).segments == 1
    write_predictions(folder, names("c", 3))
    assert compact(opened(folder), patient, clock=lambda: age - 10_000).segments == 1  # the clock went back


KILL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from fairway.core.settings import LogSettings
from fairway.stores import log_archive, log_compaction
from tests.logs import opened
left = int(sys.argv[1])
def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def killing(kind, name):
    real = getattr(kind, name)
    def wrapped(*given, **told):
        step()
        result = real(*given, **told)
        step()
        return result
    setattr(kind, name, wrapped)
killing(log_archive.Archive, "put")
killing(log_compaction._Writer, "finish")
killing(Path, "unlink")
log_compaction.compact(opened(Path({folder!r})), LogSettings(), everything=True)
print("done")
"""


def test_killed_at_any_step_no_row_is_lost_and_none_is_there_twice(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    first = [names("a", 40, step=4000.0), names("b", 40, step=4000.0)]
    write_predictions(folder, *first)
    expected = sorted(name for group in first for name, _ in group)
    script = KILL.format(root=str(ROOT), folder=str(folder))
    for serial, steps in enumerate((2, 4, 6, 9, 11, 14)):
        killed = subprocess.run([sys.executable, "-c", script, str(steps)], capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert everything(folder) == expected, steps
        more = names(f"more{serial}-", 5, start=T + serial * DAY)
        write_predictions(folder, more)
        expected = sorted([*expected, *(name for name, _ in more)])
        assert everything(folder) == expected, steps
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert everything(folder) == expected
    assert not list(folder.glob("m/*/*.arrows"))


def test_failing_at_every_step_is_as_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    groups = [names("a", 20, step=9000.0), names("b", 20, step=9000.0)]
    write_predictions(folder, *groups)
    expected = sorted(name for group in groups for name, _ in group)
    real = Archive.put
    calls = 0

    def failing(self: Archive, source: Path, part: log_compaction.Part) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise StorageFull("the disk is full")
        real(self, source, part)

    monkeypatch.setattr(Archive, "put", failing)
    for _ in range(3):
        assert compact(opened(folder), SETTINGS, everything=True, clock=now).errors == (
            "m: the disk is full",
        )
        assert everything(folder) == expected
    monkeypatch.setattr(Archive, "put", real)
    assert compact(opened(folder), SETTINGS, everything=True, clock=now).errors == ()
    assert everything(folder) == expected


def test_one_process_compacts_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 3))
    with file_lock(folder / ".compact.lock", timeout_seconds=0):
        assert compact(opened(folder), SETTINGS, everything=True) == Compacted(busy=True)


def test_segments_stay_while_somebody_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 30))
    reading = opened(folder).windows("m")
    first = next(reading)
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert len(list(folder.glob("m/v1/*.arrows"))) == 1
    assert len(everything(folder)) == 30  # the part says that it has them
    assert ids([first, *reading]) == [name for name, _ in names("a", 30)]
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert not list(folder.glob("m/v1/*.arrows"))
    assert len(everything(folder)) == 30


def test_writers_compaction_and_readers_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    rounds, errors = 12, []
    stop = threading.Event()

    def write(number: int) -> None:
        log = segment_log(folder, segment_bytes=1500)
        for i in range(rounds):
            log.append(prediction_batch(names(f"w{number}-{i}-", 20, step=3000.0)))
        log.close()

    def read() -> None:
        while not stop.is_set():
            found = everything(folder)
            if len(found) != len(set(found)):
                errors.append("a row was there twice")

    def pack() -> None:
        while not stop.is_set():
            compact(opened(folder), SETTINGS, everything=True, clock=now)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    others = [threading.Thread(target=read), threading.Thread(target=pack)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert errors == []
    expected = sorted(n for w in range(3) for i in range(rounds) for n, _ in names(f"w{w}-{i}-", 20))
    assert everything(folder) == expected


def test_a_segment_that_is_just_being_opened_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "log"
    real = fcntl.flock

    def locking(handle: int, how: int) -> None:
        if how == fcntl.LOCK_EX:  # a compaction comes between the making of the file and its lock
            monkeypatch.setattr(fcntl, "flock", real)
            compact(opened(folder), SETTINGS, everything=True, clock=now)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", locking)
    write_predictions(folder, names("a", 5))
    assert everything(folder) == [name for name, _ in names("a", 5)]
    assert fcntl.flock is real
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert everything(folder) == [name for name, _ in names("a", 5)]


def test_what_a_writer_left_that_died_while_opening_goes(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 5))
    left = folder / "m" / "v1" / "20260101T000000.000000Z-host.1-1.opening"
    left.touch()
    os.utime(left, (now(), now()))
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert left.exists()
    compact(opened(folder), SETTINGS, everything=True, clock=at(now() + DAY + 1))
    assert not left.exists()


def test_a_log_whose_name_a_power_cut_emptied_gets_another(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("r", 3))
    (folder / ".id").touch()
    log = opened(folder)
    before = ids(log.windows("m"))
    assert compact(log, SETTINGS, everything=True, clock=at(now())).parts == 1
    assert ids(log.windows("m")) == before
    assert len(log_id(folder)) == 8


def test_a_log_that_cannot_be_named_is_not_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("r", 3))
    log = opened(folder)
    before = ids(log.windows("m"))
    monkeypatch.setattr("fairway.stores.log_compaction.log_id", lambda folder: "")
    assert "cannot be written to" in compact(log, SETTINGS, everything=True, clock=at(now())).errors[0]
    monkeypatch.undo()
    assert ids(log.windows("m")) == before


def test_machines_share_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "shared"
    for machine in ("one", "two"):
        folder = tmp_path / machine / "log"
        write_predictions(folder, names(machine, 10))
        compact(opened(folder, archive), SETTINGS, everything=True, clock=now)
        write_predictions(folder, names(f"{machine}-open", 5))
    here = opened(tmp_path / "one" / "log", archive)
    expected = [*names("one", 10), *names("two", 10), *names("one-open", 5)]
    assert ids(here.windows("m")) == sorted(name for name, _ in expected)
    assert len({part.log for part in here.archive.parts(PREDICTIONS)}) == 2


def test_damaged_segments_are_kept_apart_and_torn_ones_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 10), names("b", 10), names("c", 10), names("d", 10))
    torn, garbage, empty, _ = sorted(folder.glob("m/v1/*.arrows"))
    garbage.write_bytes(b"not arrow at all" * 10)
    empty.write_bytes(b"")
    torn.unlink()
    log = segment_log(folder)
    for group in (names("a", 10), names("x", 10)):
        log.append(prediction_batch(group))
    log.close()
    torn = max(folder.glob("m/v1/*.arrows"))
    torn.write_bytes(torn.read_bytes()[:-200])
    done = compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert done.damaged == 1
    assert garbage.with_suffix(".damaged").exists()
    assert not list(folder.glob("m/v1/*.arrows"))
    assert everything(folder) == sorted(name for name, _ in [*names("a", 10), *names("d", 10)])


def test_labels_are_compacted_by_when_they_came(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_labels(folder, [label("a1", 1, T - 400 * DAY), label("a2", "x", T)], T)
    write_labels(folder, [label("a1", 0, T)], T + DAY)
    log = opened(folder)
    assert compact(log, SETTINGS, everything=True, clock=now).parts == 2
    parts = log.archive.parts(LABELS, "m")
    assert [(part.day, part.rows, part.stream) for part in parts] == [
        ("2026-01-31", 2, "labels"),
        ("2026-02-01", 1, "labels"),
    ]
    assert sorted(v for b in log.labels("m") for v in b.column("label").to_pylist()) == ['"x"', "0", "1"]


def test_old_parts_go_by_age(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    settings = LogSettings(keep_days=10)
    write_predictions(folder, names("old", 5), names("new", 5, start=T + 8 * DAY))
    write_labels(folder, [label("old1", 1, T)], T)
    hour = T + 9 * DAY
    compact(opened(folder), settings, everything=True, clock=at(hour))
    for _ in range(4):  # hours later, again and again
        hour += 0.9 * DAY
        done = compact(opened(folder), settings, everything=True, clock=at(hour))
        assert done.removed_parts == 0  # the rows are old, their file is not
    for _ in range(10):
        hour += 0.9 * DAY
        done = compact(opened(folder), settings, everything=True, clock=at(hour))
        if done.removed_parts:
            break
    assert {name[:3] for name in everything(folder)} <= {"new"}
    assert list(opened(folder).labels("m")) == []


def test_the_oldest_days_go_when_there_is_too_much(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for day in range(4):
        write_predictions(folder, names(f"d{day}-", 200, start=T + day * DAY))
    compact(opened(folder), SETTINGS, everything=True, clock=now)
    sizes = [part.size for part in opened(folder).archive.parts(PREDICTIONS)]
    settings = LogSettings(archive_bytes=sum(sizes[2:]) + 10)
    assert compact(opened(folder), settings, clock=now).removed_parts == 2
    assert {name[:2] for name in everything(folder)} == {"d2", "d3"}


def test_a_clock_that_jumps_removes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    settings = LogSettings(keep_days=10)
    write_predictions(folder, names("a", 5), [("dated back", 0.0)])
    for moment in (T, T + 4000 * DAY, T + 4000 * DAY + 600, T + 60, T + 3600, T - 4000 * DAY, T + 7200):
        done = compact(opened(folder), settings, everything=True, clock=at(moment))
        assert done.removed_parts == 0
    assert len(everything(folder)) == 6
    write_predictions(folder, [("far ahead", T + 100_000 * DAY)])
    compact(opened(folder), settings, everything=True, clock=lambda: T + 7300)
    assert len(everything(folder)) == 7
    assert opened(folder).present("m")[0].last > datetime(2290, 1, 1, tzinfo=UTC)


def test_what_was_forgotten_is_in_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 10), names("secret-person", 2), keys=None)
    write_predictions(folder, names("b", 2), keys=["ann-the-customer", None])
    write_labels(folder, [label("secret-person00001", 1, T), label("", 1, T, key="ann-the-customer")], T)
    log = opened(folder)
    compact(log, SETTINGS, everything=True, clock=now)
    assert forget(log, "m", request_ids=["secret-person00001"], keys=["ann-the-customer"]) == (4, 0)
    assert forget(log, "m", request_ids=["secret-person00001"], keys=["ann-the-customer"]) == (0, 0)
    assert everything(folder) == sorted([*(n for n, _ in names("a", 10)), "b00001", "secret-person00000"])
    content = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"ann-the-customer" not in content
    assert b"secret-person00001" not in content
    write_predictions(folder, names("c", 3))
    compact(log, SETTINGS, everything=True, clock=now)  # what is covered stays so
    assert len(everything(folder)) == 15


def test_an_archive_that_is_away_leaves_everything_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 3))
    blocked = tmp_path / "archive"
    blocked.write_text("a file where a folder should be")
    done = compact(opened(folder, blocked), SETTINGS, everything=True, clock=now)
    assert done.errors
    assert len(list(folder.glob("m/v1/*.arrows"))) == 1
    blocked.unlink()
    assert compact(opened(folder, blocked), SETTINGS, everything=True, clock=now).rows == 3


def test_a_lock_that_cannot_be_made_locks_nobody_out(tmp_path: Path) -> None:
    with model_lock(tmp_path / "nowhere", "m", exclusive=False) as got:
        assert got
    with model_lock(tmp_path / "nowhere", "m", exclusive=True) as got:
        assert not got


def test_many_days_at_once(tmp_path: Path) -> None:
    """A clock that was wrong gives one segment rows of many days."""
    folder = tmp_path / "log"
    write_predictions(folder, names("a", 40, step=DAY))
    done = compact(opened(folder), SETTINGS, everything=True, clock=now)
    assert (done.parts, done.rows) == (40, 40)
    assert len(everything(folder)) == 40


def test_a_segment_of_a_removed_model_folder(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = SegmentLog(folder, segment_bytes=1, disk_bytes=2**20)
    log.append(prediction_batch(names("a", 2)))
    log.close()
    for path in folder.glob("m/v1/*"):
        path.unlink()
    assert compact(opened(folder), SETTINGS, everything=True).segments == 0
    assert os.listdir(folder / "m") == ["v1"]


def test_errors_name_the_archive(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path / "archive"))
    write_predictions(tmp_path / "log", names("a", 3))
    log = opened(tmp_path / "log")
    compact(log, SETTINGS, everything=True, clock=now)
    [part] = archive.parts(PREDICTIONS)
    Path(archive.place(part)).write_bytes(b"broken")
    with pytest.raises(Unavailable, match="cannot be read"):
        list(log.windows("m"))
