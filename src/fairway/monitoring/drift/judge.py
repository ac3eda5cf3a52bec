"""From evidence and sizes to verdicts: significance over all columns together, and floors below which drift is no alarm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fairway.core.settings import DriftSettings
from fairway.monitoring.drift.dependence import NAME
from fairway.monitoring.drift.evidence import Evidence, log_p, normalised
from fairway.monitoring.drift.resample import adjusted
from fairway.monitoring.drift.values import ColumnDrift, DriftReport, Kind

_SPREADS = ("wasserstein", "mean_shift", "length_shift", "length_wasserstein")
_SHARES = ("ks", "total_variation", "correlation_change", "reconstruction_shift", "length_ks", "word_change")
_RATES = (
    "missing_rate_change",
    "infinite_rate_change",
    "negative_infinite_rate_change",
    "tail_rate_change",
    "new_category_rate",
)
_MEASURES = {
    Kind.number: "wasserstein",
    Kind.category: "total_variation",
    Kind.boolean: "total_variation",
    Kind.text: "word_change",
    Kind.identifier: "length_wasserstein",
    Kind.tensor: "mean_shift",
    Kind.other: "correlation_change",
}


@dataclass(frozen=True)
class Seen:
    """What was seen of one column before it is judged. `status` other than "compared" needs no evidence."""

    name: str
    kind: Kind
    evidence: Evidence | None = None
    sizes: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[int, int] = (0, 0)
    status: str = "compared"
    drifted: bool = False
    new_categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(
    columns: Sequence[Seen],
    together: Seen | None,
    settings: DriftSettings,
    rows: tuple[int, int],
    notes: Sequence[str] = (),
) -> DriftReport:
    """`rows` are those of the reference and of the current window. Where either is too small nothing is judged."""
    before, after = rows
    said = list(notes)
    enough = after >= settings.min_rows and before >= settings.min_reference_rows
    if after < settings.min_rows:
        said.append(f"The current window has {after} rows; it is judged from {settings.min_rows} on.")
    if before < settings.min_reference_rows:
        said.append(f"The reference has {before} rows; it judges from {settings.min_reference_rows} on.")
    every = [*columns, together] if together is not None else list(columns)
    tested = [seen for seen in every if seen.evidence is not None and enough]
    own, corrected = adjusted(
        [seen.evidence for seen in tested if seen.evidence is not None],
        min(rows),
        resamples=settings.resamples,
        seed=settings.seed,
    )
    found = {seen.name: (float(own[i]), float(corrected[i])) for i, seen in enumerate(tested)}
    judged = [_verdict(seen, found.get(seen.name), settings, enough) for seen in columns]
    joint = _verdict(together, found.get(NAME), settings, enough) if together is not None else None
    return DriftReport(
        drifted=any(column.drifted for column in judged) or (joint is not None and joint.drifted),
        columns=tuple(judged),
        multivariate=joint,
        reference_rows=before,
        current_rows=after,
        alpha=settings.alpha,
        notes=tuple(said),
    )


def _verdict(seen: Seen, p: tuple[float, float] | None, settings: DriftSettings, enough: bool) -> ColumnDrift:
    sizes = {name: _plain(value) for name, value in seen.sizes.items()}
    measure, effect = _effect(seen.kind, sizes)
    status = seen.status
    if status == "compared" and not enough:
        status = "too few rows"
    elif status == "compared" and seen.evidence is None:
        status = "constant"
    significant = p is not None and p[1] <= settings.alpha
    test, statistic = _strongest(seen.evidence)
    return ColumnDrift(
        name=seen.name,
        kind=seen.kind,
        drifted=(significant and passes_floor(sizes, settings)) or (seen.drifted and enough),
        status=status,
        effect=effect,
        measure=measure.replace("_", " "),
        p_value=p[0] if p else 1.0,
        p_adjusted=p[1] if p else 1.0,
        test=test,
        statistic=statistic,
        effects=sizes,
        reference_rows=seen.rows[0],
        current_rows=seen.rows[1],
        new_categories=seen.new_categories,
        notes=seen.notes,
    )


def passes_floor(sizes: Mapping[str, float], settings: DriftSettings) -> bool:
    """Whether any size is worth an alarm, were it real."""
    ratio = sizes.get("scale_ratio", 1.0)
    return (
        any(abs(sizes.get(name, 0.0)) >= settings.spread_floor for name in _SPREADS)
        or any(abs(sizes.get(name, 0.0)) >= settings.share_floor for name in _SHARES)
        or any(abs(sizes.get(name, 0.0)) >= settings.rate_floor for name in _RATES)
        or (ratio > 0 and abs(math.log(ratio)) >= settings.spread_floor)
    )


def _effect(kind: Kind, sizes: Mapping[str, float]) -> tuple[str, float]:
    """The size that is shown: the kind's own, unless only gaps or infinities changed."""
    rate = max(_RATES[:3], key=lambda name: abs(sizes.get(name, 0.0)))
    measure = _MEASURES.get(kind, "")
    value = abs(sizes.get(measure, 0.0))
    if abs(sizes.get(rate, 0.0)) > max(value, 0.0):
        return rate, abs(sizes[rate])
    return measure, value


def _strongest(evidence: Evidence | None) -> tuple[str, float]:
    """The test with the smallest p-value over its share, and its statistic as a standard normal deviate."""
    if evidence is None:
        return "", 0.0
    logs = log_p(evidence.tests, evidence.z, evidence.skew) - np.log([test.share for test in evidence.tests])
    test = evidence.tests[int(np.argmin(logs))]
    bent = normalised(evidence.z, evidence.skew)[list(test.features)]
    return test.name, float(bent[int(np.argmax(np.abs(bent)))])


def _plain(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0
