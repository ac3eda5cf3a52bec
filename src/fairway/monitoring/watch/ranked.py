"""Predictions that are lists: which rows are of one query, by what they were ordered, how relevant they turned out to be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.drift.columns import as_floats, as_text, is_numeric
from fairway.monitoring.performance.ranking import measure_ranking
from fairway.monitoring.performance.thresholds import Usual, usual
from fairway.monitoring.performance.values import Ranked
from fairway.monitoring.told import Measured
from fairway.monitoring.watch.frame import Frame
from fairway.packaging.reference import REQUEST

LEAST_QUERIES = 30
"""A window with fewer judged queries is not judged by them."""
_CHUNKS = 20
_SCORES = ("score", "prediction")


def ranked_of(frame: Frame, query: str, what: str) -> Ranked:
    """`query` is an input, or REQUEST: the rows of one request are one list. The score is the output `score` or `prediction`, the probability of the positive
    class, or the only numeric output. Labels are relevances, numbers from 0 on. Raises InvalidInput for what is not there."""
    if query in frame.inputs:
        lists = as_text(frame.table[query])
    elif query == REQUEST and REQUEST in frame.about.column_names:
        lists = as_text(frame.about[REQUEST])
    else:
        raise InvalidInput(f"{what} has no field {query!r} to tell queries by.")
    relevance = np.full(frame.rows, np.nan)
    if frame.actual is not None:
        if not is_numeric(frame.actual.type):
            raise InvalidInput(f"labels of {what} are no relevances: they must be numbers from 0 on.")
        relevance = as_floats(frame.actual)
        relevance = np.where(relevance >= 0, relevance, np.nan)
    codes = np.asarray(pc.index_in(lists, pc.unique(lists.drop_null())).fill_null(-1))
    score = as_floats(frame.table[_score(frame, what)])
    return Ranked(codes, score, np.where(codes >= 0, relevance, np.nan))


def _score(frame: Frame, what: str) -> str:
    numeric = [name for name in frame.outputs if is_numeric(frame.table.schema.field(name).type)]
    plain = {name.removeprefix("output."): name for name in numeric}
    for name in _SCORES:
        if name in plain:
            return plain[name]
    probabilities = [name for name in numeric if "probabilities[" in name]
    for found in (probabilities, numeric):
        if len(found) == 1:
            return found[0]
    raise InvalidInput(f"{what} has no one score that items could be ordered by: {', '.join(frame.outputs)}.")


def usual_ranking(ranked: Ranked) -> Mapping[str, Usual | None]:
    """What is usual for each metric, from chunks of the reference's queries, in an order of chance."""
    queries = np.unique(ranked.query[np.isfinite(ranked.relevance)])
    chunks = max(1, min(_CHUNKS, len(queries) // LEAST_QUERIES))
    order = np.random.default_rng(0).permutation(queries)
    measured = [measure_ranking(_of(ranked, part)) for part in np.array_split(order, chunks)]
    return {
        metrics[0].name: usual(
            metrics[0].name, [m.value for m in metrics], [m.error for m in metrics], [m.rows for m in metrics]
        )
        for metrics in zip(*measured, strict=True)
    }


def enough_queries(measured: tuple[Measured, ...]) -> bool:
    return all(metric.rows >= LEAST_QUERIES for metric in measured)


def _of(ranked: Ranked, queries: Array) -> Ranked:
    mine = np.isin(ranked.query, queries)
    return Ranked(ranked.query[mine], ranked.score[mine], ranked.relevance[mine])
