"""The user's own function, `file.py:function`, shipped in the bundle with the files it needs.

It takes a pandas DataFrame of the validated columns, or a dict of arrays when its only parameter is annotated
`dict`, and returns one array (served as `prediction`), a dict of arrays, or a DataFrame. Files beside it can be
imported at the top of the file, and read relative to `__file__`.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import CorruptBundle, ModelFailed
from fairway.runtimes.estimator import to_frame

_IMPORTING = threading.Lock()


def load(directory: Path, spec: EngineSpec, contract: Contract, threads: int) -> PythonEngine:
    """`spec.options`: function, and dtypes (JSON). `threads` means nothing to the user's code."""
    function = read_function(directory / spec.file, spec.options["function"])
    fields = spec.prepared_fields or tuple(field.name for field in contract)
    return PythonEngine(function, fields, json.loads(spec.options.get("dtypes", "{}")))


def read_function(path: Path, name: str) -> Callable[..., Any]:
    """Runs the file as a module of its own and returns the function.

    Modules it imports from its own folder are forgotten by the interpreter afterwards, so that two bundles
    with a `helpers.py` each keep their own.
    """
    folder = str(path.parent.resolve())
    module_name = f"_fairway_{abs(hash(str(path.resolve()))):x}_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise CorruptBundle(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    with _IMPORTING:
        before = set(sys.modules)
        writes_none, sys.dont_write_bytecode = (
            sys.dont_write_bytecode,
            True,
        )  # a bundle has only what it was sealed with
        sys.path.insert(0, folder)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise CorruptBundle(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        finally:
            sys.dont_write_bytecode = writes_none
            sys.path.remove(folder)
            for other in set(sys.modules) - before:
                file = getattr(sys.modules[other], "__file__", None)
                if file is not None and str(Path(file).resolve()).startswith(folder):
                    del sys.modules[other]
    function = getattr(module, name, None)
    if not callable(function):
        raise CorruptBundle(f"{path.name} has no function {name!r}.")
    return function  # type: ignore[no-any-return]


class PythonEngine:
    """A function as an engine. `dtypes` as in `runtimes.estimator.to_frame`."""

    def __init__(
        self, function: Callable[..., Any], fields: Sequence[str], dtypes: Mapping[str, str]
    ) -> None:
        self._function = function
        self._fields = tuple(fields)
        self._dtypes = dtypes
        self._takes_dict = takes_dict(function)

    def predict(self, columns: Columns) -> Outputs:
        if self._takes_dict:
            rows: Any = {name: columns[name] for name in self._fields}
        else:
            rows = to_frame(columns, self._fields, self._dtypes)
        name = getattr(self._function, "__name__", "function")
        try:
            answer = self._function(rows)
        except Exception as error:
            raise ModelFailed(f"the function {name} raised {type(error).__name__}: {error}") from error
        outputs = named_outputs(answer)
        for output, values in outputs.items():
            if values.ndim == 0 or len(values) != columns.rows:
                shape = list(values.shape)
                raise ModelFailed(
                    f"the function {name} gave {output!r} of shape {shape} for {columns.rows} rows; "
                    "it must give one answer a row."
                )
        return outputs

    def unload(self) -> None:
        del self._function


def takes_dict(function: Callable[..., Any]) -> bool:
    """Whether the function's only parameter is annotated as a dict (or Mapping)."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1:
        return False
    annotation = parameters[0].annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.split("[")[0].split(".")[-1] in ("dict", "Dict", "Mapping")


def named_outputs(answer: Any) -> Outputs:
    """A function's answer as arrays by name."""
    if hasattr(answer, "columns") and hasattr(answer, "to_numpy"):
        answer = {str(name): answer[name] for name in answer.columns}
    if isinstance(answer, Mapping):
        return {str(name): _plain(values) for name, values in answer.items()}
    return {"prediction": _plain(answer)}


def _plain(values: Any) -> Array:
    array = np.asarray(values)
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind == "O" and any(isinstance(value, str) for value in array.flat):
        texts = np.empty(array.size, dtype=object)
        texts[:] = [None if _is_null(value) else str(value) for value in array.flat]
        return texts.reshape(array.shape)
    return array


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN, as pandas has it
