"""The native engines of XGBoost, LightGBM and CatBoost: loaded from files, they answer as the live models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import CorruptBundle, UnknownFormat
from fairway.runtimes.base import load
from fairway.runtimes.catboost import typed
from fairway.runtimes.xgboost import BoosterModel

_rng = np.random.default_rng(0)
ROWS = _rng.normal(size=(200, 3))
THREE = np.digitize(ROWS[:, 0], [-0.5, 0.5])
NAMED = np.array(["low", "mid", "high"])[THREE]
CONTRACT = Contract(inputs=tuple(Field(name=name, dtype=DType.float64) for name in "abc"), outputs=())
COLUMNS = Columns(("a", "b", "c"), 200, packed=ROWS)
CLASSES = json.dumps(["high", "low", "mid"])


def _xgboost(path: Path, target: Any) -> Any:
    model = xgboost.XGBRegressor if target.dtype.kind == "f" else xgboost.XGBClassifier
    fitted = model(n_estimators=5, n_jobs=1).fit(ROWS, target)
    fitted.get_booster().save_model(path)
    return fitted


def _lightgbm(path: Path, target: Any) -> Any:
    model = lightgbm.LGBMRegressor if target.dtype.kind == "f" else lightgbm.LGBMClassifier
    fitted = model(n_estimators=5, n_jobs=1, verbose=-1).fit(ROWS, target)
    fitted.booster_.save_model(path)
    return fitted


def _catboost(path: Path, target: Any) -> Any:
    model = catboost.CatBoostRegressor if target.dtype.kind == "f" else catboost.CatBoostClassifier
    fitted = model(iterations=5, verbose=0, allow_writing_files=False, thread_count=1).fit(ROWS, target)
    fitted.save_model(str(path))
    return fitted


LIBRARIES: dict[str, tuple[str, Callable[[Path, Any], Any]]] = {
    "native:xgboost": ("model.ubj", _xgboost),
    "native:lightgbm": ("model.txt", _lightgbm),
    "native:catboost": ("model.cbm", _catboost),
}


def _load(kind: str, folder: Path, **options: str) -> Any:
    spec = EngineSpec(kind=kind, file=LIBRARIES[kind][0], options={"input": "matrix", **options})
    return load(folder, spec, CONTRACT)


@pytest.mark.parametrize("kind", LIBRARIES)
@pytest.mark.parametrize("target", [THREE, (THREE > 0).astype(int)], ids=["three", "two"])
def test_classifiers(kind: str, target: Any, tmp_path: Path) -> None:
    file, save = LIBRARIES[kind]
    live = save(tmp_path / file, target)
    outputs = _load(kind, tmp_path).predict(COLUMNS)
    assert np.array_equal(outputs["label"], np.ravel(live.predict(ROWS)))
    assert np.allclose(outputs["probabilities"], live.predict_proba(ROWS), atol=1e-6)


@pytest.mark.parametrize("kind", LIBRARIES)
def test_regressors(kind: str, tmp_path: Path) -> None:
    file, save = LIBRARIES[kind]
    live = save(tmp_path / file, ROWS[:, 0] * 2)
    assert np.allclose(_load(kind, tmp_path).predict(COLUMNS)["prediction"], live.predict(ROWS))


def test_lightgbm_labels_come_from_the_options(tmp_path: Path) -> None:
    live = _lightgbm(tmp_path / "model.txt", NAMED)
    outputs = _load("native:lightgbm", tmp_path, classes=CLASSES).predict(COLUMNS)
    assert outputs["label"].tolist() == live.predict(ROWS).tolist()


def test_catboost_knows_its_own_labels(tmp_path: Path) -> None:
    live = _catboost(tmp_path / "model.cbm", NAMED)
    assert (
        _load("native:catboost", tmp_path).predict(COLUMNS)["label"].tolist()
        == np.ravel(live.predict(ROWS)).tolist()
    )


def test_xgboost_rounds_are_limited(tmp_path: Path) -> None:
    live = _xgboost(tmp_path / "model.ubj", THREE)
    outputs = _load("native:xgboost", tmp_path, rounds="2").predict(COLUMNS)
    assert np.allclose(outputs["probabilities"], live.predict_proba(ROWS, iteration_range=(0, 2)), atol=1e-6)


@pytest.mark.parametrize("kind", LIBRARIES)
def test_a_damaged_file_is_named(kind: str, tmp_path: Path) -> None:
    file, save = LIBRARIES[kind]
    save(tmp_path / file, THREE)
    (tmp_path / file).write_bytes(b"damaged" + (tmp_path / file).read_bytes()[7:200])
    with pytest.raises(CorruptBundle, match=file):
        _load(kind, tmp_path)


def test_an_objective_without_probabilities_is_refused() -> None:
    hinge = xgboost.XGBClassifier(n_estimators=2, objective="binary:hinge").fit(ROWS, (THREE > 0).astype(int))
    with pytest.raises(UnknownFormat, match="binary:hinge"):
        BoosterModel(hinge.get_booster())


def test_a_plain_catboost_object_is_taken_by_its_loss() -> None:
    plain = catboost.CatBoost(
        {"loss_function": "MultiClass", "iterations": 3, "verbose": 0, "allow_writing_files": False}
    )
    assert typed(plain.fit(ROWS, THREE))._estimator_type == "classifier"
    plain = catboost.CatBoost(
        {"loss_function": "RMSE", "iterations": 3, "verbose": 0, "allow_writing_files": False}
    )
    assert typed(plain.fit(ROWS, ROWS[:, 0]))._estimator_type == "regressor"
