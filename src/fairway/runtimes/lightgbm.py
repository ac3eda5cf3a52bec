"""LightGBM boosters, from their own text file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Array
from fairway.core.contract import Contract
from fairway.core.errors import CorruptBundle
from fairway.runtimes.estimator import EstimatorEngine, input_form, task_of

_CLASSIFY = ("binary", "multiclass", "multiclassova", "cross_entropy")


def load(directory: Path, spec: EngineSpec, contract: Contract, threads: int) -> EstimatorEngine:
    """`spec.options`: input, dtypes and classes (JSON)."""
    import lightgbm  # optional: only bundles of this kind need it

    try:
        booster = lightgbm.Booster(model_str=(directory / spec.file).read_text())
    except lightgbm.basic.LightGBMError as error:
        raise CorruptBundle(f"LightGBM cannot load {directory / spec.file}: {error}") from error
    options = spec.options
    classes = np.array(json.loads(options["classes"])) if "classes" in options else None
    model = BoosterModel(booster, classes=classes, threads=threads)
    fields = spec.prepared_fields or tuple(field.name for field in contract)
    dtypes = json.loads(options.get("dtypes", "{}"))
    return EstimatorEngine(model, fields, task_of(model), input_form(options), dtypes)


class BoosterModel:
    """A booster with scikit-learn's verbs."""

    def __init__(self, booster: Any, *, classes: Array | None = None, threads: int = 1) -> None:
        self._booster = booster
        self._threads = threads
        head = booster.model_to_string(num_iteration=1).split("\nTree=", 1)[0]
        objective = next((line[10:] for line in head.splitlines() if line.startswith("objective=")), "")
        self._is_classifier = objective.split(" ")[0] in _CLASSIFY
        self._estimator_type = "classifier" if self._is_classifier else "regressor"
        names = booster.feature_name()
        if names != [f"Column_{i}" for i in range(len(names))]:
            self.feature_names_in_ = np.array(names, dtype=object)
        if self._is_classifier:
            count = max(booster.num_model_per_iteration(), 2)
            self.classes_ = np.arange(count) if classes is None else classes

    @property
    def booster(self) -> Any:
        return self._booster

    @property
    def has_categories(self) -> bool:
        return bool(self._booster.pandas_categorical)

    def predict(self, rows: Any) -> Array:
        if not self._is_classifier:
            return self._raw(rows)
        return np.asarray(self.classes_[np.argmax(self.predict_proba(rows), axis=1)])

    def predict_proba(self, rows: Any) -> Array:
        raw = self._raw(rows)
        return raw if raw.ndim == 2 else np.stack([1.0 - raw, raw], axis=1)

    def _raw(self, rows: Any) -> Array:
        return np.asarray(self._booster.predict(rows, num_threads=self._threads))
