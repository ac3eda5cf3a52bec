"""Keys of precomputed answers in what is sent: as a member of a JSON body or of its parameters, as a column of its rows,
as an input, or in the header X-Fairway-Key. A request that has nothing but keys is one, too.

What was the key's is taken out before the rest is read, unless the model has a field of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fairway.core.contract import Contract
from fairway.core.request import Inputs
from fairway.inference.entries import keys_of
from fairway.inference.live import LiveModel
from fairway.serving.entrance import Headers, Heading
from fairway.serving.json_rows import PerContract

_PARAMETERS = ("parameters", "params")


def with_key(heading: Heading, headers: Headers, model: LiveModel) -> Heading:
    """For a model with precomputed answers: what its key is called, and the header's text as UTF-8 where it is."""
    key = headers.get(b"x-fairway-key")
    return Heading(
        heading.model,
        heading.version,
        heading.request_id,
        None if key is None else key_text(key),
        heading.deadline,
        heading.caller,
        model.primary.key_name,
    )


def key_text(key: bytes) -> str:
    """A header's or metadata's value as text."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key.decode("latin-1")


class Taken(NamedTuple):
    """`keys` are None where the body has none; `emptied` is the form of rows in which there was nothing else."""

    keys: list[bytes] | None = None
    emptied: str = ""


def take_keys(sent: dict[str, Any], name: str, contract: Contract, forms: Sequence[str]) -> Taken:
    """Takes the keys out of a JSON body whose rows are under one of `forms`. What is then left without anything is
    taken out as well. Raises InvalidInput naming the row."""
    stays = name in _names(contract)
    given = [form for form in forms if form in sent]
    for place in _PARAMETERS:
        parameters = sent.get(place)
        if isinstance(parameters, dict) and name in parameters:
            left = {key: value for key, value in parameters.items() if key != name}
            keys = keys_of(parameters[name])
            if left:
                sent[place] = left
            else:
                del sent[place]
            return Taken(keys)
    if name in sent and name not in forms and (given or not stays or len(sent) == 1):
        return Taken(keys_of(sent.pop(name)))
    for form in given:
        values, left = _of_rows(sent[form], name, stays=stays and len(_names(contract)) == 1)
        if values is None:
            continue
        if left is None:
            del sent[form]
            return Taken(keys_of(values), form)
        if not stays:
            sent[form] = left
        return Taken(keys_of(values))
    return Taken()


def take_column(inputs: Inputs, name: str, contract: Contract) -> tuple[Inputs, list[bytes] | None]:
    """The inputs without the column of keys, and the keys, None where there is no such column."""
    if name not in inputs:
        return inputs, None
    keys = keys_of(inputs[name])
    names = _names(contract)
    if name in names and (len(inputs) > 1 or len(names) == 1):
        return inputs, keys
    return {other: values for other, values in inputs.items() if other != name}, keys


def _of_rows(rows: Any, name: str, *, stays: bool) -> tuple[Any, Any]:
    """The keys of rows in any form, and the rows without them; None for rows in which nothing is left. `stays`: the key
    is all that the model takes."""
    if isinstance(rows, list):
        if not rows or not all(isinstance(row, dict) for row in rows) or name not in rows[0]:
            return None, rows
        left = [{key: value for key, value in row.items() if key != name} for row in rows]
        return [row.get(name) for row in rows], left if any(left) or stays else None
    if not isinstance(rows, dict):
        return None, rows
    columns = rows.get("columns")
    if isinstance(columns, list) and "data" in rows and name in columns:  # a dataframe_split
        return _of_frame(rows, columns, name, stays=stays)
    if name not in rows:
        return None, rows
    others = {key: value for key, value in rows.items() if key != name}
    return rows[name], others if others or stays else None


def _of_frame(frame: dict[str, Any], columns: list[Any], name: str, *, stays: bool) -> tuple[Any, Any]:
    place, data = columns.index(name), frame["data"]
    names = columns[:place] + columns[place + 1 :]
    rest: Any
    if isinstance(data, np.ndarray):
        if data.ndim != 2 or data.shape[1] != len(columns):
            return None, frame
        keys, rest = data[:, place].tolist(), np.delete(data, place, axis=1)
    else:
        if not isinstance(data, list) or not all(
            isinstance(row, list) and len(row) == len(columns) for row in data
        ):
            return None, frame
        keys = [row[place] for row in data]
        rest = [row[:place] + row[place + 1 :] for row in data]
    return keys, {**frame, "columns": names, "data": rest} if names or stays else None


def _names_of(contract: Contract) -> frozenset[str]:
    return frozenset(field.name for field in contract)


_names = PerContract(_names_of)
