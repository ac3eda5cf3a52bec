"""Windows drawn from known populations."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from fairway.core.columns import Array
from fairway.monitoring.performance.values import Classified, Regressed


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def binary_window(rows: int, seed: int = 0, *, shift: float = 0.0, sure: float = 1.0) -> Classified:
    """Calibrated with `sure` 1, too sure of itself above; `shift` moves the inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1.0, rows)
    score = 1.5 * x - 0.5
    actual = (rng.random(rows) < sigmoid(score)).astype(np.int64)
    p = sigmoid(sure * score)
    features = {"x": x, "noise": rng.normal(size=rows)}
    return Classified(("0", "1"), np.column_stack([1 - p, p]), (p > 0.5).astype(np.int64), actual, features)


def many_window(rows: int, seed: int = 0, *, classes: int = 4) -> Classified:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes) * 0.7, rows)
    actual = np.minimum((rng.random((rows, 1)) > p.cumsum(axis=1)).sum(axis=1), classes - 1)
    return Classified(tuple("abcdefgh"[:classes]), p, p.argmax(axis=1), actual)


def regressed_window(rows: int, seed: int = 0, *, spread: float = 0.0) -> Regressed:
    """Errors grow with `x`; `spread` moves it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(spread, 1.0, rows)
    predicted = 50 + 10 * x
    actual = predicted + np.exp(0.5 * x) * rng.normal(0, 2.0, rows)
    return Regressed(
        predicted, actual, {"x": x, "group": np.array(["a", "b"], dtype=object)[rng.integers(0, 2, rows)]}
    )


def table_of(window: Classified) -> pa.Table:
    return pa.table(
        {
            "p": window.probabilities[:, 1],
            "said": window.predicted,
            "label": window.actual.astype(np.float64),
            **dict(window.features.items()),
        }
    )


@pytest.fixture(scope="session")
def reference() -> Classified:
    return binary_window(8_000, 1, sure=1.6)
