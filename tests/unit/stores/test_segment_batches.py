"""Damaged and hostile segments: whatever is in a file, the process lives, what is whole is read, and the damage is told."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fairway.core.settings import LogSettings
from fairway.stores import log_compaction, segment_batches
from fairway.stores.log_compaction import DAMAGED, compact, forget
from fairway.stores.log_reading import Segment, rows_of
from fairway.stores.segment_batches import Damage, whole_batches
from tests.logs import DAY, NOON, ids, label, opened, prediction_batch, seconds, segment_log, write_labels

T = seconds(NOON)
BATCHES, ROWS = 12, 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed segment of some batches, and one of labels."""
    log = segment_log(tmp_path / "log")
    for batch in range(BATCHES):
        log.append(prediction_batch([(f"{batch:02}-{row:02}", T + row) for row in range(ROWS)]))
    log.close()
    write_labels(tmp_path / "log", [label(f"{row}", row, T) for row in range(200)], T)
    return tmp_path / "log"


def segment(folder: Path, stream: str = "v1") -> Path:
    [found] = folder.glob(f"m/{stream}/*.arrows")
    return found


def read(path: Path) -> tuple[list[str], int]:
    damage = Damage()
    assert sum(batch.num_rows for batch in whole_batches(path, path.parent.name, damage)) >= 0
    found = ids(rows_of(Segment("m", path.parent.name, path)))
    return found, damage.places


def test_what_is_whole_is_read_and_nothing_is_damaged(folder: Path) -> None:
    assert read(segment(folder)) == (sorted(f"{b:02}-{r:02}" for b in range(BATCHES) for r in range(ROWS)), 0)


def test_a_file_that_ends_in_the_middle_of_a_batch_is_not_damaged(folder: Path) -> None:
    path = segment(folder)
    whole = path.read_bytes()
    for end in range(2000, len(whole), 997):
        path.write_bytes(whole[:end])
        found, damage = read(path)
        assert len(found) % ROWS == 0
        assert damage == 0


def test_behind_a_hole_everything_is_read_but_the_batch_that_it_hit(folder: Path) -> None:
    path = segment(folder)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 8 * 8
    content[middle : middle + 512] = bytes(512)
    path.write_bytes(content)
    found, damage = read(path)
    assert (BATCHES - 2) * ROWS <= len(found) < BATCHES * ROWS
    assert damage >= 1


@pytest.mark.parametrize("stream", ["v1", "labels"])
@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_may_be_wrong(folder: Path, stream: str, seed: int) -> None:
    """With wrong offsets that were not looked at, reading ended the process."""
    chance = random.Random(seed)
    path = segment(folder, stream)
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 5, 50, 500))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    for batch in rows_of(Segment("m", stream, path)):
        assert len(batch.to_pylist()) == batch.num_rows


def _written(path: Path, batch: pa.RecordBatch, **options: Any) -> None:
    with pa.ipc.new_stream(str(path), batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)


def _request(rows: int, text: str = "") -> pa.RecordBatch:
    """One request with this text and so many rows."""
    inner = pa.array([[{"output.label": 1}] * rows])
    times = pa.array([int(T * 1e6)], pa.timestamp("us", "UTC"))
    return pa.RecordBatch.from_pydict({"request_id": ["a"], "caller": [text], "time": times, "rows": inner})


def test_a_long_text_in_many_rows_is_not_multiplied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_batches, "MOST_BYTES", 1_000_000)
    path = tmp_path / "v1" / "a.arrows"
    path.parent.mkdir()
    _written(path, _request(1000, "x" * 900))
    assert len(read(path)[0]) == 1000
    _written(path, _request(1000, "x" * 1100))
    assert read(path) == ([], 1)


def test_a_few_bytes_that_unpack_to_many_are_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_batches, "MOST_BYTES", 100_000)
    path = tmp_path / "v1" / "a.arrows"
    path.parent.mkdir()
    _written(path, _request(100, "x" * 900_000), compression="zstd")
    assert path.stat().st_size < 10_000
    assert read(path) == ([], 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.set_column(2, "time", pa.nulls(1)),
        lambda batch: batch.set_column(2, "time", pa.array([2**60], pa.timestamp("us", "UTC"))),
        lambda batch: batch.set_column(2, "time", pa.array([None], pa.timestamp("us", "UTC"))),
        lambda batch: batch.set_column(0, "request_id", pa.array([1])),
        lambda batch: batch.append_column("caller", pa.array(["again"])),
        lambda batch: batch.append_column("odd", pa.nulls(1)),
        lambda batch: batch.append_column("output.label", pa.array(["again"])),
        lambda batch: batch.set_column(3, "rows", pa.array([None], batch.schema.field("rows").type)),
        lambda batch: batch.set_column(3, "rows", pa.array([[{"input": 1.0}]])),
        lambda batch: batch.replace_schema_metadata({"fairway.sample": "half"}),
        lambda batch: batch.replace_schema_metadata({"fairway.digest": b"\xff"}),
    ],
)
def test_what_no_writer_makes_is_damage(
    tmp_path: Path, change: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> None:
    path = tmp_path / "v1" / "a.arrows"
    path.parent.mkdir()
    _written(path, change(_request(3)))
    assert read(path) == ([], 1)


def test_compacting_keeps_a_damaged_segment_and_what_can_be_read_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_compaction, "_MOST_DAMAGED", 1)
    path = segment(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 512] = bytes(512)
    path.write_bytes(content)
    whole = read(path)[0]
    old = path.with_name(f"0{DAMAGED}")
    old.write_bytes(b"older")
    done = compact(opened(folder), LogSettings(), everything=True, clock=lambda: T + DAY)
    assert (done.damaged, done.errors) == (1, ())
    assert path.with_suffix(DAMAGED).read_bytes() == content
    assert not path.exists()
    assert not old.exists()
    assert ids(opened(folder).windows("m")) == whole
    assert "what can be read is compacted; it is kept as .damaged" in caplog.text
    forget(opened(folder), "m", request_ids=["nobody"])
    assert path.with_suffix(DAMAGED).exists()
    compact(
        opened(folder), LogSettings(), clock=lambda: path.with_suffix(DAMAGED).stat().st_mtime + 10_000 * DAY
    )
    assert not path.with_suffix(DAMAGED).exists()


def test_what_is_forgotten_is_in_no_file_that_was_set_aside(folder: Path) -> None:
    path = segment(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 512] = bytes(512)
    path.write_bytes(content)
    compact(opened(folder), LogSettings(), everything=True, clock=lambda: T + DAY)
    assert path.with_suffix(DAMAGED).exists()
    assert forget(opened(folder), "m", request_ids=["00-03"]) == (1, 0)
    assert not any(b"00-03" in file.read_bytes() for file in folder.rglob("*") if file.is_file())
