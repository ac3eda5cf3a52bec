"""What a version is compared with, and what was learned from it. Made once a version; learning takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.contract import Contract, Task
from fairway.core.errors import InvalidInput
from fairway.monitoring.drift.columns import as_floats
from fairway.monitoring.drift.season import Season, detect_season, matching_rows, season_numbers
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.performance import regression
from fairway.monitoring.performance.cbpe import DEFAULT, Cbpe, fit_cbpe
from fairway.monitoring.performance.classification import measure_classification
from fairway.monitoring.performance.dle import Dle, fit_dle
from fairway.monitoring.performance.thresholds import Usual, usual
from fairway.monitoring.performance.values import Classified
from fairway.monitoring.told import Measured
from fairway.monitoring.watch.frame import Frame, reference_rows
from fairway.monitoring.watch.ranked import ranked_of, usual_ranking
from fairway.monitoring.watch.subject import Predicted, Subject, labelled_rows, subject_of
from fairway.packaging.bundle import Bundle
from fairway.packaging.profile import Profile as PackagedProfile
from fairway.packaging.reference import REQUEST

_LEARNED = 20_000
"""Most rows that estimates are learned from."""
_CHUNKS = 20
_CHUNK_ROWS = 50
"""Rows of a chunk of the reference at the least, for what is usual."""


@dataclass(frozen=True)
class Hours:
    """Rows by which an hour is compared with the same hours: all of `frame`, or those of a window's hours where `season` says
    that hours differ. `text` names them for people."""

    frame: Frame
    season: Season
    text: str = "the reference's rows"

    def like(self, window: Frame, notes: list[str]) -> Frame:
        """The rows that a window is compared with."""
        before, now = self.frame.times, window.times
        if self.season is Season.none or before is None or now is None:
            return self.frame
        rows = matching_rows(before, now, self.season)
        if len(rows) == self.frame.rows:
            return self.frame
        same = "hours" if self.season is Season.day else "weekdays and hours"
        notes.append(f"compared with {self.text} of the same {same}: {len(rows):,} of {self.frame.rows:,}")
        return self.frame.take(rows)


@dataclass(frozen=True)
class Elsewhere:
    """What another version predicted, of which only its hours can be told: how far they are from whole days. `hours.frame` has
    its outputs, of these `kinds`; `swings` are the mean over parts of the day, in the unit of each output's effect."""

    hours: Hours
    kinds: Mapping[str, Kind]
    swings: Mapping[str, float]


@dataclass(frozen=True)
class Past:
    """Predictions of whole days, where they have a season and the reference does not tell when its rows were: the version's own
    or, before there are enough of these, those of versions before it. The columns of `hours` are compared with them.
    `standing` are those that, over all hours, were not as in the reference: they are compared with the reference, so that
    what drifted from the first day on does not become what is usual. `elsewhere`: `hours` has inputs alone, and predictions
    are compared with the reference, which as much as they swung elsewhere does not make drift. `still`: what versions before
    it were asked, of those columns alone in which the version's own days differ from that."""

    hours: Hours
    standing: tuple[str, ...] = ()
    elsewhere: Elsewhere | None = None
    still: Hours | None = None


@dataclass(frozen=True)
class Reference:
    """`frame` None: there are only the counts of `profile`. `subject` None: performance cannot be told. `estimator` None:
    it cannot be estimated, and `notes` say why. `normal` is what is usual for each metric; `text` names it all for people."""

    contract: Contract
    profile: PackagedProfile
    frame: Frame
    subject: Subject | None
    estimator: Cbpe | Dle | None
    normal: Mapping[str, Usual | None]
    importance: Mapping[str, float]
    text: str
    violations: Mapping[str, int]
    """Rows of `frame` that break a rule, by `field rule`: what training data did, traffic may."""
    value: Any = None
    notes: tuple[str, ...] = ()
    season: Season = Season.none
    """Whether rows of `frame` differ by hour or weekday: a window is then compared with those of its own hours."""

    past: Past | None = None
    query: str = ""
    """The field that tells which rows are one list, where the model ranks."""

    @property
    def heeds_labels(self) -> bool:
        return self.subject is not None or bool(self.query)

    def like(self, window: Frame, notes: list[str]) -> Frame:
        """The rows of `frame` that a window is compared with."""
        return Hours(self.frame, self.season).like(window, notes)


