"""Recording never makes serving wait: bounded, dropped rows counted, alive after any failure."""

import copy
import json
import threading
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.core.columns import Columns
from fairway.core.contract import Privacy
from fairway.core.errors import StorageFull
from fairway.core.request import Request
from fairway.core.settings import LogSettings
from fairway.inference.predictions import Logged, Predictions, in_sample
from fairway.inference.record import Recorder
from fairway.security.privacy import KEY_FIELD, Vault
from fairway.stores.arrow_columns import texts_of
from fairway.stores.log_segments import FIELDS, MATRIX, LogBatch
from tests.planes import plane


class MemoryLog:
    """Keeps batches; fails with `failing` while that is set, and holds every append until `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[LogBatch] = []
        self.failing: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.closed = False
        self.synced = 0
        self.looked = False

    def append(self, batch: LogBatch) -> int:
        self.entered.set()
        self.gate.wait(10)
        if self.failing is not None:
            raise self.failing
        self.batches.append(copy.deepcopy(flat(batch)))  # as writing does: its memory is used again
        return 100

    def sync(self) -> None:
        self.synced = len(self.batches)

    def close_old(self) -> None:
        self.looked = True

    def close(self) -> None:
        self.closed = True


def flat(batch: LogBatch) -> LogBatch:
    """What is written once a request, in each of its rows."""
    nested = batch.nested
    assert nested is not None
    request = np.repeat(np.arange(len(nested.counts)), nested.counts)
    repeated = {name: texts_of([texts(batch, name)[i] for i in request]) for name in batch.texts}
    columns = {name: values[request] for name, values in batch.columns.items()}
    row = np.concatenate([np.arange(count) for count in nested.counts])
    inputs = {}
    if MATRIX in nested.columns:
        names = json.loads(batch.metadata[FIELDS])
        inputs = {f"input.{name}": nested.columns[MATRIX][:, i] for i, name in enumerate(names)}
    return msgspec.structs.replace(
        batch,
        metadata={name: value for name, value in batch.metadata.items() if name != FIELDS},
        texts={**repeated, **nested.texts},
        columns={"row": row, **columns, **inputs, **{n: v for n, v in nested.columns.items() if n != MATRIX}},
        nested=None,
    )


class Dropped(Counter[str]):
    """Rows dropped by model; those written are in `rows`, and what was said of the log in `states`."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.states: list[bool] = []

    def dropped(self, model: str, rows: int) -> None:
        self[model] += rows

    def passed_over(self, model: str, rows: int) -> None:
        self.passed[model] += rows

    def written(self, model: str, rows: int, size: int) -> None:
        self.rows[model] += rows

    def failing(self, failing: bool) -> None:
        self.states.append(failing)


def prediction(
    rows: int = 1,
    request_id: str = "r",
    *,
    asked: dict[str, Any] | None = None,
    model: str = "m",
    version: int = 1,
    width: int = 2,
    about: dict[str, Any] | None = None,
    **told: Any,
) -> Predictions:
    columns = Columns(("a", "b"), rows, packed=np.arange(rows * 2.0).reshape(rows, 2))
    outputs = {"y": np.ones((rows, width), dtype=np.float32)}
    logged = Logged(model=model, version=version, digest=f"sha256:{version}", **(about or {}))
    request = Request(model=model, inputs={}, request_id=request_id, **(asked or {}))
    return Predictions(logged, [request], [rows], 1_700_000_000.25, [0.125], columns, outputs, **told)


ASKED = Request(model="m", inputs={}, request_id="r")
ROW_BYTES = 2 * 8 + 2 * 4
"""Inputs and outputs of one row."""


def recorder(log: MemoryLog, dropped: Dropped, vault: Vault | None = None, **settings: Any) -> Recorder:
    return Recorder(log, LogSettings(**{"flush_seconds": 0.01, **settings}), dropped, lambda: vault, "here.1")


def texts(batch: LogBatch, name: str) -> list[str | None]:
    """A text column as a reader sees it."""
    column = batch.texts[name]
    ends = np.cumsum(column.lengths).tolist()
    found = [
        column.data[end - length : end].decode()
        for end, length in zip(ends, column.lengths.tolist(), strict=True)
    ]
    present = [True] * len(found) if column.present is None else column.present.tolist()
    return [text if there else None for text, there in zip(found, present, strict=True)]


def ids(log: MemoryLog, version: int = 1) -> list[str | None]:
    return [one for b in log.batches if b.stream == f"v{version}" for one in texts(b, "request_id")]


