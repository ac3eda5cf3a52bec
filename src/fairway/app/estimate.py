"""`fairway.estimate`: performance before labels, in one shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairway.core.contract import Task
from fairway.core.errors import InvalidInput, MissingExtra, NotFound
from fairway.packaging.tables import read_table

if TYPE_CHECKING:
    from fairway.monitoring.performance.estimate import EstimateReport, Progress

_EXTRA = "estimating performance needs scipy and scikit-learn: pip install 'fairway[monitor]'"


def estimate(
    reference: Any,
    current: Any,
    *,
    target: str,
    prediction: str | None = None,
    proba: str | Sequence[str] | Mapping[Any, str] | None = None,
    chunk: int | str = 5_000,
    time: str | None = None,
    task: str | None = None,
    metrics: Sequence[str] = (),
    features: Sequence[str] | None = None,
    positive: Any = None,
    value: Any = None,
    confidence: float = 0.95,
    calibration: str = "",
    progress: Progress | None = None,
) -> EstimateReport:
    """How well a model is doing on `current`, whose labels have not come, learned from `reference`, which has them.

    Both are paths (Parquet, CSV, Arrow, JSON Lines), DataFrames, Arrow tables or mappings of arrays. `proba` is the column
    of the positive class's probability, or a mapping of class to column; without it a regression is estimated. `chunk` is
    a number of rows or a period of the column `time` ("6h", "1d", "week", "month"). `features` are the inputs that may help
    (all other columns by default). `value` is what an outcome is worth, `[actual][predicted]`. Where `current` has labels
    the realised metrics stand beside the estimates. Raises InvalidInput for what cannot be read or estimated, MissingExtra
    without scipy and scikit-learn.
    """
    try:  # needs scipy and scikit-learn, which are optional
        from fairway.monitoring.performance import calibrate, frames
        from fairway.monitoring.performance.chunks import parse_cut
        from fairway.monitoring.performance.estimate import Options, cost_matrix, estimate_tables
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{_EXTRA} ({error}).") from error
    if calibration and calibration not in calibrate.KINDS:
        raise InvalidInput(
            f"there is no calibration {calibration!r}; there are: {', '.join(calibrate.KINDS)}."
        )
    if task is not None and task not in (Task.classification, Task.regression):
        raise InvalidInput(
            f"nothing is estimated for the task {task!r}; there are: classification, regression."
        )
    reading = frames.Reading(
        prediction=prediction,
        target=target,
        proba=frames.read_proba(proba),
        time=time,
        features=None if features is None else tuple(features),
        positive=None if positive is None else frames.label_text(positive),
    )
    options = Options(
        cut=parse_cut(chunk),
        task=None if task is None else Task(task),
        metrics=tuple(metrics),
        value=cost_matrix(value),
        confidence=confidence,
        calibration=calibration,
    )
    try:
        past, now = read_table(reference)[0], read_table(current)[0]
    except NotFound as error:  # exit code 3 of the command is for alerts
        raise InvalidInput(str(error)) from error
    told = {} if progress is None else {"progress": progress}
    return estimate_tables(past, now, reading, options, **told)
