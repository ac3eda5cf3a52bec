"""A contract survives its trip through TOML, and a text with mistakes gets every one of them named."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.contract import Action, Category, Contract, DType, Field, Output, Rules, Task
from fairway.core.errors import InvalidInput
from fairway.packaging.contract_text import contract_from_text, contract_to_text
from fairway.packaging.profile import Profile, profile_field

CONTRACT = Contract(
    inputs=(
        Field(
            name="amount",
            dtype=DType.float64,
            nullable=True,
            minimum=0.0,
            maximum=10.0,
            quantiles=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0),
            fence=(-4.0, 10.0),
            missing_rate=0.25,
            rules=Rules(on_null=Action.impute),
            impute_with=3.0,
            imputed_by="median",
            description="in euros",
        ),
        Field(name="when seen.at", dtype=DType.timestamp, minimum=1.7e15),
        Field(name="kind", dtype=DType.string, categories=(Category("a\nb", 0.75), Category("", 0.25))),
        Field(name="image", dtype=DType.uint8, shape=(2, 3)),
        Field(name="", dtype=DType.bool, categories=(Category(True, 1.0), Category(False, 0.0))),
    ),
    outputs=(
        Output(name="label", dtype=DType.string),
        Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),
    ),
    task=Task.classification,
    extra_fields="reject",
    target="is fraud",
)


def test_there_and_back() -> None:
    text = contract_to_text(CONTRACT)
    assert contract_from_text(text) == CONTRACT
    assert "# 2023-11-14" in text  # timestamps have limits a person can read
    assert '[inputs."when seen.at".rules]' in text


def test_small_contracts() -> None:
    for outputs in ((), CONTRACT.outputs):
        contract = Contract(inputs=(Field(name="a", dtype=DType.int8),), outputs=outputs)
        assert contract_from_text(contract_to_text(contract)) == contract


finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES: dict[DType, st.SearchStrategy[Any]] = {
    DType.string: names,
    DType.bool: st.booleans(),
    DType.int64: st.integers(-(2**63), 2**63 - 1),
    DType.float32: finite,
    DType.timestamp: st.integers(0, 2**53),
}


@st.composite
def fields(draw: st.DrawFn, name: str) -> Field:
    dtype = draw(st.sampled_from(list(VALUES)))
    numeric = dtype not in (DType.string, DType.bool)
    low, high = sorted(draw(st.tuples(finite, finite)))
    nullable = draw(st.booleans())
    value = draw(VALUES[dtype])
    free = st.sampled_from([Action.reject, Action.warn, Action.impute])
    return Field(
        name=name,
        dtype=dtype,
        nullable=nullable,
        minimum=low if numeric and draw(st.booleans()) else None,
        maximum=high if numeric else None,
        fence=(low, high) if numeric else None,
        quantiles=tuple(draw(st.lists(finite, min_size=7, max_size=7))) if numeric else (),
        categories=tuple(
            Category(v, draw(st.floats(0, 1))) for v in draw(st.lists(VALUES[dtype], unique=True, max_size=3))
        ),
        missing_rate=draw(st.floats(0, 1)),
        rules=Rules(
            on_null=draw(free) if nullable else draw(st.sampled_from([Action.reject, Action.impute])),
            on_category=draw(free),
            on_range=Action.clip if numeric else draw(free),
            on_infinite=draw(free),
        ),
        impute_with=value,
        imputed_by="constant",
        description=draw(names),
    )


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_contract_survives(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(names, unique=True, min_size=1, max_size=3))
    contract = Contract(
        inputs=tuple(data.draw(fields(name)) for name in chosen),
        outputs=tuple(Output(name=name, dtype=DType.float64, labels=(name,)) for name in chosen),
        target=data.draw(st.none() | names),
    )
    assert contract_from_text(contract_to_text(contract)) == contract


def mistakes(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        contract_from_text(text)
    assert caught.value.problems
    return str(caught.value)


def test_every_mistake_is_named_with_its_line() -> None:
    told = mistakes(
        """task = "guessing"
