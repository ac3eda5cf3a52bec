"""The ledger: whole or not there, one process at a time, and errors by meaning."""

import fcntl
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fairway.batch.ledger import LOCK, Ledger, Part, hold, starts
from fairway.batch.source import Position, SourceFile
from fairway.core.errors import Conflict, CorruptRegistry, RunNotFound

FILES = [SourceFile("a.csv", "csv"), SourceFile("b.csv", "csv", partition=(("day", "1"),))]


def part(file: int, number: int, row: int) -> Part:
    return Part(
        file=file, part=number, first=0, end=Position(row=row, key="k"), scored=row, rejects=0, name="n", bytes=1, sha256="s"
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger.create(tmp_path / "run", b"{}", FILES)) as made:
        yield made


def test_what_is_written_is_read_back(ledger: Ledger) -> None:
    ledger.commit(part(0, 0, 5))
    ledger.commit(part(1, 0, 3))
    ledger.commit(part(0, 1, 9))
    ledger.end_file(1, "failed", "why")
    ledger.close()
    again = Ledger(ledger.folder)
    assert [(p.file, p.part) for p in again.parts()] == [(0, 0), (0, 1), (1, 0)]
    assert starts(again.parts()) == {0: (2, Position(row=9, key="k")), 1: (1, Position(row=3, key="k"))}
    assert [(r.file, r.state, r.reason) for r in again.files()] == [
        (FILES[0], "todo", ""),
        (FILES[1], "failed", "why"),
    ]
    again.end("stopped", "reason", b"null", 2.5)
    again.end("stopped", "reason", b"null", 2.5)
    assert (again.state, again.seconds, again.report) == (("stopped", "reason"), 5.0, b"null")
    again.cancel()
    assert again.is_cancelled
    again.heed()
    assert not again.is_cancelled
    again.begin()
    assert again.state == ("running", "")
    assert [r.state for r in again.files()] == ["todo", "todo"]
    again.close()


def test_one_part_is_committed_once(ledger: Ledger) -> None:
    ledger.commit(part(0, 0, 5))
    with pytest.raises(CorruptRegistry):
        ledger.commit(part(0, 0, 6))
    ledger.close()


def is_locked(folder: Path) -> bool:
    with closing(Ledger(folder)) as other:
        return other.is_locked


def test_the_lock_is_one_processs(ledger: Ledger) -> None:
    assert not ledger.is_locked
    other = Ledger(ledger.folder)
    with ledger.lock():
        assert other.is_locked
    assert not other.is_locked
    other.close()
    ledger.close()


def test_who_looks_whether_a_run_is_worked_on_keeps_nobody_from_working_on_it(ledger: Ledger) -> None:
    with (ledger.folder / LOCK).open("w") as seen:
        fcntl.flock(seen, fcntl.LOCK_SH)  # as `is_locked` has it for a moment
        later = threading.Timer(0.1, lambda: fcntl.flock(seen, fcntl.LOCK_UN))
        later.start()
        with ledger.lock():
            assert is_locked(ledger.folder)
        later.join()


def test_of_two_processes_that_begin_a_run_one_does(tmp_path: Path) -> None:
    """Both have seen that there is none; the later one would put an empty ledger in the place of the other's."""
    folder = tmp_path / "run"
    folder.mkdir()
    with hold(folder, new=True):
        with pytest.raises(Conflict, match="works on run run"), hold(folder, new=True):
            pass
        Ledger.create(folder, b"{}", FILES).close()
    with pytest.raises(Conflict, match="just begun"), hold(folder, new=True):
        pass
    with hold(folder):
        pass


def test_the_lock_of_a_run_that_is_another_by_now_is_no_lock(ledger: Ledger) -> None:
    Ledger.create(ledger.folder, b"{}", FILES).close()
    with pytest.raises(Conflict, match="anew"), ledger.lock():
        pass
    shutil.rmtree(ledger.folder)
    with pytest.raises(Conflict, match="removed"), ledger.lock():
        pass


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removes a run holds its lock; who waited for that has the lock of a file without a name."""
    real, taken = fcntl.flock, []

    def late(handle: int, kind: int) -> None:
        real(handle, kind)
        taken.append(handle)
        if len(taken) == 1:
            (ledger.folder / LOCK).unlink()

    monkeypatch.setattr("fairway.batch.ledger.fcntl.flock", late)
    with ledger.lock():
        monkeypatch.undo()
        assert is_locked(ledger.folder)
    assert len(taken) == 2


def test_a_ledger_that_is_not_there_or_damaged(tmp_path: Path, ledger: Ledger) -> None:
    with pytest.raises(RunNotFound, match="nope"):
        Ledger(tmp_path / "nope")
    with pytest.raises(CorruptRegistry, match="cannot be read"):
        ledger.plan(Part)
    ledger.close()
    (ledger.folder / "ledger.db").write_bytes(b"not a database" * 100)
    with pytest.raises(CorruptRegistry, match="damaged"):
        Ledger(ledger.folder)


def test_a_creation_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "ledger.db.new").write_bytes(b"half")
    ledger = Ledger.create(folder, b"{}", FILES)
    assert len(ledger.files()) == 2
    ledger.close()
    with sqlite3.connect(folder / "ledger.db") as db:
        assert db.execute("select count(*) from files").fetchone() == (2,)
    db.close()


def test_totals_are_kept_with_the_parts_and_the_last_part_ends_its_file(ledger: Ledger) -> None:
    for number, ends in ((0, False), (1, True)):
        part = Part(
            file=0, part=number, first=10 * number, end=Position(0, 10 * number + 10), scored=7, rejects=3,
            name="", bytes=0, sha256="",
        )  # fmt: skip
        ledger.commit(part, ends_file=ends)
        assert ledger.totals == (10 * number + 10, 3 * number + 3)
        assert (ledger.files()[0].state == "done") is ends
    with pytest.raises(CorruptRegistry):
        ledger.commit(part, ends_file=True)  # it is in the list already: nothing of it is counted twice
    assert ledger.totals == (20, 6)
