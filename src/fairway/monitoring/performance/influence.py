"""Classification metrics as functionals of a weighted window: each gives its value and its derivative.

Every row may stand for each class with some weight, `labels` `[n, classes]`, rows adding up to 1. With 0 and 1 that
is the metric from labels; with calibrated probabilities it is the metric to be expected before labels come
(confidence-based performance estimation, Kivimäki et al. 2025, "Performance estimation in binary classification
using calibrated confidence"; Bialek et al. 2024, "Estimating model performance under covariate shift without labels").

The derivative `[n, classes]` is with respect to the mass at (row, class), so one formula serves both uncertainties:
with `labels` known, n * sum_k labels * derivative is the influence function of Hampel (1974) and its spread gives the
standard error (for the ROC area this is DeLong's, 1988); with labels random and the rows given, the variance is
that of a multinomial draw per row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairway.core.columns import Array

_TINY = 1e-15


@dataclass(frozen=True)
class Statistic:
    """A metric's value and its derivative `[n, classes]`; `value` None, with the reason, where it is not defined."""

    value: float | None
    derivative: Array | None = None
    note: str = ""


@dataclass(frozen=True)
class Answers:
    """What the model said: `probabilities` `[n, classes]`, `predicted` `[n]`, and what an outcome is worth."""

    probabilities: Array
    predicted: Array
    value: Array | None = None  # [actual, predicted]

    @property
    def classes(self) -> int:
        return int(self.probabilities.shape[1])

    @property
    def rows(self) -> int:
        return len(self.predicted)


Functional = Callable[[Answers, Array], Statistic]
_EMPTY = Statistic(None, note="no rows")


def accuracy(answers: Answers, labels: Array) -> Statistic:
    hit = np.zeros_like(labels)
    hit[np.arange(answers.rows), answers.predicted] = 1.0
    return _mean(hit, labels)


def business_value(answers: Answers, labels: Array) -> Statistic:
    """Mean worth of a decision: `value[actual, predicted]`."""
    if answers.value is None:
        return Statistic(None, note="needs a matrix of values")
    return _mean(answers.value.T[answers.predicted], labels)


def log_loss(answers: Answers, labels: Array) -> Statistic:
    return _mean(log_losses(answers.probabilities), labels)


def brier(answers: Answers, labels: Array) -> Statistic:
    return _mean(brier_losses(answers.probabilities), labels)


def log_losses(probabilities: Array) -> Array:
    """`[n, classes]`: the loss of each row if the class were the true one; probabilities are kept off 0 and 1."""
    tiny = float(np.finfo(np.float64).eps)
    return np.asarray(-np.log(np.clip(probabilities, tiny, 1 - tiny)))


def brier_losses(probabilities: Array) -> Array:
    """`[n, classes]`: squared distance to the class; of two classes half of it, as Brier (1950) is mostly written."""
    squares = (probabilities**2).sum(axis=1, keepdims=True) - 2 * probabilities + 1
    return np.asarray(squares / 2 if probabilities.shape[1] == 2 else squares)


def precision(answers: Answers, labels: Array) -> Statistic:
    return _over_classes(_precision_of, answers, labels)


def recall(answers: Answers, labels: Array) -> Statistic:
    return _over_classes(_recall_of, answers, labels)


def f1(answers: Answers, labels: Array) -> Statistic:
    return _over_classes(_f1_of, answers, labels)


def roc_auc(answers: Answers, labels: Array) -> Statistic:
    return _over_classes(_roc_of, answers, labels)


def pr_auc(answers: Answers, labels: Array) -> Statistic:
    return _over_classes(_average_precision_of, answers, labels)


def _mean(losses: Array, labels: Array) -> Statistic:
    rows = len(losses)
    if rows == 0:
        return _EMPTY
    value = float((labels * losses).sum() / rows)
    return Statistic(value, (losses - value) / rows)


_OfClass = Callable[[Answers, Array, int], Statistic]


def _over_classes(one: _OfClass, answers: Answers, labels: Array) -> Statistic:
    """Of two classes that of the second; of more the mean of those classes for which it is defined (macro)."""
    if answers.rows == 0:
        return _EMPTY
    if answers.classes == 2:
        return one(answers, labels, 1)
    parts = [one(answers, labels, k) for k in range(answers.classes)]
    values = [part.value for part in parts if part.value is not None]
    if not values:
        return parts[0]
    derivative = sum(part.derivative for part in parts if part.derivative is not None) / len(values)
    missing = len(parts) - len(values)
    note = f"{missing} of {len(parts)} classes left out: {parts_note(parts)}" if missing else ""
    return Statistic(float(np.mean(values)), np.asarray(derivative), note)


def parts_note(parts: list[Statistic]) -> str:
    return next((part.note for part in parts if part.value is None), "")


