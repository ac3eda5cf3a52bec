"""Fitted models of every family, on real data sets where scikit-learn ships one that fits. Used by test_engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, OneClassSVM

QUIET: dict[str, Any] = {"verbose": -1, "n_jobs": 1}


@dataclass(frozen=True)
class Fitted:
    """`engine` is what must be chosen."""

    model: Any
    frame: pd.DataFrame
    as_frame: bool
    engine: str = "onnx"


def _array(model: Any, rows: Any, target: Any, engine: str = "onnx") -> Fitted:
    frame = pd.DataFrame(rows, columns=[f"x{i}" for i in range(np.shape(rows)[1])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries' remarks on training are not ours to test
        return Fitted(model.fit(rows, target), frame, as_frame=False, engine=engine)


def _frame(model: Any, frame: pd.DataFrame, target: Any, engine: str = "onnx") -> Fitted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fitted(model.fit(frame, target), frame, as_frame=True, engine=engine)


def _ranked(model: Any) -> Fitted:
    rows, relevance = _numbers()
    frame = pd.DataFrame(rows, columns=[f"x{i}" for i in range(rows.shape[1])])
    return Fitted(model.fit(rows, relevance, group=[10] * (len(rows) // 10)), frame, as_frame=False)


def _numbers(missing: float = 0.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 8))
    target = ((rows[:, 0] * rows[:, 1] > 0) ^ (rows[:, 2] > 0.3)).astype(int)
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows, target


def payments(rows: int = 1500, *, nulls: bool = True) -> tuple[pd.DataFrame, Any]:
    """Mixed columns: numbers, whole numbers, text, booleans, and nulls in two of them."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "amount": rng.lognormal(3, 1, rows),
            "age": rng.integers(18, 90, rows),
            "country": rng.choice(["DE", "FR", "US", "BR"], rows),
            "channel": rng.choice(["web", "app"], rows),
            "score": rng.normal(size=rows),
            "vip": rng.random(rows) < 0.1,
        }
    )
    logit = np.log(frame.amount) - 3 + (frame.country == "BR") * 2 - (frame.age - 50) / 20 + frame.score
    target = (logit + rng.normal(size=rows) > 0).astype(int)
    if nulls:
        frame.loc[rng.random(rows) < 0.05, "score"] = np.nan
        frame.loc[rng.random(rows) < 0.05, "country"] = None
    return frame, target.to_numpy()


def _categories() -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=1500),
            "letter": pd.Categorical(rng.choice(list("xyzwvutsr"), 1500)),
            "digit": pd.Categorical(rng.integers(0, 7, 1500)),
            "b": rng.normal(size=1500),
        }
    )
    target = (frame.a > 0) ^ frame.letter.isin(list("xzu")) ^ (frame.digit.astype(int) % 2 == 0)
    frame.loc[rng.random(1500) < 0.05, "letter"] = None
    return frame, target.astype(int).to_numpy()


def _texts(words: str) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(words.split(), rng.integers(3, 15))) for _ in range(500)]
    target = [int(("good" in text) + ("great" in text) > ("bad" in text)) for text in texts]
    return pd.DataFrame({"text": texts}), np.array(target)


_WORDS = "good bad ugly great awful fine don't it's wonderful terrible the a of movie plot actor"
_NUMBER_COLUMNS, _TEXT_COLUMNS = ["amount", "age", "score"], ["country", "channel"]


def _one_hot() -> ColumnTransformer:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer(
        [("n", numbers, _NUMBER_COLUMNS), ("c", texts, _TEXT_COLUMNS), ("p", "passthrough", ["vip"])]
    )


def _ordinal() -> ColumnTransformer:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    numbers = SimpleImputer(strategy="median", add_indicator=True)
    return ColumnTransformer(
        [("n", numbers, _NUMBER_COLUMNS), ("c", codes, _TEXT_COLUMNS)], remainder="passthrough"
    )


def _rare() -> ColumnTransformer:
    rare = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.25)
    return ColumnTransformer(
        [("n", RobustScaler(), ["amount", "age"]), ("c", rare, _TEXT_COLUMNS), ("x", "drop", ["vip"])]
    )


def _catboost(kind: Any, **options: Any) -> Any:
    return kind(iterations=20, verbose=0, allow_writing_files=False, thread_count=1, **options)


_cancer = load_breast_cancer(return_X_y=True)
_iris = load_iris(return_X_y=True)
_named_iris = (_iris[0], np.array(["setosa", "versicolor", "virginica"])[_iris[1]])
_diabetes = load_diabetes(return_X_y=True)
_wine = load_wine(return_X_y=True)
_two_targets = (_diabetes[0], np.stack([_diabetes[1], -_diabetes[1]], axis=1))

