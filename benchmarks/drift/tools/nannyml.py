"""NannyML's univariate drift calculator with its defaults (Jensen-Shannon distance, thresholds of three standard
deviations over the chunks of the reference), chunks as large as the window, and its reconstruction error."""

from __future__ import annotations

import warnings
from importlib.metadata import version as version_of

import nannyml as nml
import pandas as pd

from benchmarks.drift.scenarios import CATEGORIES, Columns

warnings.filterwarnings("ignore")
nml.disable_usage_logging() if hasattr(nml, "disable_usage_logging") else None


def version() -> str:
    return version_of("nannyml")


def alarms(reference: Columns, window: Columns) -> tuple[set[str], bool]:
    before, after = (_frame(columns) for columns in (reference, window))
    names = list(before.columns)
    size = min(len(after), len(before) // 2)  # it needs several chunks of the reference
    calculator = nml.UnivariateDriftCalculator(
        column_names=names, treat_as_categorical=[*CATEGORIES, "returning"], chunk_size=size
    )
    calculator.fit(before)
    result = calculator.calculate(after.head(size)).filter(period="analysis").to_df()
    found = set()
    for column in result.columns:
        if column[-1] == "alert" and bool(result[column].iloc[0]):
            found.add(column[0])
    return found, False


def _frame(columns: Columns) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    for name in (*CATEGORIES, "returning"):
        frame[name] = frame[name].astype(str).astype("category")
    return frame
