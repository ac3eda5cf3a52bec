"""One meaning, and short cuts to it: rules, problems, and the law that every way gives the same."""

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.columns import Columns
from fairway.core.conform import nulls_of
from fairway.core.contract import Action, Category, Contract, DType, Field, Rules
from fairway.core.errors import ContractViolation, FairwayError, MalformedInput, PayloadTooLarge, Problem
from fairway.inference import matrix_limits, validate
from fairway.inference.validate import Validator
from tests.strategies import NUMBERS, contracts, json_value

Outcome = tuple[Any, Any]


def contract(*inputs: Field, **options: Any) -> Contract:
    return Contract(inputs=inputs, outputs=(), **options)


def number(name: str = "x", **options: Any) -> Field:
    return Field(name=name, dtype=DType.float64, **options)


def check(wanted: Contract, inputs: Any, **options: Any) -> tuple[Columns, Counter[tuple[str, str]]]:
    broken: Counter[tuple[str, str]] = Counter()

    def note(field: str, rule: str, rows: int) -> None:
        broken[field, rule] += rows

    return Validator(wanted, **options).check(inputs, note), broken


def outcome(wanted: Contract, inputs: Any, *, short_cuts: bool) -> Outcome:
    """What comes out, in a form to compare: columns and counts, or problems."""
    validator = Validator(wanted)
    if not short_cuts:
        validator._stacked = lambda inputs: None  # type: ignore[method-assign]
        validator._fields = [
            (f, dtype, lambda value: False, build) for f, dtype, _, build in validator._fields
        ]
    broken: Counter[tuple[str, str]] = Counter()

    def note(field: str, rule: str, rows: int) -> None:
        broken[field, rule] += rows

    try:
        columns = validator.check(inputs, note)
    except ContractViolation as error:
        return "refused", error.problems
    shown = {
        name: (
            values.dtype.str,
            [None if null else v for v, null in zip(values.tolist(), nulls_of(values), strict=True)],
        )
        for name, values in columns.items()
    }
    return shown, {key: count for key, count in broken.items() if count}


# The law


@settings(max_examples=300)
@given(data=st.data())
def test_a_few_clean_rows_give_what_the_full_path_gives(data: st.DataObject) -> None:
    wanted = data.draw(contracts())
    rows = data.draw(st.integers(1, validate.FEW_ROWS + 1))
    inputs = {f.name: data.draw(st.lists(json_value(f), min_size=rows, max_size=rows)) for f in wanted}
    assert outcome(wanted, inputs, short_cuts=True) == outcome(wanted, inputs, short_cuts=False)


@settings(max_examples=400)
@given(data=st.data())
def test_a_matrix_gives_what_its_columns_give(data: st.DataObject) -> None:
    wanted = data.draw(contracts(NUMBERS))
    rows = data.draw(st.integers(1, 20))
    numbers = st.sampled_from(
        [0.0, 1.0, 2.0, 3.0, -1.0, 0.1, 0.3, 2.5, 5.0, 10.0, 11.0, -3.0, 200.0, 1e39, np.inf, np.nan, 2.0**53]
    )
    drawn = data.draw(
        st.lists(numbers, min_size=rows * len(wanted.inputs), max_size=rows * len(wanted.inputs))
    )
    matrix = np.array(drawn).reshape(rows, -1)
    if data.draw(st.booleans()):
        with np.errstate(over="ignore"):
            matrix = matrix.astype(np.float32)
    if len(wanted.inputs) == 1:
        return
    columns = {f.name: matrix[:, i] for i, f in enumerate(wanted)}
    assert outcome(wanted, {"any": matrix}, short_cuts=True) == outcome(wanted, columns, short_cuts=False)


ODD = [0, 1, 2, 3, 10, 127, 200, 2**24 + 1, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1]


