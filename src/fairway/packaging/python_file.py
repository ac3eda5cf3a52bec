"""Opens a Python function as a model, and finds the files it needs to run somewhere else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fairway.core.errors import ArtifactError, NotFound, UnknownFormat
from fairway.runtimes.python import read_function

_ENTRY = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]*)")


def split_entry(text: str) -> tuple[Path, str] | None:
    """(file, function) of "file.py:function", or None when the text is not of that form."""
    match = _ENTRY.fullmatch(text)
    return None if match is None else (Path(match["file"]), match["function"])


def load_function(file: Path, function: str) -> Callable[..., Any]:
    """Runs a Python file and gives its function, as the server will. The file's folder is importable meanwhile."""
    if not file.is_file():
        raise NotFound(f"there is no file {file}.")
    known = _top_level_names(file)
    if function not in known:
        shown = ", ".join(sorted(name for name in known if not name.startswith("_")))
        raise NotFound(f"{file} has no function {function!r}.", hint=f"It has: {shown}." if shown else None)
    return read_function(file, function)


def _top_level_names(file: Path) -> set[str]:
    names: set[str] = set()
    for node in _parsed(file).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ArtifactError(
            f"{file.name} is not Python{f', line {line}' if line else ''}: {error}."
        ) from error


def source_of(function: Callable[..., Any]) -> tuple[Path, str]:
    """(file, name) of a live top-level function, so that another process can import it.

    Raises `UnknownFormat` for lambdas, methods, instances and functions typed into a prompt.
    """
    name = getattr(function, "__qualname__", "")
    hint = "Put it into a file as a plain function and package file.py:function."
    if not inspect.isfunction(function) or not name.isidentifier():
        shown = name or type(function).__name__
        raise UnknownFormat(
            f"{shown} is not a top-level Python function: no other process could find it.", hint=hint
        )
    if "." in function.__module__:
        raise UnknownFormat(f"{name} lives inside the package {function.__module__}.", hint=hint)
    file = inspect.getsourcefile(function)
    if file is None or not Path(file).is_file():
        raise UnknownFormat(f"{name} has no source file.", hint=hint)
    return Path(file), name


def needed_files(file: Path, extra: tuple[str | Path, ...] = ()) -> dict[str, Path]:
    """The file, the modules of its folder that it imports (and those they import), and `extra` files or folders.

    Keys are paths relative to the folder, with slashes.
    """
    folder = file.resolve().parent
    found: dict[str, Path] = {}
    pending = [file.resolve()]
    while pending:
        current = pending.pop()
        key = current.relative_to(folder).as_posix()
        if key in found:
            continue
        found[key] = current
        if current.suffix == ".py":
            pending.extend(_siblings(current, folder))
    for given in extra:
        path = Path(given) if Path(given).is_absolute() else folder / given
        if not path.exists():
            raise NotFound(f"there is no file {given}, neither here nor in {folder}.")
        if not path.resolve().is_relative_to(folder):
            raise ArtifactError(
                f"{given} lies outside {folder}.", hint="Copy it into the folder of the model."
            )
        for item in _files_below(path.resolve()):
            found[item.relative_to(folder).as_posix()] = item
    return dict(sorted(found.items()))


def _siblings(file: Path, folder: Path) -> Iterator[Path]:
    tree = _parsed(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = folder
            if node.level:
                base = file.parent
                for _ in range(node.level - 1):
                    base = base.parent
                if not base.is_relative_to(folder):
                    continue
            parts = node.module.split(".") if node.module else []
            yield from _module_files(base, parts)
            for alias in node.names:
                yield from _module_files(base, [*parts, alias.name])


def _module_files(base: Path, parts: list[str]) -> Iterator[Path]:
    """The file of a module below `base`, and the `__init__.py` of the packages on the way to it."""
    for depth in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:depth])
        for candidate in (place / "__init__.py", place.with_suffix(".py")):
            if candidate.is_file() and candidate.resolve().is_relative_to(base.resolve()):
                yield candidate.resolve()
                break


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for item in sorted(path.rglob("*")):
        if item.is_file() and "__pycache__" not in item.parts:
            yield item
