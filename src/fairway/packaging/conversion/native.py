"""The native form of a model: the library's own data format, or skops; never pickle."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.bundle import EngineSpec
from fairway.core.contract import Contract
from fairway.core.errors import UnknownFormat
from fairway.packaging.conversion.feeding import dtypes_of, form_of
from fairway.packaging.skops_file import dump
from fairway.packaging.source import Sample, SourceModel
from fairway.runtimes import catboost, lightgbm, xgboost
from fairway.runtimes.isolated.engine import KIND as ISOLATED
from fairway.runtimes.isolated.lock import LOCK


def as_estimator(model: Any) -> Any:
    """A bare booster as an object with scikit-learn's verbs; estimators as they are."""
    library, name = type(model).__module__.split(".")[0], type(model).__name__
    if library == "xgboost" and name == "Booster":
        return xgboost.BoosterModel(model)
    if library == "lightgbm" and name == "Booster":
        return lightgbm.BoosterModel(model)
    if library == "catboost":
        return catboost.typed(model)
    return model


def native_files(
    source: SourceModel, estimator: Any, contract: Contract, sample: Sample
) -> tuple[EngineSpec, dict[str, bytes]]:
    """The engine spec and the files of the native engine that fits the model."""
    dtypes = json.dumps(dtypes_of(sample), sort_keys=True)
    if source.kind == "python":
        return _python(source, dtypes)
    form = form_of(estimator, sample)
    options = {"input": form, "dtypes": dtypes}
    library = type(estimator).__module__.split(".")[0]
    booster = getattr(estimator, "booster", None)
    if library == "xgboost" or (booster is not None and type(booster).__module__.startswith("xgboost")):
        return _xgboost(estimator, options)
    if library == "lightgbm" or (booster is not None and type(booster).__module__.startswith("lightgbm")):
        return _lightgbm(estimator, options)
    if library == "catboost":
        return _catboost(estimator, options)
    data, trusted = dump(estimator)
    spec = EngineSpec(kind="native:sklearn", file="engine/model.skops", trusted=trusted, options=options)
    return spec, {spec.file: data}


def _xgboost(estimator: Any, options: dict[str, str]) -> tuple[EngineSpec, dict[str, bytes]]:
    wrapped = hasattr(estimator, "get_booster")
    booster = estimator.get_booster() if wrapped else estimator.booster
    best = getattr(estimator, "best_iteration", None) if wrapped and estimator.early_stopping_rounds else None
    rounds = {} if best is None else {"rounds": str(best + 1)}
    options = options | _classes(estimator) | rounds
    spec = EngineSpec(kind="native:xgboost", file="engine/model.ubj", options=options)
    return spec, {spec.file: bytes(booster.save_raw("ubj"))}


def _lightgbm(estimator: Any, options: dict[str, str]) -> tuple[EngineSpec, dict[str, bytes]]:
    booster = estimator.booster_ if hasattr(estimator, "booster_") else estimator.booster
    spec = EngineSpec(kind="native:lightgbm", file="engine/model.txt", options=options | _classes(estimator))
    return spec, {spec.file: booster.model_to_string().encode()}


def _catboost(model: Any, options: dict[str, str]) -> tuple[EngineSpec, dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cbm"
        model.save_model(str(path))
        data = path.read_bytes()
    spec = EngineSpec(kind="native:catboost", file="engine/model.cbm", options=options)
    return spec, {spec.file: data}


def _classes(estimator: Any) -> dict[str, str]:
    if not hasattr(estimator, "classes_"):
        return {}
    return {"classes": json.dumps(np.asarray(estimator.classes_).tolist())}


def _python(source: SourceModel, dtypes: str) -> tuple[EngineSpec, dict[str, bytes]]:
    if source.path is None or source.entry is None:
        raise UnknownFormat(
            "a Python function is packaged as file.py:function, so that its file can be shipped."
        )
    function = source.entry.rpartition(":")[2]
    files = {f"engine/{source.path.name}": source.path.read_bytes()}
    files |= {f"engine/{name}": path.read_bytes() for name, path in sorted(source.files.items())}
    kind, options = "native:python", {"function": function, "dtypes": dtypes}
    if source.isolated is not None:
        kind, options = ISOLATED, {**options, "lock": LOCK}
        files[LOCK] = source.isolated.lock.text.encode()
    spec = EngineSpec(kind=kind, file=f"engine/{source.path.name}", options=options)
    return spec, files