@settings(max_examples=400)
@given(data=st.data())
def test_arrays_side_by_side_give_what_each_gives(data: st.DataObject) -> None:
    """Whatever their types: what is put together to be judged at once is neither rounded nor let through."""
    wanted = data.draw(contracts(NUMBERS))
    rows = data.draw(st.integers(1, 6))
    columns = {}
    for field in wanted:
        kind = data.draw(
            st.sampled_from(
                [field.dtype.value, "bool", "int64", "uint64", "int8", "float16", "float32", "float64"]
            )
        )
        dtype = np.dtype(kind)
        value: st.SearchStrategy[Any] = st.sampled_from(
            [0.0, 1.0, 2.0, 0.1, 2.5, 10.0, np.nan, np.inf, 1e39, 65519.9]
        )
        if dtype.kind == "b":
            value = st.booleans()
        elif dtype.kind in "iu":
            limits = np.iinfo(dtype)
            value = st.sampled_from([n for n in [*ODD, *(-n for n in ODD)] if limits.min <= n <= limits.max])
        drawn = data.draw(st.lists(value, min_size=rows, max_size=rows))
        with np.errstate(over="ignore"):
            columns[field.name] = np.array(drawn, dtype=np.float64 if dtype.kind == "f" else dtype).astype(
                dtype
            )
        if data.draw(st.booleans()):
            columns[field.name] = columns[field.name].reshape(rows, 1)
    assert outcome(wanted, columns, short_cuts=True) == outcome(wanted, columns, short_cuts=False)


@pytest.mark.parametrize("rows", [1, 2, 40, 273, 274, 500, 1000])
def test_many_or_few_odd_values_are_counted_alike(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [
        Field(name=f"f{i}", dtype=DType.float32, nullable=True, missing_rate=0.1, minimum=-1.0, maximum=1.0,
              fence=(-2.0, 2.0), rules=Rules(on_null=Action.warn))
        for i in range(30)
    ]  # fmt: skip
    matrix = np.random.default_rng(rows).normal(size=(rows, 30)).astype(np.float32)
    matrix[:, 3][matrix[:, 3] > 1] = np.nan
    seen = []
    for few in (0, 10**9):
        monkeypatch.setattr(matrix_limits, "_FEW_ODD", few)
        columns, broken = check(contract(*fields), {"m": matrix})
        assert columns.packed is not None
        seen.append(broken)
    outside = (np.abs(matrix) > 1).sum(axis=0)
    assert seen[0] == seen[1]
    assert {name: n for (name, rule), n in seen[0].items() if rule == "on_range"} == {
        f"f{i}": n for i, n in enumerate(outside.tolist()) if n
    }


@given(values=st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=2))
def test_an_integer_matrix_is_exact_or_refused(values: list[int]) -> None:
    wanted = contract(Field(name="a", dtype=DType.int64), Field(name="b", dtype=DType.int64))
    matrix = np.array([values])
    beyond = {name for name, value in zip("ab", values, strict=True) if abs(value) > 2**53}
    if beyond:
        with pytest.raises(ContractViolation) as refused:
            check(wanted, {"any": matrix})
        assert {problem.field for problem in refused.value.problems} == beyond
    else:
        columns, _ = check(wanted, {"any": matrix})
        assert [columns["a"][0], columns["b"][0]] == values


@given(data=st.data())
def test_any_input_gives_columns_or_a_fairway_error(data: st.DataObject) -> None:
    wanted = data.draw(contracts())
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), st.lists, max_leaves=5
    )
    inputs = data.draw(
        st.dictionaries(st.sampled_from(["f0", "f1", "f2", "f3", "other"]), st.lists(junk, max_size=6))
    )
    try:
        columns, _ = check(wanted, inputs)
    except FairwayError:
        return
    assert all(len(values) == columns.rows > 0 for values in columns.values())