def bundle_reference(
    bundle: Bundle, profile: PackagedProfile, *, value: Any = None, query: str = ""
) -> Reference:
    """The reference that a bundle carries. Where it says which of its rows are lists, requests are lists unless `query` says
    otherwise. Raises CorruptBundle."""
    frame = reference_rows(bundle)
    ranks = REQUEST in frame.about.column_names
    if ranks and not query:
        query = REQUEST
    text = "the rows in its bundle"
    return make_reference(bundle.contract, profile, frame, text=text, value=value, query=query, ranks=ranks)


def make_reference(
    contract: Contract,
    profile: PackagedProfile,
    frame: Frame,
    *,
    text: str,
    value: Any = None,
    query: str = "",
    ranks: bool = False,
) -> Reference:
    """Learns what there is to learn from labelled rows of `frame`. Of the numbers of a model that `ranks` their order is all that
    means something."""
    subject = None if ranks and contract.task is Task.regression else subject_of(contract, frame.inputs)
    importance = profile.importance
    notes: list[str] = []
    estimator: Cbpe | Dle | None = None
    normal: dict[str, Usual | None] = {}
    if frame.actual is None:
        notes.append("the reference has no labels, so performance is not estimated: package with --target")
    elif subject is not None:
        try:
            window = subject.window(_at_most(frame, _LEARNED), "the reference")
            normal = _normal(window, value)
            estimator = fit_cbpe(window, value=value) if isinstance(window, Classified) else fit_dle(window)
        except InvalidInput as error:
            notes.append(f"performance is not estimated: {error}")
    if query and frame.actual is not None:
        try:
            normal |= usual_ranking(ranked_of(frame, query, "the reference"))
        except InvalidInput as error:
            notes.append(f"what is usual of lists is not known: {error}")
    return Reference(
        contract,
        profile,
        frame,
        subject,
        estimator,
        normal,
        importance,
        text,
        _broken(frame, contract),
        value,
        tuple(notes),
        season_of(frame),
        query=query,
    )


def season_of(frame: Frame) -> Season:
    times = frame.times
    if times is None:
        return Season.none
    numbers: dict[str, Array] = {}
    for name in frame.table.column_names:
        numbers |= season_numbers(name, frame.table[name])
    return detect_season(times, numbers)


def _at_most(frame: Frame, rows: int) -> Frame:
    """The whole, or a part of it by chance."""
    if frame.rows <= rows:
        return frame
    return frame.take(np.sort(np.random.default_rng(0).permutation(frame.rows)[:rows]))


def _broken(frame: Frame, contract: Contract) -> dict[str, int]:
    """Rows outside a field's range or fence."""
    counts: dict[str, int] = {}
    for field in contract:
        if field.name not in frame.inputs or field.shape or not field.dtype.is_numeric:
            continue
        values = as_floats(frame.table[field.name])
        values = values[np.isfinite(values)]
        limits = {"on_range": (field.minimum, field.maximum), "on_outlier": field.fence or (None, None)}
        for rule, (low, high) in limits.items():
            outside = np.zeros(len(values), bool)
            if low is not None:
                outside |= values < low
            if high is not None:
                outside |= values > high
            counts[f"{field.name} {rule}"] = int(outside.sum())
    return counts


def measure(window: Predicted, value: Any = None) -> tuple[Measured, ...]:
    """The metrics of a window's labelled rows."""
    if isinstance(window, Classified):
        names = (*DEFAULT, "calibration_error", *(("business_value",) if value is not None else ()))
        return measure_classification(window, names, value=value)
    return regression.measure_regression(window)


def _normal(window: Predicted, value: Any) -> dict[str, Usual | None]:
    """What is usual for each metric: from chunks of the reference, in an order of chance."""
    rows = labelled_rows(window)
    chunks = max(1, min(_CHUNKS, rows // _CHUNK_ROWS))
    order = np.random.default_rng(0).permutation(window.rows)
    measured = [measure(window.take(np.sort(part)), value) for part in np.array_split(order, chunks)]
    return {
        metrics[0].name: usual(
            metrics[0].name, [m.value for m in metrics], [m.error for m in metrics], [m.rows for m in metrics]
        )
        for metrics in zip(*measured, strict=True)
    }
