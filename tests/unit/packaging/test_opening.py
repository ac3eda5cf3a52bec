"""Every kind of model is told by its bytes, opened, and predicts what it did before it was saved."""

from __future__ import annotations

import json
import pickle
import sys
import tarfile
import warnings
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from fairway.core.errors import (
    ArtifactError,
    CorruptBundle,
    EnvironmentMismatch,
    FairwayError,
    MissingExtra,
    NotFound,
    UnknownFormat,
    UntrustedArtifact,
)
from fairway.packaging.opening import open_model

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
QUIET: dict[str, Any] = {"iterations": 3, "verbose": 0, "allow_writing_files": False}


@pytest.fixture(scope="module")
def logistic() -> LogisticRegression:
    return LogisticRegression().fit(X, Y)


@pytest.mark.parametrize(
    "name", ["model.joblib", "model.pkl", "model.pickle", "model.z", "model.json", "model"]
)
def test_pickles_under_any_name(name: str, logistic: LogisticRegression, tmp_path: Path) -> None:
    path = tmp_path / name
    joblib.dump(logistic, path, compress=3 if name == "model.z" else 0)
    opened = open_model(path)
    assert (opened.kind, opened.path) == ("sklearn", path)
    np.testing.assert_array_equal(opened.model.predict_proba(X), logistic.predict_proba(X))
    path.write_bytes(pickle.dumps(logistic, 0))
    assert open_model(str(path)).kind == "sklearn"


def test_skops(logistic: LogisticRegression, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    skops.io.dump(logistic, path)
    opened = open_model(path)
    assert opened.kind == "sklearn"
    np.testing.assert_array_equal(opened.model.predict_proba(X), logistic.predict_proba(X))


def test_skops_with_unknown_code_is_refused_like_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(FunctionTransformer(json.dumps), path)
    with pytest.raises(UntrustedArtifact, match=r"--trust json\.dumps") as refused:
        open_model(path)
    assert refused.value.names == ("json.dumps",)


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_xgboost_remembers_what_it_was(suffix: str, tmp_path: Path) -> None:
    made = {
        "XGBClassifier": xgboost.XGBClassifier(n_estimators=3).fit(X, Y),
        "XGBRegressor": xgboost.XGBRegressor(n_estimators=3).fit(X, X[:, 1]),
        "XGBRanker": xgboost.XGBRanker(n_estimators=3).fit(X, Y, group=[30, 30]),
    }
    for name, model in made.items():
        path = tmp_path / f"model.{suffix}"
        model.save_model(path)
        opened = open_model(path)
        assert (opened.kind, type(opened.model).__name__) == ("sklearn", name)
        np.testing.assert_array_equal(opened.model.predict(X), model.predict(X))
        elsewhere = path.rename(tmp_path / "model.bin")
        np.testing.assert_array_equal(open_model(elsewhere).model.predict(X), model.predict(X))


def test_xgboost_booster(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(frame, Y), 3)
    for suffix in ("json", "ubj"):
        path = tmp_path / f"booster.{suffix}"
        booster.save_model(path)
        opened = open_model(path)
        assert (opened.kind, opened.model.feature_names) == ("xgboost", ["a", "b", "c"])
        rows = xgboost.DMatrix(frame)
        np.testing.assert_array_equal(opened.model.predict(rows), booster.predict(rows))


def test_lightgbm(tmp_path: Path) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, Y)
    path = tmp_path / "model.txt"
    model.booster_.save_model(path)
    opened = open_model(path)
    assert opened.kind == "lightgbm"
    assert "objective=binary" in opened.model.model_to_string()
    np.testing.assert_array_equal(opened.model.predict(X), model.predict_proba(X)[:, 1])
    path.write_text(path.read_text()[:800])
    with pytest.raises(CorruptBundle, match="breaks off"):
        open_model(path)


@pytest.mark.parametrize("form", ["cbm", "json"])
def test_catboost(form: str, tmp_path: Path) -> None:
    classifier = catboost.CatBoostClassifier(**QUIET).fit(X, np.array(["no", "yes"])[Y])
    regressor = catboost.CatBoostRegressor(**QUIET).fit(X, X[:, 1])
    for model in (classifier, regressor):
        path = tmp_path / "model.any"
        model.save_model(str(path), format=form)
        opened = open_model(path)
        assert opened.kind == "catboost"
        assert type(opened.model) is type(model)
        if model is classifier:
            np.testing.assert_array_equal(opened.model.predict(X), model.predict(X))
        else:  # JSON rounds leaf values in the last bit
            np.testing.assert_allclose(opened.model.predict(X), model.predict(X), rtol=1e-14)


def test_live_objects(logistic: LogisticRegression) -> None:
    booster = xgboost.train({}, xgboost.DMatrix(X, Y), 1)
    light = lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, Y), 1)
    cat = catboost.CatBoostRegressor(**QUIET).fit(X, Y)
    kinds = [(logistic, "sklearn"), (booster, "xgboost"), (light, "lightgbm"), (cat, "catboost")]
    for model, kind in kinds:
        opened = open_model(model)
        assert (opened.kind, opened.model, opened.path) == (kind, model, None)


def test_not_fitted(tmp_path: Path) -> None:
    for model in (LogisticRegression(), catboost.CatBoostRegressor(), xgboost.XGBClassifier()):
        with pytest.raises(ArtifactError, match="not fitted"):
            open_model(model)
    joblib.dump(LogisticRegression(), tmp_path / "m.joblib")
    with pytest.raises(ArtifactError, match=r"m\.joblib is not fitted"):
        open_model(tmp_path / "m.joblib")