# Rules, one by one


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize(
    ("rule", "value", "reason"),
    [
        ("on_null", None, "is null, and null is not allowed"),
        ("on_range", 11.0, "11.0 is outside the allowed range 0.0 to 10.0"),
        ("on_outlier", 9.0, "9.0 is outside the outlier fence 2.0 to 8.0"),
        ("on_infinite", float("inf"), "is infinite"),
    ],
)
def test_what_a_rule_rejects_is_named_with_field_and_row(
    rule: str, value: float, reason: str, rows: int
) -> None:
    rules = Rules(**{rule: Action.reject})
    field = number(minimum=0.0, maximum=10.0, fence=(2.0, 8.0), nullable=True, rules=rules)
    with pytest.raises(ContractViolation, match="1 problem in x") as refused:
        check(contract(field), {"x": [5.0] * (rows - 1) + [value]})
    assert refused.value.problems == (Problem(reason, "x", rows - 1),)


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize(
    ("rule", "action", "value", "becomes"),
    [
        ("on_null", "impute", None, 4.0),
        ("on_null", "warn", None, None),
        ("on_range", "impute", 11.0, 4.0),
        ("on_range", "clip", 11.0, 10.0),
        ("on_range", "clip", -5.0, 0.0),
        ("on_range", "warn", 11.0, 11.0),
        ("on_infinite", "impute", float("-inf"), 4.0),
        ("on_infinite", "clip", float("inf"), 10.0),
        ("on_infinite", "warn", float("inf"), float("inf")),
    ],
)
def test_what_a_rule_mends_is_counted(
    rule: str, action: str, value: float | None, becomes: float | None, rows: int
) -> None:
    field = number(
        minimum=0.0, maximum=10.0, nullable=True, impute_with=4.0, rules=Rules(**{rule: Action(action)})
    )
    columns, broken = check(contract(field), {"x": [5.0] * (rows - 1) + [value]})
    last = columns["x"][-1]
    assert np.isnan(last) if becomes is None else last == becomes
    assert columns["x"][:-1].tolist() == [5.0] * (rows - 1)
    assert broken[("x", rule)] == 1


def test_the_outlier_fence_clips_after_the_range_does() -> None:
    rules = Rules(on_range=Action.clip, on_outlier=Action.clip)
    columns, broken = check(
        contract(number(minimum=0.0, maximum=10.0, fence=(2.0, 8.0), rules=rules)),
        {"x": [11.0, 9.0, 1.0, 5.0]},
    )
    assert columns["x"].tolist() == [8.0, 8.0, 2.0, 5.0]
    assert broken == {("x", "on_range"): 1, ("x", "on_outlier"): 3}


def test_clipping_one_value_does_not_round_its_neighbours() -> None:
    ids = Field(name="x", dtype=DType.int64, minimum=0.0, maximum=1e18, rules=Rules(on_range=Action.clip))
    columns, _ = check(contract(ids), {"x": [-1, 2**53 + 1, 2 * 10**18]})
    assert columns["x"].tolist() == [0, 2**53 + 1, 10**18]


def test_integers_are_clipped_to_integers_inside() -> None:
    small = Field(name="x", dtype=DType.int8, minimum=-1.5, maximum=3.7, rules=Rules(on_range=Action.clip))
    columns, _ = check(contract(small, Field(name="s", dtype=DType.string)), {"x": [-9, 9], "s": ["a", "b"]})
    assert columns["x"].tolist() == [-1, 3]
    assert columns["x"].dtype == np.int8


@pytest.mark.parametrize("rows", [1, 9])
def test_timestamps_are_compared_and_clipped_as_moments(rows: int) -> None:
    low, high = (datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1e6 for year in (2020, 2030))
    field = Field(
        name="t", dtype=DType.timestamp, minimum=low, maximum=high, rules=Rules(on_range=Action.clip)
    )
    columns, broken = check(contract(field), {"t": ["2025-06-01T00:00:00Z"] * (rows - 1) + ["1999-01-01"]})
    assert columns["t"][-1] == np.datetime64("2020-01-01")
    assert broken == {("t", "on_range"): 1}
    rejecting = contract(
        Field(name="t", dtype=DType.timestamp, minimum=low, maximum=high, rules=Rules(on_range=Action.reject))
    )
    with pytest.raises(ContractViolation) as refused:
        check(rejecting, {"t": ["2031-01-01"]})
    assert refused.value.problems[0].reason == (
        "2031-01-01T00:00:00.000000 is outside the allowed range 2020-01-01T00:00:00.000000 to 2030-01-01T00:00:00.000000"
    )


