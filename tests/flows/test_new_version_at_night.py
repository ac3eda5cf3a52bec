"""A second version of a model whose nights differ from its days, through the real packager, registry, log and monitor."""

import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import fairway
from fairway.app.home import Home
from fairway.app.settings import read_settings
from fairway.app.watch import look_now
from fairway.core.request import Request
from fairway.core.settings import LogSettings
from fairway.inference.predictions import Logged, Predictions
from fairway.inference.record import Recorder
from fairway.inference.stats import LogCounts
from fairway.monitoring.watch.values import Report
from fairway.packaging.bundle import read_bundle
from fairway.packaging.contract import sample_columns
from fairway.packaging.sample import read_sample
from fairway.runtimes.base import load
from fairway.stores.counters import Counters
from fairway.stores.log_segments import SegmentLog

pytestmark = pytest.mark.e2e
NAME = "loads"
WINDOW = 6 * 3600
ROWS = 300
BEFORE = 12
"""Windows of version 1, after which version 2 has `AFTER`; the last two of them have moved."""
AFTER = 6
COLUMNS = ["a", "b"]


def rows(count: int, seed: int, middle: float) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": random.normal(middle, 1, count), "b": random.normal(size=count)})
    return frame.assign(y=3 * frame["a"] - frame["b"] + random.normal(size=count))


def of_the_time(at: float) -> float:
    """Where `a` is in a window that begins `at`."""
    hour = datetime.fromtimestamp(at, UTC).hour
    return float(1.2 * np.sin((hour + 3 - 6) / 24 * 2 * np.pi))


def of_all_hours(seed: int) -> pd.DataFrame:
    return pd.concat([rows(500, seed + part, of_the_time(part * WINDOW)) for part in range(4)])


def record(home: Path, version: int, windows: range, first: float, moved: set[int]) -> None:
    settings = read_settings(home)
    with Home(settings) as place:
        known = place.registry.version(NAME, version)
        bundle = read_bundle(place.registry.fetch(known))
    engine = load(bundle.directory, bundle.spec, bundle.contract)
    log = SegmentLog(Path(settings.log.folder_at(settings.home)), segment_bytes=2**20, disk_bytes=2**26)
    recorder = Recorder(log, LogSettings(bytes_per_second=0), LogCounts(Counters()))
    about = Logged(model=NAME, version=version, digest=known.digest)
    try:
        for window in windows:
            begun = first + window * WINDOW
            frame = rows(ROWS, 1000 + window, of_the_time(begun) + (window in moved))
            columns = sample_columns(bundle.contract, read_sample(frame, target="y"))
            outputs = engine.predict(columns)
            for part in range(6):
                mine = slice(part * 50, part * 50 + 50)
                asked = Request(model=NAME, inputs={}, request_id=f"{window}-{part}", protocol="v2")
                answers = {name: values[mine] for name, values in outputs.items()}
                at = begun + 3600 * part + 1
                recorder.record(Predictions(about, [asked], [50], at, [0.01], columns.take(mine), answers))
    finally:
        recorder.close()
        engine.unload()


def drifted(report: Report) -> set[str]:
    return {finding.field for finding in report.findings if finding.kind == "drift"}


def test_the_second_versions_first_night_is_no_alarm_and_what_is_new_in_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = (time.time() // WINDOW - BEFORE - AFTER) * WINDOW
    train = of_all_hours(1)
    for version, model in enumerate((LinearRegression(), LinearRegression(positive=True)), 1):
        fitted = model.fit(train[COLUMNS], train["y"])
        fairway.deploy(fitted, train, target="y", reference=of_all_hours(50 * version), name=NAME, home=home)
        windows = range(BEFORE) if version == 1 else range(BEFORE, BEFORE + AFTER)
        record(home, version, windows, first, {BEFORE + AFTER - 2, BEFORE + AFTER - 1})
    read = read_settings(home)
    settings = msgspec.structs.replace(
        read,
        monitoring=msgspec.structs.replace(read.monitoring, window_seconds=float(WINDOW)),
        drift=msgspec.structs.replace(read.drift, resamples=300),
    )
    reports = look_now(settings, model=NAME)
    seen = {version: [r for r in reports if r.version == version and r.rows] for version in (1, 2)}
    assert [report.rows for report in seen[2]] == [ROWS] * AFTER
    assert any("a" in drifted(report) for report in seen[1][:8])  # nobody could know
    for report in seen[2][:-2]:
        assert drifted(report) == set(), report.notes
        assert any("the inputs of version 1 in 2 days of the same hours" in note for note in report.notes)
    assert "a" in drifted(seen[2][-1])
