"""XGBoost boosters, from their own UBJSON or JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Array
from fairway.core.contract import Contract
from fairway.core.errors import CorruptBundle, UnknownFormat
from fairway.runtimes.estimator import EstimatorEngine, input_form, task_of

_CLASSIFY = ("binary:logistic", "multi:softprob", "multi:softmax")


def load(directory: Path, spec: EngineSpec, contract: Contract, threads: int) -> EstimatorEngine:
    """`spec.options`: input, dtypes, classes (JSON) and rounds as `BoosterModel` takes them."""
    import xgboost  # optional: only bundles of this kind need it

    booster = xgboost.Booster({"nthread": threads})
    try:
        booster.load_model(bytearray((directory / spec.file).read_bytes()))
    except xgboost.core.XGBoostError as error:
        raise CorruptBundle(f"XGBoost cannot load {directory / spec.file}: {error}") from error
    options = spec.options
    classes = np.array(json.loads(options["classes"])) if "classes" in options else None
    rounds = int(options["rounds"]) if "rounds" in options else None
    model = BoosterModel(booster, classes=classes, rounds=rounds)
    fields = spec.prepared_fields or tuple(field.name for field in contract)
    dtypes = json.loads(options.get("dtypes", "{}"))
    return EstimatorEngine(model, fields, task_of(model), input_form(options), dtypes)


class BoosterModel:
    """A booster with scikit-learn's verbs. `rounds` limits the boosting rounds used (early stopping)."""

    def __init__(self, booster: Any, *, classes: Array | None = None, rounds: int | None = None) -> None:
        self._booster = booster
        self._rounds = rounds or 0
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
        if objective.startswith(("binary:", "multi:")) and objective not in _CLASSIFY:
            raise UnknownFormat(f"XGBoost objective {objective!r} gives no probabilities.")
        self._estimator_type = "classifier" if objective in _CLASSIFY else "regressor"
        names = booster.feature_names
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        if objective in _CLASSIFY:
            count = self._scores(np.zeros((1, booster.num_features()), np.float32)).shape[1]
            self.classes_ = np.arange(count) if classes is None else classes

    @property
    def booster(self) -> Any:
        return self._booster

    @property
    def has_categories(self) -> bool:
        return "c" in (self._booster.feature_types or ())

    def predict(self, rows: Any) -> Array:
        if self._estimator_type == "regressor":
            return self._raw(rows)
        return np.asarray(self.classes_[np.argmax(self._scores(rows), axis=1)])

    def predict_proba(self, rows: Any) -> Array:
        return self._scores(rows)

    def _scores(self, rows: Any) -> Array:
        raw = self._raw(rows, margin=True)
        if raw.ndim == 1:
            probability = self._raw(rows)
            return np.stack([1.0 - probability, probability], axis=1)
        weights = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def _raw(self, rows: Any, *, margin: bool = False) -> Array:
        import xgboost  # optional: only bundles of this kind need it

        names = getattr(rows, "columns", None)
        matrix = xgboost.DMatrix(rows, enable_categorical=names is not None, nthread=1)
        limits = (0, self._rounds)
        result = self._booster.predict(
            matrix, output_margin=margin, iteration_range=limits, validate_features=names is not None
        )
        return np.asarray(result)