def _precision_of(answers: Answers, labels: Array, k: int) -> Statistic:
    said = answers.predicted == k
    total = float(said.sum())
    if total == 0:
        return Statistic(None, note="nothing was predicted to be of the class")
    value = float(labels[said, k].sum() / total)
    derivative = np.zeros_like(labels)
    derivative[said] = -value / total
    derivative[said, k] += 1 / total
    return Statistic(value, derivative)


def _recall_of(answers: Answers, labels: Array, k: int) -> Statistic:
    said = answers.predicted == k
    total = float(labels[:, k].sum())
    if total <= _TINY:
        return Statistic(None, note="no row is of the class")
    value = float(labels[said, k].sum() / total)
    derivative = np.zeros_like(labels)
    derivative[:, k] = (said - value) / total
    return Statistic(value, derivative)


def _f1_of(answers: Answers, labels: Array, k: int) -> Statistic:
    said = answers.predicted == k
    total = float(said.sum() + labels[:, k].sum())
    if total <= _TINY:
        return Statistic(None, note="the class is neither there nor predicted")
    value = float(2 * labels[said, k].sum() / total)
    derivative = np.zeros_like(labels)
    derivative[said] -= value / total
    derivative[:, k] -= value / total
    derivative[said, k] += 2 / total
    return Statistic(value, derivative)


_ONE_CLASS = "all rows are of one class"


def _roc_of(answers: Answers, labels: Array, k: int) -> Statistic:
    """Mann-Whitney: the chance that a positive scores above a negative, ties half (Hanley and McNeil 1982)."""
    positive, negative, group = _by_score(answers, labels, k)
    p, n = float(positive.sum()), float(negative.sum())
    if p <= _TINY or n <= _TINY:
        return Statistic(None, note=_ONE_CLASS)
    below = np.cumsum(negative) - negative / 2  # groups are in order of rising score
    above = p - np.cumsum(positive) + positive / 2
    value = float((positive * below).sum() / (p * n))
    derivative = np.repeat((((above / p) - value) / n)[group][:, None], answers.classes, axis=1)
    derivative[:, k] = ((below / n - value) / p)[group]
    return Statistic(value, derivative)


def _average_precision_of(answers: Answers, labels: Array, k: int) -> Statistic:
    """Average precision: precision summed over steps of recall, without interpolation (Davis and Goadrich 2006)."""
    positive, negative, group = _by_score(answers, labels, k)
    p = float(positive.sum())
    if p <= _TINY:
        return Statistic(None, note="no row is of the class")
    if float(negative.sum()) <= _TINY:
        return Statistic(None, note=_ONE_CLASS)
    a = p - np.cumsum(positive) + positive  # mass of positives at this score or above
    b = float(negative.sum()) - np.cumsum(negative) + negative
    both = np.maximum(a + b, _TINY)
    reached = a / both
    value = float((positive * reached).sum() / p)
    up = np.cumsum(positive * b / both**2)
    down = -np.cumsum(positive * a / both**2)
    derivative = np.repeat((down / p)[group][:, None], answers.classes, axis=1)
    derivative[:, k] = ((reached + up - value) / p)[group]
    return Statistic(value, derivative)


def _by_score(answers: Answers, labels: Array, k: int) -> tuple[Array, Array, Array]:
    """Mass of the class and of the others at each distinct score, rising; and which of them each row has."""
    _, group = np.unique(answers.probabilities[:, k], return_inverse=True)
    positive = np.bincount(group, weights=labels[:, k])
    total = np.bincount(group).astype(np.float64)
    # Rounding must not turn "no negatives" into a few.
    return positive, np.maximum(total - positive, 0.0), group


def sampling_error(statistic: Statistic, labels: Array) -> tuple[float, float]:
    """Standard error over samples of as many rows, labels 0 or 1; and its degrees of freedom.

    Each class is a sample of its own, with the freedom of Welch and Satterthwaite, as Brunner and Munzel (2000) have it
    for the rank area: of three positives among thousands of rows no certainty comes. What a share of classes that
    varies adds is counted too.
    """
    assert statistic.derivative is not None
    rows = len(labels)
    influence = rows * (labels * statistic.derivative).sum(axis=1)
    total, weight = 0.0, 0.0
    for k in range(labels.shape[1]):
        part = influence[labels[:, k] > 0]
        if len(part) == 0:
            continue
        middle = float(part.mean())
        within = float(np.sum((part - middle) ** 2)) / max(len(part) - 1, 1) * len(part)
        share = (within + len(part) * middle**2) / rows**2
        total += share
        weight += share**2 / max(len(part) - 1, 1)
    return math.sqrt(total), total**2 / weight if weight > 0 else 1.0


def label_error(statistic: Statistic, labels: Array) -> float:
    """Standard deviation over the labels that are still to come, the rows given."""
    assert statistic.derivative is not None
    first = (labels * statistic.derivative).sum(axis=1)
    second = (labels * statistic.derivative**2).sum(axis=1)
    return float(np.sqrt(np.maximum(second - first**2, 0.0).sum()))
