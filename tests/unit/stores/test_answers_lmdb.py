"""What is particular to the files: locks, damage, a full disk, a writer that is killed."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.core.errors import AnswersUnavailable, NewerFormat
from fairway.stores import answers_lmdb
from fairway.stores.answers import FORMAT
from fairway.stores.answers_lmdb import LmdbAnswers
from tests.generations import generation

KILLED = """
import os, signal, sys
from pathlib import Path
from fairway.stores.answers_lmdb import LmdbAnswers
from tests.generations import generation
writer = LmdbAnswers(Path(sys.argv[1]), "m").begin(generation())
for part in range(1_000_000):
    writer.write(((b"%d" % (part * 100 + n), b"x" * 100) for n in range(100)), b"%d" % (part + 1))
    print(part, flush=True)
"""

READER = """
import sys
from pathlib import Path
from fairway.stores.answers_lmdb import LmdbAnswers
store = LmdbAnswers(Path(sys.argv[1]), "m")
keys = [b"%d" % n for n in range(50)]
seen = reads = 0
print("reads", flush=True)
while seen < int(sys.argv[2]):
    (entry,) = {stored.entry for stored in store.get_many(keys)}
    assert int(entry) >= seen, (entry, seen)
    seen, reads = int(entry), reads + 1
print(reads)
"""


def test_other_processes_see_each_generation_whole_and_none_again(tmp_path: Path) -> None:
    store = LmdbAnswers(tmp_path, "m")

    def publish(number: int) -> None:
        writer = store.begin(generation())
        writer.write([(b"%d" % n, b"%d" % number) for n in range(50)], b"")
        writer.publish()

    publish(0)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(tmp_path), "60"],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reads\n"
    for number in range(1, 61):
        publish(number)
    for reader in readers:
        told, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0
        assert int(told) > 0


def test_a_file_that_is_replaced_twice_while_it_is_opened_is_not_taken_for_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbAnswers(tmp_path, "m")
    opened: list[Path] = []

    def publish(number: int) -> None:
        writer = store.begin(generation())
        writer.write([(b"a", b"%d" % number)], b"")
        writer.publish()

    def opens_another(path: Path, identity: tuple[int, int]) -> answers_lmdb._File:
        if opened:
            return whole(path, identity)
        opened.append(path)
        publish(1)  # what was to be opened is gone, and its number is free
        found = whole(path, identity)
        for number in range(2, 40):
            publish(number)
            if path.stat().st_ino == identity[1]:
                break
        return found

    whole = answers_lmdb._File
    publish(0)
    monkeypatch.setattr(answers_lmdb, "_File", opens_another)
    told = store.get(b"a")
    assert told is not None
    monkeypatch.undo()
    gc.collect()
    assert told == LmdbAnswers(tmp_path, "m").get(b"a")
    assert int(told.entry) > 1


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    writer = LmdbAnswers(tmp_path, "m").begin(generation())
    for attempt in (LmdbAnswers(tmp_path, "m").resume, LmdbAnswers(tmp_path, "m").delete):
        with pytest.raises(AnswersUnavailable, match="Another process"):
            attempt()
    with pytest.raises(AnswersUnavailable, match="Another process"):
        LmdbAnswers(tmp_path, "m").begin(generation())
    LmdbAnswers(tmp_path, "other").begin(generation()).close()
    writer.close()
    LmdbAnswers(tmp_path, "m").begin(generation()).close()


def test_beginning_anew_removes_what_was_left(tmp_path: Path) -> None:
    store = LmdbAnswers(tmp_path, "m")
    store.begin(generation()).close()
    store.begin(generation()).publish()
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["current.lmdb", "writer.lock"]


def test_a_replaced_file_is_let_go(tmp_path: Path) -> None:
    store = LmdbAnswers(tmp_path, "m")
    for entry in (b"1", b"2"):
        writer = store.begin(generation())
        writer.write([(b"a", entry)], b"")
        writer.publish()
        assert store.get(b"a") is not None
    gc.collect()
    mapped = Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else ""
    assert not [line for line in mapped.splitlines() if str(tmp_path) in line and "deleted" in line]


def test_a_writer_killed_before_it_began_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1.writing").write_bytes(b"")
    (tmp_path / "m" / "2.writing").write_bytes(b"torn" * 5000)
    assert LmdbAnswers(tmp_path, "m").resume() is None
    assert not list((tmp_path / "m").glob("*.writing"))


def test_what_was_begun_before_the_machine_was_started_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may have torn it."""
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(answers_lmdb, "_BOOT_ID", boot)
    store = LmdbAnswers(tmp_path, "m")
    for before, after, goes_on in (("1", "1", True), ("1", "2", False), ("", "", True)):
        boot.write_text(before) if before else boot.unlink(missing_ok=True)
        store.begin(generation()).close()
        boot.write_text(after) if after else boot.unlink(missing_ok=True)
        writer = store.resume()
        assert (writer is not None) == goes_on
        if writer is not None:
            writer.close()
    assert len(list((tmp_path / "m").glob("*.writing"))) == 1


@pytest.mark.parametrize("content", [b"", b"no such file" * 1000])
def test_a_file_of_something_else_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "current.lmdb").write_bytes(content)
    with pytest.raises(AnswersUnavailable, match="Precompute them again"):
        LmdbAnswers(tmp_path, "m").get(b"a")
    writer = LmdbAnswers(tmp_path, "m").begin(generation())
    writer.write([(b"a", b"1")], b"")
    writer.publish()
    assert LmdbAnswers(tmp_path, "m").get(b"a") is not None


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NewerFormat, match="Update Fairway"):
        LmdbAnswers(tmp_path, "m").begin(generation(format=FORMAT + 1))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnswersUnavailable, match="folder"):
        LmdbAnswers(tmp_path / "file", "m").begin(generation())
    with pytest.raises(AnswersUnavailable, match="cannot be read"):
        LmdbAnswers(tmp_path / "file", "m").get(b"a")


def test_a_full_disk_is_told_and_what_was_written_stays() -> None:
    """A file that may not grow any more answers as a full disk does."""
    program = """
import resource, signal, sys, tempfile
from pathlib import Path
from fairway.core.errors import StorageFull
from fairway.stores.answers_lmdb import LmdbAnswers
from tests.generations import generation
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with tempfile.TemporaryDirectory() as folder:
    store = LmdbAnswers(Path(folder), "m")
    writer = store.begin(generation())
    writer.write([(b"a", b"1")], b"first")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        writer.write([(b"b", b"x" * 3_000_000)], b"second")
    except StorageFull as error:
        print(error)
    writer.close()
    again = store.resume()
    print(again.mark, again.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert "No room left" in done.stdout
    assert done.stdout.endswith("b'first' 1\n")


def test_a_writer_killed_at_any_moment_has_written_whole_chunks(tmp_path: Path) -> None:
    store = LmdbAnswers(tmp_path, "m")
    writer = store.begin(generation())
    writer.write([(b"old", b"old")], b"")
    writer.publish()
    for lines in (1, 7, 20):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert child.stdout is not None
        for _ in range(lines):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        old = store.get(b"old")
        assert old is not None
        assert store.get(b"0") is None
        resumed = store.resume()
        assert resumed is not None
        assert resumed.keys() == int(resumed.mark) * 100
        assert int(resumed.mark) >= lines
        resumed.close()
