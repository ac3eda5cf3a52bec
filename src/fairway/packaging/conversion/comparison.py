"""The rows a conversion is proved on, with the original's answers, and what the original itself refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.conform import nulls_of
from fairway.core.contract import Contract, DType, Field, Task
from fairway.core.errors import ModelFailed
from fairway.packaging.conversion.forest import Forest
from fairway.packaging.conversion.graph import Unsupported
from fairway.packaging.conversion.probe_rows import (
    Crossing,
    concatenate,
    edge_rows,
    edge_values,
    null_rows,
    text_rows,
    unseen_rows,
)
from fairway.packaging.conversion.read_trees import read_trees
from fairway.packaging.conversion.sklearn import preparation
from fairway.packaging.rules import Refusals
from fairway.runtimes.base import Engine
from fairway.runtimes.estimator import EstimatorEngine, InputForm, feature_names

_SEARCHED_PLACES = 2000
"""Thresholds behind a preparation are found by search, which costs a transform a step: at most so many."""

_MOST_NESTED = 4
"""Meta-estimators inside meta-estimators: deeper ones are not searched for thresholds."""


@dataclass(frozen=True)
class ComparisonRows:
    """`by_kind` counts the rows of each kind in `columns`, in order; `expected` are the original's answers."""

    columns: Columns
    expected: Outputs
    by_kind: dict[str, int]
    refused: Refusals


def comparison_rows(
    original: Engine,
    estimator: Any,
    contract: Contract,
    sample: Columns,
    *,
    form: InputForm,
    dtypes: Mapping[str, str],
    seed: int,
    max_rows: int,
) -> ComparisonRows:
    """Sample and generated rows, at most `max_rows` of each. Rows that the original refuses for a null or an
    unseen category are left out.

    Raises `ModelFailed` when the original refuses sample rows for any other reason.
    """
    rng = np.random.default_rng(seed)
    if sample.rows > max_rows:
        sample = sample.take(np.sort(rng.choice(sample.rows, max_rows, replace=False)))
    sample, answer = _accepted(original, contract, sample, seed=seed)
    kinds: dict[str, list[Columns]] = {"sample": [sample]}
    answers: dict[str, list[Outputs]] = {"sample": [answer]}

    def keep(kind: str, rows: Columns | None) -> bool:
        """False when the original refuses these rows."""
        if rows is None or rows.rows == 0:
            return True
        try:
            answer = original.predict(rows)
        except ModelFailed:
            return False
        kinds.setdefault(kind, []).append(rows)
        answers.setdefault(kind, []).append(answer)
        return True

    crossings = []
    if estimator is not None:
        crossings = _crossings(estimator, contract, sample, form=form, dtypes=dtypes)
    for crossing in crossings:
        limit = max_rows if crossing.transform is None else _SEARCHED_PLACES
        edges = edge_values(contract, crossing, sample, seed=seed, limit=limit)
        share = max_rows // len(crossings)
        keep("threshold-edge", edge_rows(contract, sample, edges, seed=seed, max_rows=share))
    no_null = frozenset(
        field.name
        for field in contract
        if field.nullable and not keep("null", null_rows(contract, sample, field, seed=seed))
    )
    no_unseen = frozenset(
        field.name
        for field in contract
        if field.categories and not keep("unseen-category", unseen_rows(contract, sample, field, seed=seed))
    )
    for field in contract:
        if field.dtype is DType.string and not field.categories:
            keep("text", text_rows(contract, sample, field, seed=seed))
    parts = [(kind, i) for kind in kinds for i in range(len(kinds[kind]))]
    outputs = {
        name: np.concatenate([answers[kind][i][name] for kind, i in parts]) for name in answers["sample"][0]
    }
    return ComparisonRows(
        columns=concatenate(contract, [kinds[kind][i] for kind, i in parts]),
        expected=outputs,
        by_kind={kind: sum(rows.rows for rows in columns) for kind, columns in kinds.items()},
        refused=Refusals(nulls=no_null, categories=no_unseen),
    )


