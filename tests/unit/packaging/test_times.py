"""When the rows of a reference were: told by a column of the data, kept in the bundle."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from fairway.core.errors import MalformedInput
from fairway.packaging import reference
from fairway.packaging.package import package
from fairway.packaging.sample import read_sample
from fairway.packaging.times import read_times

WHEN = pd.date_range("2026-11-01", periods=4, freq="7h")


def frame(**more: object) -> pd.DataFrame:
    return pd.DataFrame({"x": [1.0, 2, 3, 4], **more})


def test_the_only_column_of_moments_that_the_model_does_not_use() -> None:
    found = read_times(read_sample(frame(when=WHEN)), {"x"})
    assert found is not None
    assert found.name == "when"
    assert found.values.tolist() == WHEN.to_pydatetime().tolist()
    assert read_times(read_sample(frame(when=WHEN)), {"x", "when"}) is None
    assert read_times(read_sample(frame(when=WHEN, paid=WHEN)), {"x"}) is None
    assert read_times(read_sample(frame()), {"x"}) is None


def test_a_named_column_may_be_text_or_an_input_and_is_utc() -> None:
    sample = read_sample(frame(at=["2026-11-01T12:00:00+02:00", None, "2026-11-01", "2026-11-02T00:30:00Z"]))
    found = read_times(sample, {"x", "at"}, "at")
    assert found is not None
    assert found.values[0] == np.datetime64("2026-11-01T10:00:00")
    assert np.isnat(found.values[1])
    zoned = read_times(read_sample(frame(at=WHEN.tz_localize("Europe/Berlin"))), {"x"}, "at")
    assert zoned is not None
    assert zoned.values[0] == np.datetime64("2026-10-31T23:00:00")


@pytest.mark.parametrize(
    ("values", "name", "told"),
    [
        ([1, 2, 3, 4], "at", "holds numbers"),
        (["a", "b", "c", "d"], "at", "are no times"),
        (["a"] * 4, "nope", "no column 'nope'"),
    ],
)
def test_what_is_no_time_is_told(values: list[object], name: str, told: str) -> None:
    with pytest.raises(MalformedInput, match=told):
        read_times(read_sample(frame(at=values)), set(), name)


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    random = np.random.default_rng(0)
    made = pd.DataFrame({"x": random.normal(size=300), "y": random.normal(size=300)})
    made["label"] = (made.x + made.y > 0).astype(int)
    made["when"] = pd.date_range("2026-11-01", periods=300, freq="h")
    return made


def test_a_bundle_keeps_the_times_of_its_rows(tmp_path: Path, data: pd.DataFrame) -> None:
    model = LogisticRegression().fit(data[["x", "y"]], data["label"])
    made = package(model, data, target="label", out=tmp_path / "one")
    kept = pq.read_table(tmp_path / "one" / reference.FILE)
    by_x = dict(zip(data["x"], data["when"], strict=True))
    assert all(
        time == by_x[x].tz_localize("UTC")
        for x, time in zip(kept["input.x"].to_pylist(), kept["time"].to_pylist(), strict=True)
    )
    assert any("times from when" in note for note in made.notes)
    other = data.iloc[:60].assign(when=lambda d: d["when"].astype(str))
    package(model, data, target="label", reference=other, time="when", out=tmp_path / "two")
    kept = pq.read_table(tmp_path / "two" / reference.FILE)
    assert kept["time"].to_pylist()[0] == datetime(2026, 11, 1, tzinfo=UTC)
    package(model, data.drop(columns="when"), target="label", out=tmp_path / "three")
    assert "time" not in pq.read_table(tmp_path / "three" / reference.FILE).column_names
