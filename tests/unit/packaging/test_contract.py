"""A contract inferred from data names its types, describes what was seen, and refuses nothing of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.conform import to_columns
from fairway.core.contract import Action, Contract, DType, Output, Task
from fairway.core.errors import ContractViolation, UnsupportedContent
from fairway.inference.validate import Validator
from fairway.packaging.contract import (
    field_dtype,
    infer_contract,
    outlier_fence,
    sample_arrays,
    sample_columns,
)
from fairway.packaging.profile import profile_field
from fairway.packaging.rules import Refusals, contract_problems
from fairway.packaging.sample import read_sample
from fairway.packaging.source import Sample

WHEN = datetime(2024, 1, 2, tzinfo=UTC)


def infer(data: Any, **how: Any) -> Contract:
    return infer_contract(read_sample(data), **how)


def one(values: Any, **how: Any) -> Any:
    return infer({"a": values}, **how).inputs[0]


class TestTypes:
    @pytest.mark.parametrize(
        ("values", "dtype", "nullable"),
        [
            ([1, 2], DType.int64, False),
            ([1, None], DType.int64, True),
            ([True, None], DType.bool, True),
            ([1.5, None], DType.float64, True),
            (["x", None], DType.string, True),
            ([WHEN, None], DType.timestamp, True),
            ([None, None], DType.float64, True),
            (np.array([1, 2], dtype=np.uint8), DType.uint8, False),
            (np.array([1, 2], dtype=np.float16), DType.float16, False),
            (pd.array([1, None], dtype="Int16"), DType.int16, True),
            (pd.array([0.5, None], dtype="Float32"), DType.float32, True),
            (pd.Categorical(["x"]), DType.string, False),
            (pd.Categorical([3, 4]), DType.int64, False),
            ([2**60, None], DType.float64, True),
            ([2**60, 1], DType.int64, False),
        ],
    )
    def test_of_a_column(self, values: Any, dtype: DType, nullable: bool) -> None:
        field = infer(pd.DataFrame({"a": values}) if hasattr(values, "isna") else {"a": values}).inputs[0]
        assert (field.dtype, field.nullable, field.shape) == (dtype, nullable, ())

    def test_of_a_tensor(self) -> None:
        values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        values[1, 0, 0] = np.nan
        field = one(values)
        assert (field.dtype, field.shape, field.nullable) == (DType.float32, (3, 4), True)
        assert (field.minimum, field.maximum, field.missing_rate) == (0.0, 23.0, 0.5)

    def test_fields_keep_their_order_and_outputs_are_passed_on(self) -> None:
        outputs = (Output(name="label", dtype=DType.int64),)
        contract = infer({"b": [1], "a": [2]}, outputs=outputs, task=Task.classification, target="y")
        assert [field.name for field in contract] == ["b", "a"]
        assert (contract.outputs, contract.task, contract.target) == (outputs, Task.classification, "y")


class TestDescription:
    def test_numbers(self) -> None:
        field = one(np.arange(101.0))
        assert field.quantiles == (0.0, 5.0, 25.0, 50.0, 75.0, 95.0, 100.0)
        assert (field.minimum, field.maximum) == (0.0, 100.0)
        assert field.fence == (25 - 150, 75 + 150)
        assert field.categories == ()

    def test_missing_rate(self) -> None:
        assert one([1.0, None, None, 4.0]).missing_rate == 0.5

    def test_the_latest_moment_is_no_limit(self) -> None:
        field = one([WHEN, WHEN])
        assert field.maximum is None
        assert field.minimum == field.quantiles[-1] == WHEN.timestamp() * 1e6

    def test_text_that_repeats_is_a_category(self) -> None:
        field = one(["x"] * 6 + ["y"] * 3 + [None])
        assert [(c.value, c.frequency) for c in field.categories] == [("x", 6 / 9), ("y", 3 / 9)]
        free = one([f"text {i}" for i in range(200)])
        assert free.categories == ()
        assert len(one([f"v{i % 40}" for i in range(400)]).categories) == 40

    def test_too_many_values_are_no_category(self) -> None:
        assert one([f"v{i % 2000}" for i in range(20_000)]).categories == ()

    def test_levels_never_seen_belong_to_a_category(self) -> None:
        frame = pd.DataFrame({"a": pd.Categorical(["x", "x"], categories=["y", "x"])})
        field = infer(frame).inputs[0]
        assert [(c.value, c.frequency) for c in field.categories] == [("x", 1.0), ("y", 0.0)]

    def test_few_whole_numbers_are_a_category_and_need_no_fence(self) -> None:
        field = one([0, 1, 2] * 20)
        assert {c.value for c in field.categories} == {0, 1, 2}
        assert field.fence is None
        assert one([0, 1, 2]).categories == ()

    def test_booleans_know_both_values(self) -> None:
        assert {c.value: c.frequency for c in one([True, True]).categories} == {True: 1.0, False: 0.0}

    def test_text_that_differs_only_in_trailing_zeros_stays_apart(self) -> None:
        assert {c.value for c in one(["a", "a\x00"]).categories} == {"a", "a\x00"}


class TestFence:
    def test_half_the_values_equal_flags_not_everything_else(self) -> None:
        values = np.array([0.0] * 80 + list(range(1, 21)))
        fence = outlier_fence(profile_field("a", DType.float64, values).quantiles)
        assert fence is not None
        assert fence[1] >= 20

    def test_a_constant_and_nothing_have_none(self) -> None:
        assert outlier_fence(profile_field("a", DType.float64, np.zeros(50)).quantiles) is None
        assert outlier_fence(()) is None
        assert one([-1.7e308, -1.6e308, 1.7e308] * 5).fence is None  # would overflow


class TestRules:
    def test_null_is_refused_only_if_none_was_seen(self) -> None:
        assert one([1.0, 2.0]).rules.on_null is Action.reject
        assert one([1.0, None]).rules.on_null is Action.warn

    def test_what_the_model_refuses_is_refused(self) -> None:
        refused = Refusals(nulls=frozenset({"a"}), categories=frozenset({"a"}))
        field = one(["x", None], refused=refused)
        assert (field.rules.on_null, field.rules.on_category) == (Action.reject, Action.reject)
        assert one(["x", None]).rules.on_category is Action.warn

    def test_a_model_that_refuses_unseen_text_has_all_of_it_listed(self) -> None:
        values = [f"v{i}" for i in range(3000)]
        field = one(values, refused=Refusals(categories=frozenset({"a"})))
        assert len(field.categories) == 3000

    def test_infinity_is_refused_only_if_none_was_seen(self) -> None:
        assert one([1.0, np.inf]).rules.on_infinite is Action.warn
        assert one([1.0, 2.0]).rules.on_infinite is Action.reject


def test_mixed_content_is_named() -> None:
    sample = Sample(frame=pd.DataFrame({"a": pd.Series(["x", 3], dtype=object)}))
    with pytest.raises(UnsupportedContent, match="column 'a' holds values of several kinds: row 1"):
        infer_contract(sample)
    assert field_dtype(sample, "a", sample_arrays(sample)["a"]) is DType.string


def test_a_sample_of_other_types_does_not_fit() -> None:
    with pytest.raises(ContractViolation):
        sample_columns(infer({"a": [1, 2]}), read_sample({"a": ["x"]}))


VALUES: list[st.SearchStrategy[Any]] = [
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.floats(),
    st.floats(width=32),
    st.booleans(),
    st.text(st.characters(codec="utf-8")),
    st.sampled_from(["x", "y", "z"]),
    st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment.year < 9999),
]


@st.composite
def frames(draw: st.DrawFn) -> dict[str, list[Any]]:
    rows = draw(st.integers(1, 40))
    return {
        f"f{i}": draw(st.lists(draw(st.sampled_from([kind, kind | st.none()])), min_size=rows, max_size=rows))
        for i, kind in enumerate(draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4)))
    }


@given(frames())
@settings(max_examples=150, deadline=None)
def test_whatever_was_seen_passes_its_own_contract(data: dict[str, list[Any]]) -> None:
    """The law of inference: nothing the training data held is refused, and no value changes on the way."""
    sample = read_sample(data)
    contract = infer_contract(sample)
    assert contract_problems(contract) == ()
    columns = to_columns(contract, sample_arrays(sample))
    refused: list[tuple[str, str, int]] = []
    checked = Validator(contract).check(sample_arrays(sample), lambda *told: refused.append(told))
    assert checked.rows == columns.rows == len(sample)
    for name in contract_names(contract):
        np.testing.assert_array_equal(checked[name], columns[name])
    assert {rule for _, rule, _ in refused} <= {"on_infinite", "on_outlier", "on_range"}


def contract_names(contract: Contract) -> list[str]:
    return [field.name for field in contract]