def test_what_was_recorded_is_in_the_log_once_closed() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped)
    for i, rows in enumerate((1, 3, 1)):
        recording.record(prediction(rows, f"r{i}"))
    recording.record(prediction(1, "other", version=2))
    recording.close()
    assert log.closed
    assert not dropped
    mine = [b for b in log.batches if b.stream == "v1"]
    rows = [
        (i, int(row)) for b in mine for i, row in zip(texts(b, "request_id"), b.columns["row"], strict=True)
    ]
    assert rows == [("r0", 0), ("r1", 0), ("r1", 1), ("r1", 2), ("r2", 0)]
    first = mine[0]
    assert first.columns["time"][0] == np.datetime64(1_700_000_000_250_000, "us")
    assert first.columns["seconds"][0] == 0.125
    assert first.columns["version"].tolist() == [1] * len(first)
    assert dict(first.metadata) == {
        "fairway.model": "m",
        "fairway.digest": "sha256:1",
        "fairway.writer": "here.1",
        "fairway.sample": "1.0",
    }
    assert np.concatenate([b.columns["input.b"] for b in mine]).tolist() == [1, 1, 3, 5, 1]
    assert ids(log, 2) == ["other"]
    assert dropped.rows["m"] == 6


def test_columns_that_are_not_a_matrix() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped())
    for text in ("x", None):
        columns = Columns(("s",), 1, arrays=[np.array([text], dtype=object)])
        logged = Logged(model="m", version=1, digest="d")
        recording.record(Predictions(logged, [ASKED], [1], 0.0, [0.0], columns, {"y": np.ones(1)}))
    recording.close()
    assert [text for b in log.batches for text in b.columns["input.s"].tolist()] == ["x", None]


@pytest.mark.parametrize(
    ("limit", "kept"), [({"queue_rows": 10}, 10), ({"queue_bytes": 10 * (128 + ROW_BYTES)}, 10)]
)
def test_the_queue_is_bounded_and_what_does_not_fit_is_counted(limit: dict[str, int], kept: int) -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, **limit)
    log.gate.clear()
    for i in range(25):
        recording.record(prediction(1, str(i)))
        recording.gather()
    assert dropped["m"] == 25 - kept
    log.gate.set()
    recording.close()
    assert sum(map(len, log.batches)) == kept


def test_large_tensors_count_at_once() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, queue_bytes=1024 * 1024)
    log.gate.clear()
    about = Logged(model="m", version=1, digest="d")
    for _ in range(5):
        image = Columns(("image",), 1, arrays=[np.zeros((1, 300, 1024), np.uint8)])
        recording.record(Predictions(about, [ASKED], [1], 0.0, [0.0], image, {"y": np.ones(1)}))
    assert dropped == {"m": 2}
    log.gate.set()
    recording.close()


def test_rows_count_against_the_limit_until_they_are_written() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, queue_rows=5)
    log.gate.clear()
    recording.record(prediction(5))
    assert log.entered.wait(10)  # taken from the queue, not yet on disk
    recording.record(prediction(1))
    recording.gather()
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
    assert ids(log) == ["kept", "kept"]
    assert "record" in caplog.text


def test_predictions_of_other_shapes_stand_beside_each_other() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, flush_seconds=1000)
    for i in range(3):
        for width in (2, 3):
            recording.record(prediction(i + 1, f"{width}", width=width))
    recording.close()
    assert not dropped
    assert {b.columns["output.y"].shape[1:]: set(texts(b, "request_id")) for b in log.batches} == {
        (2,): {"2"},
        (3,): {"3"},
    }
    assert sum(map(len, log.batches)) == 12


def test_what_cannot_be_gathered_is_counted_and_recording_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, flush_seconds=1000)
    about = Logged(model="m", version=1, digest="d")
    columns = Columns(("a",), 3, packed=np.ones((3, 1)))
    for name, rows in (("first", 3), ("wrong", 2), ("after", 3)):
        request = Request(model="m", inputs={}, request_id=name)
        recording.record(Predictions(about, [request], [3], 0.0, [0.0], columns, {"y": np.ones(rows)}))
    recording.close()
    assert dropped == {"m": 3}
    assert ids(log) == ["first"] * 3 + ["after"] * 3
    assert caplog.text.count("cannot be recorded") == 1


def test_what_was_recorded_does_not_change_with_its_arrays() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped(), flush_seconds=1000)
    given = prediction(2)
    recording.record(given)
    assert given.columns.packed is not None
    recording.gather()
    given.columns.packed[:] = -1
    given.outputs["y"][:] = -1
    recording.close()
    [found] = log.batches
    assert found.columns["input.b"].tolist() == [1, 3]
    assert found.columns["output.y"].tolist() == [[1, 1], [1, 1]]


