"""The tree model inside an estimator of any library."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairway.core.contract import Task
from fairway.packaging.conversion.catboost import read_catboost
from fairway.packaging.conversion.graph import Unsupported
from fairway.packaging.conversion.lightgbm import read_lightgbm
from fairway.packaging.conversion.tree_model import TreeModel
from fairway.packaging.conversion.trees import read_sklearn_trees
from fairway.packaging.conversion.xgboost import read_xgboost
from fairway.runtimes import lightgbm, xgboost
from fairway.runtimes.estimator import task_of


def read_trees(model: Any) -> TreeModel | None:
    """The tree model of any library inside a bare (not pipelined) estimator, or None. Raises `Unsupported`."""
    library, name = type(model).__module__.split(".")[0], type(model).__name__
    if type(model) is xgboost.BoosterModel:
        return read_xgboost(model.booster, classes=getattr(model, "classes_", None))
    if type(model) is lightgbm.BoosterModel:
        return read_lightgbm(model.booster, classes=getattr(model, "classes_", None))
    if library == "xgboost" and hasattr(model, "get_booster"):
        classes = np.asarray(model.classes_) if hasattr(model, "classes_") else None
        best = getattr(model, "best_iteration", None) if model.early_stopping_rounds else None
        if hasattr(model, "classes_") != (task_of(model) is Task.classification):
            raise Unsupported(f"{name} without labels")
        return read_xgboost(model.get_booster(), classes=classes, rounds=None if best is None else best + 1)
    if library == "lightgbm" and hasattr(model, "booster_"):
        classes = np.asarray(model.classes_) if hasattr(model, "classes_") else None
        return read_lightgbm(model.booster_, classes=classes)
    if library == "catboost":
        return read_catboost(model)
    return read_sklearn_trees(model)