@pytest.mark.parametrize("filled", ["2020-01-01T00:00:00Z", "2020-01-01T02:00:00+02:00", 1577836800000000])
def test_timestamps_are_imputed_in_utc(filled: object) -> None:
    field = Field(name="t", dtype=DType.timestamp, impute_with=filled, rules=Rules(on_null=Action.impute))  # type: ignore[arg-type]
    assert check(contract(field), {"t": [None]})[0]["t"][0] == np.datetime64("2020-01-01")


@pytest.mark.parametrize("rows", [1, 30])
def test_unseen_categories(rows: int) -> None:
    def country(action: Action) -> Contract:
        known = (Category("DE", 0.5), Category("FR", 0.5))
        rules = Rules(on_category=action)
        return contract(Field(name="c", dtype=DType.string, categories=known, rules=rules, impute_with="DE"))

    inputs = {"c": ["FR"] * (rows - 1) + ["XX"]}
    with pytest.raises(ContractViolation) as refused:
        check(country(Action.reject), inputs)
    assert refused.value.problems == (Problem("'XX' is not one of 'DE', 'FR'", "c", rows - 1),)
    for action, becomes in ((Action.warn, "XX"), (Action.impute, "DE")):
        columns, broken = check(country(action), inputs)
        assert columns["c"][-1] == becomes
        assert broken == {("c", "on_category"): 1}


@pytest.mark.parametrize("rows", [1, 30])
def test_nulls_that_training_never_saw_are_counted_and_those_it_saw_are_not(rows: int) -> None:
    for rate, counted in ((0.0, rows), (0.2, 0)):
        field = number(nullable=True, missing_rate=rate, rules=Rules(on_null=Action.warn))
        for inputs in ({"x": [None] * rows}, {"x": np.full(rows, np.nan)}):
            _, broken = check(contract(field), inputs)
            assert broken[("x", "on_null")] == counted


def test_tensors_are_checked_for_nulls_and_infinities() -> None:
    image = Field(name="i", dtype=DType.float32, shape=(2,))
    assert check(contract(image), {"i": np.ones((3, 2))})[0]["i"].dtype == np.float32
    with pytest.raises(ContractViolation) as refused:
        check(contract(image), {"i": [[1.0, 2.0], [None, np.inf]]})
    assert {(p.reason, p.row) for p in refused.value.problems} == {
        ("is null, and null is not allowed", 1),
        ("is infinite", 1),
    }


# The request as a whole


def test_every_problem_is_named_up_to_the_limit() -> None:
    wanted = contract(number("a"), number("b"), Field(name="c", dtype=DType.int8), extra_fields="reject")
    with pytest.raises(ContractViolation, match=r"4 problems in a, b, c, d") as refused:
        check(wanted, {"a": ["x", 1.0, 1.0], "c": [1, 2, 300], "d": [1, 2, 3]})
    assert [(p.field, p.row) for p in refused.value.problems] == [
        ("a", 0),
        ("b", None),
        ("c", 2),
        ("d", None),
    ]


def test_more_problems_than_the_limit_are_counted() -> None:
    with pytest.raises(ContractViolation, match=r"50 problems in x. The first 10 are listed") as refused:
        check(contract(number()), {"x": ["bad"] * 50}, max_problems=10)
    assert len(refused.value.problems) == 10


def test_fields_of_other_lengths_are_the_odd_ones_out() -> None:
    wanted = contract(number("a"), number("b"), number("c"))
    with pytest.raises(ContractViolation) as refused:
        check(wanted, {"a": [1.0, 2.0], "b": [1.0], "c": [1.0, 2.0]})
    assert refused.value.problems == (Problem("has 1 rows where others have 2", "b"),)


@pytest.mark.parametrize("inputs", [{"x": []}, {"x": np.zeros(0)}])
def test_no_rows(inputs: Any) -> None:
    with pytest.raises(MalformedInput, match="no rows"):
        check(contract(number()), inputs)


