"""One window of one version -> `Report`. Nothing here reads a file; the time is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.clock import moment_of, seconds_between
from fairway.core.errors import InvalidInput
from fairway.core.request import BATCH
from fairway.core.settings import DriftSettings, MonitoringSettings, QualitySettings
from fairway.monitoring.drift.compare import compare_tables
from fairway.monitoring.drift.compare_profiles import compare_profiles
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.drift.values import ColumnDrift, DriftReport
from fairway.monitoring.operations import judge_operations
from fairway.monitoring.performance.cbpe import DEFAULT, Cbpe
from fairway.monitoring.performance.fairness import measure_fairness
from fairway.monitoring.performance.ranking import measure_ranking
from fairway.monitoring.performance.slices import find_worst_slices, losses_of, measure_slices
from fairway.monitoring.performance.thresholds import Usual, surely_outside
from fairway.monitoring.performance.values import Classified
from fairway.monitoring.quality import check_quality
from fairway.monitoring.told import Anomaly, Fairness, Measure, Measured
from fairway.monitoring.watch.frame import Frame, broken_rules, frame_kinds, latest_time
from fairway.monitoring.watch.ranked import enough_queries, ranked_of
from fairway.monitoring.watch.reference import Reference, measure
from fairway.monitoring.watch.shapes import shape_of
from fairway.monitoring.watch.subject import Predicted, labelled_rows, rarest_labels
from fairway.monitoring.watch.swings import within_swings
from fairway.monitoring.watch.values import ColumnReport, Metric, Report, Summary, Traffic

_HISTORY = 2000
_MOST_ARMS = 20


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Which window of which version; `latest`: no later one of it is over, so its age tells of now."""

    model: str
    version: int
    digest: str
    start: str
    end: str
    latest: bool = True


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for."""

    monitoring: MonitoringSettings = MonitoringSettings()
    drift: DriftSettings = DriftSettings()
    quality: QualitySettings = QualitySettings()
    slices: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()


def look(
    about: About,
    window: Frame,
    profile: Profile,
    reference: Reference,
    history: Sequence[Summary],
    asked: Asked,
    now: datetime,
) -> Report:
    """`profile` are all rows of the window as sketches, `window` at most a sample of them. `history` are the windows of the
    version before it, the oldest first."""
    notes = [*reference.notes]
    judged: list[str] = []
    likes = _likes(window, reference, notes)
    drift = _drift(window, profile, reference, likes, asked.drift, notes)
    if drift is not None:
        judged.append("drift")
    violations = broken_rules(window.about)
    quality = _quality(about, window, profile, reference, history, violations, asked, now)
    judged.append("quality")
    traffic = _traffic(window, profile.rows)
    operations = _operations(about, traffic, history)
    if operations:
        judged.append("operations")
    report = Report(
        model=about.model,
        version=about.version,
        digest=about.digest,
        start=about.start,
        end=about.end,
        rows=profile.rows,
        reference=reference.text,
        drifted=drift is not None and drift.drifted,
        columns=_columns(window, reference, likes, drift),
        multivariate=drift.multivariate if drift is not None else None,
        quality=quality,
        violations=violations,
        traffic=traffic,
        operations=operations,
    )
    report = look_at_performance(report, window, reference, asked, notes)
    kinds = (*judged, *report.judged)
    return msgspec.structs.replace(report, judged=kinds, notes=tuple(dict.fromkeys(notes)))


def unseen(about: About, rows: int, error: Exception) -> Report:
    """The report of a window that could not be looked at. Nothing was judged, so incidents stay as they are."""
    return Report(
        model=about.model,
        version=about.version,
        digest=about.digest,
        start=about.start,
        end=about.end,
        rows=rows,
        notes=(f"this window could not be looked at: {type(error).__name__}: {error}"[:500],),
    )


def look_at_performance(
    report: Report, window: Frame, reference: Reference, asked: Asked, notes: list[str]
) -> Report:
    """The report with estimates, and with what labels say: the part of it that later labels change."""
    if window.rows == 0:
        return report
    lists = _lists(window, reference, notes)
    if reference.subject is None:
        return report if not lists else _of_lists(report, window, lists, reference)
    try:
        predicted = reference.subject.window(window, "the window")
    except InvalidInput as error:
        notes.append(f"performance: {error}")
        return report
    estimates = _estimates(predicted, reference, asked, notes)
    labels = labelled_rows(predicted)
    performance: tuple[Metric, ...] = ()
    judged = ["estimate"] if estimates else []
    if labels:
        measured = measure(predicted, reference.value)
        enough = labels >= asked.monitoring.min_labels
        enough = enough and rarest_labels(predicted) >= asked.monitoring.min_class_labels
        performance = _judged(measured, reference.normal if enough else {})
        if enough:
            judged.append("performance")
    performance += _judged(lists, reference.normal if enough_queries(lists) else {})
    slices, worst = _slices(predicted, labels, asked, notes)
    fairness = _fairness(predicted, asked, notes)
    if fairness:
        judged.append("fairness")
    return msgspec.structs.replace(
        report,
        estimates=estimates,
        labels=labels,
        performance=performance,
        slices=slices,
        worst=worst,
        fairness=fairness,
        judged=tuple(judged),
    )


def _likes(window: Frame, reference: Reference, notes: list[str]) -> dict[str, Frame]:
    """The rows that each column is compared with; empty where there are none."""
    frame = reference.like(window, notes)
    found = dict.fromkeys(frame.table.column_names, frame)
    if reference.past is not None:
        for hours in filter(None, (reference.past.hours, reference.past.still)):
            past = hours.like(window, notes)
            found |= {
                name: past
                for name in found
                if name in past.table.column_names and name not in reference.past.standing
            }
    return found


def _drift(
    window: Frame,
    profile: Profile,
    reference: Reference,
    likes: Mapping[str, Frame],
    settings: DriftSettings,
    notes: list[str],
) -> DriftReport | None:
    """Each column against the rows that it is compared with, or else all against the reference's profile."""
    if profile.rows < settings.min_rows:
        notes.append(f"drift: {profile.rows} rows, and {settings.min_rows} are needed")
        return None
    if not likes:
        report = compare_profiles(reference.profile, profile, settings)
    else:
        groups = _alike(window, reference, likes)
        report = _joined([_compared(window, reference, names, settings) for names in groups])
    notes += report.notes
    if reference.past is not None and reference.past.elsewhere is not None:
        report = within_swings(report, window, reference.past.elsewhere, settings, notes)
    return report


