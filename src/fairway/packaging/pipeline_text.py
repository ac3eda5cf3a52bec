"""Reads a pipeline as people write it: TOML, one table a node. What the names in it mean is looked at later.

    [inputs]                      only for request fields that no model describes, or to settle a conflict
    country = "string"

    [nodes.triage]
    model = "payments"            or "payments:3", "payments@champion"

    [nodes.enrich]
    function = "features.py:enrich"
    inputs = ["amount", "triage.label"]

    [nodes.decide]
    router = "triage.probabilities[fraud]"
    routes = [{ below = 0.2, to = "quick" }]
    default = "careful"

    [outputs]
    label = "decide.label"

A source is a request field (`amount`), an output of a node (`triage.label`) or one element of it
(`triage.probabilities[fraud]`). `inputs.` before a name makes it a request field whatever it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from fairway.core.contract import Field
from fairway.core.errors import InvalidInput, NotFound, Problem
from fairway.core.pipeline import NAME, Case

SUFFIX = ".toml"
RESERVED = "inputs"
_SOURCE = re.compile(r"(?P<place>[^\[\]]+)(\[(?P<element>[^\[\]]+)\])?")
_KEYS = {
    "model": {"inputs"},
    "function": {"inputs", "outputs", "files"},
    "ensemble": {"of", "weights"},
    "router": {"routes", "default"},
}
"""Kind of node, which is the key that makes it one -> the other keys it may have."""


class DeclaredNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node's table. `inputs` is names, or name -> source; `outputs` gives the types of a function's outputs."""

    model: str | None = None
    function: str | None = None
    ensemble: Literal["mean", "max", "vote"] | None = None
    router: str | None = None
    inputs: list[str] | dict[str, str] | None = None
    outputs: dict[str, str] | None = None
    files: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    routes: tuple[Case, ...] = ()
    default: str | None = None
    description: str = ""

    @property
    def kind(self) -> str:
        return next(kind for kind in _KEYS if getattr(self, kind) is not None)


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline's text. `outputs` is the name of a node, whose outputs are the pipeline's, or name -> source."""

    nodes: dict[str, DeclaredNode]
    inputs: dict[str, Field]
    outputs: str | dict[str, str]


def is_pipeline(model: object) -> bool:
    """Whether a model is given as a pipeline's TOML file."""
    return isinstance(model, str | Path) and Path(model).suffix == SUFFIX


def read_pipeline(path: Path) -> Declared:
    """Raises NotFound, or InvalidInput naming every table and key that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error
    return pipeline_from_text(text, str(path))


def pipeline_from_text(text: str, source: str) -> Declared:
    """`source` names the text in errors, which are those of `read_pipeline`."""
    try:
        raw = msgspec.toml.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:  # a name given twice among them
        raise InvalidInput(f"{source} is not valid TOML: {error}.") from error
    found: list[Problem] = []
    for key in raw.keys() - {"nodes", "inputs", "outputs"}:
        found.append(Problem(f"is not a part of a pipeline ({_listed(('nodes', 'inputs', 'outputs'))})", key))
    tables = _tables(raw, "nodes", found)
    nodes = {name: node for name, table in tables.items() if (node := _node(name, table, found))}
    if not tables and not found:
        found.append(Problem("a pipeline has at least one table [nodes.NAME]"))
    fields = {
        name: field
        for name, table in _tables(raw, "inputs", found, texts="dtype").items()
        if (field := _field(name, table, found))
    }
    outputs: Any = raw.get("outputs")
    try:
        outputs = msgspec.convert(outputs, str | dict[str, str])
    except msgspec.ValidationError:
        reason = 'is a node\'s name, or a table such as label = "decide.label"'
        found.append(Problem(reason if outputs is not None else f"is missing: it {reason}", "outputs"))
    refuse(found, source)
    return Declared(nodes=nodes, inputs=fields, outputs=outputs)


def split_source(text: str) -> tuple[str, str | None] | None:
    """(place, element) of a source's text; None for what is no source."""
    match = _SOURCE.fullmatch(text.strip())
    return None if match is None else (match["place"], match["element"])


def refuse(problems: list[Problem], source: str) -> None:
    """Raises InvalidInput naming them all, if there are any."""
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        places = ", ".join(dict.fromkeys(problem.field for problem in problems if problem.field))
        error = InvalidInput(f"{source} is no pipeline yet: {count} in {places}.", tuple(problems))
        for problem in problems:  # a traceback shows notes; the command line lists the problems
            error.add_note(f"{problem.field}: {problem.reason}")
        raise error


def _tables(
    raw: Mapping[str, Any], group: str, found: list[Problem], *, texts: str | None = None
) -> dict[str, dict[str, Any]]:
    """The tables of a group by name; a plain text is a table whose key `texts` it is."""
    tables = raw.get(group, {})
    if not isinstance(tables, dict):
        found.append(Problem("holds tables", group))
        return {}
    result = {}
    for name, table in tables.items():
        if isinstance(table, dict):
            result[name] = table
        elif isinstance(table, str) and texts is not None:
            result[name] = {texts: table}
        else:
            found.append(Problem("is a table", f"{group}.{name}"))
    return result


def _node(name: str, table: dict[str, Any], found: list[Problem]) -> DeclaredNode | None:
    place = f"nodes.{name}"
    if re.fullmatch(NAME, name) is None or name == RESERVED:
        found.append(
            Problem("a node's name begins with a letter and holds letters, digits, - and _ only", place)
        )
        return None
    kinds = [kind for kind in _KEYS if kind in table]
    if len(kinds) != 1:
        told = f"has {' and '.join(kinds)}" if kinds else "says not what it is"
        found.append(Problem(f"{told}; give one of {_listed(_KEYS)}", place))
        return None
    (kind,) = kinds
    stray = [key for key in table if key not in {kind, "description", *_KEYS[kind]}]
    for key in stray:
        found.append(
            Problem(f"a {kind} has no {key!r}; it may have {_listed((*_KEYS[kind], 'description'))}", place)
        )
    try:
        return msgspec.convert({k: v for k, v in table.items() if k not in stray}, DeclaredNode)
    except msgspec.ValidationError as error:
        found.append(Problem(str(error), place))
        return None


def _field(name: str, table: dict[str, Any], found: list[Problem]) -> Field | None:
    try:
        return msgspec.convert({**table, "name": name}, Field)
    except (msgspec.ValidationError, ValueError) as error:
        found.append(Problem(str(error), f"inputs.{name}"))
        return None


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
