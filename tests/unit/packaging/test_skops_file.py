from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import Birch
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from fairway.core.errors import ArtifactError, UntrustedArtifact
from fairway.packaging.skops_file import dump, load

X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
WORDS = [f"word{i % 7} other{i % 3}" for i in range(60)]

MODELS: dict[str, tuple[Any, Any]] = {
    "logistic": (LogisticRegression(), X),
    "forest": (RandomForestClassifier(4, random_state=0), X),
    "boosting": (GradientBoostingClassifier(n_estimators=3, random_state=0), X),
    "isolation": (IsolationForest(n_estimators=3, random_state=0), X),
    "neighbours": (KNeighborsClassifier(algorithm="kd_tree"), X),
    "svc": (SVC(), X),
    "text": (make_pipeline(TfidfVectorizer(), LogisticRegression()), WORDS),
    "numpy function": (make_pipeline(FunctionTransformer(np.arctan), LogisticRegression()), X),
}


@pytest.mark.parametrize("kind", list(MODELS))
def test_there_and_back(kind: str) -> None:
    model, rows = MODELS[kind]
    model.fit(rows, Y)
    data, trusted = dump(model)
    again = load(data, trusted)
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
    again.predict(rows[:5])
    assert dump(again)[0] == data, "the copy is stored in other bytes"
    assert dump(model)[0] == data, "predicting changed the bytes"


def test_regressor_and_boosters() -> None:
    import lightgbm
    import xgboost

    target = X[:, 1]
    for model in (
        HistGradientBoostingRegressor(max_iter=3),
        xgboost.XGBRegressor(n_estimators=2),
        lightgbm.LGBMRegressor(n_estimators=2, verbose=-1),
    ):
        model.fit(X, target)
        data, trusted = dump(model)
        assert trusted == tuple(sorted(trusted))
        np.testing.assert_array_equal(load(data, trusted).predict(X), model.predict(X))


SCRIPT = """
import hashlib, numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from fairway.packaging.skops_file import dump
rows = np.random.default_rng(0).normal(size=(60, 3))
labels = (rows[:, 0] > 0).astype(int)
model = make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0)).fit(rows, labels)
model.memo_words = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}
model.memo_sets = {frozenset({"a", "b", "c"}), frozenset({"d", "e"})} and {(1, "x"), (2, "y"), (3, "z")}
model.memo_bytes = b"some bytes"
words = TfidfVectorizer().fit([f"word{i} other{i % 3}" for i in range(40)])
print(hashlib.sha256(dump(model)[0]).hexdigest(), hashlib.sha256(dump(words)[0]).hexdigest())
"""


def test_the_same_bytes_in_every_process() -> None:
    """Other hash seeds, other addresses, another time: the same digest."""
    digests = set()
    for seed in ("0", "1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_shared_objects_stay_shared() -> None:
    shared = np.arange(3.0)
    model = FunctionTransformer()
    model.one, model.other, model.alone = shared, shared, shared.copy()
    data, trusted = dump(model)
    again = load(data, trusted)
    assert again.one is again.other
    assert again.alone is not again.one


def double(rows: Any) -> Any:
    return rows * 2


def test_own_code_must_be_trusted_by_name() -> None:
    model = make_pipeline(FunctionTransformer(double), LogisticRegression()).fit(X, Y)
    data, trusted = dump(model)
    assert trusted == (f"{__name__}.double",)
    np.testing.assert_array_equal(load(data, trusted).predict(X), model.predict(X))
    for wrong in ((), ("double",), (__name__,), (f"{__name__}.other",)):
        with pytest.raises(UntrustedArtifact) as refused:
            load(data, wrong)
        assert refused.value.names == trusted


def test_what_skops_cannot_store() -> None:
    with pytest.raises(ArtifactError, match="Birch cannot be stored without pickle"):
        dump(Birch().fit(X))
    unsupported = FunctionTransformer()
    unsupported.made = (value for value in X)
    with pytest.raises(ArtifactError, match="FunctionTransformer cannot be stored without pickle"):
        dump(unsupported)


def test_a_lambda_is_never_loaded() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data, trusted = dump(FunctionTransformer(lambda rows: rows))
        except ArtifactError:
            return
    with pytest.raises(ArtifactError):
        load(data, trusted)


def test_the_digest_is_of_the_model_alone() -> None:
    one = LogisticRegression(C=1.0).fit(X, Y)
    two = LogisticRegression(C=2.0).fit(X, Y)
    assert hashlib.sha256(dump(one)[0]).digest() != hashlib.sha256(dump(two)[0]).digest()