MODELS: dict[str, Callable[[], Fitted]] = {
    "logistic regression": lambda: _array(make_pipeline(StandardScaler(), LogisticRegression()), *_cancer),
    "logistic regression, three text labels": lambda: _array(
        make_pipeline(StandardScaler(), LogisticRegression()), *_named_iris
    ),
    "boolean labels": lambda: _array(
        make_pipeline(StandardScaler(), LogisticRegression()), _cancer[0], _cancer[1] > 0
    ),
    "linear regression": lambda: _array(LinearRegression(), *_diabetes),
    "ridge, two targets": lambda: _array(Ridge(), *_two_targets),
    "scores only": lambda: _array(make_pipeline(StandardScaler(), LinearSVC()), *_cancer),
    "scores only, three classes": lambda: _array(make_pipeline(StandardScaler(), LinearSVC()), *_named_iris),
    "support vectors": lambda: _array(make_pipeline(StandardScaler(), SVC()), *_cancer),
    "random forest": lambda: _array(RandomForestClassifier(20, random_state=0), *_numbers()),
    "random forest with nulls": lambda: _array(RandomForestClassifier(20, random_state=0), *_numbers(0.1)),
    "random forest, three text labels": lambda: _array(
        RandomForestClassifier(20, random_state=0), *_named_iris
    ),
    "scaled random forest": lambda: _array(
        make_pipeline(StandardScaler(), RandomForestClassifier(20, max_depth=6, random_state=0)), *_numbers()
    ),
    "forest regressor": lambda: _array(RandomForestRegressor(10, random_state=0), *_diabetes),
    "forest regressor, two targets": lambda: _array(RandomForestRegressor(10, random_state=0), *_two_targets),
    "gradient boosting": lambda: _array(GradientBoostingClassifier(n_estimators=20), *_numbers()),
    "gradient boosting, exponential loss": lambda: _array(
        GradientBoostingClassifier(n_estimators=10, loss="exponential"), *_numbers()
    ),
    "gradient boosting, three classes": lambda: _array(
        GradientBoostingClassifier(n_estimators=10), *_named_iris
    ),
    "gradient boosting regressor": lambda: _array(GradientBoostingRegressor(n_estimators=20), *_diabetes),
    "hist gradient boosting with nulls": lambda: _array(
        HistGradientBoostingClassifier(max_iter=20), *_numbers(0.1)
    ),
    "hist gradient boosting, three classes": lambda: _array(
        HistGradientBoostingClassifier(max_iter=10), *_named_iris
    ),
    "hist gradient boosting with categories": lambda: _frame(
        HistGradientBoostingClassifier(max_iter=20, categorical_features="from_dtype"), *_categories()
    ),
    "hist gradient boosting, Poisson": lambda: _array(
        HistGradientBoostingRegressor(max_iter=20, loss="poisson"), *_diabetes
    ),
    "xgboost with nulls": lambda: _array(xgboost.XGBClassifier(n_estimators=20, n_jobs=1), *_numbers(0.1)),
    "xgboost, three classes": lambda: _array(xgboost.XGBClassifier(n_estimators=10, n_jobs=1), *_iris),
    "xgboost with categories": lambda: _frame(
        xgboost.XGBClassifier(n_estimators=20, n_jobs=1, enable_categorical=True), *_categories()
    ),
    "xgboost regressor": lambda: _array(xgboost.XGBRegressor(n_estimators=20, n_jobs=1), *_diabetes),
    "xgboost, Poisson": lambda: _array(
        xgboost.XGBRegressor(n_estimators=20, n_jobs=1, objective="count:poisson"), *_diabetes
    ),
    "xgboost, ranking": lambda: _ranked(xgboost.XGBRanker(n_estimators=10, n_jobs=1)),
    "xgboost, dropped trees": lambda: _array(
        xgboost.XGBClassifier(n_estimators=10, n_jobs=1, booster="dart", rate_drop=0.3), *_numbers()
    ),
    "xgboost, linear booster": lambda: _array(
        xgboost.XGBClassifier(n_estimators=5, n_jobs=1, booster="gblinear"),
        *_numbers(),
        engine="native:xgboost",
    ),
    "scaled xgboost": lambda: _array(
        make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=30, n_jobs=1)), *_numbers()
    ),
    "scaled xgboost on float32": lambda: _array(
        make_pipeline(MinMaxScaler(), xgboost.XGBClassifier(n_estimators=20, n_jobs=1)),
        _numbers()[0].astype(np.float32),
        _numbers()[1],
    ),
    "lightgbm with nulls": lambda: _array(lightgbm.LGBMClassifier(n_estimators=20, **QUIET), *_numbers(0.1)),
    "lightgbm with categories": lambda: _frame(
        lightgbm.LGBMClassifier(n_estimators=20, min_data_per_group=10, **QUIET), *_categories()
    ),
    "lightgbm, three text labels": lambda: _array(
        lightgbm.LGBMClassifier(n_estimators=10, **QUIET), *_named_iris
    ),
    "lightgbm regressor": lambda: _array(lightgbm.LGBMRegressor(n_estimators=20, **QUIET), *_diabetes),
    "lightgbm, zero as missing": lambda: _array(
        lightgbm.LGBMClassifier(n_estimators=5, zero_as_missing=True, **QUIET),
        *_numbers(),
        engine="native:lightgbm",
    ),
    "catboost with nulls": lambda: _array(_catboost(catboost.CatBoostClassifier), *_numbers(0.1)),
    "catboost, three text labels": lambda: _array(_catboost(catboost.CatBoostClassifier), *_named_iris),
    "catboost regressor": lambda: _array(_catboost(catboost.CatBoostRegressor), *_diabetes),
    "catboost with categories": lambda: _frame(
        _catboost(catboost.CatBoostClassifier, cat_features=_TEXT_COLUMNS),
        *payments(nulls=False),
        engine="native:catboost",
    ),
    "one-hot columns, logistic regression": lambda: _frame(
        make_pipeline(_one_hot(), LogisticRegression()), *payments()
    ),
    "one-hot columns, random forest": lambda: _frame(
        make_pipeline(_one_hot(), RandomForestClassifier(10, max_depth=6, random_state=0)), *payments()
    ),
    "one-hot columns, xgboost": lambda: _frame(
        make_pipeline(_one_hot(), xgboost.XGBClassifier(n_estimators=15, n_jobs=1)), *payments()
    ),
    "ordinal columns, lightgbm": lambda: _frame(
        make_pipeline(_ordinal(), lightgbm.LGBMClassifier(n_estimators=15, **QUIET)), *payments()
    ),
    "ordinal columns, hist gradient boosting": lambda: _frame(
        make_pipeline(_ordinal(), HistGradientBoostingClassifier(max_iter=15)), *payments()
    ),
    "ordinal columns, catboost": lambda: _frame(
        make_pipeline(_ordinal(), _catboost(catboost.CatBoostClassifier)), *payments()
    ),
    "rare categories joined": lambda: _frame(
        make_pipeline(_rare(), LogisticRegression()), *payments(nulls=False)
    ),
    "words": lambda: _frame_of_text(
        make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()), _WORDS
    ),
    "words without stop words": lambda: _frame_of_text(
        make_pipeline(CountVectorizer(stop_words="english"), LogisticRegression()), _WORDS
    ),
    "words with capitals beyond ASCII": lambda: _frame_of_text(
        make_pipeline(TfidfVectorizer(), LogisticRegression()), _WORDS + " café", engine="native:sklearn"
    ),
    "isolation forest": lambda: _array(IsolationForest(n_estimators=20, random_state=0), *_numbers()),
    "isolation forest, share of outliers": lambda: _array(
        IsolationForest(n_estimators=20, random_state=0, contamination=0.05), *_numbers()
    ),
    "one-class support vectors": lambda: _array(
        make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)), *_cancer
    ),
    "local outlier factor": lambda: _array(LocalOutlierFactor(novelty=True), *_cancer),
    "boosted stumps": lambda: _array(AdaBoostClassifier(n_estimators=10, random_state=0), *_cancer),
    "stack": lambda: _array(
        StackingClassifier(
            [
                ("trees", RandomForestClassifier(5, random_state=0)),
                ("line", make_pipeline(StandardScaler(), LogisticRegression())),
            ],
            cv=2,
        ),
        *_cancer,
    ),
    "vote of boosters": lambda: _array(
        VotingClassifier(
            [
                ("x", xgboost.XGBClassifier(n_estimators=5, n_jobs=1)),
                ("l", lightgbm.LGBMClassifier(n_estimators=5, **QUIET)),
                ("h", HistGradientBoostingClassifier(max_iter=5)),
            ],
            voting="soft",
        ),
        *_numbers(),
    ),
    "stack of boosters": lambda: _array(
        StackingRegressor(
            [
                ("x", xgboost.XGBRegressor(n_estimators=5, n_jobs=1)),
                ("l", lightgbm.LGBMRegressor(n_estimators=5, **QUIET)),
            ],
            cv=2,
        ),
        *_diabetes,
    ),
    "logarithm, linear regression": lambda: _array(
        make_pipeline(FunctionTransformer(np.log1p), LinearRegression()), *_wine
    ),
    "unknown function": lambda: _array(
        make_pipeline(FunctionTransformer(np.cbrt), LinearRegression()), *_wine, engine="native:sklearn"
    ),
    "forest of several targets": lambda: _array(
        RandomForestClassifier(5, random_state=0),
        _iris[0],
        np.stack([_iris[1], _iris[1] > 0], axis=1),
        engine="native:sklearn",
    ),
}


def _frame_of_text(model: Any, words: str, engine: str = "onnx") -> Fitted:
    frame, target = _texts(words)
    return Fitted(model.fit(frame["text"], target), frame, as_frame=True, engine=engine)