def test_a_caller_may_change_its_arrays_once_it_is_answered() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped(), flush_seconds=1000)
    serving = plane(recorder=recording)
    given = np.array([[1.0, 2.0], [3.0, 4.0]])
    answer = serving.infer(Request(model="m", inputs={"rows": given}, request_id="r"))
    given[:] = 9.0
    answer.outputs["sum"][:] = 9.0
    serving.close()
    [found] = log.batches
    assert [found.columns[f"input.{name}"].tolist() for name in "ab"] == [[1, 3], [2, 4]]
    assert found.columns["output.sum"].tolist() == [3, 7]


def test_memory_that_was_written_is_filled_again() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped(), durable=True, flush_seconds=1000)
    about = Logged(model="m", version=1, digest="d")
    for i, size in enumerate((1, 5, 2, 40, 3)):
        words = np.array([f"{i}-{row}" for row in range(size)])
        columns = Columns(("s",), size, arrays=[words.astype(object if i % 2 else words.dtype)])
        request = Request(model="m", inputs={}, request_id=f"r{i}")
        recording.record(Predictions(about, [request], [size], 0.0, [0.0], columns, {"y": words}))
        recording.commit()
    recording.close()
    told = [text for b in log.batches for text in b.columns["input.s"].tolist()]
    assert told == [f"{i}-{row}" for i, size in enumerate((1, 5, 2, 40, 3)) for row in range(size)]
    assert told == [text for b in log.batches for text in b.columns["output.y"].tolist()]
    assert ids(log) == [f"r{i}" for i, size in enumerate((1, 5, 2, 40, 3)) for _ in range(size)]


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


def test_who_asked_and_how_it_was_answered() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped())
    recording.record(prediction(2, "r0", asked={"key": "ann", "caller": "shop", "protocol": "rest"}))
    recording.record(prediction(1, "r1", asked={"version": "3", "protocol": "grpc"}, sources=["stale"]))
    keys = [b"k1", b"\xff"]
    asked = {"key": "bob", "caller": "shop", "protocol": "rest", "keys": keys}
    recording.record(prediction(2, "r2", asked=asked, sources=["live"]))
    recording.close()
    found = {name: [t for b in log.batches for t in texts(b, name)] for name in log.batches[0].texts}
    assert found["request_id"] == ["r0", "r0", "r1", "r2", "r2"]
    assert found["key"] == ["ann", "ann", None, "k1", "\ufffd"]
    assert found["arm"] == ["v1", "v1", None, "v1", "v1"]
    assert found["source"] == ["live", "live", "stale", "live", "live"]
    assert found["protocol"] == ["rest", "rest", "grpc", "rest", "rest"]
    assert found["caller"] == ["shop", "shop", "", "shop", "shop"]
    assert found["violations"] == [None] * 5


def test_answers_without_features_stand_beside_the_others() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped)
    recording.record(prediction(1, "live"))
    nothing = Columns((), 2, arrays=())
    logged = Logged(model="m", version=1, digest="sha256:1")
    recording.record(
        Predictions(
            logged,
            [Request(model="m", inputs={}, request_id="known", keys=[b"a", b"b"])],
            [2],
            0.0,
            [0.0],
            nothing,
            {"y": np.ones((2, 2), np.float32)},
            sources=["precomputed"],
        )
    )
    recording.close()
    assert not dropped
    assert sorted((texts(b, "source")[0], "input.a" in b.columns) for b in log.batches) == [
        ("live", True),
        ("precomputed", False),
    ]


def test_a_sample_is_chosen_by_request_id_and_broken_rules_are_kept() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped)
    names = [f"r{i}" for i in range(2000)]
    rules = {("amount", "on_range"): 1}
    for name in names:
        recording.record(prediction(2, name, about={"sample": 0.25}, violations=rules))
    recording.close()
    kept = ids(log)
    expected = [name for name in names if in_sample(name, 0.25)]
    assert 420 < len(expected) < 580
    assert kept == [name for name in expected for _ in range(2)]
    told = [json.loads(t) for b in log.batches for t in texts(b, "violations") if t is not None]
    last = max(i for i, name in enumerate(names) if name in set(expected))
    assert sum(one["rows"] for line in told for one in line) >= last + 1
    assert {(one["field"], one["rule"]) for line in told for one in line} == {("amount", "on_range")}
    assert all(in_sample(name, 1.0) and not in_sample(name, 0.0) for name in names)
    assert not dropped


