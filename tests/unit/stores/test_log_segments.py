"""The prediction log, read back by pyarrow: whole, cut short, out of room, too large."""

import errno
import io
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from fairway.core.errors import StorageFull, Unavailable
from fairway.stores import log_segments
from fairway.stores.arrow_columns import texts_of
from fairway.stores.log_segments import LogBatch, SegmentLog, is_closed
from tests.failing_disk import fail_next_fdatasync

MOMENT = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp() * 1e6)


def batch(rows: int = 3, first: int = 0, *, model: str = "payments", version: int = 1) -> LogBatch:
    inputs = {
        "amount": np.arange(first, first + rows) / 2,
        "count": np.arange(rows, dtype=np.int16),
        "flag": np.arange(rows) % 2 == 0,
        "time": np.array(["2026-01-31T12:00:00.000001", "NaT", "1969-12-31"] * rows, dtype="datetime64[us]")[
            :rows
        ],
        "country": np.array(["DE", None, "ÜÑ"] * rows, dtype=object)[:rows],
        "image": np.arange(rows * 4, dtype=np.uint8).reshape(rows, 2, 2),
    }
    columns = {f"input.{name}": values for name, values in inputs.items()}
    return LogBatch(
        model=model,
        stream=f"v{version}",
        metadata={"fairway.model": model, "fairway.digest": "sha256:abc"},
        texts={"request_id": texts_of([f"request-{first + i}" for i in range(rows)])},
        columns={
            "row": np.arange(rows, dtype=np.int32),
            "time": np.full(rows, MOMENT, dtype=np.int64).view("datetime64[us]"),
            "version": np.full(rows, version, dtype=np.int32),
            "seconds": np.full(rows, 0.5, dtype=np.float32),
            **columns,
            "output.label": np.array(["yes"] * rows, dtype=object),
            "output.probabilities": np.ones((rows, 2), dtype=np.float32),
        },
    )


def log(root: Path, *, segment_bytes: int = 2**20, disk_bytes: int = 2**24) -> SegmentLog:
    return SegmentLog(root, segment_bytes=segment_bytes, disk_bytes=disk_bytes)


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("*/v*/*.arrows"), key=lambda path: path.name)


def read(path: Path) -> list[pa.RecordBatch]:
    return read_bytes(path.read_bytes())


def read_bytes(content: bytes) -> list[pa.RecordBatch]:
    """Every whole batch, as a reader that meets the end of a dead writer's file gets them."""
    found = []
    try:
        reader = pa.ipc.open_stream(io.BytesIO(content))
        while True:
            found.append(reader.read_next_batch())
    except (StopIteration, pa.ArrowInvalid, OSError):
        return found


def test_what_was_written_is_read_back_by_arrow(tmp_path: Path) -> None:
    written = log(tmp_path)
    written.append(batch(3))
    written.append(batch(2, first=3))
    written.close()
    [path] = segments(tmp_path)
    assert path.parent == tmp_path / "payments" / "v1"
    with pa.ipc.open_stream(path) as reader:
        table = reader.read_all()
    assert table.schema.metadata == {b"fairway.model": b"payments", b"fairway.digest": b"sha256:abc"}
    rows = table.to_pylist()
    assert [row["request_id"] for row in rows] == [f"request-{i}" for i in range(5)]
    assert [row["row"] for row in rows] == [0, 1, 2, 0, 1]
    first = rows[0]
    assert first["time"] == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert (first["version"], first["seconds"]) == (1, 0.5)
    assert [row["input.amount"] for row in rows] == [0, 0.5, 1, 1.5, 2]
    assert [row["input.country"] for row in rows[:3]] == ["DE", None, "ÜÑ"]
    assert [row["input.flag"] for row in rows] == [True, False, True, True, False]
    assert rows[0]["input.time"] == datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)
    assert rows[1]["input.time"] is None
    assert rows[1]["input.image"] == [4, 5, 6, 7]
    assert rows[0]["output.probabilities"] == [1.0, 1.0]
    assert str(table.schema.field("input.count").type) == "int16"
    assert table.validate(full=True) is None


@pytest.mark.parametrize(
    "kind", ["int8", "uint64", "float16", "float32", "float64", "bool", "<U3", "datetime64[us]"]
)
def test_every_dtype_has_its_arrow_type(tmp_path: Path, kind: str) -> None:
    values = np.array([1, 0, 1]).astype(kind)
    plain = batch(3)
    written = log(tmp_path)
    written.append(msgspec.structs.replace(plain, columns={"input.x": values}))
    written.close()
    [found] = read(segments(tmp_path)[0])
    assert [str(v) for v in found.column("input.x").to_pylist()] != []
    if kind not in ("<U3", "datetime64[us]"):
        assert found.column("input.x").to_pylist() == values.tolist()


