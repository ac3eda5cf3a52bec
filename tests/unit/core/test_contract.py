"""The contract as a value: what it refuses to be, what makes it a matrix, what its signature covers."""

import msgspec
import pytest

from fairway.core.contract import Action, Category, Contract, DType, Field, Output, Rules


def contract(*fields: Field, **options: object) -> Contract:
    return Contract(inputs=fields, outputs=(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["on_null", "on_category"])
def test_what_has_no_nearest_value_cannot_be_clipped(rule: str) -> None:
    with pytest.raises(ValueError, match=f"{rule} cannot be clip"):
        Field(name="x", dtype=DType.float64, rules=Rules(**{rule: Action.clip}))


def test_nulls_pass_only_where_a_field_is_nullable() -> None:
    rules = Rules(on_null=Action.warn)
    with pytest.raises(ValueError, match="nullable = true"):
        Field(name="x", dtype=DType.float64, rules=rules)
    assert Field(name="x", dtype=DType.float64, nullable=True, rules=rules).rules is rules


@pytest.mark.parametrize("rule", Rules.__struct_fields__)
def test_imputing_needs_something_to_impute(rule: str) -> None:
    rules = Rules(**{rule: Action.impute})
    with pytest.raises(ValueError, match="impute_with is needed"):
        Field(name="x", dtype=DType.float64, rules=rules)
    Field(name="x", dtype=DType.float64, rules=rules, impute_with=0)


def test_a_tensor_has_neither_categories_nor_imputation() -> None:
    with pytest.raises(ValueError, match="a tensor has neither"):
        Field(name="x", dtype=DType.string, shape=(2,), categories=(Category("a", 1.0),))
    with pytest.raises(ValueError, match="a tensor has neither"):
        Field(name="x", dtype=DType.int8, shape=(2,), rules=Rules(on_null=Action.impute), impute_with=0)


def test_names_are_unique_and_extra_fields_is_one_of_two() -> None:
    field = Field(name="x", dtype=DType.int8)
    with pytest.raises(ValueError, match="repeated: x"):
        contract(field, field)
    with pytest.raises(ValueError, match="extra_fields"):
        contract(field, extra_fields="maybe")


@pytest.mark.parametrize("dtype", list(DType))
def test_every_dtype_is_of_one_kind(dtype: DType) -> None:
    other = dtype in (DType.bool, DType.string, DType.timestamp)
    assert [dtype.is_integer, dtype.is_float, other].count(True) == 1
    assert dtype.is_numeric == (dtype not in (DType.string, DType.timestamp))


@pytest.mark.parametrize(
    ("fields", "is_matrix"),
    [
        ((), False),
        ((Field(name="a", dtype=DType.float32), Field(name="b", dtype=DType.bool)), True),
        ((Field(name="a", dtype=DType.float32), Field(name="b", dtype=DType.string)), False),
        ((Field(name="a", dtype=DType.timestamp),), False),
        ((Field(name="a", dtype=DType.float32, shape=(2,)),), False),
        ((Field(name="a", dtype=DType.int64, minimum=0, maximum=2.0**53),), True),
        ((Field(name="a", dtype=DType.int64, minimum=0, maximum=2.0**60),), False),
        ((Field(name="a", dtype=DType.uint64, maximum=2.0**60),), False),
    ],
)
def test_a_matrix_is_scalar_numbers_that_float64_holds(fields: tuple[Field, ...], is_matrix: bool) -> None:
    assert contract(*fields).is_matrix is is_matrix


def test_the_signature_covers_what_callers_send_and_nothing_else() -> None:
    field = Field(name="x", dtype=DType.float64)
    same = Field(name="x", dtype=DType.float64, nullable=True, minimum=1.0, description="rules may differ")
    signature = contract(field).input_signature()
    assert contract(same).input_signature() == signature
    for other in (
        Field(name="y", dtype=DType.float64),
        Field(name="x", dtype=DType.float32),
        Field(name="x", dtype=DType.float64, shape=(1,)),
    ):
        assert contract(other).input_signature() != signature


def test_as_json_and_back() -> None:
    whole = Contract(
        inputs=(
            Field(
                name="country",
                dtype=DType.string,
                categories=(Category("DE", 0.5), Category("FR", 0.5)),
                rules=Rules(on_category=Action.reject),
            ),
            Field(name="image", dtype=DType.uint8, shape=(8, 8)),
        ),
        outputs=(Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),),
        target="fraud",
    )
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Contract) == whole
    assert [field.name for field in whole] == ["country", "image"]
    with pytest.raises(msgspec.ValidationError, match="unknown field `typo`"):
        msgspec.json.decode(b'{"inputs":[],"outputs":[],"typo":1}', type=Contract)
