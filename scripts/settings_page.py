"""The reference page of settings: every field with its default and its docstring, read from the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

import msgspec

from fairway.core.settings import Settings

_HEAD = """# Settings

They stand in `fairway.toml` in the home, a table for each group; an unknown name is refused. A variable of the environment
overrides the file: `FAIRWAY_SERVING_PORT=9000` is `port` of `[serving]`, and so for every group and field. Options of a
command override both.
"""


def settings_page() -> str:
    parts = [_HEAD]
    for field in msgspec.structs.fields(Settings):
        if field.name != "home":
            parts += _group(field.name, _struct_in(field.type), field.type)
    return "\n".join(parts)


def _group(name: str, kind: type[msgspec.Struct], annotation: Any) -> Iterator[str]:
    """The group's part, and after it those of tables inside it."""
    by_name = get_origin(annotation) is dict
    listed = annotation is not kind and not by_name
    yield f"## `{f'[[{name}]]' if listed else f'[{name}.NAME]' if by_name else f'[{name}]'}`\n"
    source = _class(kind)
    if (own := ast.get_docstring(source)) is not None:
        yield own + "\n"
    told = _docstrings(kind)
    yield "| name | default | meaning |\n|---|---|---|"
    inner = []
    for field in msgspec.structs.fields(kind):
        below = _struct_in(field.type)
        if below is not None:
            inner.append((f"{name}.{field.name}", below, field.type))
            continue
        yield f"| `{field.name}` | {_default(field)} | {_meaning(field.type, told.get(field.name, ''))} |"
    yield ""
    for path, below, below_annotation in inner:
        yield from _group(path, below, below_annotation)


def _struct_in(annotation: Any) -> Any:
    """The struct that a field's type is or holds; None where it holds none."""
    for found in (annotation, *get_args(annotation)):
        if isinstance(found, type) and issubclass(found, msgspec.Struct):
            return found
    return None


def _class(kind: type[msgspec.Struct]) -> ast.ClassDef:
    found = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(found, ast.ClassDef)
    return found


def _docstrings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Field -> the string behind it, also of fields that another struct lends."""
    lenders = [
        base for base in kind.__mro__ if issubclass(base, msgspec.Struct) and base is not msgspec.Struct
    ]
    body = [statement for base in reversed(lenders) for statement in _class(base).body]
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "needed"
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return ""
    text = f"{value:g}" if isinstance(value, float) else msgspec.json.encode(value).decode()
    mebibytes = value // 2**20 if field.name.endswith("bytes") and value % 2**20 == 0 else 0
    return f"`{text}` ({mebibytes:,} MiB)" if mebibytes else f"`{text}`"


def _meaning(annotation: Any, told: str) -> str:
    """What is told, and the words or the range that a value may have."""
    kinds = (annotation, *get_args(annotation))
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    bounds = [bound for kind in kinds for bound in _bounds(kind)]
    parts = [told, f"One of {', '.join(f'`{word}`' for word in words)}." if words else ""]
    parts.append(f"({', '.join(bounds)})" if bounds else "")
    return " ".join(part for part in parts if part).replace("|", "\\|")


def _bounds(kind: Any) -> Iterator[str]:
    for meta in getattr(kind, "__metadata__", ()):
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            bound = getattr(meta, name, None)
            if bound is not None:
                yield f"{sign} {bound:,}"
