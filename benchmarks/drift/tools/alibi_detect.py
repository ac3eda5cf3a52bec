"""Alibi Detect's `TabularDrift` with its defaults: Kolmogorov-Smirnov and chi-square, Bonferroni over the columns.
It takes no missing values: rows with one are left out of both sides for that column's sake."""

from __future__ import annotations

import warnings
from importlib.metadata import version as version_of

import numpy as np
from alibi_detect.cd import TabularDrift

from benchmarks.drift.scenarios import CATEGORIES, Columns

warnings.filterwarnings("ignore")


def version() -> str:
    return version_of("alibi-detect")


def alarms(reference: Columns, window: Columns) -> tuple[set[str], bool]:
    names = list(reference)
    levels = {
        name: {
            value: i
            for i, value in enumerate(sorted(set(map(str, np.concatenate([reference[name], window[name]])))))
        }
        for name in (*CATEGORIES, "returning")
    }
    before, after = (_matrix(columns, names, levels) for columns in (reference, window))
    detector = TabularDrift(
        before,
        p_val=0.05,
        categories_per_feature={names.index(name): len(values) for name, values in levels.items()},
    )
    told = detector.predict(after, drift_type="batch", return_p_val=True)["data"]
    p = np.asarray(told["p_val"])
    return {names[i] for i in np.flatnonzero(p < told["threshold"])}, bool(told["is_drift"])


def _matrix(columns: Columns, names: list[str], levels: dict[str, dict[str, int]]) -> np.ndarray:
    found = np.column_stack(
        [
            [levels[name][str(value)] for value in columns[name]]
            if name in levels
            else columns[name].astype(float)
            for name in names
        ]
    )
    return found[~np.isnan(found).any(axis=1)].astype(np.float32)
