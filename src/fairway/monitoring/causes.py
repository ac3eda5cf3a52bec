"""Why: drift weighed by how much the model heeds a feature, how far it has moved, and how much performance is lost.

The product follows from the first-order change of a model's output: what it heeds times how far that moved (as in attribution
drift, Nigenda et al. 2022, "Amazon SageMaker Model Monitor"). Performance lost scales it, so that causes of several incidents
can be compared. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from fairway.core.incident import Finding

_LEAST_LOSS = 0.05
"""What drift counts for where no performance is lost, so that it is still ranked."""


def cause_weights(
    drift: Mapping[str, float], importance: Mapping[str, float], loss: float = 0.0
) -> dict[str, float]:
    """How likely each drifted feature is to be the cause of an incident: importance times drift times loss.

    `drift` is each feature's effect size, all in one unit; `importance` each feature's part of what the model heeds, as
    in the bundle's profile (one that is not known counts as the mean of the others); `loss` how much worse the model does
    than usual, 0 or more. Features without drift, or with one that is no number, are left out.
    """
    known = {feature: value for feature, value in importance.items() if math.isfinite(value)}
    mean = sum(known.values()) / len(known) if known else 1.0
    return {
        feature: known.get(feature, mean) * abs(size) * max(loss, _LEAST_LOSS)
        for feature, size in drift.items()
        if math.isfinite(size) and size != 0
    }


def weighed(
    findings: Iterable[Finding], importance: Mapping[str, float], loss: float = 0.0
) -> tuple[Finding, ...]:
    """Drift findings with the weight by which an incident names its likeliest causes; others as they are."""
    findings = tuple(findings)
    drift = {f.field: f.effect for f in findings if f.kind == "drift" and f.field and f.effect is not None}
    weights = cause_weights(drift, importance, loss)
    return tuple(
        msgspec.structs.replace(finding, weight=weights[finding.field])
        if finding.kind == "drift" and finding.field in weights
        else finding
        for finding in findings
    )