def _alike(window: Frame, reference: Reference, likes: Mapping[str, Frame]) -> list[dict[str, Frame]]:
    """Columns by the rows that are compared, those of the same hours and most columns first: predictions apart where some
    rows had no inputs."""
    found: dict[tuple[int, bool], dict[str, Frame]] = {}
    mixed = window.given() is not window
    for name, frame in likes.items():
        if name in window.table.column_names:
            found.setdefault((id(frame), mixed and name in window.inputs), {})[name] = frame
    ordered = sorted(
        found.values(), key=lambda group: (next(iter(group.values())) is reference.frame, -len(group))
    )
    return ordered or [dict(likes)]


def _compared(
    window: Frame, reference: Reference, columns: Mapping[str, Frame], settings: DriftSettings
) -> DriftReport:
    like = next(iter(columns.values()))
    kinds = frame_kinds(like, reference.contract)
    if any(name in window.inputs for name in columns):
        like, window = like.given(), window.given()
    return compare_tables(like.held, window.held, settings, columns=tuple(columns), kinds=kinds)


def _joined(reports: Sequence[DriftReport]) -> DriftReport:
    """One report of columns that were compared with different rows; together are those of the first."""
    first = reports[0]
    return msgspec.structs.replace(
        first,
        drifted=any(report.drifted for report in reports),
        columns=tuple(column for report in reports for column in report.columns),
        notes=tuple(note for report in reports for note in report.notes),
    )


