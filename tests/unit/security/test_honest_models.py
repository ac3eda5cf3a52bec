"""Models as people save them open with no trust at all, and predict what they did."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import (
    calibration,
    cluster,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    isotonic,
    kernel_approximation,
    linear_model,
    mixture,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from fairway.security.pickle_file import load_pickle

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(80, 4))
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
NAMES = np.array(["no", "yes"])[Y]
VALUES = X @ np.array([1.0, -2.0, 0.5, 0.0])
FRAME = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": np.where(X[:, 2] > 0, "u", "v")})
FRAME.loc[::7, "a"] = np.nan
WORDS = [f"word{i % 7} other{i % 3} thing" for i in range(80)]


def _columns() -> Any:
    number = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    text = preprocessing.OneHotEncoder(handle_unknown="ignore")
    return compose.ColumnTransformer([("n", number, ["a", "b"]), ("c", text, ["c"])])


def _estimators() -> dict[str, tuple[Callable[[], Any], Any, Any]]:
    import catboost
    import lightgbm
    import xgboost

    logistic = linear_model.LogisticRegression
    few: dict[str, Any] = {"n_estimators": 4, "random_state": 0}
    quiet: dict[str, Any] = {"iterations": 3, "verbose": 0, "allow_writing_files": False}
    make = pipeline.make_pipeline
    return {
        "logistic": (logistic, X, NAMES),
        "ridge": (linear_model.Ridge, X, VALUES),
        "lasso cv": (lambda: linear_model.LassoCV(cv=3), X, VALUES),
        "elastic net": (linear_model.ElasticNet, X, VALUES),
        "sgd": (lambda: linear_model.SGDClassifier(random_state=0), X, Y),
        "huber": (linear_model.HuberRegressor, X, VALUES),
        "poisson": (linear_model.PoissonRegressor, X, np.abs(VALUES)),
        "tweedie": (lambda: linear_model.TweedieRegressor(power=1.5), X, np.abs(VALUES) + 1),
        "tree": (tree.DecisionTreeClassifier, X, NAMES),
        "tree regressor": (tree.DecisionTreeRegressor, X, VALUES),
        "forest": (lambda: ensemble.RandomForestClassifier(**few), X, NAMES),
        "extra trees": (lambda: ensemble.ExtraTreesRegressor(**few), X, VALUES),
        "gradient boosting": (lambda: ensemble.GradientBoostingClassifier(**few), X, Y),
        "gradient boosting regressor": (
            lambda: ensemble.GradientBoostingRegressor(loss="huber", **few),
            X,
            VALUES,
        ),
        "histogram boosting": (lambda: ensemble.HistGradientBoostingClassifier(max_iter=4), X, NAMES),
        "histogram boosting regressor": (
            lambda: ensemble.HistGradientBoostingRegressor(max_iter=4, loss="poisson"),
            X,
            np.abs(VALUES),
        ),
        "histogram boosting of three": (
            lambda: ensemble.HistGradientBoostingClassifier(max_iter=3),
            X,
            Y + (X[:, 3] > 1),
        ),
        "adaboost": (lambda: ensemble.AdaBoostClassifier(**few), X, Y),
        "bagging": (lambda: ensemble.BaggingClassifier(**few), X, Y),
        "isolation forest": (lambda: ensemble.IsolationForest(**few), X, None),
        "svc": (svm.SVC, X, NAMES),
        "svr": (svm.SVR, X, VALUES),
        "linear svc": (svm.LinearSVC, X, Y),
        "one class svm": (svm.OneClassSVM, X, None),
        "kd tree neighbours": (lambda: neighbors.KNeighborsClassifier(algorithm="kd_tree"), X, NAMES),
        "ball tree neighbours": (
            lambda: neighbors.KNeighborsRegressor(algorithm="ball_tree", metric="manhattan"),
            X,
            VALUES,
        ),
        "local outlier factor": (lambda: neighbors.LocalOutlierFactor(novelty=True), X, None),
        "gaussian process": (
            lambda: gaussian_process.GaussianProcessRegressor(RBF() + WhiteKernel(), random_state=0),
            X,
            VALUES,
        ),
        "gaussian process classifier": (
            lambda: gaussian_process.GaussianProcessClassifier(1.0 * RBF()),
            X,
            Y,
        ),
        "perceptron": (lambda: neural_network.MLPClassifier((5,), max_iter=20, random_state=0), X, NAMES),
        "naive bayes": (naive_bayes.GaussianNB, X, NAMES),
        "discriminant": (discriminant_analysis.LinearDiscriminantAnalysis, X, Y),
        "isotonic": (isotonic.IsotonicRegression, X[:, 0], VALUES),
        "calibrated": (lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=3), X, NAMES),
        "calibrated isotonic": (
            lambda: calibration.CalibratedClassifierCV(logistic(), method="isotonic", cv=3),
            X,
            Y,
        ),
        "stacking": (
            lambda: ensemble.StackingClassifier(
                [("a", logistic()), ("b", tree.DecisionTreeClassifier())], cv=3
            ),
            X,
            NAMES,
        ),
        "voting": (
            lambda: ensemble.VotingRegressor([("a", linear_model.Ridge()), ("b", svm.SVR())]),
            X,
            VALUES,
        ),
        "grid search": (
            lambda: model_selection.GridSearchCV(
                logistic(), {"C": [0.1, 1.0]}, cv=model_selection.KFold(3), scoring="roc_auc"
            ),
            X,
            Y,
        ),
        "one against rest": (lambda: multiclass.OneVsRestClassifier(logistic()), X, NAMES),
        "several targets": (
            lambda: multioutput.MultiOutputRegressor(linear_model.Ridge()),
            X,
            np.c_[VALUES, VALUES],
        ),
        "own threshold": (
            lambda: model_selection.TunedThresholdClassifierCV(logistic(), scoring="f1", cv=3),
            X,
            Y,
        ),
        "target transformed": (
            lambda: compose.TransformedTargetRegressor(
                linear_model.Ridge(), func=np.cbrt, inverse_func=np.square
            ),
            X,
            VALUES,
        ),
        "k-means": (lambda: cluster.KMeans(3, random_state=0, n_init=2), X, None),
        "mixture": (lambda: mixture.GaussianMixture(2, random_state=0), X, None),
        "columns": (lambda: make(_columns(), logistic()), FRAME, NAMES),
        "columns and trees": (lambda: make(_columns(), ensemble.RandomForestClassifier(**few)), FRAME, Y),
        "functions of numpy": (
            lambda: make(
                preprocessing.FunctionTransformer(np.arctan), preprocessing.SplineTransformer(), logistic()
            ),
            X,
            Y,
        ),
        "selection and components": (
            lambda: make(feature_selection.SelectKBest(k=3), decomposition.PCA(2), logistic()),
            X,
            Y,
        ),
        "more preparation": (
            lambda: make(
                preprocessing.QuantileTransformer(n_quantiles=10),
                preprocessing.PolynomialFeatures(2),
                preprocessing.KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
                kernel_approximation.Nystroem(n_components=5, random_state=0),
                logistic(),
            ),
            X,
            Y,
        ),
        "neighbours impute": (lambda: make(impute.KNNImputer(), logistic()), X, Y),
        "target encoder": (
            lambda: make(
                compose.ColumnTransformer([("c", preprocessing.TargetEncoder(cv=3, random_state=0), ["c"])]),
                logistic(),
            ),
            FRAME,
            Y,
        ),
        "words": (lambda: make(TfidfVectorizer(ngram_range=(1, 2)), logistic()), WORDS, NAMES),
        "hashed words": (lambda: make(HashingVectorizer(n_features=64), logistic()), WORDS, Y),
        "xgboost": (lambda: xgboost.XGBClassifier(n_estimators=3), X, Y),
        "xgboost regressor": (lambda: xgboost.XGBRegressor(n_estimators=3), X, VALUES),
        "xgboost forest": (lambda: xgboost.XGBRFRegressor(n_estimators=3), X, VALUES),
        "xgboost in a pipeline": (lambda: make(_columns(), xgboost.XGBClassifier(n_estimators=3)), FRAME, Y),
        "lightgbm": (lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1), X, NAMES),
        "lightgbm regressor": (
            lambda: lightgbm.LGBMRegressor(n_estimators=3, verbose=-1),
            FRAME[["a", "b"]],
            VALUES,
        ),
        "catboost": (lambda: catboost.CatBoostClassifier(**quiet), X, NAMES),
        "catboost regressor": (lambda: catboost.CatBoostRegressor(**quiet), X, VALUES),
    }


ESTIMATORS = _estimators()


@pytest.mark.parametrize("kind", list(ESTIMATORS))
def test_every_way_of_saving_it(kind: str) -> None:
    make, features, target = ESTIMATORS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence of tiny fits
        model = make().fit(features) if target is None else make().fit(features, target)
    expected = model.predict(features)
    saved = [pickle.dumps(model, protocol) for protocol in range(6)]
    for compress in (0, ("zlib", 3), ("gzip", 1), ("bz2", 1), ("xz", 1), ("lzma", 1)):
        out = io.BytesIO()
        joblib.dump(model, out, compress=compress)
        saved.append(out.getvalue())
    for data in saved:
        np.testing.assert_array_equal(load_pickle(data).predict(features), expected)


def test_boosters_of_their_own() -> None:
    import lightgbm
    import xgboost

    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, Y), 3)
    again = load_pickle(pickle.dumps(booster))
    np.testing.assert_array_equal(again.predict(xgboost.DMatrix(X)), booster.predict(xgboost.DMatrix(X)))
    light = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(X, Y), 3)
    np.testing.assert_array_equal(load_pickle(pickle.dumps(light)).predict(X), light.predict(X))


def test_values_beside_the_model() -> None:
    """What people put next to a model in one file."""
    import collections
    import datetime

    from scipy import sparse

    kept: list[Any] = [
        {
            "threshold": np.float64(0.3),
            "classes": np.array(["a", None], object),
            "when": datetime.datetime(2026, 1, 2),
        },
        np.datetime64("2026-01-02", "us"),
        np.array(["2026-01-02"], "M8[D]"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([(1, 2.0)], dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.ma.masked_array([1.0, 2.0], [True, False]),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3.0),
        np.zeros((0, 3)),
        np.array(["ab", "c"]),
        sparse.csr_matrix(np.eye(3)),
        sparse.coo_array(np.eye(3)),
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        {1, 2},
        frozenset("ab"),
        slice(1, None),
        range(3),
        1 + 2j,
        bytearray(b"xy"),
        b"",
        10**30,
        datetime.timedelta(seconds=3),
    ]
    for value in kept:
        for protocol in range(6):
            data = pickle.dumps(value, protocol)
            back = load_pickle(data)
            assert type(back) is type(value)
            assert repr(back) == repr(pickle.loads(data))
    for generator in (np.random.RandomState(3), np.random.default_rng(3)):
        for protocol in range(2, 6):
            back = load_pickle(pickle.dumps(generator, protocol))
            assert back.normal() == pickle.loads(pickle.dumps(generator)).normal()
    out = io.BytesIO()
    joblib.dump(kept, out, compress=3)
    out.seek(0)
    assert repr(load_pickle(out.getvalue())) == repr(joblib.load(out))


def test_numbers_in_frames() -> None:
    series = pd.Series([1.0, 2.0], name=0)
    assert load_pickle(pickle.dumps(series)).equals(series)
