"""Confidence-based performance estimation: what a classifier's metrics will be once the labels come.

A calibrated probability says how likely each label is; a metric's expectation under those labels is its estimate
(NannyML's CBPE; see `influence` for sources). It is right as long as the relation between inputs and labels is that of the
reference: it cannot see that the world itself has changed, which only labels show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.performance import influence, intervals
from fairway.monitoring.performance.calibrate import Calibration, Scores, calibrate
from fairway.monitoring.performance.classification import FUNCTIONALS, answers_of, check_metrics
from fairway.monitoring.performance.features import Encoding, make_encoding
from fairway.monitoring.performance.influence import Answers
from fairway.monitoring.performance.values import Classified
from fairway.monitoring.told import Measured

METRICS = tuple(FUNCTIONALS)
DEFAULT = tuple(name for name in METRICS if name != "business_value")
SMALLEST = 100
"""Fewest labelled rows of a reference."""


@dataclass(frozen=True)
class Cbpe:
    """A calibration fitted on a reference, ready for windows; make it with `fit_cbpe`."""

    classes: tuple[str, ...]
    calibration: Calibration
    encoding: Encoding
    value: Array | None

    @property
    def kind(self) -> str:
        """Which way of calibration was taken."""
        return self.calibration.kind

    def expected(self, window: Classified) -> Array:
        """How likely each class is, `[n, classes]`."""
        return self.calibration.whole(self._scores(window))

    def estimate(
        self, window: Classified, metrics: Iterable[str] = DEFAULT, *, confidence: float = 0.95
    ) -> tuple[Measured, ...]:
        """Estimates for the window's rows; labels are not looked at.

        The interval is where the metric of these rows will lie with `confidence`: labels are drawn by chance, and the
        calibration was learned from a sample (delete-a-group jackknife over its folds).
        """
        names = check_metrics(metrics, METRICS)
        window = window.take(window.usable())
        scores = self._scores(window)
        versions = [self.calibration.whole(scores), *(part(scores) for part in self.calibration.parts)]
        answers = answers_of(window, self.value)
        return tuple(_estimate(name, answers, versions, confidence) for name in names)

    def estimate_reference(
        self,
        reference: Classified,
        chunks: Iterable[slice],
        metrics: Iterable[str] = DEFAULT,
        *,
        confidence: float = 0.95,
    ) -> list[tuple[Measured, ...]]:
        """Estimates for chunks of the very rows that were fitted on, by calibrations that have not seen them."""
        names = check_metrics(metrics, METRICS)
        expected = self.calibration.out_of_fold(self._scores(reference))
        answers = answers_of(reference, self.value)
        found = []
        for chunk in chunks:
            part = Answers(answers.probabilities[chunk], answers.predicted[chunk], self.value)
            found.append(tuple(_estimate(name, part, [expected[chunk]], confidence) for name in names))
        return found

    def _scores(self, window: Classified) -> Scores:
        if window.classes != self.classes:
            raise InvalidInput(
                f"the window has the classes {', '.join(window.classes)}, the reference {', '.join(self.classes)}."
            )
        return scores_of(window, self.encoding if self.kind == "features" else None)


def fit_cbpe(reference: Classified, *, value: Array | None = None, calibration: str = "") -> Cbpe:
    """Learns calibration from the labelled rows of `reference`.

    `value[actual, predicted]` is for `business_value`. `calibration` names one of `calibrate.KINDS` instead of choosing. Raises
    InvalidInput for a reference of fewer than 100 labelled rows, or with labels of one class only.
    """
    known = reference.labelled()
    if known.rows < SMALLEST:
        raise InvalidInput(
            f"the reference has {known.rows} rows with a label and a probability; {SMALLEST} or more are needed."
        )
    if len(np.unique(known.actual)) < 2:
        only = known.classes[int(known.actual[0])]
        raise InvalidInput(f"every label of the reference is {only!r}: nothing can be learned from it.")
    answers_of(known, value)  # says what is wrong with the matrix before the work
    encoding = make_encoding(known.features)
    return Cbpe(
        known.classes,
        calibrate(scores_of(known, encoding), known.actual, kind=calibration),
        encoding,
        value,
    )


def limits_of(metric: str, classes: int) -> tuple[float, float]:
    """Least and greatest value a classification metric can have."""
    if metric == "business_value":
        return -math.inf, math.inf
    if metric == "brier" and classes > 2:
        return 0.0, 2.0
    return 0.0, math.inf if metric == "log_loss" else 1.0


def scores_of(window: Classified, encoding: Encoding | None) -> Scores:
    """`encoding` None leaves the inputs out."""
    probabilities = window.probabilities.astype(np.float64)
    if encoding is None or not encoding.names:
        return Scores(probabilities, np.zeros((window.rows, 0)))
    return Scores(probabilities, encoding.matrix(window.features), tuple(encoding.categorical))


def _estimate(name: str, answers: Answers, versions: list[Array], confidence: float) -> Measured:
    functional = FUNCTIONALS[name]
    statistic = functional(answers, versions[0])
    if statistic.value is None:
        return Measured(name=name, value=None, rows=answers.rows, estimated=True, note=statistic.note)
    others = [functional(answers, labels).value for labels in versions[1:]]
    learned = [value for value in others if value is not None]
    error, freedom = intervals.with_learned(
        influence.label_error(statistic, versions[0]), jackknife_error(learned), len(learned)
    )
    value = statistic.value
    lowest, highest = limits_of(name, answers.classes)
    if highest == 1.0 and 0 < value < 1:
        lower, upper = intervals.logit(value, error, confidence, freedom=freedom)
    else:
        lower, upper = intervals.plain(value, error, confidence, freedom=freedom)
    return Measured(
        name=name,
        value=value,
        lower=max(lower, lowest),
        upper=min(upper, highest),
        rows=answers.rows,
        error=error,
        estimated=True,
        note=statistic.note,
    )


def jackknife_error(values: list[float]) -> float:
    """Standard error from estimates that each leave one group out (Tukey 1958)."""
    groups = len(values)
    if groups < 2:
        return 0.0
    spread = np.asarray(values) - np.mean(values)
    return float(np.sqrt((groups - 1) / groups * (spread**2).sum()))
