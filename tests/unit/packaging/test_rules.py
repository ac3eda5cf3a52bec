"""Rules contradict each other out loud, and imputation is worked out from the profile."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.core.contract import Action, Category, Contract, DType, Field, Rules
from fairway.core.errors import InvalidInput
from fairway.packaging.profile import Profile, profile_field
from fairway.packaging.rules import check_contract, contract_problems, imputation, set_rule


def field(**given: Any) -> Field:
    return Field(**({"name": "a", "dtype": DType.float64} | given))


def contract(*fields: Field) -> Contract:
    return Contract(inputs=fields, outputs=())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"missing_rate": 2.0}, "missing_rate"),
        ({"minimum": 2.0, "maximum": 1.0}, "minimum 2.0 is above"),
        ({"fence": (2.0, 1.0)}, "fence"),
        ({"dtype": DType.string, "minimum": 1.0}, "not string"),
        ({"shape": (0,)}, "shape"),
        ({"shape": (2,), "dtype": DType.string}, "tensor holds numbers"),
        ({"dtype": DType.string, "categories": (Category(1, 1.0),)}, "category 1"),
        ({"dtype": DType.int8, "categories": (Category(True, 1.0),)}, "category True"),
        ({"dtype": DType.string, "categories": (Category("x", 2.0),)}, "frequencies"),
        ({"dtype": DType.string, "categories": (Category("x", 0.5), Category("x", 0.5))}, "twice"),
        ({"rules": Rules(on_range=Action.clip)}, "needs a minimum"),
        ({"rules": Rules(on_infinite=Action.clip), "minimum": 0.0}, "both"),
        ({"rules": Rules(on_outlier=Action.clip)}, "needs a fence"),
        ({"imputed_by": "magic"}, "imputed_by"),
        ({"dtype": DType.string, "imputed_by": "mean"}, "mean is for numbers"),
        ({"impute_with": "x"}, "not of type float64"),
        ({"dtype": DType.int8, "impute_with": 1.5}, "not of type int8"),
        ({"dtype": DType.bool, "impute_with": 1}, "not of type bool"),
    ],
)
def test_contradictions_are_named(given: dict[str, Any], told: str) -> None:
    problems = contract_problems(contract(field(**given)))
    assert len(problems) == 1
    assert told in problems[0].reason
    assert problems[0].field == "a"
    with pytest.raises(InvalidInput, match="contradicts itself: a: "):
        check_contract(contract(field(**given)))


def test_a_sound_contract_has_no_problems() -> None:
    sound = contract(
        field(
            rules=Rules(on_range=Action.clip, on_null=Action.impute), minimum=0.0, maximum=1.0, impute_with=1
        ),
        field(name="b", dtype=DType.timestamp, impute_with="2024-01-01", rules=Rules(on_null=Action.impute)),
    )
    assert check_contract(sound) is sound


@pytest.fixture
def profile() -> Profile:
    text = np.array(["x", "y", "y"], dtype=object)
    moments = np.array([0, 10], dtype="datetime64[us]")
    return Profile(
        rows=4,
        inputs=(
            profile_field("f", DType.float64, np.array([1.0, 2.0, 2.0, 7.0])),
            profile_field("i", DType.int64, np.array([1, 2, 2, 6])),
            profile_field("b", DType.bool, np.array([True, True, False])),
            profile_field("s", DType.string, text),
            profile_field("t", DType.timestamp, moments),
            profile_field("n", DType.float64, np.array([np.nan])),
        ),
    )


@pytest.mark.parametrize(
    ("name", "dtype", "how", "value", "by"),
    [
        ("f", DType.float64, "mean", 3.0, "mean"),
        ("f", DType.float64, None, 2.0, "median"),
        ("i", DType.int64, "mean", 3, "mean"),
        ("i", DType.int64, "mode", 2, "mode"),
        ("b", DType.bool, None, True, "mode"),
        ("s", DType.string, None, "y", "mode"),
        ("t", DType.timestamp, "median", 5, "median"),
    ],
)
def test_imputation(
    profile: Profile, name: str, dtype: DType, how: str | None, value: object, by: str
) -> None:
    assert imputation(name, dtype, how, profile) == (by, value)
    assert type(imputation(name, dtype, how, profile)[1]) is type(value)


@pytest.mark.parametrize(
    ("name", "how"), [("n", "median"), ("stranger", "mode"), ("s", "mean"), ("b", "median")]
)
def test_what_the_data_cannot_tell_is_an_error(profile: Profile, name: str, how: str) -> None:
    dtypes = {"s": DType.string, "b": DType.bool}
    with pytest.raises(InvalidInput, match=f"the {how} of field '{name}' is not known"):
        imputation(name, dtypes.get(name, DType.float64), how, profile)
    with pytest.raises(InvalidInput):
        imputation("f", DType.float64, "mean", None)


class TestSetRule:
    base = contract(
        field(minimum=0.0, maximum=9.0),
        field(name="b.c", dtype=DType.int64),
        field(name="s", dtype=DType.string),
    )
    profile = Profile(rows=3, inputs=(profile_field("a", DType.float64, np.array([1.0, 2.0, 6.0])),))

    @pytest.mark.parametrize(
        ("change", "rules", "others"),
        [
            ("a.on_range=clip", {"on_range": Action.clip}, {}),
            ("b.c.on_null=warn", {"on_null": Action.warn}, {"nullable": True}),
            ("a.on_null=impute", {"on_null": Action.impute}, {"impute_with": 2.0, "imputed_by": "median"}),
            ("a.on_null=impute:mean", {"on_null": Action.impute}, {"impute_with": 3.0, "imputed_by": "mean"}),
            (
                "b.c.on_null=impute:7",
                {"on_null": Action.impute},
                {"impute_with": 7, "imputed_by": "constant"},
            ),
            ("s.on_null=impute:7", {"on_null": Action.impute}, {"impute_with": "7"}),
        ],
    )
    def test_changes_one_field(self, change: str, rules: dict[str, Any], others: dict[str, Any]) -> None:
        changed = set_rule(self.base, change, self.profile)
        name = change.rpartition(".")[0]
        for before, after in zip(self.base, changed, strict=True):
            if before.name != name:
                assert after == before
                continue
            assert after.rules == msgspec.structs.replace(before.rules, **rules)
            assert {key: getattr(after, key) for key in others} == others

    @pytest.mark.parametrize(
        "change",
        [
            "a.on_range",
            "x.on_null=warn",
            "a.on_moon=warn",
            "a.on_null=explode",
            "a.on_null=warn:3",
            "b.c.on_null=impute:x",
            "a.on_null=clip",
            "s.on_range=clip",
            "b.c.on_null=impute:mean",
        ],
    )
    def test_says_what_it_does_not_understand(self, change: str) -> None:
        with pytest.raises(InvalidInput):
            set_rule(self.base, change, self.profile)
