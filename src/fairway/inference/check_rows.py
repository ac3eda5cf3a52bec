"""What a contract would do to given rows, without predicting: every violation per field and rule, counted."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from fairway.core.conform import Values
from fairway.core.contract import Action, Contract, Field, Rules
from fairway.core.errors import ContractViolation, Problem
from fairway.core.request import Inputs
from fairway.inference.validate import Validator

_NO_LIMIT = 2**62
_ALL_WARN = Rules(
    on_null=Action.warn,
    on_range=Action.warn,
    on_category=Action.warn,
    on_outlier=Action.warn,
    on_infinite=Action.warn,
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` rows of a field broke `rule`; `action` is what the contract does then.

    Besides the contract's rules (on_null, ...) there are `type`, a value of the wrong type, and `form`: the whole
    column is missing, of another length or shape, or not known."""

    field: str
    rule: str
    action: str
    rows: int


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """`refused` rows of `rows` would be rejected, for the reasons in `problems`."""

    rows: int
    refused: int
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]


def check_rows(contract: Contract, inputs: Inputs) -> Check:
    """Raises MalformedInput when there are no rows."""
    rows = max((len(values) for values in inputs.values()), default=0)
    relaxed = msgspec.structs.replace(contract, inputs=tuple(map(_relaxed, contract)))
    broken: Counter[tuple[str, str]] = Counter()
    types = _problems(relaxed, inputs, broken)
    problems = _problems(contract, inputs, Counter())
    untyped = {problem.row for problem in types}
    if types and None not in untyped:
        # A column with a value of the wrong type was looked at no further: look again without those rows.
        left = [row for row in range(rows) if row not in untyped]
        rest = {name: _at(values, left) for name, values in inputs.items()}
        again: Counter[tuple[str, str]] = Counter()
        if left:
            _problems(relaxed, rest, again)
            found = (problem for problem in _problems(contract, rest, Counter()) if problem.row is not None)
            moved = [msgspec.structs.replace(problem, row=left[problem.row or 0]) for problem in found]
            problems += tuple(problem for problem in moved if problem not in problems)
        looked_at = {problem.field for problem in types}
        broken.update({place: count for place, count in again.items() if place[0] in looked_at})
    fields = {field.name: field for field in contract}
    wrong = Counter((problem.field or "", problem.row is None) for problem in types)
    findings = [
        Finding(field=name, rule="form" if whole else "type", action="reject", rows=rows if whole else count)
        for (name, whole), count in wrong.items()
    ]
    findings += [
        Finding(field=name, rule=rule, action=getattr(fields[name].rules, rule).value, rows=count)
        for (name, rule), count in broken.items()
        if not (rule == "on_null" and _expects_nulls(fields[name]))
    ]
    order = {name: place for place, name in enumerate(fields)}
    findings.sort(key=lambda finding: order.get(finding.field, -1))
    refused = {problem.row for problem in problems}
    return Check(
        rows=rows,
        refused=rows if None in refused else len(refused),
        findings=tuple(findings),
        problems=problems,
    )


def _at(values: Values, rows: list[int]) -> Values:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def _problems(contract: Contract, inputs: Inputs, broken: Counter[tuple[str, str]]) -> tuple[Problem, ...]:
    def note(field: str, rule: str, rows: int) -> None:
        broken[field, rule] += rows

    try:
        Validator(contract, max_rows=_NO_LIMIT, max_problems=_NO_LIMIT).check(inputs, note)
    except ContractViolation as error:
        return error.problems
    return ()


def _expects_nulls(field: Field) -> bool:
    return field.rules.on_null is Action.warn and field.missing_rate > 0


def _relaxed(field: Field) -> Field:
    """The field with every rule counting instead of acting."""
    if field.dtype.is_integer and not field.shape:
        # Made nullable, whole numbers beyond 2**53 would be refused; so nulls are counted by imputing.
        usual = (
            field.categories[0].value
            if field.categories
            else int(field.quantiles[3])
            if field.quantiles
            else 0
        )
        rules = msgspec.structs.replace(_ALL_WARN, on_null=Action.impute)
        return msgspec.structs.replace(field, rules=rules, impute_with=usual)
    return msgspec.structs.replace(field, rules=_ALL_WARN, nullable=True, missing_rate=0.0)
