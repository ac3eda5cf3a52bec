"""What the model heeds, without labels."""

import numpy as np
import pytest

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.errors import ModelFailed
from fairway.packaging.importance import permutation_importance
from fairway.packaging.profile import make_profile

CONTRACT = Contract(
    inputs=tuple(Field(name=name, dtype=DType.float64) for name in "abc"),
    outputs=(Output(name="prediction", dtype=DType.float64),),
    task=Task.regression,
)


class Linear:
    """3 a + b; what c is does not matter."""

    def predict(self, columns: Columns) -> Outputs:
        return {"prediction": 3 * columns["a"] + columns["b"]}


def sample(rows: int = 400) -> Columns:
    values: Array = np.random.default_rng(0).normal(size=(rows, 3))
    return Columns(("a", "b", "c"), rows, packed=values)


def test_shares_are_those_of_the_coefficients() -> None:
    found = permutation_importance(Linear(), CONTRACT, sample())
    assert found == pytest.approx({"a": 0.75, "b": 0.25, "c": 0.0}, abs=0.03)
    assert found == permutation_importance(Linear(), CONTRACT, sample())


def test_the_sample_is_not_touched() -> None:
    columns = sample()
    before = columns["a"].copy()
    permutation_importance(Linear(), CONTRACT, columns)
    assert (columns["a"] == before).all()


def test_labels_alone_and_mixed_columns() -> None:
    class Words:
        def predict(self, columns: Columns) -> Outputs:
            return {"label": np.where(columns["b"] == "x", "yes", "no").astype(object)}

    contract = Contract(
        inputs=(Field(name="a", dtype=DType.float64), Field(name="b", dtype=DType.string)),
        outputs=(Output(name="label", dtype=DType.string),),
        task=Task.classification,
    )
    texts = np.array(["x", "y"], dtype=object)[np.arange(100) % 2]
    columns = Columns(("a", "b"), 100, arrays=[np.arange(100.0), texts])
    assert permutation_importance(Words(), contract, columns) == {"a": 0.0, "b": 1.0}


def test_nothing_is_said_where_nothing_can_be() -> None:
    class Fails:
        def predict(self, columns: Columns) -> Outputs:
            raise ModelFailed("no")

    class Constant:
        def predict(self, columns: Columns) -> Outputs:
            return {"prediction": np.ones(columns.rows)}

    assert permutation_importance(Fails(), CONTRACT, sample()) == {}
    assert permutation_importance(Constant(), CONTRACT, sample()) == {}
    assert permutation_importance(Linear(), CONTRACT, sample(5)) == {}


def test_the_profile_keeps_it() -> None:
    columns = sample(50)
    profile = make_profile(CONTRACT, columns, Linear().predict(columns), {"a": 0.8, "b": 0.2})
    assert profile.importance == {"a": 0.8, "b": 0.2}
    assert make_profile(CONTRACT, columns, Linear().predict(columns)).importance == {}