@pytest.mark.parametrize("vault", [Vault(bytes(64)), None])
def test_private_values_never_reach_the_log(vault: Vault | None) -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped(), vault, key_privacy="hash")
    rules = {"a": Privacy.hash, "b": Privacy.token}
    recording.record(prediction(2, asked={"key": "ann"}, about={"private": rules}))
    recording.close()
    [found] = log.batches
    if vault is None:  # without a key, nothing is better than the value
        assert "input.a" not in found.columns
        assert "input.b" not in found.columns
        assert texts(found, "key") == [None, None]
        return
    assert found.columns["input.a"].tolist() == [vault.hashed("a", "0.0"), vault.hashed("a", "2.0")]
    assert [vault.opened("b", token) for token in found.columns["input.b"]] == ["1.0", "3.0"]
    assert texts(found, "key") == [vault.hashed(KEY_FIELD, "ann")] * 2


def test_the_durable_mode_waits_for_the_disk() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, durable=True, flush_seconds=1000)
    recording.record(prediction(1, "r0"))
    recording.record(prediction(1, "r1"))
    recording.commit()
    assert ids(log) == ["r0", "r1"]
    assert log.synced == len(log.batches)
    log.failing = StorageFull("full")
    recording.record(prediction(1, "r2"))
    recording.commit()  # serving goes on; the row is counted
    assert dropped == {"m": 1}
    recording.close()


def test_the_durable_mode_waits_for_what_the_thread_writes_meanwhile() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped(), durable=True, flush_seconds=0.01)
    log.gate.clear()
    recording.record(prediction(1, "r0"))
    assert log.entered.wait(10)  # its thread has it
    threading.Timer(0.1, log.gate.set).start()
    recording.commit()
    assert ids(log) == ["r0"]
    assert log.synced == len(log.batches) == 1
    recording.close()


def test_without_the_durable_mode_a_commit_waits_for_nothing() -> None:
    log = MemoryLog()
    recording = recorder(log, Dropped(), flush_seconds=1000)
    recording.record(prediction(1, "r0"))
    recording.commit()
    assert log.batches == []
    recording.close()
    assert ids(log) == ["r0"]


def test_readiness_and_metrics_are_told_when_the_log_cannot_be_written() -> None:
    log, dropped = MemoryLog(), Dropped()
    recording = recorder(log, dropped, durable=True)
    assert recording.health.recording
    log.failing = StorageFull("the disk is full")
    recording.record(prediction())
    recording.commit()
    assert (recording.health.recording, recording.health.reason) == (False, "the disk is full")
    since = recording.health.since
    recording.record(prediction())
    recording.commit()
    assert recording.health.since == since
    log.failing = None
    recording.record(prediction())
    recording.commit()
    assert recording.health.recording
    assert recording.health.reason == ""
    assert dropped.states == [True, False]
    recording.close()


def test_of_large_batches_only_those_that_fail_are_dropped() -> None:
    class Second(MemoryLog):
        def append(self, batch: LogBatch) -> int:
            if len(self.batches) == 1:
                raise StorageFull("full")
            return super().append(batch)

    log, dropped = Second(), Dropped()
    recording = recorder(log, dropped, durable=True, flush_seconds=1000)
    for version in (1, 2):
        recording.record(prediction(20_000, "large", version=version))
    recording.commit()
    recording.close()
    assert (len(log.batches), dict(dropped), dict(dropped.rows)) == (1, {"m": 20_000}, {"m": 20_000})


def test_no_more_is_recorded_than_so_many_bytes_a_second() -> None:
    log, dropped, now = MemoryLog(), Dropped(), [100.0]
    settings = LogSettings(flush_seconds=0.01, bytes_per_second=10 * ROW_BYTES)
    recording = Recorder(log, settings, dropped, lambda: None, "here.1", clock=lambda: now[0])
    for _ in range(15):
        recording.record(prediction(1))
    recording.gather()
    assert dropped.passed == {"m": 5}
    now[0] += 0.5
    for _ in range(10):
        recording.record(prediction(1))
    recording.gather()
    assert dropped.passed == {"m": 10}
    now[0] += 5.0
    recording.record(prediction(1000))  # larger than a second's worth: not never, but alone
    recording.record(prediction(1))
    recording.gather()
    assert dropped.passed == {"m": 11}
    recording.close()
    assert sum(map(len, log.batches)) == dropped.rows["m"] == 1015
    assert not dropped
