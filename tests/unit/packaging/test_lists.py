"""Which rows of a reference are one list: told by a column of the data, kept whole in the bundle."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import ndcg_score

from fairway.core.columns import Columns
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import MalformedInput
from fairway.monitoring.watch.reference import bundle_reference
from fairway.packaging import reference
from fairway.packaging.amend import read_profile
from fairway.packaging.bundle import read_bundle
from fairway.packaging.lists import Lists, read_lists
from fairway.packaging.package import package
from fairway.packaging.sample import read_sample


def lists(*values: object) -> Lists:
    return Lists("session", np.array(values, dtype=object))


def test_lists_are_numbered_and_rows_of_none_are_left_out() -> None:
    frame = pd.DataFrame({"x": [1.0, 2, 3], "session": [7, 7, 8], "gaps": ["a", None, "b"]})
    assert read_lists(read_sample(frame), None) is None
    found = read_lists(read_sample(frame), "session")
    assert found is not None
    assert found.values.tolist() == ["0", "0", "1"]
    gaps = read_lists(read_sample(frame), "gaps")
    assert gaps is not None
    assert gaps.values.tolist() == ["0", None, "1"]
    assert gaps.whole(np.arange(3), 5).tolist() == [0, 2]
    with pytest.raises(MalformedInput, match="no column 'query'"):
        read_lists(read_sample(frame), "query")


def test_lists_are_taken_whole_in_the_order_they_come() -> None:
    told = lists("a", "b", "a", "b", "c", "a")
    assert told.whole(np.array([1, 0, 2, 3, 4, 5]), 3).tolist() == [1, 3]  # b; a is one too many, and ends it
    assert told.whole(np.array([0, 1, 2, 3, 4, 5]), 5).tolist() == [0, 1, 2, 3, 5]
    assert told.whole(np.array([0, 1, 2, 3, 4, 5]), 2).tolist() == [1, 3]  # a alone is too many
    assert told.whole(np.array([5, 4]), 9).tolist() == [4, 5]
    with pytest.raises(MalformedInput, match="no list of at most 1 rows"):
        lists("a", "a").whole(np.arange(2), 1)


def test_a_list_that_the_limit_of_bytes_cuts_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = Contract(inputs=(Field(name="a", dtype=DType.float64),), outputs=())
    columns = Columns(("a",), 6, arrays=[np.arange(6.0)])
    monkeypatch.setattr(reference, "MOST_BYTES", 4 * 16)  # four rows: a number and the name of a list
    content = reference.make_reference(
        contract, columns, {}, None, lists=np.array(list("xyxyxz"), dtype=object)
    )
    kept = pq.read_table(io.BytesIO(content))
    assert kept["request_id"].to_pylist() == ["y", "y"]
    assert kept["input.a"].to_pylist() == [1.0, 3.0]


def test_a_bundle_tells_what_order_is_usual(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = pd.DataFrame({"x": random.normal(size=4_000), "session": np.repeat(np.arange(500), 8)})
    data["relevance"] = np.clip(np.round(data["x"] + random.normal(size=4_000)), 0, 3)
    model = LinearRegression().fit(data[["x"]], data["relevance"])
    made = package(model, data, target="relevance", query="session", out=tmp_path / "one")
    assert any("lists by session" in note for note in made.notes)
    bundle = read_bundle(tmp_path / "one")
    assert [field.name for field in bundle.contract] == ["x"]
    known = bundle_reference(bundle, read_profile(bundle))
    assert known.query == "request_id"
    assert known.normal.keys() == {"ndcg", "map"}  # how far scores are from relevances means nothing
    assert known.estimator is None
    usual = known.normal["ndcg"]
    assert usual is not None
    relevance = data["relevance"].to_numpy().reshape(500, 8)
    some = relevance.any(axis=1)
    wanted = ndcg_score(relevance[some], data["x"].to_numpy().reshape(500, 8)[some])
    assert usual.centre == pytest.approx(wanted, abs=0.01)
    other = package(model, data, target="relevance", out=tmp_path / "two")
    assert (
        bundle_reference(read_bundle(other.directory), read_profile(read_bundle(other.directory))).query == ""
    )
