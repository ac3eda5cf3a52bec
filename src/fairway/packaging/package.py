"""The whole way from a model and a sample of its data to a proved, sealed bundle, on one screen."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.core.bundle import EngineSpec, Proof, Timings
from fairway.core.columns import Array
from fairway.core.contract import Contract
from fairway.packaging.bundle import full_disk_told, require_free, write_bundle, write_file
from fairway.packaging.card import data_digest, in_sample_metrics, write_card
from fairway.packaging.contract import sample_columns
from fairway.packaging.conversion.engine import ConversionOptions
from fairway.packaging.environment import capture_environment, locked_environment
from fairway.packaging.golden import make_golden
from fairway.packaging.importance import permutation_importance
from fairway.packaging.opening import Requirements, open_model
from fairway.packaging.plan import Plan, answerable_rows, choose, make_plan
from fairway.packaging.profile import make_profile
from fairway.packaging.reference import FILE as REFERENCE
from fairway.packaging.reference import make_reference
from fairway.packaging.sample import read_sample
from fairway.packaging.source import Sample, SourceModel
from fairway.packaging.times import read_times
from fairway.packaging.verify import verify_bundle
from fairway.runtimes.base import Engine, load

ANSWERED_ROWS = 10_000
"""Most sample rows the served model answers for the profile of its outputs and the metrics of the card."""
_LIBRARIES = ("xgboost", "lightgbm", "catboost")
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Packaged:
    """A finished bundle. `engine` is "onnx", "native:sklearn", ...; `notes` say what a user should know."""

    directory: Path
    digest: str
    engine: str
    proof: Proof
    contract: Contract
    timings: Timings | None
    notes: tuple[str, ...] = ()


def _silent(step: str, fraction: float) -> None:
    return None


def package(
    model: object | str | Path,
    data: Any,
    *,
    target: Any = None,
    prepare: str | None = None,
    trust: tuple[str, ...] = (),
    files: tuple[str | Path, ...] = (),
    requirements: Requirements | None = None,
    options: ConversionOptions | None = None,
    contract: Contract | str | None = None,
    reference: Any = None,
    time: str | None = None,
    out: Path,
    progress: Progress = _silent,
) -> Packaged:
    """Packages `model` with the contract of `data` as a bundle at `out`, which must not exist.

    `target` names the label column (or is the labels). `prepare` is "file.py:function", DataFrame to DataFrame,
    run before the model. `trust`, `files` and `requirements` as in `open_model`. `contract` replaces the inferred one: a value,
    or TOML text, whose imputations are then worked out from the data. `reference` are rows like `data` that monitors
    compare traffic with: best those the model was not trained on, labelled. Rows of `data` if none are given. `time` names the column that says
    when rows were, by which monitors compare an hour with the same hours; without it the only column of moments that the
    model does not use. Raises what its steps raise: see
    `opening`, `sample`, `contract`, `engine` and `bundle`.
    """
    options = options or ConversionOptions()
    require_free(out)  # before the work, not after it
    progress("opening the model", 0.0)
    if requirements is not None:
        options = msgspec.structs.replace(options, isolation=requirements.settings)
        progress("locking the requirements and making their environment", 0.01)
    with contextlib.closing(open_model(model, trust=trust, files=files, requirements=requirements)) as source:
        return _package(source, data, target, prepare, options, contract, reference, time, out, progress)


def _package(
    source: SourceModel,
    data: Any,
    target: Any,
    prepare: str | None,
    options: ConversionOptions,
    contract: Contract | str | None,
    reference: Any,
    time: str | None,
    out: Path,
    progress: Progress,
) -> Packaged:
    progress("reading the sample", 0.05)
    sample = read_sample(data, target=target)
    progress("inferring the contract", 0.1)
    plan = make_plan(source, sample, prepare, contract, target if isinstance(target, str) else None)
    plan, chosen = choose(plan, options, _part(progress, 0.15, 0.75))
    final = plan.final_contract(chosen)
    used = frozenset(field.name for field in final)
    columns = sample_columns(final, plan.sample)
    rows = answerable_rows(final, columns, plan.refused)
    asked = np.sort(np.random.default_rng(options.seed).permutation(rows)[:ANSWERED_ROWS])
    with tempfile.TemporaryDirectory(prefix="fairway-package-") as scratch:
        progress("answering the golden rows", 0.78)
        spec = plan.final_spec(chosen)
        parts = {**chosen.files, **plan.prepare_files}
        with full_disk_told(Path(scratch)):
            for path, content in parts.items():
                write_file(Path(scratch) / path, content)
        served = load(Path(scratch), spec, final, threads=options.threads, isolation=options.isolation)
        try:
            golden = make_golden(served, final, columns.take(rows))
            answers = served.predict(columns.take(asked))
            progress("finding what the model heeds", 0.82)
            importance = permutation_importance(served, final, columns.take(asked))
            if reference is None:
                labels = None if plan.sample.target is None else plan.sample.target[asked]
                times = read_times(sample, used, time)
                moments = None if times is None else times.values[asked]
                kept = make_reference(final, columns.take(asked), answers, labels, moments)
            else:
                given = read_sample(reference, target=target)
                times = read_times(given, used, time)
                kept = _given_reference(
                    served, final, plan, given, None if times is None else times.values, options
                )
        finally:
            served.unload()
    notes = plan.notes
    if times is not None:
        notes = (
            *notes,
            f"The reference's rows have their times from {times.name}: hours are compared with the same hours.",
        )
    progress("profiling", 0.88)
    profile = make_profile(final, columns, answers, importance)
    environment = capture_environment(spec, needs=_needs(spec))
    if source.isolated is not None:
        made = source.isolated.lease.made
        environment = locked_environment(made.python, made.packages)
    card = write_card(
        model_type=_model_type(source),
        source_kind=source.kind,
        model_file=source.path.name if source.path is not None else None,
        contract=final,
        spec=spec,
        profile=profile,
        environment=environment,
        proof=chosen.proof,
        data=data_digest(data, columns),
        metrics=in_sample_metrics(
            chosen.task, answers, None if plan.sample.target is None else plan.sample.target[asked]
        ),
        notes=notes,
    )
    progress("writing the bundle", 0.92)
    digest = write_bundle(
        out,
        spec=spec,
        contract=final,
        files={**chosen.files, REFERENCE: kept},
        golden=golden,
        profile=profile,
        environment=environment,
        proof=chosen.proof,
        card=card,
        timings=chosen.timings,
        prepare_files=plan.prepare_files,
    )
    progress("verifying the bundle", 0.95)
    verify_bundle(out, threads=options.threads, isolation=options.isolation)
    progress("packaged", 1.0)
    return Packaged(out, digest, spec.kind, chosen.proof, final, chosen.timings, notes)


def _given_reference(
    served: Engine,
    contract: Contract,
    plan: Plan,
    sample: Sample,
    times: Array | None,
    options: ConversionOptions,
) -> bytes:
    """The reference of rows of its own, `times` those of the sample's rows."""
    columns = sample_columns(contract, sample)
    rows = answerable_rows(contract, columns, plan.refused)
    chosen = np.sort(np.random.default_rng(options.seed).permutation(rows)[:ANSWERED_ROWS])
    asked = columns.take(chosen)
    labels = None if sample.target is None else sample.target[chosen]
    moments = None if times is None else times[chosen]
    return make_reference(contract, asked, served.predict(asked), labels, moments)


def _part(progress: Progress, start: float, end: float) -> Progress:
    return lambda step, fraction: progress(step, start + (end - start) * fraction)


def _model_type(source: SourceModel) -> str:
    """Such as `Pipeline: StandardScaler, LogisticRegression`."""
    if source.kind == "onnx":
        return "ONNX graph"
    if source.kind == "python":
        return f"function {source.entry}"
    name = type(source.model).__name__
    steps = [type(step).__name__ for _, step in getattr(source.model, "steps", ())]
    return f"{name}: {', '.join(steps)}" if steps else name


def _needs(spec: EngineSpec) -> tuple[str, ...]:
    """Boosting libraries inside a stored pipeline; skops names their classes."""
    return tuple(library for library in _LIBRARIES if any(name.startswith(library) for name in spec.trusted))
