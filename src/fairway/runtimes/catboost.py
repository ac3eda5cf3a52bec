"""CatBoost models, from their own .cbm file."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from fairway.core.bundle import EngineSpec
from fairway.core.contract import Contract
from fairway.core.errors import CorruptBundle
from fairway.runtimes.estimator import EstimatorEngine, input_form, task_of

_CLASSIFY = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")


def load(directory: Path, spec: EngineSpec, contract: Contract, threads: int) -> EstimatorEngine:
    """`spec.options`: input and dtypes (JSON)."""
    model = read_model(directory / spec.file)
    fields = spec.prepared_fields or tuple(field.name for field in contract)
    dtypes = json.loads(spec.options.get("dtypes", "{}"))
    return EstimatorEngine(
        _Threaded(model, threads), fields, task_of(model), input_form(spec.options), dtypes
    )


def read_model(path: Path) -> Any:
    """The model in a .cbm file as the estimator that fits its loss function."""
    import catboost  # optional: only bundles of this kind need it

    try:
        return typed(catboost.CatBoost().load_model(str(path)))
    except catboost.CatBoostError as error:
        raise CorruptBundle(f"CatBoost cannot load {path}: {error}") from error


def typed(model: Any) -> Any:
    """A plain `CatBoost` object as the classifier or regressor it holds; other models as they are."""
    import catboost  # optional: only bundles of this kind need it

    if type(model) is not catboost.CatBoost:
        return model
    loss, *_ = str(model.get_all_params().get("loss_function", "")).split(":")
    return catboost.to_classifier(model) if loss in _CLASSIFY else catboost.to_regressor(model)


class _Threaded:
    """The model with its number of threads given at each call, which is the only place CatBoost takes it."""

    def __init__(self, model: Any, threads: int) -> None:
        self._estimator_type = model._estimator_type
        self.feature_names_ = model.feature_names_
        self.predict = functools.partial(model.predict, thread_count=threads)
        if hasattr(model, "predict_proba"):
            self.predict_proba = functools.partial(model.predict_proba, thread_count=threads)