def _columns(
    window: Frame, reference: Reference, likes: Mapping[str, Frame], drift: DriftReport | None
) -> tuple[ColumnReport, ...]:
    compared: Mapping[str, ColumnDrift] = {} if drift is None else {c.name: c for c in drift.columns}
    kinds = frame_kinds(reference.frame, reference.contract)
    found = []
    given = window.given()
    for role, names in (("input", window.inputs), ("output", window.outputs)):
        for name in names:
            shape = None
            if name in likes:
                both = (likes[name], window) if role == "output" else (likes[name].given(), given)
                shape = shape_of(both[0].table[name], both[1].table[name], kinds.get(name))
            found.append(
                ColumnReport(
                    name=name,
                    role="input" if role == "input" else "output",
                    drift=compared.get(name),
                    shape=shape,
                    importance=reference.importance.get(name),
                )
            )
    return tuple(found)


def _quality(
    about: About,
    window: Frame,
    profile: Profile,
    reference: Reference,
    history: Sequence[Summary],
    violations: Mapping[str, int],
    asked: Asked,
    now: datetime,
) -> Any:
    latest = latest_time(window.about)
    inputs = Profile({name: sketch.kind for name, sketch in profile.columns.items() if name in window.inputs})
    inputs.columns = {name: sketch for name, sketch in profile.columns.items() if name in window.inputs}
    inputs.rows = profile.rows
    private = {field.name for field in reference.contract if field.private is not None}
    length = seconds_between(about.start, about.end)
    starts = [about.start, *(summary.end for summary in history)]
    same_length = [
        summary.rows
        for begun, summary in zip(starts[1:], history[1:], strict=False)
        if abs(seconds_between(begun, summary.end) - length) < 1.0
    ]
    report = check_quality(
        inputs,
        reference.profile,
        contract=None,
        violations=violations,
        violations_before=_of_rows(reference),
        past_rows=same_length[-200:],
        latest=latest if isinstance(latest, datetime) and about.latest else None,
        now=now if about.latest else None,
        settings=asked.quality,
        given=max((sketch.rows for sketch in inputs.columns.values()), default=0),
    )
    return tuple(f for f in report.findings if not (f.check == "absent" and f.field in private))


def _of_rows(reference: Reference) -> dict[str, int]:
    """Violations in the reference's rows, as many as there would be in the rows that its profile is of."""
    assert reference.frame is not None
    share = reference.profile.rows / max(reference.frame.rows, 1)
    return {name: round(count * share) for name, count in reference.violations.items()}


def _traffic(window: Frame, rows: int) -> Traffic:
    about = window.about
    if about.num_rows == 0:
        return Traffic()
    first = (
        pc.equal(about["row"], 0)
        if "row" in about.column_names
        else pa.chunked_array([[True] * about.num_rows])
    )
    requests = about.filter(first)
    if "protocol" in about.column_names:  # a nightly run is no traffic
        asked = pc.not_equal(requests["protocol"].cast(pa.string()), BATCH)
        requests = requests.filter(pc.fill_null(asked, True))
    share = rows / about.num_rows
    seconds = (
        np.asarray(requests["seconds"].cast(pa.float64()))
        if "seconds" in about.column_names
        else np.array([])
    )
    seconds = seconds[np.isfinite(seconds)]
    p50, p95, p99 = (
        (float(q) for q in np.quantile(seconds, (0.5, 0.95, 0.99))) if len(seconds) else (None,) * 3
    )
    return Traffic(
        requests=round(requests.num_rows * share),
        p50=p50,
        p95=p95,
        p99=p99,
        sources=_counted(about, "source", share),
        protocols=_counted(about, "protocol", share),
        arms=_counted(about, "arm", share),
    )


def _counted(about: pa.Table, name: str, share: float) -> dict[str, int]:
    if name not in about.column_names:
        return {}
    counted = pc.value_counts(about[name].cast(pa.string()))
    pairs = zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)
    largest = sorted(pairs, key=lambda pair: -pair[1])[:_MOST_ARMS]
    return {value or "": round(count * share) for value, count in largest}


