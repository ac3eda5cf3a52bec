"""Fairway: an alarm is a column that drifted, or the columns together."""

from __future__ import annotations

from benchmarks.drift.scenarios import Columns
from fairway import __version__
from fairway.monitoring.drift.compare import compare_tables
from fairway.monitoring.tables import open_table


def version() -> str:
    return str(__version__)


def alarms(reference: Columns, window: Columns) -> tuple[set[str], bool]:
    report = compare_tables(open_table(reference), open_table(window))
    together = report.multivariate is not None and report.multivariate.drifted
    return {column.name for column in report.columns if column.drifted}, together
