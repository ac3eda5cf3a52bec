"""The reference page of the Python interface: each public function as the source has it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import fairway
from fairway import ray, spark

_HEAD = """# Python

What `import fairway` gives, and nothing else is public but what stands here and the errors in `fairway.core.errors`.

| name | |
|---|---|
| `fairway.Deployment` | what `deploy` gives: {deployment} |
| `fairway.LoadedModel` | what `load` gives: {loaded}; also a context manager |
| `fairway.FairwayError`, `fairway.InvalidInput`, `fairway.ContractViolation` | the errors an application handles |

`model` is a live object or a file's path (`"file.py:function"` for a function), `data` a DataFrame, an array or a file's
path. `deployment.engine` is `"onnx"` or `"native:sklearn"`, `"native:xgboost"`, `"native:lightgbm"`, `"native:catboost"`,
`"native:python"`. `deployment.proof` has `rows`, `label_flips`, `max_abs_diff`, `mean_abs_diff`, `reason` and `attempts`.

`LoadedModel.predict` takes a pandas or polars DataFrame, an Arrow table, a dict of columns, a list of dicts or a matrix,
and returns a dict of arrays:

| model | outputs |
|---|---|
| classifier | `label` [n], `probabilities` [n, classes] |
| regressor | `prediction` [n], or [n, targets] |
| anomaly detector | `label` [n], `score` [n] |
| ONNX | its own names |

It may be called from several threads. It raises `ContractViolation` or `MalformedInput` for data that does not fit, with
`problems` naming field, row and reason; all [errors](errors.md) derive from `FairwayError`.
"""
_LIVE = re.compile(r"<[^<>]*(?:<[^<>]*>[^<>]*)*>")
"""How Python shows a default that is an object."""


def python_page() -> str:
    functions: dict[str, Callable[..., Any]] = {
        f"fairway.{name}": getattr(fairway, name)
        for name in fairway.__all__
        if inspect.isfunction(getattr(fairway, name))
    }
    functions |= {"fairway.spark.score": spark.score, "fairway.ray.score": ray.score}
    loaded = [name for name in vars(fairway.LoadedModel) if not name.startswith("_")]
    head = _HEAD.format(
        deployment=", ".join(f"`{name}`" for name in fairway.Deployment.__struct_fields__),
        loaded=", ".join(f"`{name}`" for name in sorted({*loaded, "contract"})),
    )
    return "\n".join([head, *(_part(name, function) for name, function in functions.items())])


def _part(name: str, function: Callable[..., Any]) -> str:
    parameters = inspect.signature(function).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    signature = _LIVE.sub("...", str(inspect.Signature(plain)))
    return f"## `{name}`\n\n`{name.rpartition('.')[2]}{signature}`\n\n{inspect.getdoc(function)}\n"
