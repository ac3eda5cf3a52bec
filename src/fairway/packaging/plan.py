"""What is to be packaged, and the choice of its engine: the sample fitted to the model, its contract, preparation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Array, Columns
from fairway.core.conform import nulls_of
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput, ModelFailed, NotFound, Problem
from fairway.packaging.contract import infer_contract, sample_columns
from fairway.packaging.contract_text import contract_from_text
from fairway.packaging.conversion.engine import (
    ChosenEngine,
    ConversionOptions,
    Progress,
    choose_engine,
    original_engine,
)
from fairway.packaging.conversion.feeding import dtypes_of
from fairway.packaging.conversion.probe_rows import null_rows, unseen_rows
from fairway.packaging.features import fit_sample
from fairway.packaging.profile import Profile, profile_field
from fairway.packaging.python_file import load_function, needed_files, split_entry
from fairway.packaging.rules import Refusals, check_contract
from fairway.packaging.sample import read_sample
from fairway.packaging.source import Sample, SourceModel
from fairway.runtimes.base import Engine
from fairway.runtimes.prepared import PREPARED, Preparation, PreparedEngine, prepared_frame


@dataclass(frozen=True)
class Plan:
    """What is to be packaged: the caller's data and contract, and what the model behind the preparation sees.

    Without preparation the two samples and contracts are the same.
    """

    source: SourceModel
    sample: Sample
    contract: Contract
    given: Contract | None
    inner_sample: Sample
    inner_contract: Contract
    prepare: Callable[[Any], Any] | None = None
    prepare_entry: str | None = None
    prepare_files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refused: Refusals = dataclasses.field(default_factory=Refusals)

    def original(self) -> Engine:
        inner = original_engine(self.source, self.inner_sample, self.inner_contract)
        if self.prepare is None:
            return inner
        return PreparedEngine(self.prepare, dtypes_of(self.sample), self.inner_contract, inner)

    def final_contract(self, chosen: ChosenEngine) -> Contract:
        if self.given is not None:
            return msgspec.structs.replace(self.given, outputs=chosen.outputs, task=chosen.task)
        return infer_contract(
            self.sample,
            outputs=chosen.outputs,
            task=chosen.task,
            target=self.contract.target,
            refused=self.refused,
        )

    def final_spec(self, chosen: ChosenEngine) -> EngineSpec:
        if self.prepare is None:
            return chosen.spec
        names = tuple(field.name for field in self.inner_contract)
        return msgspec.structs.replace(chosen.spec, prepare=self.prepare_entry, prepared_fields=names)


def make_plan(
    source: SourceModel, sample: Sample, prepare: str | None, given: Contract | str | None, target: str | None
) -> Plan:
    if prepare is None:
        sample, notes = fit_sample(source, sample)
        contract, user = _contract(sample, given, target)
        return Plan(source, sample, contract, user, sample, contract, notes=notes)
    entry = split_entry(prepare)
    if entry is None:
        raise InvalidInput(f"{prepare!r} is not file.py:function, which --prepare takes.")
    file, function_name = entry
    if not file.is_file():
        raise NotFound(f"there is no file {file}, which --prepare names.")
    if sample.tensors:
        raise InvalidInput(f"--prepare works on columns, and {', '.join(sample.tensors)} hold arrays.")
    function = load_function(file, function_name)
    contract, user = _contract(sample, given, target)
    columns = sample_columns(contract, sample)
    prepared = prepared_frame(function, columns, dtypes_of(sample))
    inner_sample, notes = fit_sample(source, read_sample(prepared))
    inner_contract = infer_contract(inner_sample)
    preparation = Preparation(dtypes=dtypes_of(sample), fields=inner_contract.inputs)
    code = {f"prepare/{path}": place.read_bytes() for path, place in needed_files(file).items()}
    return Plan(
        source,
        sample,
        contract,
        user,
        inner_sample,
        inner_contract,
        prepare=function,
        prepare_entry=f"prepare/{file.name}:{function_name}",
        prepare_files=code | {PREPARED: msgspec.json.encode(preparation, order="deterministic")},
        notes=notes,
    )


def _contract(
    sample: Sample, given: Contract | str | None, target: str | None
) -> tuple[Contract, Contract | None]:
    """(contract of the inputs, the user's own if there is one), fields in the sample's order."""
    inferred = infer_contract(sample, target=target)
    if given is None:
        return inferred, None
    if isinstance(given, str):
        inputs = tuple(
            profile_field(field.name, field.dtype, values)
            for field, values in zip(inferred, sample_columns(inferred, sample).arrays, strict=True)
        )
        given = contract_from_text(given, Profile(rows=len(sample), inputs=inputs))
    fields = {field.name: field for field in given}
    names = [field.name for field in inferred]
    problems = [Problem("is not in the contract", name) for name in names if name not in fields]
    problems += [
        Problem("is not in the sample data, or not used", name) for name in fields if name not in names
    ]
    if problems:
        told = "; ".join(f"{problem.field} {problem.reason}" for problem in problems)
        raise InvalidInput(f"The contract does not fit the model's data: {told}.", tuple(problems))
    user = msgspec.structs.replace(
        given, inputs=tuple(fields[name] for name in names), target=given.target or target
    )
    return check_contract(user), user


def choose(plan: Plan, options: ConversionOptions, progress: Progress) -> tuple[Plan, ChosenEngine]:
    """The engine, and the plan with what the original refuses."""
    try:
        chosen = choose_engine(
            plan.source, plan.inner_sample, plan.inner_contract, options=options, progress=progress
        )
    except ModelFailed as error:
        raise ModelFailed(
            f"The model cannot predict the sample data it was given: {error}",
            hint="Give the columns it was trained on, prepared as then (--prepare file.py:function).",
        ) from error
    columns = sample_columns(plan.contract, plan.sample)
    refused = chosen.refused
    if plan.prepare is not None:  # fields before preparation refuse other things than those behind it
        refused = _refusals(plan.original(), plan.contract, columns)
    notes = plan.notes
    left_out = int(_has_null(columns, refused.nulls).sum())
    if left_out:
        told = ", ".join(sorted(refused.nulls))
        notes = (
            *notes,
            f"The model refuses nulls in {told}: {left_out} of {columns.rows} sample rows hold some.",
        )
    return dataclasses.replace(plan, refused=refused, notes=notes), chosen


def answerable_rows(contract: Contract, columns: Columns, refused: Refusals) -> Array:
    """Positions of the sample rows that the model answers: without nulls where it, or the contract, has none.

    Raises InvalidInput when there are none.
    """
    never_null = frozenset(field.name for field in contract if not field.nullable)
    rows = np.flatnonzero(~_has_null(columns, refused.nulls | never_null))
    if len(rows) == 0:
        names = ", ".join(sorted(refused.nulls | never_null))
        raise InvalidInput(f"Every row of the sample data holds a null where none may be ({names}).")
    return rows


def _has_null(columns: Columns, names: frozenset[str]) -> Array:
    found = np.zeros(columns.rows, dtype=bool)
    for name in names:
        found |= nulls_of(columns[name]).reshape(columns.rows, -1).any(axis=1)
    return found


def _refusals(original: Engine, contract: Contract, columns: Columns) -> Refusals:
    """Fields in which the original fails on a null, or on an unseen category, in rows that it answers otherwise."""
    clean = columns.take(np.flatnonzero(~_has_null(columns, frozenset(columns.names))))
    if clean.rows == 0:
        return Refusals()

    def fails(rows: Columns | None) -> bool:
        if rows is None or rows.rows == 0:
            return False
        try:
            original.predict(rows)
        except ModelFailed:
            return True
        return False

    if fails(clean.take(slice(0, 1))):
        return Refusals()  # it fails on anything: nothing to learn about nulls
    scalars = [field for field in contract if not field.shape]
    return Refusals(
        nulls=frozenset(
            field.name
            for field in scalars
            if field.nullable and fails(null_rows(contract, clean, field, seed=0))
        ),
        categories=frozenset(
            field.name
            for field in scalars
            if field.categories and fails(unseen_rows(contract, clean, field, seed=0))
        ),
    )
