"""MLflow's JSON bodies as named inputs: `dataframe_split`, `dataframe_records`, `instances`, `inputs`, and `params`.

Vertex AI's `instances` and `parameters` are among them. What MLflow's own server refuses and this reads: rows as
lists for a model whose inputs have names, in field order.

Source: mlflow/mlflow, mlflow/pyfunc/scoring_server/__init__.py and mlflow/utils/proto_json_utils.py, 3.17.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from fairway.core.columns import Array
from fairway.core.contract import Contract
from fairway.core.errors import MalformedInput, Problem
from fairway.core.request import Inputs
from fairway.inference.loaded import read_inputs
from fairway.inference.rows import SplitFrame, from_instances, from_records, from_split
from fairway.serving.json_rows import PerContract, columns_matrix, is_matrix, read_body, records_matrix
from fairway.serving.keyed import take_keys

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CHAT = ("messages", "prompt", "input")
_names = PerContract(lambda contract: [field.name for field in contract])
_NUMERIC = ("dataframe_split", "instances", "inputs")


class Wrapping(StrEnum):
    """What stands around the predictions of an answer, which is what stood around the rows."""

    named = "named"
    """`{"predictions": [...]}`."""
    bare = "bare"
    """The list alone."""
    single = "single"
    """The prediction of the one row there was."""


class JsonRows(NamedTuple):
    """What a body holds. `outputs` are those that `params` (MLflow) or `parameters` (Vertex) ask for; `keys` those of
    precomputed answers."""

    inputs: Inputs
    outputs: tuple[str, ...] | None
    wrapping: Wrapping = Wrapping.named
    keys: list[bytes] | None = None


def read_rows(
    body: bytes, contract: Contract, *, bare: bool = False, key_name: str = "", keyed: bool = False
) -> JsonRows:
    """`bare`: a list alone is rows too, and an object of none of the forms is one row. With a `key_name` keys are taken
    out, and nothing but keys is a body, too; `keyed`: the request has a key elsewhere. Raises MalformedInput or
    ContractViolation."""
    sent = read_body(body, _NUMERIC) if body or not keyed else {}
    if key_name:
        whole = sent if isinstance(sent, dict) else {"instances": sent}
        keys, _ = take_keys(whole, key_name, contract, FORMS)
        wrapping = Wrapping.named if isinstance(sent, dict) else Wrapping.bare
        if (keys is not None or keyed) and not any(name in whole for name in (*FORMS, *_names(contract))):
            outputs = _wanted(whole)
            return JsonRows({}, outputs, wrapping, keys)
        rows = _rows(sent if isinstance(sent, dict) else whole["instances"], contract, bare=bare)
        return rows._replace(keys=keys)
    return _rows(sent, contract, bare=bare)


def _rows(sent: Any, contract: Contract, *, bare: bool) -> JsonRows:
    one_of = f"The input must be a JSON dictionary with exactly one of the input fields {', '.join(FORMS)}."
    if bare and isinstance(sent, list):
        return JsonRows(_tensors("The body", sent, contract), None, Wrapping.bare)
    if not isinstance(sent, dict):
        raise MalformedInput(f"{one_of} Received {_kind(sent)}.")
    given = [form for form in FORMS if form in sent]
    if not given and any(field.name in sent for field in contract):
        if bare:
            return JsonRows(_records([sent], contract), None, Wrapping.single)
        if any(name in sent for name in _CHAT):
            return JsonRows(from_records([sent], contract), None, Wrapping.bare)
    if len(given) != 1:
        raise MalformedInput(f"{one_of} Received dictionary with input fields: {[*sent][:20]}.")
    value = sent[given[0]]
    if given == ["dataframe_split"]:
        inputs = _split(value, contract)
    elif given == ["dataframe_records"]:
        inputs = _records(value, contract)
    else:
        inputs = _tensors(given[0], value, contract)
    return JsonRows(inputs, _wanted(sent))


def _wanted(sent: dict[str, Any]) -> tuple[str, ...] | None:
    """The one parameter there is: `outputs`, a list of names. Others would be without effect, which nobody who sends
    them means, so they are refused."""
    for key in ("params", "parameters"):
        given = sent.get(key)
        if given is None or given == {}:
            continue
        if not isinstance(given, dict):
            raise MalformedInput(f"{key} must be an object, not {_kind(given)}.")
        unknown = [name for name in given if name != "outputs"]
        if unknown:
            raise MalformedInput(
                f"This model takes no {key}; there is only 'outputs', a list of the outputs to answer with.",
                tuple(Problem(f"is not one of the {key}", name) for name in unknown[:100]),
            )
        names = given["outputs"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise MalformedInput(f"{key}.outputs must be a list of names of outputs.")
        return tuple(names)
    return None


def _split(frame: Any, contract: Contract) -> Inputs:
    if not isinstance(frame, dict):
        raise MalformedInput(f"Dataframe split format must be a dictionary. Got {_kind(frame)}.")
    extra = [*(frame.keys() - {"columns", "index", "data"})]
    if "data" not in frame or extra:
        raise MalformedInput(
            "Dataframe split format must have 'data' field and optionally 'columns' and 'index' fields. "
            f"Got {[*frame][:20]}."
        )
    data, columns = frame["data"], frame.get("columns")
    if columns is not None and not isinstance(columns, list):
        raise MalformedInput(f"dataframe_split.columns must be a list, not {_kind(columns)}.")
    width = len(contract.inputs)
    if columns is None or columns == [*range(width)]:  # a frame made of a matrix has no names of its own
        columns = _names(contract)
    names = [*map(str, columns)]
    if isinstance(data, np.ndarray) and data.ndim >= 2:
        return _table(names, data, contract)
    if (
        isinstance(data, np.ndarray)
        or not isinstance(data, list)
        or not all(isinstance(r, list) for r in data)
    ):
        raise MalformedInput("dataframe_split.data must be a list of rows, each a list of values.")
    return from_split(SplitFrame(columns=names, data=data))


def _table(names: list[str], values: Array, contract: Contract) -> Inputs:
    """Numbers under column names; as one matrix, in the order of the fields, where the contract is one."""
    if len(set(names)) != len(names):
        raise MalformedInput("Column names in dataframe_split.columns repeat.")
    if values.shape[1] != len(names):
        raise MalformedInput(
            f"The rows do not have {len(names)} values.", (Problem(f"has {values.shape[1]}", row=0),)
        )
    fields = _names(contract)
    whole = names == fields or (
        set(fields) <= set(names) and (contract.extra_fields == "ignore" or len(fields) == len(names))
    )
    if whole and is_matrix(contract) and values.ndim == 2:
        return {"": values if fields == names else values[:, [names.index(name) for name in fields]]}
    return {name: values[:, i] for i, name in enumerate(names)}


def _records(records: Any, contract: Contract) -> Inputs:
    if not isinstance(records, list):
        raise MalformedInput(f"Dataframe records format must be a list of records. Got {_kind(records)}.")
    wrong = [row for row, record in enumerate(records) if not isinstance(record, dict)]
    if wrong:
        raise MalformedInput(
            "Dataframe records format must be a list of records.",
            tuple(Problem("is no object", row=row) for row in wrong[:100]),
        )
    matrix = records_matrix(records, contract)
    return from_records(records, contract) if matrix is None else {"": matrix}


def _tensors(form: str, value: Any, contract: Contract) -> Inputs:
    """`instances` or `inputs`: a list of rows, or columns by name. Single values by name are one row."""
    if isinstance(value, np.ndarray):
        if value.ndim == 2 and value.shape[1] == len(contract.inputs) and is_matrix(contract):
            return {"": value}
        return read_inputs(value, contract)
    if isinstance(value, list):
        matrix = records_matrix(value, contract) if value and isinstance(value[0], dict) else None
        return from_instances(value, contract) if matrix is None else {"": matrix}
    if not isinstance(value, dict):
        raise MalformedInput(f"{form} must be a list of rows or an object of columns, not {_kind(value)}.")
    matrix = columns_matrix(value, contract)
    if matrix is not None:
        return {"": matrix}
    if value and not any(isinstance(column, list) for column in value.values()):
        return from_records([value], contract)
    wrong = [name for name, column in value.items() if not isinstance(column, list)]
    if wrong:
        raise MalformedInput(
            f"{form} has columns and single values at once.",
            tuple(Problem("is no list like the others", name) for name in wrong[:100]),
        )
    return value


def _kind(value: Any) -> str:
    return {dict: "dictionary", list: "a list", str: "text", type(None): "null"}.get(type(value), "a number")
