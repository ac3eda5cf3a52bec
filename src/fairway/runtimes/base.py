"""The port every engine implements, and the table that finds the engine for a bundle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import MissingExtra, UnknownFormat
from fairway.core.pipeline import KIND as PIPELINE
from fairway.core.settings import IsolationSettings


class Engine(Protocol):
    """A loaded model.

    `predict` takes validated columns with at least one row and returns the contract's outputs by name, rows
    first. It may be called from several threads at once. It raises `ModelFailed` when the model itself fails.
    An engine that has `may_block = True` may wait for another process, and is never called in an event loop.
    """

    def predict(self, columns: Columns) -> Outputs: ...

    def unload(self) -> None: ...


@runtime_checkable
class Graph(Protocol):
    """An engine made of nodes. `timings` is told (node, rows, seconds) after each time a node ran, from the thread
    that called `predict`."""

    timings: Callable[[str, int, float], None]


ENGINES: dict[str, tuple[str, str]] = {
    "onnx": ("fairway.runtimes.onnx:load", ""),
    "native:sklearn": ("fairway.runtimes.sklearn:load", "sklearn"),
    "native:xgboost": ("fairway.runtimes.xgboost:load", "xgboost"),
    "native:lightgbm": ("fairway.runtimes.lightgbm:load", "lightgbm"),
    "native:catboost": ("fairway.runtimes.catboost:load", "catboost"),
    "native:python": ("fairway.runtimes.python:load", ""),
    "isolated:python": ("fairway.runtimes.isolated.engine:load", ""),
    PIPELINE: ("fairway.runtimes.pipeline:load", ""),
}
"""Engine kind -> (where its loader is, the extra that installs what it needs)."""
ISOLATED = "isolated:"
"""Kinds that run in processes of their own begin so."""
PREPARED = "fairway.runtimes.prepared"
"""Runs the user's preparation before an engine of any kind."""


def load(
    directory: Path,
    spec: EngineSpec,
    contract: Contract,
    *,
    threads: int = 1,
    isolation: IsolationSettings | None = None,
    name: str = "",
) -> Engine:
    """Loads the engine of an unpacked, verified bundle, behind its preparation where it has one.

    `isolation` says where and how models with an environment of their own run; `name` is how their messages and logs
    call the model.
    """
    if spec.prepare is not None:
        inner = partial(load, threads=threads, isolation=isolation, name=name)
        prepared = import_module(PREPARED)  # by name: it needs pandas, and loads its inner engine here
        return cast(Engine, prepared.load(directory, spec, contract, inner))
    if spec.kind not in ENGINES:
        raise UnknownFormat(
            f"engine {spec.kind!r} is not one this Fairway knows ({', '.join(ENGINES)}).",
            hint="Upgrade Fairway or package the model again.",
        )
    where, extra = ENGINES[spec.kind]
    module, _, attribute = where.partition(":")
    try:
        loader: Any = getattr(import_module(module), attribute)
        if spec.kind.startswith(ISOLATED) or spec.kind == PIPELINE:  # which may hold such models
            loader = partial(loader, isolation=isolation or IsolationSettings(), name=name)
        return cast(Engine, loader(directory, spec, contract, threads))
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"engine {spec.kind!r} needs the package {error.name!r}.",
            hint=f"Install it with: pip install 'fairway[{extra}]'" if extra else None,
        ) from error
