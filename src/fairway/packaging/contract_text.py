"""The data contract as commented TOML that people edit, and back.

Reading collects every mistake with its line. `[inputs.NAME]` tables stand in the order callers send columns.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import msgspec
import tomlkit
from tomlkit.items import Array as TomlArray
from tomlkit.items import InlineTable, Table

from fairway.core.contract import Action, Contract, DType, Field, Output, Privacy, Rules, Task
from fairway.core.errors import InvalidInput, Problem
from fairway.packaging.profile import Profile
from fairway.packaging.rules import RULES, contract_problems, imputation

_HEAD = """\
The data contract: what callers send, what they get, and what happens to a value that does not fit.

Rules of a field, each with an action:
  on_null       no value            reject | warn (let through; needs nullable = true) | impute
  on_infinite   +-infinity          reject | warn | clip | impute
  on_range      beyond minimum or maximum      reject | warn | clip | impute
  on_outlier    outside fence       reject | warn | clip | impute
  on_category   not one of categories          reject | warn | impute
A value of the wrong type is always rejected. `impute` fills in impute_with when imputed_by = "constant", else
the mean, median or mode of the training data that imputed_by names.
minimum, maximum, fence and categories are limits and may be changed; quantiles, missing_rate and frequency
describe the training data."""
_RULE_KEYS = {
    "on_null": "no value",
    "on_infinite": "+-infinity",
    "on_range": "beyond minimum or maximum",
    "on_outlier": "outside fence",
    "on_category": "not one of categories",
}
_TOP = {"task": Task, "target": str, "extra_fields": str}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def contract_to_text(contract: Contract) -> str:
    """The contract as TOML with comments. `contract_from_text` gives back an equal contract."""
    document = tomlkit.document()
    for line in _HEAD.splitlines():
        document.add(tomlkit.comment(line) if line else tomlkit.nl())
    document.add(tomlkit.nl())
    document.add("task", tomlkit.item(contract.task.value))
    if contract.target is not None:
        document.add("target", _string(contract.target))
    extra = tomlkit.item(contract.extra_fields)
    extra.comment("inputs the contract does not know: ignore or reject")
    document.add("extra_fields", extra)
    for group, values in (("inputs", contract.inputs), ("outputs", contract.outputs)):
        table = tomlkit.table(is_super_table=bool(values))
        for value in values:
            table.append(
                _key(value.name), _field_table(value) if isinstance(value, Field) else _output_table(value)
            )
        document.add(group, table)
    return tomlkit.dumps(document)


def _string(text: str) -> Any:
    # tomllib refuses nothing that tomlkit escapes, but DEL and friends must be escaped, which this does.
    return tomlkit.string(text)


def _key(name: str) -> Any:
    return tomlkit.key(name)


def _field_table(field: Field) -> Table:
    table = tomlkit.table()
    table.add("dtype", tomlkit.item(field.dtype.value))
    if field.shape:
        table.add("shape", tomlkit.item(list(field.shape)))
    table.add("nullable", tomlkit.item(field.nullable))
    for name in ("minimum", "maximum"):
        limit = getattr(field, name)
        if limit is not None:
            item = tomlkit.item(limit)
            if field.dtype is DType.timestamp:
                item.comment(_moment(limit))
            table.add(name, item)
    if field.fence is not None:
        fence = tomlkit.item(list(field.fence))
        fence.comment("values outside are outliers")
        table.add("fence", fence)
    if field.quantiles:
        quantiles = tomlkit.item(list(field.quantiles))
        quantiles.comment("seen at 0, 5, 25, 50, 75, 95 and 100 %")
        table.add("quantiles", quantiles)
    if field.missing_rate:
        missing = tomlkit.item(field.missing_rate)
        missing.comment("share of nulls seen")
        table.add("missing_rate", missing)
    if field.categories:
        table.add("categories", _categories(field))
    if field.impute_with is not None:
        table.add("impute_with", _string(v) if isinstance(v := field.impute_with, str) else tomlkit.item(v))
    if field.imputed_by is not None:
        by = _string(field.imputed_by)
        by.comment("constant, mean, median or mode")
        table.add("imputed_by", by)
    if field.private is not None:
        private = _string(field.private.value)
        private.comment("in the prediction log: drop, hash or token")
        table.add("private", private)
    if field.description:
        table.add("description", _string(field.description))
    rules = tomlkit.table()
    for rule in _rules_that_apply(field):
        action = tomlkit.item(getattr(field.rules, rule).value)
        action.comment(_RULE_KEYS[rule])
        rules.add(rule, action)
    table.add("rules", rules)
    return table


def _rules_that_apply(field: Field) -> Iterator[str]:
    """Every rule that can ever apply to the field, and any other that is not at its default."""
    default = Rules()
    applies = {
        "on_null": True,
        "on_infinite": field.dtype.is_float,
        "on_range": field.minimum is not None or field.maximum is not None,
        "on_outlier": field.fence is not None,
        "on_category": bool(field.categories),
    }
    for rule in RULES:
        if applies[rule] or getattr(field.rules, rule) is not getattr(default, rule):
            yield rule


def _categories(field: Field) -> TomlArray:
    array = tomlkit.array()
    for category in field.categories:
        entry: InlineTable = tomlkit.inline_table()
        value = category.value
        entry.append("value", _string(value) if isinstance(value, str) else tomlkit.item(value))
        entry.append("frequency", tomlkit.item(category.frequency))
        array.append(entry)
    return array.multiline(True)


def _output_table(output: Output) -> Table:
    table = tomlkit.table()
    table.add("dtype", tomlkit.item(output.dtype.value))
    if output.shape:
        table.add("shape", tomlkit.item(list(output.shape)))
    if output.labels:
        labels = tomlkit.array()
        for label in output.labels:
            labels.append(_string(label))
        table.add("labels", labels)
    return table


def _moment(microseconds: float) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:
        return "microseconds since 1970-01-01 UTC"


def contract_from_text(text: str, profile: Profile | None = None) -> Contract:
    """Reads an edited contract.

    `profile` is what the training data looked like; with it, imputed_by = mean, median or mode are worked out
    (anew). Raises InvalidInput with every mistake: its place (`inputs.amount.rules.on_null`) and line.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"The contract is not TOML: {error}.", (Problem(str(error)),)) from error
    found = _Mistakes(_lines_of(text))
    top = {name: _value(raw, name, kind, (), found) for name, kind in _TOP.items() if name in raw}
    for name in raw.keys() - {*_TOP, "inputs", "outputs"}:
        found.add((name,), f"is not known here; there are {', '.join([*_TOP, 'inputs', 'outputs'])}")
    inputs = [_read_field(name, body, profile, found) for name, body in _tables(raw, "inputs", found)]
    outputs = [_read_output(name, body, found) for name, body in _tables(raw, "outputs", found)]
    if not inputs and not found.problems:
        found.add(("inputs",), "a contract needs at least one input")
    found.raise_any()
    try:
        contract = Contract(inputs=tuple(filter(None, inputs)), outputs=tuple(filter(None, outputs)), **top)
    except ValueError as error:
        found.add(("extra_fields",), str(error))
        found.raise_any()
        raise
    for problem in contract_problems(contract):
        found.add(("inputs", problem.field or ""), problem.reason)
    found.raise_any()
    return contract


