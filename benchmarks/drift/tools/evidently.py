"""Evidently's drift preset with its defaults. An alarm is any column that its report calls drifted, or the whole dataset."""

from __future__ import annotations

import warnings
from importlib.metadata import version as version_of

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from benchmarks.drift.scenarios import CATEGORIES, Columns

warnings.filterwarnings("ignore")


def version() -> str:
    return version_of("evidently")


def alarms(reference: Columns, window: Columns) -> tuple[set[str], bool]:
    names = [name for name in reference if name not in CATEGORIES and name != "returning"]
    definition = DataDefinition(numerical_columns=names, categorical_columns=[*CATEGORIES, "returning"])
    frames = []
    for columns in (window, reference):
        frame = pd.DataFrame(columns)
        for name in (*CATEGORIES, "returning"):
            frame[name] = frame[name].astype(str).astype(object)
        frames.append(Dataset.from_pandas(frame, data_definition=definition))
    result = Report([DataDriftPreset()]).run(*frames).dict()
    found, together = set(), False
    for metric in result["metrics"]:
        config, value = metric["config"], metric["value"]
        if "column" in config:
            method, threshold = config["method"], config["threshold"]
            if value < threshold if "p_value" in method else value >= threshold:
                found.add(config["column"])
        elif isinstance(value, dict) and "share" in value:
            together = value["share"] >= config.get("drift_share", 0.5)
    return found, together
