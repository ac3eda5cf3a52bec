"""Probabilities that mean what they say: fitted on a reference with labels, used on windows without.

Four ways are tried and judged by their log loss on rows they were not fitted on; a more complex one is taken only for
what it gains:

    none      as the model gives them
    smooth    a curve with two or three parameters (Kull et al. 2017, "Beta calibration"; of more classes Kull et al.
              2019, "Beyond temperature scaling")
    isotonic  a rising step function, one class against the rest (Zadrozny and Elkan 2002); one hit and one miss are
              added to each step, which is what the merged Venn-Abers predictor comes to (Vovk et al. 2015,
              "Large-scale probabilistic predictors with and without guarantees of validity")
    features  boosted trees on probability and inputs: what the score says differs between kinds of rows, so when
              their mix shifts every curve through the score alone goes wrong (multicalibration, Hébert-Johnson et al. 2018)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from fairway.core.columns import Array

FOLDS = 5
ROWS = 100_000
"""Most rows of a reference that are learned from."""
_SEED = 11
_GAIN = 0.0005
"""Share of the log loss a curve must save before it is preferred to a simpler one."""
_FEATURES_GAIN = 0.03
"""Share that trees must save. They extrapolate where curves do not: on car loans (gain 0.011) they made errors larger,
where the model missed an input that drifts (gain 0.13) they made them six times smaller."""
_FEATURES_ROWS = 1_000

Calibrator = Callable[["Scores"], Array]


@dataclass(frozen=True)
class Scores:
    """`probabilities` `[n, classes]`, and the inputs as a matrix `[n, columns]` with no columns where there are none.
    `categorical` says which columns hold codes."""

    probabilities: Array
    matrix: Array
    categorical: tuple[bool, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.probabilities)

    @property
    def classes(self) -> int:
        return int(self.probabilities.shape[1])

    def take(self, index: Array) -> Scores:
        return Scores(self.probabilities[index], self.matrix[index], self.categorical)


@dataclass(frozen=True)
class Calibration:
    """The way taken (`kind`), fitted on all of the reference (`whole`), and without each fold (`parts`).

    `fold` `[n]` is the fold of each row of the reference. A reference too small to be split has no parts.
    """

    kind: str
    whole: Calibrator
    parts: tuple[Calibrator, ...]
    fold: Array

    def out_of_fold(self, scores: Scores) -> Array:
        """The reference's own probabilities `[n, classes]`, each by a fit that has not seen its row."""
        if not self.parts:
            return self.whole(scores)
        found = np.empty(scores.probabilities.shape)
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(self.fold == number)
            found[rows] = part(scores.take(rows))
        return found


def calibrate(scores: Scores, actual: Array, *, kind: str = "") -> Calibration:
    """Fits on `scores` with known labels `actual` `[n]`; `kind` takes one way without trying the others."""
    rows = scores.rows
    rng = np.random.default_rng(_SEED)
    fold = rng.permutation(rows) % FOLDS
    few = rows < 20 * FOLDS or len(np.unique(actual)) < 2
    if few:
        return Calibration("none", _none, (), fold)
    best, least = _tried(kind or "none", scores, actual, fold)
    for way, needed in () if kind else _GAINS.items():
        if way == "features" and not _promising(scores, actual, fold, best):
            continue
        tried, loss = _tried(way, scores, actual, fold)
        if loss < least * (1 - needed):
            best, least = tried, loss
    learned = rng.permutation(rows)[:ROWS]
    return Calibration(best.kind, fit(best.kind, scores.take(learned), actual[learned]), best.parts, fold)


def _promising(scores: Scores, actual: Array, fold: Array, best: Calibration) -> bool:
    """Whether trees are worth fitting on every fold: on the first one they save half of what they must."""
    if scores.matrix.shape[1] == 0 or scores.rows < _FEATURES_ROWS:
        return False
    apart, rest = np.flatnonzero(fold == 0), np.flatnonzero(fold != 0)[:ROWS]
    held, answers = scores.take(apart), actual[apart]
    trees = fit("features", scores.take(rest), actual[rest])
    return _loss(trees(held), answers) < _loss(best.parts[0](held), answers) * (1 - _FEATURES_GAIN / 2)


def _loss(said: Array, actual: Array) -> float:
    return float(-np.log(np.maximum(said[np.arange(len(actual)), actual], 1e-6)).mean())