def _accepted(original: Engine, contract: Contract, sample: Columns, *, seed: int) -> tuple[Columns, Outputs]:
    """The sample rows without nulls in fields where the original refuses them, and the answers to them."""
    try:
        return sample, original.predict(sample)
    except ModelFailed:
        nulls = {
            field: nulls_of(sample[field.name]).reshape(sample.rows, -1).any(axis=1) for field in contract
        }
        nulls = {field: missing for field, missing in nulls.items() if missing.any()}
        complete = sample.take(~np.any(list(nulls.values()), axis=0)) if nulls else sample
        if complete.rows in (0, sample.rows):
            raise
    original.predict(complete)  # what is refused now is refused for another reason

    def refuses(field: Field) -> bool:
        try:
            original.predict(null_rows(contract, complete, field, seed=seed))
        except ModelFailed:
            return True
        return False

    refused = [missing for field, missing in nulls.items() if refuses(field)]
    kept = sample.take(~np.any(refused, axis=0)) if refused else sample
    return kept, original.predict(kept)


def _crossings(
    estimator: Any, contract: Contract, sample: Columns, *, form: InputForm, dtypes: Mapping[str, str]
) -> list[Crossing]:
    """Where the thresholds of the tree models in an estimator are; one entry per way of preparing the data."""
    fields = tuple(field.name for field in contract)
    names = feature_names(estimator) if form == "frame" else None
    order = names if names is not None and set(names) <= set(fields) else fields
    caller = EstimatorEngine(estimator, fields, Task.other, form, dtypes)
    crossings = []
    for steps, forests in _forests(estimator):
        width = max(forest.features for forest in forests)
        by_forest = [forest.thresholds() for forest in forests if forest.features == width]
        thresholds = [np.unique(np.concatenate(feature)) for feature in zip(*by_forest, strict=True)]
        compares = forests[0].compares
        if not steps:
            if len(order) == width and not any(field.shape for field in contract):
                crossings.append(Crossing(thresholds, direct=order, compares=compares))
            continue
        transform = functools.partial(_transform, caller, steps)
        try:
            reached = transform(sample.take(slice(0, 1))).shape[1]
        except Exception:  # noqa: BLE001, S112 - predicts, but its steps do not transform alone: no edges
            continue
        if reached == width:
            crossings.append(Crossing(thresholds, transform=transform, compares=compares))
    return crossings


def _transform(caller: EstimatorEngine, steps: Sequence[Callable[[Any], Any]], columns: Columns) -> Array:
    rows = caller.input(columns)
    for step in steps:
        rows = step(rows)
    dense = rows.toarray() if hasattr(rows, "toarray") else rows
    return np.asarray(dense, dtype=np.float64)


def _forests(estimator: Any) -> list[tuple[list[Callable[[Any], Any]], list[Forest]]]:
    """The tree models in an estimator, those inside meta-estimators included, grouped by the steps before them."""
    found: dict[tuple[int, ...], tuple[list[Callable[[Any], Any]], list[Forest]]] = {}

    def visit(model: Any, before: list[Any], depth: int) -> None:
        steps, last = preparation(model)
        path = [*before, *steps]
        try:
            trees = read_trees(last)
        except Unsupported:
            return
        if trees is None:
            for inner in _inner_models(last) if depth < _MOST_NESTED else []:
                visit(inner, path, depth + 1)
            return
        calls = [step.transform for step in path]
        if trees.before is not None:
            calls.append(functools.partial(last._preprocess_X, reset=False))
        key = (*(id(step) for step in path), id(trees.before) if trees.before is not None else 0)
        found.setdefault(key, (calls, []))[1].append(trees.forest)

    visit(estimator, [], 0)
    return list(found.values())


def _inner_models(model: Any) -> list[Any]:
    """The fitted models that a meta-estimator feeds with its own input."""
    inner: list[Any] = []
    for held in getattr(model, "calibrated_classifiers_", ()):
        inner.append(held.estimator)
    subsets = getattr(model, "estimators_features_", None)
    members = np.ravel(np.array(getattr(model, "estimators_", ()), dtype=object)).tolist()
    if subsets is None or all(np.array_equal(s, np.arange(model.n_features_in_)) for s in subsets):
        inner += [member for member in members if hasattr(member, "predict")]
    return inner