class _Mistakes:
    """Collects what is wrong, each with its place and line."""

    def __init__(self, lines: dict[tuple[str, ...], int]) -> None:
        self._lines = lines
        self.problems: list[Problem] = []

    def add(self, place: tuple[str, ...], reason: str) -> None:
        line = next(
            (self._lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self._lines), None
        )
        where = ".".join(place) + (f" (line {line})" if line is not None else "")
        self.problems.append(Problem(f"{where}: {reason}", place[1] if len(place) > 1 else None))

    def raise_any(self) -> None:
        if self.problems:
            told = "\n  ".join(problem.reason for problem in self.problems)
            count = len(self.problems)
            raise InvalidInput(
                f"The contract has {count} mistake{'s' if count > 1 else ''}:\n  {told}", tuple(self.problems)
            )


def _lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Where each table and key of our own layout stands, from 1. Other layouts of the same TOML get fewer lines."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        try:
            if stripped.startswith("["):
                table = _path(tomllib.loads(stripped))
                lines.setdefault(table, number)
            elif "=" in stripped:
                (key,) = tomllib.loads(stripped.partition("=")[0] + "= 0")
                lines.setdefault((*table, key), number)
        except (tomllib.TOMLDecodeError, ValueError):
            continue  # inside a list that spans lines, or a comment
    return lines