def _operations(about: About, traffic: Traffic, history: Sequence[Summary]) -> tuple[Anomaly, ...]:
    """Traffic and latency against windows before it."""
    past = [*history][-_HISTORY:]
    if not past:
        return ()
    times = np.array([*(_seconds(s.end) for s in past), _seconds(about.end)])
    requests = np.array([*(float(s.requests) for s in past), float(traffic.requests)])
    found = [judge_operations(Measure.traffic, times, requests)]
    if traffic.p99 is not None:
        p99 = np.array([*(np.nan if s.p99 is None else s.p99 for s in past), traffic.p99])
        found.append(judge_operations(Measure.latency, times, p99))
    return tuple(found)


def _seconds(text: str) -> float:
    return moment_of(text).astimezone(UTC).timestamp()


def _estimates(window: Predicted, reference: Reference, asked: Asked, notes: list[str]) -> tuple[Metric, ...]:
    estimator = reference.estimator
    if estimator is None:
        return ()
    if window.rows < asked.monitoring.min_rows:
        notes.append(f"estimates: {window.rows} rows, and {asked.monitoring.min_rows} are needed")
        return ()
    try:
        if isinstance(estimator, Cbpe):
            assert isinstance(window, Classified)
            names = (*DEFAULT, *(("business_value",) if reference.value is not None else ()))
            measured = estimator.estimate(window, names)
        else:
            assert not isinstance(window, Classified)
            measured = estimator.estimate(window)
    except InvalidInput as error:
        notes.append(f"estimates: {error}")
        return ()
    return _judged(measured, reference.normal)


def _judged(measured: Sequence[Measured], normal: Mapping[str, Usual | None]) -> tuple[Metric, ...]:
    found = []
    for metric in measured:
        about = normal.get(metric.name)
        limits = None if about is None else about.limits(metric.rows)
        found.append(Metric(measured=metric, usual=limits, alert=surely_outside(metric, about)))
    return tuple(found)


def _of_lists(report: Report, window: Frame, lists: tuple[Measured, ...], reference: Reference) -> Report:
    """The report of a model of which nothing but its order is known."""
    assert window.actual is not None
    enough = enough_queries(lists)
    return msgspec.structs.replace(
        report,
        labels=len(window.actual) - window.actual.null_count,
        performance=_judged(lists, reference.normal if enough else {}),
        judged=("performance",) if enough else (),
    )


def _lists(window: Frame, reference: Reference, notes: list[str]) -> tuple[Measured, ...]:
    """NDCG and MAP of a model that ranks, from labels; none without a relevant item."""
    if not reference.query or window.actual is None:
        return ()
    try:
        measured = measure_ranking(ranked_of(window, reference.query, "the window"))
    except InvalidInput as error:
        notes.append(f"ranking: {error}")
        return ()
    return tuple(metric for metric in measured if metric.value is not None)


def _slices(window: Predicted, labels: int, asked: Asked, notes: list[str]) -> tuple[Any, Any]:
    if labels < asked.monitoring.min_labels:
        return (), ()
    known = [name for name in asked.slices if name in window.features]
    notes += [f"slices: the window has no column {name!r}" for name in asked.slices if name not in known]
    slices = measure_slices(window, known) if known else ()
    worst = find_worst_slices(*losses_of(window)) if window.features else None
    return slices, () if worst is None else worst.found


def _fairness(window: Predicted, asked: Asked, notes: list[str]) -> dict[str, Fairness]:
    found: dict[str, Fairness] = {}
    for name in asked.protected:
        if not isinstance(window, Classified) or name not in window.features:
            notes.append(f"fairness: {name!r} cannot be watched")
            continue
        try:
            found[name] = measure_fairness(window, window.features[name])
        except InvalidInput as error:
            notes.append(f"fairness of {name}: {error}")
    return found
