"""Metrics that are not what they were, as findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairway.core.incident import Finding
from fairway.monitoring.performance import classification, ranking, regression
from fairway.monitoring.performance.thresholds import Usual, surely_outside
from fairway.monitoring.told import Measured
from fairway.monitoring.words import apart, number, rows
from fairway.monitoring.words import metric as metric_words

_LOWER_IS_BETTER = classification.LOWER_IS_BETTER | regression.LOWER_IS_BETTER
_HIGHER_IS_BETTER = (set(classification.METRICS) | set(ranking.METRICS)) - _LOWER_IS_BETTER


def performance_findings(
    measured: Iterable[Measured], normal: Mapping[str, Usual | None], *, slice: str = ""
) -> tuple[Finding, ...]:
    """One finding per metric that is surely outside what is usual; `effect` is by how much, where 1 is the edge of the usual.

    What is better than usual is told too, as info: it may be an error of the labels. Estimates are marked as such.
    """
    found = []
    for metric in measured:
        about = normal.get(metric.name)
        if about is None or metric.value is None or not surely_outside(metric, about):
            continue
        low, high = about.limits(metric.rows)
        edge = low if metric.value < low else high
        better = (metric.value > high) == (metric.name in _HIGHER_IS_BETTER) and metric.name != "bias"
        half = max(high - about.centre, 1e-12)
        found.append(
            Finding(
                kind="estimate" if metric.estimated else "performance",
                field=metric.name,
                slice=slice,
                severity="info" if better else "warning",
                statistic=metric.name,
                value=metric.value,
                effect=abs(metric.value - about.centre) / half,
                threshold=edge,
                text=_text(metric, metric.value, edge),
            )
        )
    return tuple(found)


def _text(metric: Measured, value: float, edge: float) -> str:
    sure = ""
    if metric.lower is not None and metric.upper is not None:
        sure = f" (95% interval {number(metric.lower)} to {number(metric.upper)})"
    known = "estimated without labels" if metric.estimated else "by the labels"
    side = "above" if value > edge else "below"
    named = metric_words(metric.name)
    seen, usual = apart(value, edge)
    return f"{named} is {seen}{sure}, {side} the usual {usual}: {known}, {rows(metric.rows)}."


def performance_loss(measured: Iterable[Measured], normal: Mapping[str, Usual | None]) -> float:
    """How far the metric that is worst off has moved for the worse, in units of what is usual (1 is the edge); 0 for none."""
    worst = 0.0
    for metric in measured:
        about = normal.get(metric.name)
        if about is None or metric.value is None:
            continue
        half = max(about.limits(metric.rows)[1] - about.centre, 1e-12)
        off = (metric.value - about.centre) / half
        if metric.name == "bias":
            off = abs(off)
        elif metric.name in _HIGHER_IS_BETTER:
            off = -off
        worst = max(worst, off)
    return worst
