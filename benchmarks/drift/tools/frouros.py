"""Frouros's two-sample tests at 0.05 for each column, as its tutorials use them; it corrects nothing for the number of
columns, so Bonferroni's correction is applied here."""

from __future__ import annotations

import warnings
from importlib.metadata import version as version_of

import numpy as np
from frouros.detectors.data_drift import ChiSquareTest, KSTest

from benchmarks.drift.scenarios import CATEGORIES, Columns

warnings.filterwarnings("ignore")


def version() -> str:
    return version_of("frouros")


def alarms(reference: Columns, window: Columns) -> tuple[set[str], bool]:
    found = set()
    for name in reference:
        categorical = name in CATEGORIES or name == "returning"
        before, after = reference[name], window[name]
        if categorical:
            before, after = before.astype(str), after.astype(str)
        else:
            before, after = before[~np.isnan(before)], after[~np.isnan(after)]
        detector = ChiSquareTest() if categorical else KSTest()
        detector.fit(X=before)
        told, _ = detector.compare(X=after)
        if told.p_value < 0.05 / len(reference):
            found.add(name)
    return found, False
