"""What a contract would do to given rows, without predicting: every violation per field and rule, counted."""

from __future__ import annotations

from collections import Counter

import msgspec

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
    """`rows` rows of a field broke `rule` (on_null, ..., or `type`); `action` is what the contract does then."""

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
    problems = _problems(contract, inputs, Counter())
    broken: Counter[tuple[str, str]] = Counter()
    relaxed = msgspec.structs.replace(contract, inputs=tuple(map(_relaxed, contract)))
    types = _problems(relaxed, inputs, broken)
    fields = {field.name: field for field in contract}
    findings = [
        Finding(field=problem_field, rule="type", action="reject", rows=count)
        for problem_field, count in Counter(problem.field or "" for problem in types).items()
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