def test_a_matrix_of_no_rows_or_too_many() -> None:
    wanted = contract(number("a"), number("b"))
    with pytest.raises(MalformedInput, match="no rows"):
        check(wanted, {"m": np.zeros((0, 2))})
    with pytest.raises(PayloadTooLarge, match=r"6 rows in one request; the limit is 5 \(limits.rows\)"):
        check(wanted, {"m": np.zeros((6, 2))}, max_rows=5)
    with pytest.raises(PayloadTooLarge):
        check(wanted, {"a": [1.0] * 6, "b": [1.0] * 6}, max_rows=5)


@pytest.mark.parametrize("extra", ["ignore", "reject"])
def test_extra_fields(extra: str) -> None:
    wanted = contract(number(), extra_fields=extra)
    inputs = {"x": [1.0], "y": [1.0]}
    if extra == "ignore":
        assert list(check(wanted, inputs)[0]) == ["x"]
    else:
        with pytest.raises(ContractViolation) as refused:
            check(wanted, inputs)
        assert refused.value.problems == (Problem("is not a field of this model", "y"),)


def test_a_matrix_under_any_name_stands_for_a_numeric_table() -> None:
    wanted = contract(number("a"), Field(name="b", dtype=DType.int8))
    columns, _ = check(wanted, {"anything": np.array([[0.5, 1], [1.5, 2]])})
    assert columns["b"].tolist() == [1, 2]
    with pytest.raises(ContractViolation, match="2 columns") as refused:
        check(wanted, {"anything": np.zeros((1, 3))})
    assert "expected shape [n, 2], got [1, 3]" in refused.value.problems[0].reason


def test_a_matrix_with_nulls_in_it() -> None:
    wanted = contract(
        number("a", nullable=True, missing_rate=0.1, rules=Rules(on_null=Action.warn)), number("b")
    )
    columns, _ = check(wanted, {"m": np.array([[None, 1.0], [2, 3.0]], dtype=object)})
    np.testing.assert_array_equal(columns["a"], [np.nan, 2.0])
    with pytest.raises(ContractViolation) as refused:
        check(wanted, {"m": np.array([[None, 1.0], [2, None]], dtype=object)})
    assert [(p.field, p.row) for p in refused.value.problems] == [("b", 1)]


def test_a_matrix_is_rounded_to_each_fields_own_type() -> None:
    wanted = contract(Field(name="a", dtype=DType.float32), Field(name="b", dtype=DType.int64))
    by_matrix, _ = check(wanted, {"m": np.array([[0.1, 1]])})
    by_field, _ = check(wanted, {"a": [0.1], "b": [1]})
    assert by_matrix["a"][0] == by_field["a"][0] == np.float32(0.1)


IMPUTE_OR_REJECT = Rules(
    on_null=Action.impute, on_infinite=Action.impute, on_range=Action.impute, on_outlier=Action.reject
)


def test_the_callers_matrix_is_left_as_it_was() -> None:
    matrix = np.array([[0.1, 50.0]])
    limited = number("b", minimum=0.0, maximum=10.0, rules=Rules(on_range=Action.clip))
    check(contract(Field(name="a", dtype=DType.float32), limited), {"m": matrix})
    assert matrix.tolist() == [[0.1, 50.0]]


def test_what_a_rule_fills_in_is_not_judged_again() -> None:
    wanted = contract(number(fence=(0.0, 1.0), maximum=99.0, impute_with=7.0, rules=IMPUTE_OR_REJECT))
    assert check(wanted, {"x": [None, 0.5, 1e9]})[0]["x"].tolist() == [7.0, 0.5, 7.0]
    with pytest.raises(ContractViolation):
        check(wanted, {"x": [None, 2.0]})


@pytest.mark.parametrize("null", [None, float("nan")])
def test_whole_numbers_beside_a_filled_in_null_are_exact(null: Any) -> None:
    whole = Field(name="i", dtype=DType.int64, impute_with=3, rules=Rules(on_null=Action.impute))
    text = Field(name="s", dtype=DType.string)
    columns, broken = check(contract(whole, text), {"i": [2**53 + 1, null], "s": ["a", "b"]})
    assert columns["i"].tolist() == [2**53 + 1, 3]
    assert columns["i"].dtype == np.int64
    assert broken == {("i", "on_null"): 1}


