"""Direct loss estimation: what a regression's errors will be once the actual values come.

A second model learns, on a reference with labels, how large the loss of a row is from its inputs and its prediction
(NannyML's DLE; gradient boosting as in Ke et al. 2017); the mean of what it says over a window is the estimate. Like
CBPE it holds as long as the relation between inputs and target is that of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import intervals
from fairway.monitoring.performance.calibrate import FOLDS, ROWS, one_thread
from fairway.monitoring.performance.cbpe import SMALLEST, jackknife_error
from fairway.monitoring.performance.classification import check_metrics
from fairway.monitoring.performance.features import Encoding, make_encoding
from fairway.monitoring.performance.regression import DEFAULT, LOSSES, METRICS
from fairway.monitoring.performance.values import Regressed
from fairway.monitoring.told import Measured

_SEED = 17
_MOST_LEFT_OUT = 0.01
"""Of the reference's rows. What a model learns of the others is not true of rows that MAPE will leave out again."""


@dataclass(frozen=True)
class LossModel:
    """What a loss is expected to be: learned on all of the reference, and without each fold.

    `spread` is the variance of losses about what is expected, as a share of its square (of the expected squared error for
    `bias`, whose sign may be either).
    """

    whole: HistGradientBoostingRegressor
    parts: tuple[HistGradientBoostingRegressor, ...]
    out_of_fold: Array
    spread: float


@dataclass(frozen=True)
class Dle:
    """Loss models fitted on a reference, ready for windows; make it with `fit_dle`. `withheld` are metrics that are not estimated,
    and why."""

    encoding: Encoding
    models: dict[str, LossModel]
    withheld: dict[str, str]

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*self.models, *self.withheld)

    def estimate(
        self, window: Regressed, metrics: Iterable[str] = (), *, confidence: float = 0.95
    ) -> tuple[Measured, ...]:
        """Estimates for the window's rows (all metrics it was fitted for); actual values are not looked at.

        The interval is where the metric of these rows will lie with `confidence`: losses stray from what is expected of them,
        and the model learned from a sample (delete-a-group jackknife over its folds).
        """
        names = check_metrics(metrics, self.metrics) or self.metrics
        window = window.take(window.usable())
        if window.rows == 0:
            return tuple(Measured(name=name, value=None, estimated=True, note="no rows") for name in names)
        x = self.encoding.matrix(window.features, window.predicted)
        found = []
        for name in names:
            if name in self.withheld:
                found.append(self._withheld(name))
                continue
            model = self.models[name]
            expected = _expected(name, model.whole, x)
            others = [float(_expected(name, part, x).mean()) for part in model.parts]
            size = _expected("rmse", self.models["rmse"].whole, x) if name == "bias" else expected**2
            found.append(_estimate(name, expected, model.spread * size, others, confidence))
        return tuple(found)

    def estimate_reference(
        self, chunks: Iterable[slice], metrics: Iterable[str] = (), *, confidence: float = 0.95
    ) -> list[tuple[Measured, ...]]:
        """Estimates for chunks of the labelled rows that were fitted on, by models that have not seen them."""
        names = check_metrics(metrics, self.metrics) or self.metrics
        found = []
        for chunk in chunks:
            row = []
            for name in names:
                if name in self.withheld:
                    row.append(self._withheld(name))
                    continue
                model = self.models[name]
                expected = model.out_of_fold[chunk]
                size = self.models["rmse"].out_of_fold[chunk] if name == "bias" else expected**2
                row.append(_estimate(name, expected, model.spread * size, [], confidence))
            found.append(tuple(row))
        return found

    def _withheld(self, name: str) -> Measured:
        return Measured(name=name, value=None, estimated=True, note=self.withheld[name])


def fit_dle(reference: Regressed, metrics: Iterable[str] = DEFAULT) -> Dle:
    """Learns losses from the labelled rows of `reference`; inputs are used where the window has `features`.

    Raises InvalidInput for a reference of fewer than 100 labelled rows and for names that are no metrics.
    """
    names = check_metrics(metrics, METRICS)
    known = reference.labelled()
    if known.rows < SMALLEST:
        raise InvalidInput(
            f"the reference has {known.rows} rows with a label and a prediction; {SMALLEST} or more are needed."
        )
    encoding = make_encoding(known.features)
    x = encoding.matrix(known.features, known.predicted)
    fold = np.random.default_rng(_SEED).permutation(known.rows) % FOLDS
    categorical = [*encoding.categorical, False]
    wanted = dict.fromkeys(("rmse", *names) if "bias" in names else names)
    models: dict[str, LossModel] = {}
    withheld: dict[str, str] = {}
    for name in wanted:
        losses = LOSSES[name](known.predicted, known.actual)
        left = 1 - np.isfinite(losses).mean()
        if left > _MOST_LEFT_OUT:
            withheld[name] = f"not estimated: in the reference, {left:.0%} of actual values are 0"
            continue
        models[name] = _fit_loss(name, x, losses, fold, categorical, models.get("rmse"))
    return Dle(encoding, models, withheld)


def _fit_loss(
    name: str, x: Array, losses: Array, fold: Array, categorical: list[bool], squared: LossModel | None
) -> LossModel:
    whole = _boosted(x, losses, categorical)
    parts, out = [], np.empty(len(losses))
    for number in range(FOLDS):
        apart = fold == number
        model = _boosted(x[~apart], losses[~apart], categorical)
        out[apart] = _expected(name, model, x[apart])
        parts.append(model)
    known = np.isfinite(losses)
    size = out**2 if name != "bias" or squared is None else squared.out_of_fold
    spread = float(np.sum((losses - out)[known] ** 2) / max(float(np.sum(size[known])), 1e-300))
    return LossModel(whole, tuple(parts), out, spread)


def _boosted(x: Array, losses: Array, categorical: list[bool]) -> HistGradientBoostingRegressor:
    rows = np.flatnonzero(np.isfinite(losses))
    if len(rows) > ROWS:
        rows = np.random.default_rng(_SEED).choice(rows, ROWS, replace=False)
    model = HistGradientBoostingRegressor(
        learning_rate=0.05,
        max_iter=100,
        max_leaf_nodes=8,
        min_samples_leaf=max(5, min(100, len(rows) // 20)),
        early_stopping=False,
        categorical_features=categorical,
        random_state=_SEED,
    )
    with one_thread():
        return model.fit(x[rows], losses[rows])


def _expected(name: str, model: HistGradientBoostingRegressor, x: Array) -> Array:
    with one_thread():
        expected = np.asarray(model.predict(x), dtype=np.float64)
    return expected if name == "bias" else np.maximum(expected, 0.0)


def _estimate(
    name: str, expected: Array, variance: Array, learned: list[float], confidence: float
) -> Measured:
    rows = len(expected)
    value = float(expected.mean())
    error, freedom = intervals.with_learned(
        math.sqrt(float(variance.sum())) / rows, jackknife_error(learned), len(learned)
    )
    if name == "bias":
        lower, upper = intervals.plain(value, error, confidence, freedom=freedom)
    else:  # losses are skewed to the right, and so are their means
        half = intervals.student_quantile(confidence, freedom) * error / max(value, 1e-300)
        lower, upper = value * math.exp(-min(half, 700)), value * math.exp(min(half, 50))
    if name == "rmse":
        root = math.sqrt(value)
        value, lower, upper = root, math.sqrt(lower), math.sqrt(upper)
        error = error / (2 * root) if root > 0 else 0.0
    return Measured(name=name, value=value, lower=lower, upper=upper, rows=rows, error=error, estimated=True)
