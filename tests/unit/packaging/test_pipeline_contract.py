"""One field for all that read it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fairway.core.contract import Action, Category, Contract, DType, Field, Output, Rules
from fairway.core.errors import ContractViolation
from fairway.inference.validate import Validator
from fairway.packaging.pipeline_contract import merged, misfit
from tests.strategies import fields, json_value


def field(dtype: DType = DType.float64, **options: Any) -> Field:
    rules = {name: options.pop(name) for name in Rules.__struct_fields__ if name in options}
    return Field(name=options.pop("name", "x"), dtype=dtype, rules=Rules(**rules), **options)


def merge(*readers: Field) -> Field:
    found, conflicts = merged("x", [(f"n{i}", reader) for i, reader in enumerate(readers)])
    assert found is not None, conflicts
    return found


def conflicts(*readers: Field) -> list[str]:
    found, told = merged("x", [(f"n{i}", reader) for i, reader in enumerate(readers)])
    assert found is None
    return told


def test_one_reader_has_its_way_under_the_name_of_the_request() -> None:
    assert merge(field(name="other", minimum=1)) == field(minimum=1)


def test_what_both_allow_is_allowed() -> None:
    both = merge(field(minimum=0, maximum=10, fence=(-5, 15)), field(minimum=5, fence=(-9, 9)))
    assert (both.minimum, both.maximum, both.fence) == (5, 10, (-5, 9))
    names = [tuple(Category(name, 0.5) for name in text) for text in ("abc", "cab", "bz")]
    assert [c.value for c in merge(*(field(DType.string, categories=c) for c in names)).categories] == ["b"]


def test_the_strictest_action_wins_with_its_own_limits() -> None:
    both = merge(field(minimum=0, maximum=10, on_range=Action.reject), field(minimum=2, maximum=8))
    assert (both.rules.on_range, both.minimum, both.maximum) == (Action.reject, 0, 10)
    nulls = merge(field(nullable=True, on_null=Action.warn), field())
    assert (nulls.nullable, nulls.rules.on_null) == (False, Action.reject)


def test_a_rule_without_limits_asks_for_nothing() -> None:
    both = merge(field(on_range=Action.warn), field(minimum=2, on_range=Action.reject))
    assert (both.rules.on_range, both.minimum) == (Action.reject, 2)
    words = (Category("a", 1.0),)
    text = merge(field(DType.string, on_category=Action.reject), field(DType.string, categories=words))
    assert text.categories == words


@pytest.mark.parametrize(
    ("dtypes", "merged_dtype"),
    [
        ((DType.float32, DType.float64), DType.float64),
        ((DType.int64, DType.float32), DType.int64),
        ((DType.int64, DType.int8, DType.float64), DType.int8),
        ((DType.string, DType.string), DType.string),
    ],
)
def test_the_dtype_is_one_that_all_take(dtypes: tuple[DType, ...], merged_dtype: DType) -> None:
    assert merge(*(field(dtype) for dtype in dtypes)).dtype is merged_dtype


@pytest.mark.parametrize(
    ("readers", "told"),
    [
        ((field(), field(DType.string)), "is n0: float64, n1: string"),
        ((field(DType.bool), field(DType.int64)), "is n0: bool, n1: int64"),
        ((field(DType.uint8), field(DType.int64)), "is n0: uint8, n1: int64"),
        ((field(shape=(2,)), field(shape=(3,))), "has the shapes n0: [2], n1: [3]"),
        (
            (field(minimum=0, on_range=Action.clip), field(minimum=0, on_range=Action.warn)),
            "on_range: n0 clips (minimum 0 maximum None), n1 warns (minimum 0 maximum None)",
        ),
        (
            (field(minimum=0, on_range=Action.clip), field(minimum=1, on_range=Action.clip)),
            "on_range: n0 clips (minimum 0 maximum None), n1 clips (minimum 1 maximum None)",
        ),
        (
            (field(on_null=Action.impute, impute_with=1), field(on_null=Action.impute, impute_with=2)),
            "on_null: n0 imputes 1, n1 imputes 2",
        ),
        (
            (field(minimum=0, on_range=Action.clip), field()),
            "on_range: n0 clips (minimum 0 maximum None), n1 takes all",
        ),
        (
            (field(minimum=5), field(maximum=1)),
            "has ranges that do not meet (n0: 5, n1: None; n0: None, n1: 1)",
        ),
        (
            (
                field(DType.string, categories=(Category("a", 1.0),)),
                field(DType.string, categories=(Category("b", 1.0),)),
            ),
            "has categories that have nothing in common",
        ),
    ],
)
def test_what_cannot_be_reconciled_is_told(readers: tuple[Field, ...], told: str) -> None:
    assert told in conflicts(*readers)


def checked(one: Field, value: Any) -> Any:
    """What a model behind this field sees of a value; None where the value is refused."""
    contract = Contract(inputs=(one,), outputs=())
    try:
        columns = Validator(contract).check({"x": [value]}, lambda *_: None)
    except ContractViolation:
        return None
    return columns["x"].tolist()


@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.data())
def test_law_what_passes_means_to_each_reader_what_it_would_have_meant_alone(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([DType.float64, DType.int64, DType.string, DType.timestamp]))
    readers = [data.draw(fields("x", [dtype])) for _ in range(2)]
    both, _ = merged("x", [("a", readers[0]), ("b", readers[1])])
    assume(both is not None)
    assert both is not None
    value = data.draw(json_value(readers[0]) | json_value(readers[1]))
    through = checked(both, value)
    if through is None:
        return
    for reader in readers:
        alone = checked(reader, value)
        assert alone is not None, "the pipeline lets through what the model refuses"
        assert repr(through) == repr(alone)  # as text, because NaN is not itself


@pytest.mark.parametrize(
    ("given_dtype", "wanted", "fits"),
    [
        (DType.float64, DType.float32, True),
        (DType.int64, DType.float32, True),
        (DType.bool, DType.int8, True),
        (DType.int32, DType.int64, True),
        (DType.uint8, DType.int16, True),
        (DType.int64, DType.int32, False),
        (DType.uint8, DType.int8, False),
        (DType.int8, DType.uint8, False),
        (DType.float32, DType.int64, False),
        (DType.int64, DType.bool, False),
        (DType.string, DType.float64, False),
        (DType.timestamp, DType.timestamp, True),
    ],
)
def test_which_values_can_become_which(given_dtype: DType, wanted: DType, fits: bool) -> None:
    assert (misfit(Output(name="o", dtype=given_dtype), field(wanted)) is None) is fits


def test_shapes_and_nulls_have_to_fit_too() -> None:
    assert misfit(Output(name="o", dtype=DType.float64, shape=(2,)), field()) == "shape [2] does not fit []"
    assert misfit(field(nullable=True), field()) == "it may be null, and the field takes none"
