"""Branches and combinations, row by row."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.columns import Array
from fairway.core.contract import DType, Output
from fairway.core.pipeline import Case
from fairway.runtimes.pipeline_rows import as_array, branches, largest, mean, most_likely, vote


def objects(*values: Any) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_a_row_takes_the_first_case_that_holds() -> None:
    cases = [Case(to="a", below=0.2), Case(to="b", below=0.8, at_least=0.2), Case(to="c", at_least=0.5)]
    values = np.array([0.1, 0.2, 0.79, 0.8, np.nan])
    assert branches(cases, values).tolist() == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("case", "values", "held"),
    [
        (Case(to="a", equals="x"), objects("x", "y", None), [True, False, False]),
        (Case(to="a", among=("x", "y")), objects("x", "y", "z", None), [True, True, False, False]),
        (Case(to="a", equals=-1), np.array([-1, 1]), [True, False]),
        (Case(to="a", equals=True), np.array([True, False]), [True, False]),
        (Case(to="a", equals=True), np.array([1.0, 0.0, np.nan]), [True, False, False]),
        (Case(to="a", at_least=5, equals=6), np.array([5, 6]), [False, True]),
    ],
)
def test_conditions_hold_for_what_they_say_and_never_for_a_null(
    case: Case, values: Array, held: list[bool]
) -> None:
    assert (branches([case], values) == 0).tolist() == held


def test_without_cases_every_row_takes_the_default() -> None:
    assert branches([], np.array([1.0, np.nan])).tolist() == [0, 0]


def test_a_mean_is_weighted() -> None:
    one, two = np.array([[0.2, 0.8]], dtype=np.float32), np.array([[0.6, 0.4]])
    assert mean([one, two], [1, 3]) == pytest.approx(np.array([[0.5, 0.5]]))
    assert mean([one, two], [1, 3]).dtype == np.float64


def test_the_largest_probabilities_add_up_to_one_again() -> None:
    one, two = np.array([[0.7, 0.3], [0.0, 0.0]]), np.array([[0.1, 0.9], [0.0, 0.0]])
    combined = largest([one, two], [1, 1], classes=True)
    assert combined.tolist() == [[pytest.approx(0.7 / 1.6), pytest.approx(0.9 / 1.6)], [0, 0]]
    assert largest([one, two], [1, 1], classes=False)[0].tolist() == [0.7, 0.9]


def test_a_vote_goes_to_the_label_with_most_weight_and_a_tie_to_the_first_named() -> None:
    votes = [objects("a", "a", "b"), objects("b", "b", "b"), objects("b", "a", "a")]
    labels, share = vote(votes, [1, 1, 1])
    assert labels.tolist() == ["b", "a", "b"]
    assert share.tolist() == [pytest.approx(2 / 3)] * 3
    assert vote(votes[:2], [1, 1])[0].tolist() == ["a", "a", "b"]
    assert vote(votes[:2], [1, 2])[0].tolist() == ["b", "b", "b"]
    assert vote([np.array([1, 2]), np.array([2, 2])], [1, 1])[0].dtype == np.int64


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=3, max_size=3), min_size=2, max_size=5))
def test_law_a_vote_is_what_counting_gives(ballots: list[list[str]]) -> None:
    labels, share = vote([objects(*ballot) for ballot in ballots], [1.0] * len(ballots))
    for row in range(3):
        cast = [ballot[row] for ballot in ballots]
        winner = max(cast, key=lambda label: (cast.count(label), -cast.index(label)))
        assert labels[row] == winner
        assert share[row] == pytest.approx(cast.count(winner) / len(cast))


def test_the_likeliest_class_is_the_label_and_of_equals_the_first() -> None:
    probabilities = np.array([[0.2, 0.8], [0.5, 0.5]])
    text = most_likely(probabilities, as_array(("no", "yes"), Output(name="label", dtype=DType.string)))
    assert text.tolist() == ["yes", "no"]
    numbers = most_likely(probabilities, as_array((0, 1), Output(name="label", dtype=DType.int64)))
    assert (numbers.tolist(), numbers.dtype) == ([1, 0], np.int64)
