"""Why: drift ranked by how much the model heeds a feature, how far it has moved, and how much performance is lost.

The product follows from the first-order change of a model's output: what it heeds times how far that moved (as in attribution
drift, Nigenda et al. 2022, "Amazon SageMaker Model Monitor"). Performance lost scales it, so that causes of several incidents can be compared. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from fairway.core.incident import Finding

MOST = 3
_LEAST_LOSS = 0.05
"""What drift counts for where no performance is lost, so that it is still ranked."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A likely cause. `score` is importance times drift times loss; `share` is its part of all scores, 0..1."""

    feature: str
    score: float
    share: float
    importance: float
    drift: float
    text: str


def rank_causes(
    drift: Mapping[str, float],
    importance: Mapping[str, float],
    loss: float = 0.0,
    *,
    most: int = MOST,
) -> tuple[Cause, ...]:
    """The `most` likeliest causes of an incident, likeliest first.

    `drift` is each drifted feature's effect size, all in one unit; `importance` each feature's part of what the model heeds, as
    in the bundle's profile (one that is not known counts as the mean of the others); `loss` the performance
    that is lost, as `performance_loss` gives it. Features without drift are not listed.
    """
    known = [value for value in importance.values() if math.isfinite(value)]
    mean = sum(known) / len(known) if known else 1.0
    scores = {}
    for feature, size in drift.items():
        if math.isfinite(size) and size != 0:
            heeded = importance.get(feature, mean)
            scores[feature] = (heeded if math.isfinite(heeded) else mean) * abs(size) * max(loss, _LEAST_LOSS)
    total = sum(scores.values())
    ranked = sorted(scores.items(), key=lambda item: (-item[1], -abs(drift[item[0]]), item[0]))
    causes = []
    for feature, score in ranked[:most]:
        share = score / total if total > 0 else 1 / len(scores)
        heeded = importance.get(feature, mean)
        text = f"{feature} has moved by {drift[feature]:.3g}"
        if feature in importance:
            text += f" and makes up {importance[feature]:.0%} of what the model heeds"
        causes.append(
            Cause(
                feature=feature,
                score=score,
                share=share,
                importance=heeded,
                drift=drift[feature],
                text=f"{text} ({share:.0%} of all drift that matters)",
            )
        )
    return tuple(causes)


def weighed(
    findings: Iterable[Finding], importance: Mapping[str, float], loss: float = 0.0
) -> tuple[Finding, ...]:
    """Drift findings with the weight by which an incident names its likeliest causes; others as they are."""
    findings = tuple(findings)
    drift = {f.field: f.effect for f in findings if f.kind == "drift" and f.field and f.effect is not None}
    scores = {cause.feature: cause.score for cause in rank_causes(drift, importance, loss, most=len(drift))}
    return tuple(
        msgspec.structs.replace(finding, weight=scores[finding.field])
        if finding.kind == "drift" and finding.field in scores
        else finding
        for finding in findings
    )
