"""Numbers and names as sentences say them, to people who would rather look than read. Pure.

"the reference" is what a window is compared with; "usual" is what its metrics were there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fairway.core.listing import listed

_METRICS = {
    "roc_auc": "ROC AUC", "pr_auc": "PR AUC", "f1": "F1", "log_loss": "Log loss", "brier": "Brier score",
    "brier_score": "Brier score", "mae": "MAE", "rmse": "RMSE", "mape": "MAPE", "mse": "MSE", "rmsle": "RMSLE",
    "ndcg": "NDCG", "map": "MAP", "r2": "R²", "ece": "Calibration error",
}  # fmt: skip
_MEASURES = {"latency_p99": "Slowest requests (p99)", "errors": "Failed requests", "saturation": "Waiting"}
_COLUMNS = {
    "(together)": "columns together",
    "label": "the predicted label",
    "prediction": "the prediction",
    "worst slice": "groups of rows",
}
_PROBABILITY = re.compile(r"probabilities\[(.*)\]", re.DOTALL)
_RULES = {
    "on_null": "Missing", "on_infinite": "Infinite", "on_range": "Out of range", "on_outlier": "Outlier",
    "on_category": "Unknown category",
}  # fmt: skip
_LONGEST = 40


def metric(name: str) -> str:
    """Such as ROC AUC, Log loss, Calibration error."""
    return _METRICS.get(name, name.replace("_", " ").capitalize())


_SHARES = frozenset(
    (
        "roc_auc", "pr_auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "brier", "ndcg", "map",
        "calibration_error",
    )
)  # fmt: skip
"""Metrics from 0 to 1: what is usual for them does not go beyond, whatever their spread."""


def bounded(name: str, usual: tuple[float, float] | None) -> tuple[float, float] | None:
    if usual is None or name not in _SHARES:
        return usual
    return max(0.0, usual[0]), min(1.0, usual[1])


def subject_of(kind: str, field: str) -> str:
    """What a finding is about, inside a sentence: `roc_auc` is ROC AUC, `log_loss` log loss; columns are called as they are."""
    if kind in ("performance", "estimate") and field not in _COLUMNS:
        return inside(metric(field))
    if kind == "operations":
        return inside(_MEASURES.get(field, field.replace("_", " ")))
    if kind == "drift":
        return prediction(field) if _PROBABILITY.fullmatch(field) else _COLUMNS.get(field, field)
    return _COLUMNS.get(field, field)


def columns(names: Sequence[str], most: int = 5) -> str:
    """Columns by what they are called, such as `age, income and 3 more`."""
    return listed([subject_of("drift", name) for name in names], most)


def prediction(name: str) -> str:
    """An output, such as the predicted label, the predicted probability of True, the prediction of a regression."""
    if name == "label":
        return "the predicted label"
    if name == "prediction":
        return "the prediction"
    found = _PROBABILITY.fullmatch(name)
    return f"the predicted probability of {found[1]}" if found else f"the predicted {name}"


def inside(text: str) -> str:
    """Without the capital of a sentence; abbreviations and Glenn Brier keep theirs."""
    keeps = text[1:2].isupper() or not text[1:2].isalpha() or text.startswith("Brier")
    return text if keeps else text[:1].lower() + text[1:]


def rule(name: str) -> str:
    """A rule of a contract, alone or after its field: `amount on_range` is amount: out of range."""
    field, _, last = name.rpartition(" ")
    said = _RULES.get(last)
    if said is None:
        return name
    return f"{field}: {said.lower()}" if field else said


def begun(text: str) -> str:
    """As a sentence begins, unless it begins with a column, which is called as it is."""
    return f"The {text[4:]}" if text.startswith("the ") else text


def percent(share: float) -> str:
    """Two digits that say something: 23%, 5.0%, 0.60%, 0%; what is not all is never 100%."""
    size = abs(share)
    if size in (0.0, 1.0):
        return f"{share:.0%}"
    if size < 0.00005:
        return "under 0.01%"
    if size < 0.01:
        return f"{share:.2%}"
    return (
        f"{share:.1%}"
        if size < 0.0995 or 0.995 <= size < 0.9995
        else f"{share:.0%}"
        if size < 0.995
        else "99.9%"
    )


def effect(value: float, measure: str) -> str:
    """Such as 1.45 sd (standard deviations of the reference), 24% of rows, 0.31 correlation change."""
    if measure in ("wasserstein", "mean shift"):
        return f"{value:.2f} sd"
    if measure == "total variation" or measure.endswith("rate change"):
        return f"{percent(value)} of rows"
    return f"{value:.3g} {measure}"


def number(value: float) -> str:
    """Three significant digits; large numbers whole, with commas."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def apart(value: float, other: float) -> tuple[str, str]:
    """Both numbers, with so many more digits as tell one from the other; six at the most."""
    shown = number(value), number(other)
    for digits in (4, 5, 6):
        if shown[0] != shown[1]:
            break
        shown = f"{value:,.{digits}g}", f"{other:,.{digits}g}"
    return shown


def probability(p_value: float) -> str:
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"


def rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def duration(seconds: float) -> str:
    """Such as 45 s, 4.2 ms, 12 min, 3.5 h, 2 days."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    for limit, unit, of in ((120.0, "s", 1.0), (7200.0, "min", 60.0), (172_800.0, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / of:.3g} {unit}"
    return f"{seconds / 86_400:,.0f} days"


def quoted(values: Sequence[str], most: int = 3) -> str:
    """Such as 'a', 'b' and 4 more."""
    shown = [
        f"'{value if len(value) <= _LONGEST else value[: _LONGEST - 1] + '…'}'" for value in values[:most]
    ]
    more = len(values) - most
    if more > 0:
        return f"{', '.join(shown)} and {more:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