def test_objects_that_are_no_models(logistic: LogisticRegression, tmp_path: Path) -> None:
    path = tmp_path / "both.joblib"
    joblib.dump({"model": logistic, "threshold": 0.4}, path)
    with pytest.raises(UnknownFormat, match="a dict with the keys 'model', 'threshold'"):
        open_model(path)
    joblib.dump(StandardScaler().fit(X), path)
    with pytest.raises(UnknownFormat, match=r"no predict\(\)"):
        open_model(path)
    with pytest.raises(UnknownFormat, match=r"no predict\(\)"):
        open_model(3)
    torch_module = type("Module", (), {"__module__": "torch.nn.modules.module"})
    with pytest.raises(UnknownFormat, match=r"torch\.onnx\.export"):
        open_model(torch_module())


def test_files_that_are_not_there_or_not_models(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        open_model(tmp_path / "none.joblib")
    with pytest.raises(UnknownFormat, match=r"a directory \(empty\)"):
        open_model(tmp_path)
    (tmp_path / "MLmodel").touch()
    with pytest.raises(UnknownFormat, match="an MLflow model"):
        open_model(tmp_path)
    empty = tmp_path / "empty.joblib"
    empty.touch()
    with pytest.raises(CorruptBundle, match="is empty"):
        open_model(empty)
    script = tmp_path / "model.py"
    script.write_text("def predict(rows): return rows")
    with pytest.raises(UnknownFormat, match=r"model\.py:predict"):
        open_model(script)


CONTENTS: dict[str, tuple[bytes, str]] = {
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "parquet": (b"PAR1" + bytes(64), "--data"),
    "arrow": (b"ARROW1\x00\x00" + bytes(64), "--data"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(64), "--data"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(64), "Zstandard"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
    "safetensors": (b"\x02\x00\x00\x00\x00\x00\x00\x00" + b'{"a":1}', "safetensors"),
    "old xgboost": (b"binf" + bytes(64), "old binary format"),
    "lightgbm dump": (b'{"name":"tree","tree_info":[]}', r"save_model\('model\.txt'\)"),
    "other json": (b'{"a": 1, "b": 2}', "JSON with the keys a, b"),
    "cut json": (b'{"learner": {"a"', "broken JSON"),
    "deep json": (b'{"a":' + b"[" * 100_000, "broken JSON"),
    "html": (b"<!doctype html><html>", "download it again"),
    "program": (b"\x7fELF\x02\x01", "a program"),
    "text": (b"just some notes\n", "of no kind known here"),
    "noise": (bytes(range(200, 256)), "of no kind known here"),
    "csv": (b"a,b\n1,2\n", "of no kind known here"),
}


@pytest.mark.parametrize("what", list(CONTENTS))
def test_other_contents_are_named(what: str, tmp_path: Path) -> None:
    content, said = CONTENTS[what]
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    with pytest.raises(UnknownFormat, match=said) as raised:
        open_model(path)
    assert "Fairway reads scikit-learn" in str(raised.value)
    assert str(path) in str(raised.value)


def test_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "x", "x")
    with pytest.raises(UnknownFormat, match="a tar archive"):
        open_model(tmp_path / "a.tar")
    np.savez(tmp_path / "a.npz", x=X)
    with pytest.raises(UnknownFormat, match="a numpy archive"):
        open_model(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost", "skops", "joblib", "xgboost json"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_files(kind: str, damage: str, tmp_path: Path, logistic: LogisticRegression) -> None:
    path = tmp_path / ("m.json" if kind == "xgboost json" else "m.ubj")
    if kind.startswith("xgboost"):
        xgboost.XGBClassifier(n_estimators=3).fit(X, Y).save_model(path)
    elif kind == "lightgbm":
        lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, Y).booster_.save_model(path)
    elif kind == "catboost":
        catboost.CatBoostClassifier(**QUIET).fit(X, Y).save_model(str(path))
    elif kind == "skops":
        skops.io.dump(logistic, path)
    else:
        joblib.dump(logistic, path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(ArtifactError):
            open_model(path)
        return
    for place in range(20, 60):
        data[place] ^= 0xFF
    path.write_bytes(data)
    try:
        open_model(path)
    except FairwayError:
        pass  # a changed number may go unnoticed here; the digest of a bundle is what finds that


def test_another_scikit_learn(logistic: LogisticRegression, tmp_path: Path) -> None:
    path = tmp_path / "old.skops"
    data = LogisticRegression().fit(X, Y)
    saved = data.__getstate__() | {"_sklearn_version": "1.0.2"}
    data.__class__.__getstate__ = lambda self: saved  # type: ignore[method-assign]
    try:
        skops.io.dump(data, path)
    finally:
        del data.__class__.__getstate__
    with pytest.raises(EnvironmentMismatch, match=r"pip install scikit-learn==1\.0\.2"):
        open_model(path)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_a_library_that_is_missing(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    if library == "xgboost":
        xgboost.XGBClassifier(n_estimators=1).fit(X, Y).save_model(tmp_path / "model.json")
        path = tmp_path / "model.json"
    elif library == "lightgbm":
        lightgbm.LGBMClassifier(n_estimators=1, verbose=-1).fit(X, Y).booster_.save_model(path)
    else:
        catboost.CatBoostClassifier(**QUIET).fit(X, Y).save_model(str(path))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'fairway\[{library}\]'"):
        open_model(path)


def test_an_older_xgboost_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XGBoost only warns; the warning becomes a refusal."""

    def warned(self: Any, state: dict[str, Any]) -> None:
        warnings.warn(
            "If you are loading a model generated by an older version of XGBoost, ...", stacklevel=2
        )
        self.__dict__.update(state)

    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(LogisticRegression().fit(X, Y)))
    monkeypatch.setattr(LogisticRegression, "__setstate__", warned)
    with pytest.raises(EnvironmentMismatch, match=r"save_model\('model\.json'\)"):
        open_model(path)