def _path(nested: dict[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    while isinstance(nested, dict) and len(nested) == 1:
        ((name, nested),) = nested.items()
        names.append(name)
    return tuple(names)


def _tables(raw: dict[str, Any], group: str, found: _Mistakes) -> Iterator[tuple[str, dict[str, Any]]]:
    tables = raw.get(group, {})
    if not isinstance(tables, dict):
        found.add((group,), f"must be tables: [{group}.NAME]")
        return
    for name, body in tables.items():
        if isinstance(body, dict):
            yield name, body
        else:
            found.add((group, name), f"must be a table: [{group}.{name}]")


def _value(raw: dict[str, Any], key: str, kind: Any, place: tuple[str, ...], found: _Mistakes) -> Any:
    """`raw[key]` as `kind`, or None and a mistake noted."""
    try:
        value = msgspec.convert(raw[key], kind)
    except msgspec.ValidationError as error:
        found.add((*place, key), _reason(raw[key], kind, str(error)))
        return None
    if any(
        isinstance(part, float) and not math.isfinite(part)
        for part in (value if isinstance(value, tuple) else [value])
    ):
        found.add((*place, key), "must be a finite number")
        return None
    return value


def _reason(given: Any, kind: Any, error: str) -> str:
    for known in (Action, DType, Task, Privacy):
        if kind is known or kind == known | None:
            return f"{given!r} is none of {', '.join(known)}"
    return error[0].lower() + error[1:]


def _members(
    kind: type[Any], raw: dict[str, Any], place: tuple[str, ...], found: _Mistakes, skip: frozenset[str]
) -> dict[str, Any]:
    """The members of a value that are right; every wrong or unknown one is noted."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__}
    for name in raw.keys() - hints.keys() | (raw.keys() & {"name"}):
        found.add(
            (*place, name), f"is not known here; there are {', '.join(sorted(hints.keys() - {'name'}))}"
        )
    return {
        name: _value(raw, name, hints[name], place, found)
        for name in raw
        if name in hints and name not in skip and name != "name"
    }


def _read_field(name: str, raw: dict[str, Any], profile: Profile | None, found: _Mistakes) -> Field | None:
    place = ("inputs", name)
    before = len(found.problems)
    members = _members(Field, raw, place, found, frozenset({"rules"}))
    rules = raw.get("rules", {})
    if isinstance(rules, dict):
        actions = _members(Rules, rules, (*place, "rules"), found, frozenset())
    else:
        found.add((*place, "rules"), f"must be a table: [inputs.{name}.rules]")
        actions = {}
    if "dtype" not in raw:
        found.add(place, f"dtype is missing; it is one of {', '.join(DType)}")
    if len(found.problems) > before:
        return None
    try:
        _impute(name, members, actions, profile)
        return Field(name=name, rules=Rules(**actions), **members)
    except (InvalidInput, ValueError) as error:
        found.add(place, str(error).removeprefix(f"field {name!r}: "))
        return None


def _impute(name: str, members: dict[str, Any], actions: dict[str, Any], profile: Profile | None) -> None:
    """Works out `impute_with` where the text leaves it to the training data."""
    if Action.impute not in actions.values():
        return
    how = members.get("imputed_by")
    if how in (None, "constant") and members.get("impute_with") is not None:
        members["imputed_by"] = "constant"
    elif how == "constant":
        raise InvalidInput('imputed_by = "constant" needs impute_with')
    elif profile is not None or "impute_with" not in members:
        members["imputed_by"], members["impute_with"] = imputation(name, members["dtype"], how, profile)


def _read_output(name: str, raw: dict[str, Any], found: _Mistakes) -> Output | None:
    place = ("outputs", name)
    before = len(found.problems)
    members = _members(Output, raw, place, found, frozenset())
    if "dtype" not in raw:
        found.add(place, f"dtype is missing; it is one of {', '.join(DType)}")
    return Output(name=name, **members) if len(found.problems) == before else None