def test_each_batch_can_be_read_while_the_segment_is_open(tmp_path: Path) -> None:
    written = log(tmp_path)
    for count in (1, 2):
        written.append(batch())
        assert len(read(segments(tmp_path)[0])) == count
    written.close()


def test_a_segment_cut_at_any_byte_loses_only_its_last_batch(tmp_path: Path) -> None:
    written = log(tmp_path)
    ends = []
    for i in range(3):
        written.append(batch(2, first=2 * i))
        ends.append(segments(tmp_path)[0].stat().st_size)
    content = segments(tmp_path)[0].read_bytes()
    written.close()
    for cut in range(len(content) + 1):
        whole = sum(end <= cut for end in ends)
        found = read_bytes(content[:cut])
        assert len(found) == whole, cut
        assert [b.column("request_id").to_pylist() for b in found] == [
            [f"request-{2 * i}", f"request-{2 * i + 1}"] for i in range(whole)
        ]


class Full(io.FileIO):
    """A file on a disk with `room[0]` bytes left, which takes as much as there is and then refuses."""

    room: ClassVar[list[int]] = []
    code = errno.ENOSPC

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        if self.room[0] <= 0:
            raise OSError(self.code, "No space left on device")
        taken = min(self.room[0], len(data))
        self.room[0] -= taken
        return super().write(data[:taken])


def test_a_full_disk_loses_the_batch_keeps_the_others_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_segments, "FileIO", Full)
    monkeypatch.setattr(Full, "room", [10**9])
    written = log(tmp_path)
    written.append(batch(2))
    Full.room[0] = 100  # the next batch stops in the middle
    for _ in range(3):
        with pytest.raises(StorageFull, match="cannot be written: No space left on device"):
            written.append(batch(2))
    Full.room[0] = 10**9
    written.append(batch(2, first=10))
    written.close()
    assert len(segments(tmp_path)) == 2  # nothing is left of the attempts
    found = [read(path) for path in segments(tmp_path)]
    assert [[b.column("request_id").to_pylist() for b in batches] for batches in found] == [
        [["request-0", "request-1"]],
        [["request-10", "request-11"]],
    ]


