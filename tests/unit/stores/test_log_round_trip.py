"""From a recorder to a reader: what a request was told is told once, in each of its rows as it belongs there."""

from pathlib import Path

import msgspec
import numpy as np

from fairway.core.columns import Columns
from fairway.core.request import Request
from fairway.core.settings import LogSettings
from fairway.inference.predictions import Logged, Predictions
from fairway.inference.record import Recorder
from fairway.inference.stats import LogCounts
from fairway.stores.counters import Counters
from fairway.stores.log_segments import SegmentLog
from tests.logs import opened


def test_broken_rules_are_told_once_however_many_rows_a_request_has(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = SegmentLog(folder, segment_bytes=2**20, disk_bytes=2**24)
    recording = Recorder(log, LogSettings(), LogCounts(Counters()))
    columns = Columns(("a",), 5, packed=np.arange(5.0).reshape(5, 1))
    about = Logged(model="m", version=1, digest="sha256:" + "a" * 64)
    asked = [
        Request(model="m", inputs={}, request_id="r0", key="ann"),
        Request(model="m", inputs={}, request_id="r1", version="1"),
    ]
    outputs = {"y": np.arange(5.0)}
    broken = {("a", "on_range"): 2}
    recording.record(
        Predictions(about, asked, [3, 2], 1.7e9, [0.1, 0.1], columns, outputs, violations=broken)
    )
    recording.close()
    rows = sorted(
        (row for batch in opened(folder).windows("m") for row in batch.to_pylist()),
        key=lambda row: (row["request_id"], row["row"]),
    )
    assert [(r["request_id"], r["row"], r["key"], r["arm"]) for r in rows] == [
        ("r0", 0, "ann", "v1"), ("r0", 1, "ann", "v1"), ("r0", 2, "ann", "v1"), ("r1", 0, None, None), ("r1", 1, None, None),
    ]  # fmt: skip
    assert [r["input.a"] for r in rows] == [r["output.y"] for r in rows] == [0, 1, 2, 3, 4]
    [told] = [r["violations"] for r in rows if r["violations"] is not None]
    assert msgspec.json.decode(told) == [{"field": "a", "rule": "on_range", "rows": 2}]
