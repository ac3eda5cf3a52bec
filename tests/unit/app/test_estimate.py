"""`fairway.estimate`: what is given, what comes back, what is wrong with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fairway
from fairway.core.errors import InvalidInput
from tests.unit.monitoring.performance.conftest import binary_window, many_window, regressed_window, table_of

REFERENCE = table_of(binary_window(6_000, 1, sure=1.6))
GOOD = table_of(binary_window(2_000, 2, sure=1.6))
BAD = table_of(binary_window(2_000, 3, sure=1.6, shift=-2.0))
GIVEN: dict[str, Any] = {"proba": "p", "prediction": "said", "target": "label", "chunk": 1_000}


def test_chunks_estimates_and_alerts() -> None:
    report = fairway.estimate(
        REFERENCE, pa.concat_tables([GOOD, BAD]), **GIVEN, metrics=["roc_auc", "accuracy"]
    )
    assert (report.task, report.method, report.calibration) == ("classification", "cbpe", "smooth")
    assert [(c.period, c.start, c.end) for c in report.chunks[5:8]] == [
        ("reference", 5_000, 6_000),
        ("analysis", 0, 1_000),
        ("analysis", 1_000, 2_000),
    ]
    assert [chunk.alert for chunk in report.chunks] == [False] * 8 + [True] * 2
    assert report.alert
    one = report.chunks[6].metrics["roc_auc"]
    assert one.estimated
    assert one.lower is not None
    assert one.upper is not None
    assert one.realised is not None
    assert one.lower < one.realised < one.upper


def test_labels_need_not_be_there() -> None:
    blind = fairway.estimate(REFERENCE, GOOD.drop_columns(["label"]), **GIVEN, metrics=["f1"])
    seen = fairway.estimate(REFERENCE, GOOD, **GIVEN, metrics=["f1"])
    assert not blind.alert
    assert blind.chunks[-1].metrics["f1"].realised is None
    assert blind.chunks[-1].metrics["f1"].value == seen.chunks[-1].metrics["f1"].value


def test_more_classes_by_name() -> None:
    def table(rows: int, seed: int) -> dict[str, Any]:
        window = many_window(rows, seed, classes=3)
        columns: dict[str, Any] = {f"p_{c}": window.probabilities[:, i] for i, c in enumerate("abc")}
        return columns | {"y": np.array(list("abc"), dtype=object)[window.actual]}

    report = fairway.estimate(
        table(3_000, 1),
        table(1_000, 2),
        proba={c: f"p_{c}" for c in "abc"},
        target="y",
        chunk=1_000,
        metrics=["roc_auc"],
    )
    metric = report.chunks[-1].metrics["roc_auc"]
    assert metric.value == pytest.approx(metric.realised, abs=0.03)


def test_a_regression_by_time() -> None:
    def table(rows: int, seed: int, begin: str, spread: float = 0.0) -> pa.Table:
        window = regressed_window(rows, seed, spread=spread)
        times = np.datetime64(begin, "us") + np.arange(rows) * np.timedelta64(60, "s")
        return pa.table(
            {"at": times[::-1].copy(), "said": window.predicted, "was": window.actual, **window.features}
        )

    report = fairway.estimate(
        table(6_000, 1, "2024-01-01"),
        table(3_000, 2, "2024-02-01", 1.0).drop_columns(["was"]),
        prediction="said",
        target="was",
        time="at",
        chunk="1d",
        metrics=["mae", "bias"],
    )
    assert (report.task, report.method) == ("regression", "dle")
    assert report.chunks[-1].start == "2024-02-03T00:00:00Z"
    assert report.chunks[5].metrics["mae"].alert
    assert report.alert


def test_files_labels_as_text_and_value(tmp_path: Path) -> None:
    words = pa.array(np.where(REFERENCE["label"].to_numpy() == 1, "yes", "no"))
    table = REFERENCE.drop_columns(["label", "said"]).append_column("label", words)
    pq.write_table(table, tmp_path / "r.parquet")
    given: dict[str, Any] = {"proba": "p", "target": "label", "chunk": 3_000}
    report = fairway.estimate(
        str(tmp_path / "r.parquet"),
        tmp_path / "r.parquet",
        **given,
        positive="yes",
        value="0,-1;-5,2",
        metrics=["business_value"],
    )
    assert report.chunks[-1].metrics["business_value"].realised is not None
    with pytest.raises(InvalidInput, match=r"which of no, yes has the probability 'p'\? Say --positive"):
        fairway.estimate(table, table, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proba": "q"}, "the reference has no column 'q'; there are: p, said, label"),
        ({"chunk": "1d"}, "chunks by time need the column of times"),
        ({"chunk": "x"}, "chunks cannot be 'x'"),
        ({"metrics": ["auc"]}, "there is no metric auc"),
        ({"metrics": ["business_value"]}, "needs what each outcome is worth"),
        ({"value": "1,2;3"}, "must be square"),
        ({"value": "a,b;c,d"}, "cannot be read"),
        ({"confidence": 1.0}, "confidence must be between"),
        ({"task": "ranking"}, "nothing is estimated for the task 'ranking'"),
        ({"calibration": "magic"}, "no calibration 'magic'"),
        ({"proba": None}, "needs its probabilities|must hold"),
        ({"proba": "x"}, "outside 0..1"),
        ({"features": ["z"]}, "no column 'z'"),
        ({"time": "x", "chunk": "1d"}, "must hold times"),
        ({"proba": "a=p,b"}, "CLASS=COLUMN"),
    ],
)
def test_what_is_asked_wrongly_is_told(change: dict[str, Any], message: str) -> None:
    task = {"task": "classification"} if change.get("proba", "") is None else {}
    with pytest.raises(InvalidInput, match=message):
        fairway.estimate(REFERENCE, GOOD, **(GIVEN | task | change))


def test_data_that_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no file"):
        fairway.estimate(str(tmp_path / "none.parquet"), GOOD, **GIVEN)
    with pytest.raises(InvalidInput, match="the current data has no rows"):
        fairway.estimate(REFERENCE, GOOD.slice(0, 0), **GIVEN)
    with pytest.raises(InvalidInput, match=r"the reference has 50 rows with a label"):
        fairway.estimate(REFERENCE.slice(0, 50), GOOD, **GIVEN)
    odd = GOOD.set_column(1, "said", pa.array(["maybe"] * 2_000))
    with pytest.raises(InvalidInput, match="the current data: column 'said' holds 'maybe'"):
        fairway.estimate(REFERENCE, odd, **GIVEN)


def test_nulls_and_columns_that_went_away() -> None:
    p = GOOD["p"].to_numpy().copy()
    p[:100] = np.nan
    holes = GOOD.set_column(0, "p", pa.array(p)).drop_columns(["noise"])
    report = fairway.estimate(REFERENCE, holes, **GIVEN, metrics=["accuracy"])
    assert report.notes == ("not in the current data, so not used: noise",)
    assert report.chunks[6].metrics["accuracy"].value is not None
