"""Classification metrics with confidence intervals, from labels. Of more than two classes they are macro averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import influence, intervals
from fairway.monitoring.performance.calibration_error import calibration_error
from fairway.monitoring.performance.influence import Answers, Functional, Statistic
from fairway.monitoring.performance.values import Classified
from fairway.monitoring.told import Measured

FUNCTIONALS: dict[str, Functional] = {
    "accuracy": influence.accuracy,
    "precision": influence.precision,
    "recall": influence.recall,
    "f1": influence.f1,
    "roc_auc": influence.roc_auc,
    "pr_auc": influence.pr_auc,
    "log_loss": influence.log_loss,
    "brier": influence.brier,
    "business_value": influence.business_value,
}
METRICS = (*FUNCTIONALS, "calibration_error")
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error"})
DEFAULT = (
    "roc_auc",
    "pr_auc",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "brier",
    "calibration_error",
)
_LEAST = 5
"""Rows of a class, or predicted to be of it, from which on intervals cover what they say."""
_LEAST_OF_PR_AUC = 10
_LEAST_OF_CALIBRATION = 100
"""Rows in all: its ten bins of five each say too little to be called 95%."""
_MEANS = frozenset({"log_loss", "brier", "business_value"})


def check_metrics(names: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """`names` as a tuple; raises InvalidInput for one that is not known, naming those that are."""
    names = tuple(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInput(f"there is no metric {', '.join(unknown)}; there are: {', '.join(known)}.")
    return names


def one_hot(actual: Array, classes: int) -> Array:
    """`[n, classes]` of 0 and 1."""
    labels = np.zeros((len(actual), classes))
    labels[np.arange(len(actual)), actual] = 1.0
    return labels


def answers_of(window: Classified, value: Array | None = None) -> Answers:
    """Raises InvalidInput for a matrix of values that is not `[classes, classes]`."""
    classes = len(window.classes)
    if value is not None and value.shape != (classes, classes):
        raise InvalidInput(
            f"the matrix of values must be {classes} x {classes} (actual, then predicted), not {value.shape}."
        )
    return Answers(window.probabilities.astype(np.float64), window.predicted, value)


def measure_classification(
    window: Classified,
    metrics: Iterable[str] = DEFAULT,
    *,
    value: Array | None = None,
    confidence: float = 0.95,
) -> tuple[Measured, ...]:
    """The metrics of those rows that have a label.

    `value[actual, predicted]` is what one outcome is worth, for `business_value` (its mean per prediction). A
    metric that the window does not define (one class only, nothing predicted positive, no rows) has no value and
    a note. Raises InvalidInput for a name that is no metric.
    """
    names = check_metrics(metrics, METRICS)
    known = window.labelled()
    answers = answers_of(known, value)
    labels = one_hot(known.actual, len(window.classes))
    found = []
    for name in names:
        if name == "calibration_error":
            found.append(_calibration(known, confidence))
            continue
        statistic = FUNCTIONALS[name](answers, labels)
        if statistic.value is None:
            found.append(Measured(name=name, value=None, rows=known.rows, note=statistic.note))
            continue
        few = _too_few(name, known)
        limits = None if few else _interval(name, known, answers, labels, statistic, confidence)
        found.append(
            Measured(
                name=name,
                value=statistic.value,
                lower=limits[0] if limits else None,
                upper=limits[1] if limits else None,
                rows=known.rows,
                error=influence.sampling_error(statistic, labels)[0],
                note=statistic.note if limits else few or "no interval: every row is alike",
            )
        )
    return tuple(found)


def _too_few(name: str, window: Classified) -> str:
    """Why a metric of two classes has no interval: of two or three positives nothing can be said with 95%."""
    if not window.binary or name not in _ASKS:
        return ""
    came = {
        "positive": int((window.actual == 1).sum()),
        "negative": int((window.actual == 0).sum()),
        "predicted positive": int((window.predicted == 1).sum()),
    }
    least = _LEAST_OF_PR_AUC if name == "pr_auc" else _LEAST
    few = [f"{came[kind]} {kind}" for kind in _ASKS[name] if came[kind] < least]
    if few:
        return f"no interval: only {' and '.join(few)}"
    for k, kind in enumerate(("negative", "positive")) if name in _OF_SHARES else ():
        expected = float(window.probabilities[:, k].sum())
        if expected < least and came[kind] < 4 * least:
            return f"no interval: {came[kind]} {kind} where the model expects {expected:.1f}"
    return ""


_ASKS = {
    "roc_auc": ("positive", "negative"),
    "pr_auc": ("positive", "negative"),
    "recall": ("positive",),
    "precision": ("predicted positive",),
    "f1": ("positive", "predicted positive"),
    "log_loss": ("positive", "negative"),
    "brier": ("positive", "negative"),
    "business_value": ("positive", "negative"),
}
_OF_SHARES = frozenset({"pr_auc", "f1"}) | _MEANS
"""What depends on how many rows are positive. To ask for five that came would keep those windows that have too many by chance,
so the model must expect as many."""


def _interval(
    name: str, window: Classified, answers: Answers, labels: Array, statistic: Statistic, confidence: float
) -> intervals.Interval | None:
    """Means by Johnson; what counts of rows give by Wilson; the rest in log odds from the influence function."""
    value = statistic.value
    assert value is not None
    if name in _MEANS:
        return intervals.mean_of_rare(
            _losses(name, answers)[np.arange(window.rows), window.actual], confidence
        )
    if name == "accuracy":
        return intervals.wilson(value * window.rows, window.rows, confidence)
    if window.binary and name in _COUNTED:
        return _COUNTED[name](window, confidence)
    error, freedom = influence.sampling_error(statistic, labels)
    if name == "pr_auc" and window.binary:
        # The positives decide: each one's precision is that of its place among them.
        freedom = min(freedom, float(labels[:, 1].sum()) - 1)
    if 0 < value < 1 and error > 1e-9:
        return intervals.logit(value, error, confidence, freedom=freedom)
    if name == "roc_auc" and window.binary:
        positives = int(labels[:, 1].sum())
        return intervals.rank_area(value, positives, window.rows - positives, confidence)
    # All right or all wrong: as a proportion of the rarest class, which says most about what may still come.
    rarest = int(max(labels.sum(axis=0)[labels.sum(axis=0) > 0].min(), 1))
    return intervals.wilson(value * rarest, rarest, confidence)


def _losses(name: str, answers: Answers) -> Array:
    if name == "log_loss":
        return influence.log_losses(answers.probabilities)
    if name == "brier":
        return influence.brier_losses(answers.probabilities)
    assert answers.value is not None
    return np.asarray(answers.value.T[answers.predicted])


def _precision_interval(window: Classified, confidence: float) -> intervals.Interval:
    said = window.predicted == 1
    return intervals.wilson(float((window.actual[said] == 1).sum()), float(said.sum()), confidence)


def _recall_interval(window: Classified, confidence: float) -> intervals.Interval:
    there = window.actual == 1
    return intervals.wilson(float((window.predicted[there] == 1).sum()), float(there.sum()), confidence)


def _f1_interval(window: Classified, confidence: float) -> intervals.Interval:
    """F1 is 2j / (1 + j) of the share j of hits among rows that are positive or predicted so, which is a proportion."""
    either = (window.predicted == 1) | (window.actual == 1)
    hits = float(((window.predicted == 1) & (window.actual == 1)).sum())
    low, high = intervals.wilson(hits, float(either.sum()), confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


_COUNTED: dict[str, Callable[[Classified, float], intervals.Interval]] = {
    "precision": _precision_interval,
    "recall": _recall_interval,
    "f1": _f1_interval,
}


def _calibration(window: Classified, confidence: float) -> Measured:
    """Of two classes the positive one's probability, of more the predicted class's."""
    name = "calibration_error"
    rows = np.arange(window.rows)
    if window.binary:
        probability, hit = window.probabilities[:, 1], window.actual == 1
    else:
        probability, hit = window.probabilities[rows, window.predicted], window.actual == window.predicted
    found = calibration_error(probability.astype(np.float64), hit.astype(np.float64), confidence)
    if found is None:
        return Measured(name=name, value=None, rows=window.rows, note="fewer than two rows")
    error = (found.upper - found.lower) / (2 * intervals.normal_quantile(confidence))
    few = window.rows < _LEAST_OF_CALIBRATION
    return Measured(
        name=name,
        value=found.value,
        lower=None if few else found.lower,
        upper=None if few else found.upper,
        rows=window.rows,
        error=error,
        note=f"no interval: fewer than {_LEAST_OF_CALIBRATION} rows" if few else "",
    )
