"""Every kind of model through the real packager, registry, log, labels and monitor: quiet where nothing has changed, a finding
where it has, metrics of its own kind once labels come."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

import fairway
from fairway.app.feedback import store_labels
from fairway.app.home import Home
from fairway.app.settings import read_settings
from fairway.app.watch import look_now
from fairway.core.request import Request
from fairway.core.settings import LogSettings, Settings
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
from tests.e2e.servers import mixed_model, visits

pytestmark = pytest.mark.e2e
HOURS = 6
"""Windows: in the last two everything has moved."""
ROWS = 300
GOOD = ["cheap", "nice", "warm", "dry", "light", "quick", "happy", "calm", "bright", "clean"]
BAD = ["dear", "rude", "cold", "wet", "heavy", "slow", "angry", "loud", "dim", "dirty"]
ABC = ["a", "b", "c"]
NEW = ["bug", "crash", "login", "token", "server", "error", "timeout"]


@dataclass(frozen=True)
class Kind:
    """`data` are rows by number, seed and whether they have moved, with the label in `target` where there is one. `moves` are columns of which some
    must be found; `metrics` what labels must be told by, `estimates` what must be estimated without."""

    data: Callable[[int, int, bool], pd.DataFrame]
    model: Callable[[pd.DataFrame], Any]
    moves: set[str]
    target: str | None = None
    metrics: set[str] = field(default_factory=set)
    estimates: set[str] = field(default_factory=set)


def _mixed(rows: int, seed: int, moved: bool) -> pd.DataFrame:
    frame = visits(rows, seed)
    return frame.assign(amount=frame["amount"] * 2.5) if moved else frame


def _numbers(rows: int, seed: int, moved: bool) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=ABC)
    frame["b"] += 1.2 * moved
    frame["y"] = frame["a"] - 2 * frame["b"] + random.normal(size=rows)
    return frame


def _three(rows: int, seed: int, moved: bool) -> pd.DataFrame:
    frame = _numbers(rows, seed, moved)
    return frame.assign(y=pd.cut(frame["y"], [-99, -1, 1, 99], labels=["low", "mid", "high"]).astype(str))


def _two(rows: int, seed: int, moved: bool) -> pd.DataFrame:
    frame = _numbers(rows, seed, moved)
    return frame.drop(columns="y")


def _texts(rows: int, seed: int, moved: bool) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, rows)
    words = [random.choice(GOOD if y else BAD, 6).tolist() for y in label]
    extra = [random.choice(NEW, 3).tolist() if moved else [] for _ in label]
    return pd.DataFrame({"text": [" ".join(w + e) for w, e in zip(words, extra, strict=True)], "y": label})


def _images(rows: int, seed: int, moved: bool) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    pixels = random.normal(size=(rows, 12)) + 0.8 * moved
    return pd.DataFrame({"image": list(pixels.reshape(rows, 3, 4).tolist())})


def _fit(estimator: Any, columns: list[str]) -> Callable[[pd.DataFrame], Any]:
    return lambda frame: estimator.fit(frame[columns], frame["y"])


CODE = """
import numpy as np

def shade(rows):
    flat = np.stack(rows["image"].to_numpy()).reshape(len(rows), -1)
    return {"mean": flat.mean(axis=1), "side": np.where(flat[:, 0] > 0, "left", "right").astype(object)}
