"""Recording never makes serving wait: bounded, dropped rows counted, alive after any failure."""

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from fairway.core.columns import Columns
from fairway.core.errors import StorageFull
from fairway.core.settings import LogSettings
from fairway.inference.record import Predictions, Recorder
from fairway.stores.log_segments import LogBatch


class MemoryLog:
    """Keeps batches; fails with `failing` while that is set, and holds every append until `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[LogBatch] = []
        self.failing: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.closed = False

    def append(self, batch: LogBatch) -> None:
        self.entered.set()
        self.gate.wait(10)
        if self.failing is not None:
            raise self.failing
        self.batches.append(batch)

    def close(self) -> None:
        self.closed = True


class Dropped(Counter[str]):
    def __call__(self, model: str, rows: int) -> None:
        self[model] += rows


def prediction(
    rows: int = 1, request_id: str = "r", *, model: str = "m", version: int = 1, width: int = 2
) -> Predictions:
    columns = Columns(("a", "b"), rows, packed=np.arange(rows * 2.0).reshape(rows, 2))
    outputs = {"y": np.ones((rows, width), dtype=np.float32)}
    return Predictions(
        model, version, f"sha256:{version}", [request_id], [rows], 1_700_000_000.25, [0.125], columns, outputs
    )


def recorder(log: MemoryLog, dropped: Dropped, **settings: Any) -> Recorder:
    return Recorder(log, LogSettings(**{"flush_seconds": 0.01, **settings}), dropped)


def test_what_was_recorded_is_in_the_log_once_closed() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped)
    for i, rows in enumerate((1, 3, 1)):
        recording.record(prediction(rows, f"r{i}"))
    recording.record(prediction(1, "other", version=2))
    recording.close()
    assert log.closed
    assert not dropped
    rows = [
        (i.decode(), int(row))
        for b in log.batches
        if b.version == 1
        for i, row in zip(np.repeat(b.request_ids, b.counts).tolist(), b.rows, strict=True)
    ]
    assert rows == [("r0", 0), ("r1", 0), ("r1", 1), ("r1", 2), ("r2", 0)]
    first = next(b for b in log.batches if b.version == 1)
    assert first.times[0] == 1_700_000_000_250_000
    assert first.seconds[0] == 0.125
    assert first.digest == "sha256:1"
    assert np.concatenate([b.inputs["b"] for b in log.batches if b.version == 1]).tolist() == [1, 1, 3, 5, 1]
    assert [b.request_ids for b in log.batches if b.version == 2] == [[b"other"]]


def test_columns_that_are_not_a_matrix() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped())
    for text in ("x", None):
        columns = Columns(("s",), 1, arrays=[np.array([text], dtype=object)])
        recording.record(Predictions("m", 1, "d", ["r"], [1], 0.0, [0.0], columns, {"y": np.ones(1)}))
    recording.close()
    assert [text for b in log.batches for text in b.inputs["s"].tolist()] == ["x", None]


@pytest.mark.parametrize(
    ("limit", "kept"), [({"queue_rows": 10}, 10), ({"queue_bytes": 10 * (1024 + 16)}, 10)]
)
def test_the_queue_is_bounded_and_what_does_not_fit_is_counted(limit: dict[str, int], kept: int) -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, **limit)
    log.gate.clear()
    for i in range(25):
        recording.record(prediction(1, str(i)))
    assert dropped["m"] == 25 - kept
    log.gate.set()
    recording.close()
    assert sum(map(len, log.batches)) == kept


def test_rows_count_against_the_limit_until_they_are_written() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, queue_rows=5)
    log.gate.clear()
    recording.record(prediction(5))
    assert log.entered.wait(10)  # taken from the queue, not yet on disk
    recording.record(prediction(1))
    assert dropped["m"] == 1
    log.gate.set()
    recording.close()


@pytest.mark.parametrize("failure", [StorageFull("disk full"), RuntimeError("anything")])
def test_what_cannot_be_written_is_counted_and_recording_recovers(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped)
    log.failing = failure
    recording.record(prediction(3, "lost"))
    while dropped["m"] < 3:
        pass
    log.failing = None
    recording.record(prediction(2, "kept"))
    recording.close()
    assert dropped == {"m": 3}
    assert [(i, b.counts) for b in log.batches for i in b.request_ids] == [(b"kept", [2])]
    assert "record" in caplog.text


def test_predictions_that_do_not_go_together_are_counted_and_recording_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, flush_seconds=0.02)
    log.gate.clear()
    recording.record(prediction(1, "first"))
    assert log.entered.wait(10)
    recording.record(prediction(1, "wide", width=2))
    recording.record(prediction(1, "narrow", width=3))
    log.gate.set()
    while not dropped:
        pass
    recording.record(prediction(1, "after"))
    recording.close()
    assert dropped == {"m": 2}
    assert [i for b in log.batches for i in b.request_ids] == [b"first", b"after"]
    assert "could not be recorded" in caplog.text


def test_after_closing_everything_is_dropped_and_counted() -> None:
    dropped = Dropped()
    recording = recorder(MemoryLog(), dropped)
    recording.close()
    recording.record(prediction(4))
    assert dropped == {"m": 4}


def test_threads_lose_nothing() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped)
    threads = [
        threading.Thread(target=lambda: [recording.record(prediction(2)) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recording.close()
    assert sum(map(len, log.batches)) + dropped["m"] == 1600
    assert not dropped
