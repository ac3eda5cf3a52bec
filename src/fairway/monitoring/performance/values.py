"""Windows of predictions, and what is said of them. Arrays have one row per prediction."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import MalformedInput


@dataclass(frozen=True)
class Classified:
    """Predictions of a classifier.

    `probabilities` is `[n, classes]`, rows adding up to 1; `predicted` and `actual` are positions in `classes`,
    `actual` -1 where the label is not known yet. Of two classes the second is the positive one. `features` are
    the inputs, for estimates under drift and for slices.
    """

    classes: tuple[str, ...]
    probabilities: Array
    predicted: Array
    actual: Array
    features: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.probabilities)
        if self.probabilities.ndim != 2 or self.probabilities.shape[1] != len(self.classes):
            raise MalformedInput(
                f"probabilities of {len(self.classes)} classes must be [rows, {len(self.classes)}], "
                f"not {list(self.probabilities.shape)}."
            )
        if len(self.classes) < 2:
            raise MalformedInput("a classifier has two classes or more.")
        same_rows(rows, predicted=self.predicted, actual=self.actual, **self.features)

    @property
    def rows(self) -> int:
        return len(self.predicted)

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2

    def take(self, index: slice | Array) -> Classified:
        """The rows that `index` selects."""
        features = {name: values[index] for name, values in self.features.items()}
        return Classified(
            self.classes, self.probabilities[index], self.predicted[index], self.actual[index], features
        )

    def labelled(self) -> Classified:
        """The rows whose label is known and whose probabilities are numbers."""
        return self.take((self.actual >= 0) & self.usable())

    def usable(self) -> Array:
        """Rows whose probabilities are all numbers: no model's answer is an estimate's input otherwise."""
        return np.asarray(np.isfinite(self.probabilities).all(axis=1) & (self.predicted >= 0))


@dataclass(frozen=True)
class Regressed:
    """Predictions of a regression, `predicted` and `actual` float64; NaN in `actual` where it is not known yet."""

    predicted: Array
    actual: Array
    features: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        same_rows(len(self.predicted), actual=self.actual, **self.features)

    @property
    def rows(self) -> int:
        return len(self.predicted)

    def take(self, index: slice | Array) -> Regressed:
        features = {name: values[index] for name, values in self.features.items()}
        return Regressed(self.predicted[index], self.actual[index], features)

    def labelled(self) -> Regressed:
        return self.take(np.isfinite(self.actual) & self.usable())

    def usable(self) -> Array:
        return np.asarray(np.isfinite(self.predicted))


@dataclass(frozen=True)
class Ranked:
    """Scored items: `query` names the list each is in, `score` orders it, `relevance` >= 0 (NaN: not judged)."""

    query: Array
    score: Array
    relevance: Array

    def __post_init__(self) -> None:
        same_rows(len(self.query), score=self.score, relevance=self.relevance)

    @property
    def rows(self) -> int:
        return len(self.query)


def same_rows(rows: int, **columns: Array) -> None:
    """Raises MalformedInput unless every column has `rows` rows."""
    wrong = [f"{name} {len(values)}" for name, values in columns.items() if len(values) != rows]
    if wrong:
        raise MalformedInput(
            f"a window of {rows} predictions has columns of other lengths: {', '.join(wrong)}."
        )