"""
CLASSES = {"roc_auc", "accuracy", "log_loss"}
KINDS = {
    "pipeline": Kind(_mixed, mixed_model, {"amount"}, "bought", CLASSES, CLASSES),
    "regressor": Kind(_numbers, _fit(LinearRegression(), ABC), {"b"}, "y", {"mae", "rmse"}, {"mae", "rmse"}),
    "classes": Kind(_three, _fit(LogisticRegression(), ABC), {"b"}, "y", CLASSES, CLASSES),
    "anomalies": Kind(_two, lambda frame: IsolationForest(n_estimators=20, random_state=0).fit(frame), {"b", "score"}),
    "clusters": Kind(_two, lambda frame: KMeans(3, random_state=0, n_init=1).fit(frame), {"b"}),
    "texts": Kind(_texts, lambda frame: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(frame["text"], frame["y"]), {"text"}, "y", CLASSES, CLASSES),
    "images": Kind(_images, lambda frame: "shade.py:shade", {"image", "mean"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds") / "home"


def settings_of(home: Path) -> Settings:
    settings = read_settings(home)
    watching = msgspec.structs.replace(settings.monitoring, min_class_labels=3)
    drift = msgspec.structs.replace(settings.drift, resamples=400)
    return msgspec.structs.replace(settings, monitoring=watching, drift=drift)


def predicted(home: Path, name: str, kind: Kind) -> pd.DataFrame:
    """Puts HOURS windows of predictions into the log; the labels to send."""
    first = (time.time() // 3600 - HOURS) * 3600
    settings = read_settings(home)
    with Home(settings) as place:
        version = place.registry.version(name, 1)
        bundle = read_bundle(place.registry.fetch(version))
    engine = load(bundle.directory, bundle.spec, bundle.contract)
    log = SegmentLog(Path(settings.log.folder_at(settings.home)), segment_bytes=2**20, disk_bytes=2**26)
    recorder = Recorder(log, LogSettings(bytes_per_second=0), LogCounts(Counters()))
    labels = []
    try:
        for hour in range(HOURS):
            frame = kind.data(ROWS, 100 + hour, hour >= HOURS - 2)
            columns = sample_columns(bundle.contract, read_sample(frame, target=kind.target))
            about = Logged(model=name, version=1, digest=version.digest)
            outputs = engine.predict(columns)
            for part in range(3):
                asked = Request(model=name, inputs={}, request_id=f"{name}-{hour}-{part}", protocol="v2")
                mine = slice(part * 100, part * 100 + 100)
                answers = {output: values[mine] for output, values in outputs.items()}
                at = first + hour * 3600 + 600 * part + 1
                recorder.record(Predictions(about, [asked], [100], at, [0.01], columns.take(mine), answers))
                if kind.target:
                    labels.append(frame[[kind.target]].iloc[mine].reset_index(drop=True).rename(columns={kind.target: "label"}).rename_axis("row").reset_index().assign(request_id=asked.request_id))  # fmt: skip
    finally:
        recorder.close()
        engine.unload()
    return pd.concat(labels) if labels else pd.DataFrame()


def told(report: Report) -> str:
    return f"{report.start}: {[f.text for f in report.findings]} {report.notes}"


@pytest.mark.parametrize("name", list(KINDS))
def test_a_model_of_every_kind_is_watched(home: Path, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    train = kind.data(1500, 1, False)
    model = kind.model(train)
    if isinstance(model, str):
        (tmp_path / "shade.py").write_text(CODE)
        model = str(tmp_path / model)
    fairway.deploy(
        model, train, target=kind.target, reference=kind.data(3000, 2, False), name=name, home=home
    )
    labels = predicted(home, name, kind)
    settings = settings_of(home)
    seen = [report for report in look_now(settings, model=name) if report.rows]
    assert [report.rows for report in seen] == [ROWS] * HOURS, [told(report) for report in seen]
    assert not any("could not be looked at" in note for report in seen for note in report.notes)
    for report in seen[:-2]:
        found = [
            f for f in report.findings if f.severity != "info" and f.kind in ("drift", "quality", "estimate")
        ]
        assert not found, told(report)
    last = seen[-1]
    assert kind.moves & {f.field for f in last.findings if f.kind == "drift"}, told(last)
    assert kind.estimates <= {metric.measured.name for metric in last.estimates}, told(last)
    assert any(column.role == "output" and column.drift is not None for column in last.columns)
    if not kind.target:
        return
    labels.to_csv(tmp_path / "labels.csv", index=False)
    with Home(settings) as place:
        sent = store_labels(place, tmp_path / "labels.csv", model=name)
    assert (sent.accepted, sent.rejected) == (ROWS * HOURS, 0)
    again = [report for report in look_now(settings, model=name) if report.labels]
    assert {report.start for report in again} == {report.start for report in seen}
    for report in again:
        assert report.labels == ROWS
        assert kind.metrics <= {
            m.measured.name for m in report.performance if m.measured.value is not None
        }, told(report)
        assert all(m.usual is not None for m in report.performance if m.measured.name in kind.metrics), told(
            report
        )
