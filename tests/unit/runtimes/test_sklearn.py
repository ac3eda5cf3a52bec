from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns
from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.errors import CorruptBundle, UntrustedArtifact
from fairway.packaging.skops_file import dump
from fairway.runtimes.base import load

X = np.random.default_rng(0).normal(size=(50, 2))
Y = (X[:, 0] > 0).astype(int)
CONTRACT = Contract(
    inputs=(Field(name="a", dtype=DType.float64), Field(name="b", dtype=DType.float64)),
    outputs=(Output(name="label", dtype=DType.int64),),
    task=Task.classification,
)
OPTIONS = {"input": "matrix", "dtypes": json.dumps({"a": "float64", "b": "float64"})}


def _spec(trusted: tuple[str, ...]) -> EngineSpec:
    return EngineSpec(kind="native:sklearn", file="engine/model.skops", trusted=trusted, options=OPTIONS)


def _write(folder: Path, model: object) -> tuple[str, ...]:
    data, trusted = dump(model)
    (folder / "engine").mkdir()
    (folder / "engine" / "model.skops").write_bytes(data)
    return trusted


def _columns() -> Columns:
    return Columns(("a", "b"), len(X), packed=X)


def test_the_answers_of_the_original(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, n_jobs=-1, random_state=0)).fit(X, Y)
    engine = load(tmp_path, _spec(_write(tmp_path, model)), CONTRACT, threads=1)
    outputs = engine.predict(_columns())
    np.testing.assert_array_equal(outputs["label"], model.predict(X))
    np.testing.assert_array_equal(outputs["probabilities"], model.predict_proba(X))
    engine.unload()


def test_one_call_keeps_to_its_threads(tmp_path: Path) -> None:
    from fairway.runtimes.sklearn import limit_threads

    model = make_pipeline(StandardScaler(), RandomForestClassifier(2, n_jobs=-1)).fit(X, Y)
    limit_threads(model, 1)
    assert model[-1].n_jobs == 1


def test_code_that_is_not_trusted(tmp_path: Path) -> None:
    trusted = _write(tmp_path, make_pipeline(FunctionTransformer(json.dumps), LinearRegression()))
    assert trusted == ("json.dumps",)
    with pytest.raises(UntrustedArtifact):
        load(tmp_path, _spec(()), CONTRACT)


def test_a_file_that_is_gone_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="cannot be read"):
        load(tmp_path, _spec(()), CONTRACT)
    _write(tmp_path, LinearRegression().fit(X, Y))
    path = tmp_path / "engine" / "model.skops"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptBundle):
        load(tmp_path, _spec(()), CONTRACT)


def test_importing_it_brings_no_scikit_learn() -> None:
    check = (
        "import sys, fairway.runtimes.sklearn, fairway.security.skops_file;"
        "bad = {'sklearn', 'pandas', 'scipy', 'skops', 'joblib', 'pyarrow'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