colour = "red"

[inputs.amount]
dtype = "float"
minimum = "low"

[inputs.amount.rules]
on_null = "explode"
on_moon = "warn"

[inputs."the kind"]
nullable = 3

[outputs.label]
dtype = "string"
shape = [1.5]
"""
    )
    for mistake in (
        "task (line 1): 'guessing' is none of classification",
        "colour (line 2): is not known here",
        "inputs.amount.dtype (line 5): 'float' is none of bool",
        "inputs.amount.minimum (line 6): expected `float",
        "inputs.amount.rules.on_null (line 9): 'explode' is none of reject, clip, impute, warn",
        "inputs.amount.rules.on_moon (line 10): is not known",
        "inputs.the kind.nullable (line 13)",
        "inputs.the kind (line 12): dtype is missing",
        "outputs.label.shape (line 17)",
    ):
        assert mistake in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = ", "not TOML"),
        ("", "at least one input"),
        ("inputs = 3", "inputs (line 1): must be tables"),
        ("[inputs]\na = 3", "inputs.a (line 2): must be a table"),
        ('[inputs.a]\ndtype = "int8"\nrules = 3', "inputs.a.rules (line 3): must be a table"),
        ('extra_fields = "maybe"\n[inputs.a]\ndtype = "int8"', "extra_fields (line 1)"),
        ('[inputs.a]\ndtype = "int8"\nminimum = inf', "finite"),
        ('[inputs.a]\ndtype = "int8"\nquantiles = [nan]', "finite"),
        ('[inputs.a]\ndtype = "int8"\nminimum = 2\nmaximum = 1', "inputs.a (line 1): minimum 2.0 is above"),
        (
            '[inputs.a]\ndtype = "int8"\n[inputs.a.rules]\non_null = "clip"',
            "inputs.a (line 1): on_null cannot be clip",
        ),
        (
            '[inputs.a]\ndtype = "int8"\n[inputs.a.rules]\non_null = "impute"',
            "median of field 'a' is not known",
        ),
        (
            '[inputs.a]\ndtype = "int8"\nimputed_by = "constant"\n[inputs.a.rules]\non_null = "impute"',
            "needs impute_with",
        ),
        ('[inputs.a]\ndtype = "int8"\nname = "b"', "inputs.a.name (line 3): is not known"),
    ],
)
def test_mistakes_of_every_kind(text: str, told: str) -> None:
    assert told in mistakes(text)


class TestImputation:
    profile = Profile(rows=3, inputs=(profile_field("a", DType.float64, np.array([1.0, 2.0, 9.0])),))

    def read(self, extra: str, rule: str = "impute") -> Field:
        text = f'[inputs.a]\ndtype = "float64"\n{extra}\n[inputs.a.rules]\non_null = "{rule}"\n'
        return contract_from_text(text, self.profile).inputs[0]

    def test_is_worked_out_from_the_training_data(self) -> None:
        assert self.read("").impute_with == 2.0
        assert self.read('imputed_by = "mean"').impute_with == 4.0
        assert self.read('imputed_by = "mean"\nimpute_with = 2.0').impute_with == 4.0

    def test_a_constant_stays(self) -> None:
        assert self.read("impute_with = 7").impute_with == 7
        assert self.read("impute_with = 7").imputed_by == "constant"
        assert self.read('imputed_by = "median"', "reject").impute_with is None


def test_comments_and_order_do_not_matter_to_reading() -> None:
    text = "\n".join(line for line in contract_to_text(CONTRACT).splitlines() if not line.startswith("#"))
    assert contract_from_text(text) == CONTRACT
    changed = text.replace("maximum = 10.0", "maximum = 12")
    read = contract_from_text(changed)
    assert read.inputs[0] == msgspec.structs.replace(CONTRACT.inputs[0], maximum=12.0)