def test_problems_can_be_sent_as_json() -> None:
    wanted = contract(
        number(),
        Field(
            name="c",
            dtype=DType.string,
            categories=(Category("a", 1.0),),
            rules=Rules(on_category=Action.reject),
        ),
    )
    with pytest.raises(ContractViolation) as refused:
        check(wanted, {"x": [{}], "c": ["\x00\u2028"]})
    assert json.dumps([p.reason for p in refused.value.problems])


# Rows that do not fit, apart from the others


def alone(wanted: Contract, inputs: Any, row: int) -> Any:
    return outcome(wanted, {name: values[row : row + 1] for name, values in inputs.items()}, short_cuts=True)


@settings(max_examples=300)
@given(data=st.data())
def test_the_rows_of_a_split_are_those_taken_one_by_one(data: st.DataObject) -> None:
    wanted = data.draw(contracts())
    rows = data.draw(st.integers(1, 8))
    inputs = {f.name: data.draw(st.lists(json_value(f), min_size=rows, max_size=rows)) for f in wanted}
    singles = [alone(wanted, inputs, row) for row in range(rows)]
    broken: Counter[tuple[str, str]] = Counter()
    split = Validator(wanted).split(inputs, lambda field, rule, count: broken.update({(field, rule): count}))
    good = [row for row, (shown, _) in enumerate(singles) if shown != "refused"]
    assert split.rows.tolist() == good
    assert {problem.row for problem in split.problems} == set(range(rows)) - set(good)
    counted: Counter[tuple[str, str]] = sum((Counter(singles[row][1]) for row in good), Counter())
    assert broken == counted
    if split.columns is None:
        assert not good
        return
    for place, row in enumerate(good):
        for name, (dtype, values) in singles[row][0].items():
            value = split.columns[name][place : place + 1]
            assert value.dtype.str == dtype
            assert [None if nulls_of(value)[0] else value.tolist()[0]] == values


def test_a_split_says_what_is_wrong_with_each_row_and_looks_behind_wrong_types() -> None:
    wanted = contract(number("x", maximum=5.0, rules=Rules(on_range=Action.reject)), number("y"))
    split = Validator(wanted).split({"x": ["?", 1.0, 9.0, 2.0], "y": [1.0, None, 1.0, 1.0]}, lambda *_: None)
    assert split.rows.tolist() == [3]
    assert [(p.row, p.field) for p in split.problems] == [(0, "x"), (1, "y"), (2, "x")]


def test_a_split_of_a_matrix() -> None:
    wanted = contract(number("x"), number("y"))
    split = Validator(wanted).split({"": np.array([[1.0, 2.0], [np.nan, 1.0]])}, lambda *_: None)
    assert split.columns is not None
    assert split.columns.packed is not None
    assert split.columns.packed.tolist() == [[1.0, 2.0]]
    assert [(p.row, p.field) for p in split.problems] == [(1, "x")]


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": [1.0]},
        {"x": [1.0], "y": [1.0, 2.0]},
        {"": np.zeros((2, 3))},
        {"x": [1.0], "y": [1.0], "z": [1.0]},
    ],
)
def test_a_split_cannot_help_wrong_columns(inputs: Any) -> None:
    wanted = contract(number("x"), number("y"), extra_fields="reject")
    with pytest.raises(ContractViolation):
        Validator(wanted).split(inputs, lambda *_: None)


def test_tensors_of_another_shape_are_wrong_in_every_row() -> None:
    wanted = contract(Field(name="x", dtype=DType.float32, shape=(2,)))
    split = Validator(wanted).split({"x": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]}, lambda *_: None)
    assert split.columns is None
    assert [p.row for p in split.problems] == [0, 1]
    ragged = Validator(wanted).split({"x": [[1.0, 2.0], [1.0]]}, lambda *_: None)
    assert ragged.rows.tolist() == [0]


def test_no_rows_cannot_be_split() -> None:
    with pytest.raises(MalformedInput):
        Validator(contract(number("x"))).split({"x": []}, lambda *_: None)
