"""The reference profile counts what is there, in a form that later windows can be compared with."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fairway.core.columns import Columns
from fairway.core.contract import Contract, DType, Field, Output
from fairway.packaging import profile as module
from fairway.packaging.profile import Profile, make_profile, profile_field


def test_numbers() -> None:
    values = np.array([1.0, 2.0, 2.0, np.nan, np.inf, 10.0])
    found = profile_field("a", DType.float64, values)
    assert (found.rows, found.nulls, found.infinite, found.distinct) == (6, 1, 1, 3)
    assert (found.minimum, found.maximum, found.mode) == (1.0, 10.0, 2.0)
    assert found.mean == pytest.approx(3.75)
    assert found.deviation == pytest.approx(np.std([1, 2, 2, 10]))
    assert sum(found.counts) == 4
    assert found.categories == ()


def test_whole_numbers_booleans_and_moments() -> None:
    whole = profile_field("a", DType.int64, np.array([3, 3, 1]))
    assert whole.categories == ((3, 2), (1, 1))
    assert whole.mode == 3
    flags = profile_field("b", DType.bool, np.array([1.0, np.nan, 0.0, 1.0]))
    assert flags.categories == ((True, 2), (False, 1))
    assert flags.mode is True
    moments = np.array(["1970-01-01T00:00:01", "NaT"], dtype="datetime64[us]")
    when = profile_field("c", DType.timestamp, moments)
    assert (when.minimum, when.nulls, when.categories) == (1_000_000, 1, ())


def test_text_counts_frequent_values_and_lengths() -> None:
    values = np.array(["b", "a", "b", None, "ccc"], dtype=object)
    found = profile_field("s", DType.string, values)
    assert found.categories == (("b", 2), ("a", 1), ("ccc", 1))
    assert (found.nulls, found.other, found.distinct, found.maximum) == (1, 0, 3, 3.0)
    many = np.array([f"v{i:04}" for i in range(500)], dtype=object)
    assert profile_field("s", DType.string, many).other == 500 - module.CATEGORIES


def test_nothing_known() -> None:
    found = profile_field("a", DType.float64, np.full(3, np.nan))
    assert (found.nulls, found.quantiles, found.counts, found.mean, found.mode) == (3, (), (), None, None)


def test_a_large_tensor_is_sampled_but_its_limits_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELEMENTS", 100)
    values = np.random.default_rng(0).normal(size=(50, 20))
    values[3, 4], values[5, 6] = 99.0, np.inf
    found = profile_field("x", DType.float64, values)
    assert (found.rows, found.maximum, found.infinite) == (1000, 99.0, 1)
    assert sum(found.counts) == 100


def test_outputs_are_profiled_per_class() -> None:
    contract = Contract(
        inputs=(Field(name="a", dtype=DType.float64),),
        outputs=(
            Output(name="label", dtype=DType.string),
            Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),
            Output(name="embedding", dtype=DType.float32, shape=(300,)),
        ),
    )
    columns = Columns(("a",), 2, packed=np.array([[1.0], [2.0]]))
    outputs = {
        "label": np.array(["no", "yes"], dtype=object),
        "probabilities": np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32),
        "embedding": np.zeros((2, 300), dtype=np.float32),
    }
    profile = make_profile(contract, columns, outputs)
    names = [part.name for part in profile.outputs]
    assert names == ["label", "probabilities[no]", "probabilities[yes]", "embedding"]
    assert profile.field("a") == profile.inputs[0]
    assert profile.field("b") is None
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


@given(npst.arrays(np.float64, st.integers(1, 60), elements=st.floats(width=64)))
def test_any_numbers_give_a_profile_that_json_holds(values: np.ndarray) -> None:
    found = profile_field("a", DType.float64, values)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
    finite = values[np.isfinite(values)]
    assert sum(found.counts) == len(finite)
    assert found.rows == len(finite) + found.nulls + found.infinite
    if len(finite):
        assert (found.minimum, found.maximum) == (finite.min(), finite.max())
        assert list(found.quantiles) == sorted(found.quantiles)
        assert found.counts[-1] > 0
        assert list(found.edges) == sorted(set(found.edges))
