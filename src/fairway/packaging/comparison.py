"""The rows a conversion is proved on, with the original's answers, and what the original itself refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract, DType
from fairway.core.errors import ModelFailed
from fairway.packaging.convert_sklearn import preparation, read_trees
from fairway.packaging.graph import Unsupported
from fairway.packaging.probe_rows import (
    Crossing,
    concatenate,
    edge_rows,
    edge_values,
    null_rows,
    text_rows,
    unseen_rows,
)
from fairway.packaging.rules import Refusals
from fairway.runtimes.base import Engine
from fairway.runtimes.estimator import EstimatorEngine, InputForm, feature_names

_SEARCHED_PLACES = 2000
"""Thresholds behind a preparation are found by search, which costs a transform a step: at most so many."""


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
    """Sample and generated rows, at most `max_rows` of each. Rows that the original refuses are left out.

    Raises `ModelFailed` when the original refuses the sample itself.
    """
    rng = np.random.default_rng(seed)
    if sample.rows > max_rows:
        sample = sample.take(np.sort(rng.choice(sample.rows, max_rows, replace=False)))
    kinds: dict[str, list[Columns]] = {"sample": [sample]}
    answers: dict[str, list[Outputs]] = {"sample": [original.predict(sample)]}

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

    crossing = (
        _crossing(estimator, contract, sample, form=form, dtypes=dtypes) if estimator is not None else None
    )
    if crossing is not None:
        limit = max_rows if crossing.transform is None else _SEARCHED_PLACES
        edges = edge_values(contract, crossing, sample, seed=seed, limit=limit)
        keep("threshold-edge", edge_rows(contract, sample, edges, seed=seed, max_rows=max_rows))
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


def _crossing(
    estimator: Any, contract: Contract, sample: Columns, *, form: InputForm, dtypes: Mapping[str, str]
) -> Crossing | None:
    """Where a tree model's thresholds are; None for models without any that can be found."""
    try:
        steps, last = preparation(estimator)
        trees = read_trees(last)
    except Unsupported:
        return None
    if trees is None:
        return None
    thresholds = trees.forest.thresholds()
    fields = tuple(field.name for field in contract)
    names = feature_names(estimator) if form == "frame" else None
    order = names if names is not None and set(names) <= set(fields) else fields
    if not steps and trees.before is None:
        if len(order) != trees.forest.features or any(field.shape for field in contract):
            return None
        return Crossing(thresholds, direct=order, compares=trees.forest.compares)
    caller = EstimatorEngine(estimator, fields, trees.task, form, dtypes)

    def transform(columns: Columns) -> Array:
        rows = caller.input(columns)
        for step in steps:
            rows = step.transform(rows)
        if trees.before is not None:
            rows = last._preprocess_X(rows, reset=False)
        dense = rows.toarray() if hasattr(rows, "toarray") else rows
        return np.asarray(dense, dtype=np.float64)

    try:
        width = transform(sample.take(slice(0, 1))).shape[1]
    except Exception:  # noqa: BLE001 - the original predicts but its steps do not transform alone: no edges
        return None
    return (
        Crossing(thresholds, transform=transform, compares=trees.forest.compares)
        if width == len(thresholds)
        else None
    )