def _tried(way: str, scores: Scores, actual: Array, fold: Array) -> tuple[Calibration, float]:
    parts = []
    for number in range(FOLDS):
        rows = np.flatnonzero(fold != number)
        rows = rows if len(rows) <= ROWS else np.random.default_rng(_SEED).choice(rows, ROWS, replace=False)
        parts.append(fit(way, scores.take(rows), actual[rows]))
    tried = Calibration(way, _none, tuple(parts), fold)
    return tried, _loss(tried.out_of_fold(scores), actual)


def fit(kind: str, scores: Scores, actual: Array) -> Calibrator:
    """One way of calibration; labels of one class only leave the probabilities as they are."""
    if len(np.unique(actual)) < 2:
        return _none
    return _FITS[kind](scores, actual)


def one_thread() -> AbstractContextManager[object]:
    """Trees this small need no threads, and where the cores have other work, threads that wait for each other stall."""
    return cast("AbstractContextManager[object]", _pools().limit(limits=1))


@cache
def _pools() -> ThreadpoolController:
    """Looking for the libraries with threads takes longer than small trees do; scikit-learn has loaded them by now."""
    return ThreadpoolController()


def _none(scores: Scores) -> Array:
    return scores.probabilities


def _fit_none(scores: Scores, actual: Array) -> Calibrator:
    return _none


def _fit_smooth(scores: Scores, actual: Array) -> Calibrator:
    model = LogisticRegression(C=1e4, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # close is good enough: it is judged by its log loss
        model.fit(_logs(scores), actual)

    def smooth(given: Scores) -> Array:
        return _spread(model, _logs(given), given)

    return smooth


def _fit_features(scores: Scores, actual: Array) -> Calibrator:
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=150,
        max_leaf_nodes=6,
        min_samples_leaf=100,
        early_stopping=False,
        categorical_features=[*scores.categorical, *[False] * scores.classes],
        random_state=_SEED,
    )
    with one_thread():
        model.fit(np.column_stack([scores.matrix, _logs(scores)]), actual)

    def features(given: Scores) -> Array:
        return _spread(model, np.column_stack([given.matrix, _logs(given)]), given)

    return features


def _spread(model: LogisticRegression | HistGradientBoostingClassifier, x: Array, given: Scores) -> Array:
    """Probabilities `[n, classes]` of a model that may not have seen every class."""
    found = np.zeros(given.probabilities.shape)
    if given.rows:
        with one_thread():
            found[:, model.classes_] = model.predict_proba(x)
    return found


def _logs(scores: Scores) -> Array:
    return np.asarray(np.log(np.clip(scores.probabilities, 1e-6, 1.0)))


def _fit_isotonic(scores: Scores, actual: Array) -> Calibrator:
    which = [1] if scores.classes == 2 else list(range(scores.classes))
    curves = {k: _steps(scores.probabilities[:, k], (actual == k).astype(np.float64)) for k in which}

    def isotonic(given: Scores) -> Array:
        if given.classes == 2:
            p = curves[1](given.probabilities[:, 1])
            return np.column_stack([1 - p, p])
        raw = np.column_stack([curve(given.probabilities[:, k]) for k, curve in curves.items()])
        return np.asarray(raw / raw.sum(axis=1, keepdims=True))

    return isotonic


def _steps(probability: Array, hit: Array) -> Callable[[Array], Array]:
    curve = IsotonicRegression(out_of_bounds="clip").fit(probability, hit)
    height, rows = np.unique(curve.predict(probability), return_counts=True)
    # One hit and one miss more in each step; narrow steps may change places by it, so that order is made anew.
    drawn = IsotonicRegression().fit_transform(
        height, (height * rows + 1) / (rows + 2), sample_weight=rows + 2.0
    )

    def steps(given: Array) -> Array:
        return np.asarray(np.interp(curve.predict(given), height, drawn)) if len(given) else np.zeros(0)

    return steps


_FITS: dict[str, Callable[[Scores, Array], Calibrator]] = {
    "none": _fit_none,
    "smooth": _fit_smooth,
    "isotonic": _fit_isotonic,
    "features": _fit_features,
}
_GAINS = {"smooth": _GAIN, "isotonic": _GAIN, "features": _FEATURES_GAIN}
KINDS = tuple(_FITS)