def test_a_limit_of_the_real_kernel(tmp_path: Path) -> None:
    written = log(tmp_path)
    written.append(batch(2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segments(tmp_path)[0].stat().st_size + 100, before[1]))
    try:
        with pytest.raises(StorageFull):
            written.append(batch(2, first=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    written.append(batch(2, first=4))
    written.close()
    assert [len(read(path)) for path in segments(tmp_path)] == [1, 1]


def test_other_disk_errors_are_passing_troubles_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_segments, "FileIO", Full)
    monkeypatch.setattr(Full, "room", [0])
    monkeypatch.setattr(Full, "code", errno.EIO)
    with pytest.raises(Unavailable) as failed:
        log(tmp_path).append(batch())
    assert not isinstance(failed.value, StorageFull)


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    with pytest.raises(Unavailable, match=str(tmp_path / "log")):
        log(tmp_path / "log").append(batch())


def test_segments_end_at_their_size_and_versions_have_their_own(tmp_path: Path) -> None:
    written = log(tmp_path, segment_bytes=1)
    written.append(batch())
    written.append(batch())
    written.append(batch(version=2))
    written.append(batch(model="other"))
    written.close()
    places = [path.parent.relative_to(tmp_path).as_posix() for path in segments(tmp_path)]
    assert sorted(places) == ["other/v1", "payments/v1", "payments/v1", "payments/v2"]
    assert all(len(read(path)) == 1 for path in segments(tmp_path))


def test_the_oldest_segments_go_when_a_model_has_too_much(tmp_path: Path) -> None:
    size = len(batch_bytes(tmp_path / "scratch"))
    root = tmp_path / "log"
    written = log(root, segment_bytes=size, disk_bytes=3 * size + 10)
    for i in range(8):
        written.append(batch(2, first=2 * i, version=1 + i % 2))
    written.append(batch(model="other"))
    written.close()
    kept = [path for path in segments(root) if path.parts[-3] == "payments"]
    ids = [read(path)[0].column("request_id")[0].as_py() for path in kept]
    assert ids == ["request-10", "request-12", "request-14"]
    assert sum(path.stat().st_size for path in kept) <= 3 * size + 100
    assert len([path for path in segments(root) if path.parts[-3] == "other"]) == 1


def batch_bytes(root: Path) -> bytes:
    written = log(root)
    written.append(batch(2))
    written.close()
    return segments(root)[0].read_bytes()


def test_a_segment_that_somebody_else_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = log(tmp_path, segment_bytes=1, disk_bytes=1)
    written.append(batch())
    real = log_segments._size

    def gone(path: Path) -> int:
        path.unlink()
        return real(path)

    monkeypatch.setattr(log_segments, "_size", gone)
    written.append(batch())
    written.close()
    assert len(segments(tmp_path)) == 1


def test_a_segment_is_closed_when_its_writer_has_closed_it_or_is_dead(tmp_path: Path) -> None:
    written = log(tmp_path)
    written.append(batch())
    [path] = segments(tmp_path)
    assert not is_closed(path)
    written.close()
    assert is_closed(path)
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pathlib import Path
from tests.unit.stores.test_log_segments import batch, log
written = log(Path({str(tmp_path / "dead")!r}))
written.append(batch())
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    [path] = segments(tmp_path / "dead")
    assert is_closed(path)
    assert len(read(path)) == 1
    assert not is_closed(tmp_path / "nothing")


def test_segments_that_somebody_appends_to_do_not_make_room(tmp_path: Path) -> None:
    removed: list[tuple[str, int]] = []
    other = log(tmp_path)
    other.append(batch(2))
    written = SegmentLog(
        tmp_path, segment_bytes=1, disk_bytes=1, on_removed=lambda *told: removed.append(told)
    )
    for i in range(3):
        written.append(batch(2, first=10 * i, version=2))
    assert [read(path)[0]["request_id"][0].as_py() for path in segments(tmp_path)] == [
        "request-0",
        "request-20",
    ]
    assert removed == [("payments", 1), ("payments", 1)]
    other.append(batch(2, first=2))
    other.close()
    assert len(read(segments(tmp_path)[0])) == 2


@pytest.mark.parametrize("remove", ["folder", "file"])
def test_a_log_that_is_removed_while_it_is_written_begins_anew(tmp_path: Path, remove: str) -> None:
    root = tmp_path / "log"
    written = log(root)
    written.append(batch(2))
    if remove == "folder":
        shutil.rmtree(root)
    else:
        segments(root)[0].unlink()
    written.append(batch(2, first=2))
    written.sync()
    written.close()
    [path] = segments(root)
    assert read(path)[0].column("request_id").to_pylist() == ["request-2", "request-3"]


@pytest.mark.parametrize("ends", ["by size", "by age", "by an error"])
def test_what_a_segment_cannot_sync_when_it_ends_is_told_by_the_next_sync(
    tmp_path: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = fail_next_fdatasync(monkeypatch)
    size = 1 if ends == "by size" else 2**20
    written = SegmentLog(tmp_path, segment_bytes=size, disk_bytes=2**24, segment_seconds=0.0)
    written.append(batch())
    if ends == "by age":
        written.close_old()
    elif ends == "by an error":
        with monkeypatch.context() as patch:
            patch.setattr(log_segments._Segment, "_flush", _no_room)
            with pytest.raises(StorageFull):
                written.append(batch())
    assert not failing
    with pytest.raises(Unavailable, match="Input/output error"):
        written.sync()
    written.append(batch())
    written.sync()
    written.close()


def test_what_cannot_be_synced_leaves_no_other_stream_unsynced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def broken(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fairway.stores.log_segments.os.fdatasync", broken)
    written = log(tmp_path)
    for version in (1, 2, 3):
        written.append(batch(version=version))
    with pytest.raises(Unavailable):
        written.sync()
    assert len(synced) == 3
    written.close()


def _no_room(_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_old_segments_are_closed_so_that_they_can_be_compacted(tmp_path: Path) -> None:
    written = SegmentLog(tmp_path, segment_bytes=2**20, disk_bytes=2**24, segment_seconds=0.0)
    written.append(batch())
    written.close_old()
    assert is_closed(segments(tmp_path)[0])
    written.append(batch())
    written.close()
    assert len(segments(tmp_path)) == 2


def test_labels_are_never_removed_to_make_room(tmp_path: Path) -> None:
    written = SegmentLog(tmp_path, segment_bytes=1, disk_bytes=100, bounded=False)
    labels = msgspec.structs.replace(batch(), stream="labels")
    written.append(labels)
    with pytest.raises(StorageFull, match="wait to be compacted"):
        written.append(labels)
    assert len(list(tmp_path.glob("payments/labels/*.arrows"))) == 1


def test_batches_of_one_shape_stand_in_one_file() -> None:
    assert batch(2).shape == batch(5).shape
    assert batch(2).shape != batch(2, version=2).shape
