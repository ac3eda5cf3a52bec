"""The model card: Markdown filled in from what is known when packaging; what only people know is marked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jinja2
import msgspec
import numpy as np

from fairway.core.bundle import EngineSpec, Environment, Proof
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Task
from fairway.core.listing import listed
from fairway.packaging.profile import Profile

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN_CATEGORIES = 5
_INPUTS, _OUTPUTS = "## Inputs\n", "## Outputs\n"


class DataDigest(msgspec.Struct, frozen=True):
    """Which data it was: sha256 of a file's bytes or of the values, as `what` says."""

    what: str
    sha256: str


def write_card(
    *,
    model_type: str,
    source_kind: str,
    model_file: str | None,
    contract: Contract,
    spec: EngineSpec,
    profile: Profile,
    environment: Environment,
    proof: Proof,
    data: DataDigest,
    metrics: Mapping[str, float],
    notes: tuple[str, ...] = (),
) -> str:
    """The card as Markdown. `metrics` are in-sample and empty when no target is known."""
    return _template("card.md.j2").render(
        model_type=model_type,
        source_kind=source_kind,
        model_file=model_file,
        contract=contract,
        spec=spec,
        profile=profile,
        environment=environment,
        proof=proof,
        data=data,
        metrics=metrics,
        notes=notes,
    )


def with_inputs(card: str, contract: Contract) -> str:
    """The card with its table of inputs written anew, after the contract's rules were edited."""
    before, found, rest = card.partition(_INPUTS)
    _, outputs, after = rest.partition(_OUTPUTS)
    if not found or not outputs:
        return card
    return before + _template("card_inputs.md.j2").render(contract=contract) + "\n" + _OUTPUTS + after


def _template(name: str) -> jinja2.Template:
    # Markdown, not HTML: names are escaped by `cell`, for tables.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters |= {"cell": _cell, "percent": _percent, "seen": _seen, "rule": _rule}
    return environment.get_template(name)


def _cell(value: object) -> str:
    """Text that stays inside a cell of a Markdown table and is no markup."""
    text = " ".join(str(value).split())
    for character, safe in (("\\", "\\\\"), ("|", "\\|"), ("`", "'"), ("<", "&lt;"), ("[", "\\[")):
        text = text.replace(character, safe)
    return text


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{share:.2%}"


def _seen(field: Field) -> str:
    """What the sample held, short enough for a cell."""
    if field.categories:
        return listed([f"{c.value} {c.frequency:.0%}" for c in field.categories], _SHOWN_CATEGORIES)
    if not field.quantiles:
        return "free text" if field.dtype is DType.string else "nothing"
    low, high = field.quantiles[0], field.quantiles[-1]
    if field.dtype is DType.timestamp:
        try:
            return " to ".join((_EPOCH + timedelta(microseconds=v)).date().isoformat() for v in (low, high))
        except OverflowError:
            return "moments beyond the calendar"
    return f"{low:g} to {high:g}, median {field.quantiles[3]:g}"


def _rule(field: Field, rule: str) -> str:
    applies = {
        "on_null": True,
        "on_range": field.minimum is not None or field.maximum is not None,
        "on_outlier": field.fence is not None,
        "on_category": bool(field.categories),
    }
    return str(getattr(field.rules, rule).value) if applies[rule] else "-"


def in_sample_metrics(task: Task, outputs: Outputs, target: Array | None) -> dict[str, float]:
    """Metrics of answers to rows whose `target` is known; empty where the task has none.

    Classification: accuracy, and for two classes the area under the ROC curve (Mann-Whitney form). Regression:
    mean absolute error, root mean squared error, and R2 (the share of variance explained).
    """
    if target is None or len(target) == 0:
        return {}
    if task is Task.classification and "label" in outputs and outputs["label"].ndim == 1:
        return _classification(outputs, target)
    if task is Task.regression and outputs["prediction"].ndim == 1 and target.dtype.kind in "biuf":
        return _regression(outputs["prediction"].astype(np.float64), target.astype(np.float64))
    return {}


def _classification(outputs: Outputs, target: Array) -> dict[str, float]:
    label = outputs["label"]
    numeric = label.dtype.kind in "biuf" and target.dtype.kind in "biuf"
    right = label == target if numeric else label.astype(str) == target.astype(str)
    metrics = {"accuracy": float(np.mean(right))}
    probabilities = outputs.get("probabilities")
    if probabilities is None or probabilities.ndim != 2 or probabilities.shape[1] != 2:
        return metrics
    # The class of column 1 is the one that gets the larger probability wherever that is column 1.
    second = label[probabilities[:, 1] > probabilities[:, 0]]
    if len(second) == 0:
        return metrics
    positive = target == second[0] if numeric else target.astype(str) == str(second[0])
    area = _roc_area(probabilities[:, 1].astype(np.float64), np.asarray(positive))
    return metrics if area is None else metrics | {"area under the ROC curve": area}


def _roc_area(score: Array, positive: Array) -> float | None:
    """Chance that a positive scores above a negative, ties counted half; None without both."""
    count = int(positive.sum())
    if count in (0, len(positive)) or np.isnan(score).any():
        return None
    _, place, sizes = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks = (ends - (sizes - 1) / 2)[place]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def _regression(prediction: Array, target: Array) -> dict[str, float]:
    known = ~np.isnan(target)
    if not known.any():
        return {}
    error = prediction[known] - target[known]
    spread = float(np.sum((target[known] - target[known].mean()) ** 2))
    squares = float(np.sum(error**2))
    metrics = {
        "mean absolute error": float(np.mean(np.abs(error))),
        "root mean squared error": math.sqrt(squares / len(error)),
    }
    return metrics | ({"R2": 1 - squares / spread} if spread > 0 else {})


def data_digest(data: object, columns: Columns) -> DataDigest:
    """sha256 of the sample's file, or of the values (names, types and content) of data given in memory."""
    if isinstance(data, str | Path):
        with Path(data).open("rb") as file:
            return DataDigest("the file", hashlib.file_digest(file, "sha256").hexdigest())
    digest = hashlib.sha256()
    for name in columns:
        values = columns[name]
        digest.update(f"{name}\0{values.dtype.str}\0{values.shape}\0".encode())
        if values.dtype.kind == "O":
            digest.update(msgspec.json.encode(values.tolist()))
        else:
            digest.update(np.ascontiguousarray(values).tobytes())
    return DataDigest("the values", digest.hexdigest())
