"""TensorFlow Serving's JSON values: rows or columns as named inputs, with its rules and its words for what is wrong.

Its rules are stricter than JSON: a number is no text, and a whole number that the input's float type does not hold
exactly is refused instead of rounded. Two things are read that it refuses, because KServe V1 shares the path: rows as
lists in field order, and whole floats for integers (3.0), which data frames with gaps make of every integer.

Source: tensorflow/serving, tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.conform import Values
from fairway.core.contract import Contract
from fairway.core.errors import MalformedInput, Problem
from fairway.core.request import Inputs
from fairway.inference.rows import from_instances
from fairway.serving.json_rows import columns_matrix, is_matrix, records_matrix
from fairway.serving.tensorflow_types import decoded, exact_limit, is_base64, json_kind, read_values, shown

_MOST_PROBLEMS = 100
_ELEMENT = "Failed to process element: {row} key: {name} of 'instances' list. Error: {why}"
_INPUT = "{why} (input {name}, row {row})"


def from_rows(instances: Any, contract: Contract) -> Inputs:
    """The value of `instances`. Raises MalformedInput."""
    if isinstance(instances, np.ndarray):
        return _from_array(instances, contract, "instances is a plain list", _ELEMENT)
    if not isinstance(instances, list):
        raise MalformedInput(f"JSON Value: {shown(instances)} Excepting 'instances' to be an list/array")
    if not instances:
        raise MalformedInput("JSON Value: [] No values in 'instances' array")
    fields = contract.inputs
    named = [isinstance(row, dict) and not is_base64(row) for row in instances]
    if any(named) and not all(named):
        row = named.index(not named[0])
        raise MalformedInput(
            f"Expecting object but got list at item {row} of input list"
            if named[0]
            else f"Expecting value/list but got object at item {row} of input list"
        )
    if all(named):
        matrix = records_matrix(instances, contract, exact=exact_limit(contract))
        if matrix is not None:
            return {"": matrix}
        _check_keys(instances, contract)
    else:
        if len(fields) > 1 and not all(isinstance(row, list) for row in instances):
            raise MalformedInput(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        instances = decoded(instances)
    columns = from_instances(instances, contract)
    return _checked(columns, contract, _ELEMENT)


def from_columns(inputs: Any, contract: Contract) -> Inputs:
    """The value of `inputs`. Raises MalformedInput."""
    if isinstance(inputs, np.ndarray):
        return _from_array(inputs, contract, "inputs is a plain value/list", _INPUT)
    if isinstance(inputs, dict) and not is_base64(inputs):
        matrix = columns_matrix(inputs, contract, exact=exact_limit(contract))
        if matrix is not None:
            return {"": matrix}
        missing = [field.name for field in contract if field.name not in inputs]
        if missing:
            raise MalformedInput(
                f"Missing named input: {missing[0]} in 'inputs' object.",
                tuple(Problem("missing", name) for name in missing),
            )
        wrong = [name for name, values in inputs.items() if not isinstance(values, list)]
        if wrong:
            raise MalformedInput(
                f"The input {wrong[0]} is a single value; inputs have rows first: send a list.",
                tuple(Problem("is not a list", name) for name in wrong),
            )
        return _checked(inputs, contract, _INPUT)
    if not isinstance(inputs, list):
        raise MalformedInput(
            f"JSON Value: {shown(inputs)} is a single value; inputs have rows first: send a list."
        )
    if len(contract.inputs) > 1 and not all(isinstance(row, list) for row in inputs):
        raise MalformedInput(
            "inputs is a plain value/list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    return _checked(from_instances(inputs, contract), contract, _INPUT)


def from_examples(examples: Any, context: Any, contract: Contract, verb: str) -> Inputs:
    """The `examples` of a classify or regress request; features of `context` stand in every example. A feature of one
    value may be a list of it. Raises MalformedInput."""
    if examples is None:
        raise MalformedInput(
            f"When method is {verb}, key 'examples' is expected and was not found",
        )
    if not isinstance(examples, list):
        raise MalformedInput(f"JSON Value: {shown(examples)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise MalformedInput("JSON Value: [] 'examples' value is an empty array")
    wrong = [example for example in [context or {}, *examples] if not isinstance(example, dict)]
    if wrong:
        raise MalformedInput(f"Example must be JSON object but got JSON {json_kind(wrong[0])}")
    scalars = {field.name for field in contract if not field.shape}
    rows = [
        {
            name: value[0] if name in scalars and isinstance(value, list) and len(value) == 1 else value
            for name, value in {**(context or {}), **example}.items()
        }
        for example in examples
    ]
    _check_keys(rows, contract)
    columns = from_instances(rows, contract)
    return _checked(columns, contract, "{why} (feature {name}, example {row})")


def _from_array(values: Array, contract: Contract, what: str, wording: str) -> Inputs:
    """Rectangular numbers: the only input's rows, or a table of all fields in their order."""
    fields = contract.inputs
    if len(fields) == 1:
        return _checked({fields[0].name: values}, contract, wording)
    if values.ndim != 2:
        raise MalformedInput(
            f"{what}, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        )
    if values.shape[1] != len(fields):
        raise MalformedInput(f"A row has {values.shape[1]} values; this model has {len(fields)} inputs.")
    if is_matrix(contract):
        return {"": values}
    return {field.name: values[:, i] for i, field in enumerate(fields)}


def _check_keys(rows: Sequence[dict[str, Any]], contract: Contract) -> None:
    names = [field.name for field in contract]
    for number, row in enumerate(rows):
        if any(name not in row for name in names):
            missing = [name for name in names if name not in row]
            raise MalformedInput(
                f"Failed to process element: {number} of 'instances' list. JSON object: {shown(row)} keys must be equal "
                f"to: {','.join(sorted(names))}",
                tuple(Problem("missing", name, number) for name in missing[:_MOST_PROBLEMS]),
            )


def _checked(columns: Inputs, contract: Contract, wording: str) -> Inputs:
    """The columns, base64 decoded, once every value has a JSON type that its field can have."""
    fields = {field.name: field for field in contract}
    checked: dict[str, Values] = {}
    problems: list[Problem] = []
    for name, values in columns.items():
        field = fields.get(name)
        if field is None:
            checked[name] = values
        else:
            checked[name], found = read_values(field, values)
            problems += found
    if problems:
        first = problems[0]
        text = wording.format(row=first.row, name=first.field, why=f"INVALID_ARGUMENT: {first.reason}")
        raise MalformedInput(text, tuple(problems[:_MOST_PROBLEMS]))
    return checked
