"""Opens a Python function as a model, and finds the files it needs to run somewhere else."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

from fairway.core.errors import ArtifactError, NotFound, UnknownFormat

_ENTRY = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]*)")


def split_entry(text: str) -> tuple[Path, str] | None:
    """(file, function) of "file.py:function", or None when the text is not of that form."""
    match = _ENTRY.fullmatch(text)
    return None if match is None else (Path(match["file"]), match["function"])


def load_function(file: Path, function: str) -> Callable[..., Any]:
    """Runs a Python file and gives its function. The file's folder is importable while it runs."""
    if not file.is_file():
        raise NotFound(f"there is no file {file}.")
    folder = file.resolve().parent
    name = f"_fairway_model_{file.stem}"
    spec = util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise UnknownFormat(f"{file} cannot be imported as Python.")
    module = util.module_from_spec(spec)
    _forget_siblings(folder)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise ArtifactError(
            f"{file} cannot be run: {type(error).__name__}: {error}",
            hint="Everything it imports must be installed, or lie in its folder.",
        ) from error
    finally:
        sys.path.remove(str(folder))
    found = getattr(module, function, None)
    if not callable(found):
        known = sorted(n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_"))
        raise NotFound(
            f"{file} has no function {function!r}.", hint=f"It has: {', '.join(known)}." if known else None
        )
    return found  # type: ignore[no-any-return]


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
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise ArtifactError(f"{file.name} line {error.lineno} is not Python: {error.msg}.") from error
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


def _forget_siblings(folder: Path) -> None:
    """Another model's modules of the same names must not be found in place of this one's."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if file is None or Path(file).resolve().is_relative_to(folder):
            continue
        if (folder / f"{top}.py").is_file() and top not in sys.stdlib_module_names:
            del sys.modules[name]
