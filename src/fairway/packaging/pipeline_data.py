"""Rows to try a pipeline on: from sample data, or from the golden rows of the models in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns
from fairway.core.conform import conform, gather, nulls_of
from fairway.core.contract import Contract, Field
from fairway.core.errors import InvalidInput, MalformedInput, Problem
from fairway.packaging.amend import read_profile
from fairway.packaging.contract import sample_arrays, sample_columns
from fairway.packaging.pipeline_check import Checked, NodeModel
from fairway.packaging.plan import answerable_rows
from fairway.packaging.profile import Profile, make_profile
from fairway.packaging.rules import Refusals
from fairway.packaging.source import Sample


@dataclass(frozen=True)
class Rows:
    """Rows that the contract takes. `kind` says what they are; `profile` describes inputs, `target` are labels."""

    columns: Columns
    kind: str
    profile: Profile
    target: Array | None = None


def sample_rows(contract: Contract, sample: Sample | None) -> Rows:
    """Raises MalformedInput naming the columns that are not there, ContractViolation for types that do not fit."""
    assert sample is not None
    given = sample_arrays(sample)
    missing = [field.name for field in contract if field.name not in given]
    if missing:
        raise MalformedInput(
            f"the sample data has no {', '.join(missing)}, which the pipeline reads.",
            tuple(Problem("missing", name) for name in missing),
        )
    columns = sample_columns(contract, sample)
    rows = answerable_rows(contract, columns, Refusals())
    usable = columns.take(rows)
    return Rows(
        columns=usable,
        kind="sample",
        profile=_inputs_of(contract, usable),
        target=None if sample.target is None else sample.target[rows],
    )


def example_rows(checked: Checked, models: Mapping[str, NodeModel]) -> Rows:
    """The golden rows of the model that reads most of the request; what others read goes beside them, in turn.

    Raises InvalidInput naming the fields that no model has examples of.
    """
    contract = checked.contract
    examples: dict[str, tuple[list[Any], Any]] = {}
    profiles = {node: read_profile(model.bundle) for node, model in models.items()}
    most = Counter(node for readers in checked.read_by.values() for node, _ in readers)
    for name, readers in checked.read_by.items():
        for node, key in sorted(readers, key=lambda reader: -most[reader[0]]):
            if node in models and key in models[node].bundle.golden.inputs:
                values = models[node].bundle.golden.inputs[key]
                examples[name] = values, profiles[node].field(key)
                break
    missing = [field.name for field in contract if field.name not in examples]
    if missing:
        raise InvalidInput(
            f"Nothing shows what {', '.join(missing)} look{'s' if len(missing) == 1 else ''} like: no model of "
            "the pipeline that runs first reads it.",
            tuple(Problem("has no examples", name) for name in missing),
            hint="Give sample data with --data.",
        )
    count = max(len(values) for values, _ in examples.values())
    arrays, good = [], np.ones(count, dtype=bool)
    for field in contract:
        values, _ = examples[field.name]
        array, wrong = _fitting(field, [values[row % len(values)] for row in range(count)])
        arrays.append(array)
        good &= ~wrong
    if not good.any():
        raise InvalidInput(
            "No golden row of the models suits the whole pipeline.", hint="Give sample data with --data."
        )
    usable = gather(contract, [array[good] for array in arrays])
    known = [(field, examples[field.name][1]) for field in contract]
    inputs = tuple(
        msgspec.structs.replace(profile, name=field.name, dtype=field.dtype)
        for field, profile in known
        if profile is not None
    )
    rows = max((profile.rows for profile in inputs), default=count)
    return Rows(columns=usable, kind="golden", profile=Profile(rows=rows, inputs=inputs))


def _fitting(field: Field, values: list[Any]) -> tuple[Array, Array]:
    """(the values, null where they do not fit; which rows do not)."""
    array, problems = conform(msgspec.structs.replace(field, nullable=True), values)
    wrong = np.zeros(len(values), dtype=bool)
    wrong[[problem.row for problem in problems if problem.row is not None]] = True
    if not field.nullable:
        wrong |= nulls_of(array).reshape(len(values), -1).any(axis=1)
    return array, wrong


def _inputs_of(contract: Contract, columns: Columns) -> Profile:
    return make_profile(msgspec.structs.replace(contract, outputs=()), columns, {})
