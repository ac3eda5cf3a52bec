"""What happens to rows inside a pipeline: which branch each takes, and several answers made one. Pure functions.

Each row is looked at by itself, so that a batch gets what each of its rows would get alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairway.core.columns import Array
from fairway.core.contract import DType, Output
from fairway.core.pipeline import Case, Value


def numpy_dtype(output: Output) -> np.dtype[np.generic]:
    """What an output's array is made of: text as objects, moments as microseconds."""
    if output.dtype is DType.string:
        return np.dtype(object)
    if output.dtype is DType.timestamp:
        return np.dtype("datetime64[us]")
    return np.dtype(output.dtype.value)


def branches(cases: Sequence[Case], values: Array) -> Array:
    """For each of `values` `[n]` the position of the first case that holds, `len(cases)` where none does."""
    taken = np.full(len(values), len(cases), dtype=np.intp)
    for position in reversed(range(len(cases))):  # an earlier case overwrites a later one
        taken[_holds(cases[position], values)] = position
    return taken


def _holds(case: Case, values: Array) -> Array:
    conditions = []
    if case.equals is not None:
        conditions.append(_equal(values, case.equals))
    if case.among:
        conditions.append(np.logical_or.reduce([_equal(values, value) for value in case.among]))
    if case.below is not None:
        conditions.append(values < case.below)  # NaN is below nothing
    if case.at_least is not None:
        conditions.append(values >= case.at_least)
    holds = conditions[0] if conditions else np.ones(len(values), dtype=bool)
    for condition in conditions[1:]:
        holds = holds & condition
    return holds


def _equal(values: Array, value: Value) -> Array:
    return np.asarray(values == value, dtype=bool)


def mean(arrays: Sequence[Array], weights: Sequence[float]) -> Array:
    """The weighted mean, float64, added up in the order given."""
    total = np.multiply(arrays[0], weights[0], dtype=np.float64)
    for values, weight in zip(arrays[1:], weights[1:], strict=True):
        total += np.multiply(values, weight, dtype=np.float64)
    total /= sum(weights)
    return total


def largest(arrays: Sequence[Array], weights: Sequence[float], *, classes: bool) -> Array:
    """The largest of the weighted values, float64. Of class probabilities, scaled to add up to one again.

    Source: J. Kittler et al., "On combining classifiers", IEEE TPAMI 20(3), 1998, the max rule.
    """
    top = np.maximum.reduce(
        [
            np.multiply(values, weight, dtype=np.float64)
            for values, weight in zip(arrays, weights, strict=True)
        ]
    )
    if not classes:
        return np.asarray(top)
    totals = top.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(top, totals, out=np.zeros_like(top), where=totals > 0))


def vote(arrays: Sequence[Array], weights: Sequence[float]) -> tuple[Array, Array]:
    """(the label with the most weight behind it, its share of all weight). Of equals, the one named first."""
    behind = np.stack(
        [
            sum(weight * _same(mine, theirs) for theirs, weight in zip(arrays, weights, strict=True))
            for mine in arrays
        ]
    )
    winner = behind.argmax(axis=0)
    rows = np.arange(len(winner))
    labels = np.stack(arrays)[winner, rows]
    return labels, behind[winner, rows] / sum(weights)


def _same(one: Array, other: Array) -> Array:
    return np.asarray(one == other, dtype=np.float64)


def as_array(labels: Sequence[Value], output: Output) -> Array:
    """Labels as the output that gives them holds them."""
    known = np.empty(len(labels), dtype=numpy_dtype(output))
    known[:] = labels
    return known


def most_likely(probabilities: Array, labels: Array) -> Array:
    """The label of the largest probability of each row; of equals, the first."""
    return np.asarray(labels[probabilities.argmax(axis=1)])
