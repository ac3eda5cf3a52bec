"""The whole way from a model and a sample of its data to a proved, sealed bundle, on one screen."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.core.bundle import EngineSpec, Environment, GoldenRows, Proof, Timings
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract
from fairway.packaging.bundle import full_disk_told, require_free, write_bundle, write_file
from fairway.packaging.card import data_digest, in_sample_metrics, write_card
from fairway.packaging.contract import sample_columns
from fairway.packaging.conversion.engine import ChosenEngine, ConversionOptions
from fairway.packaging.environment import capture_environment, locked_environment
from fairway.packaging.golden import make_golden
from fairway.packaging.importance import permutation_importance
from fairway.packaging.lists import Lists, read_lists
from fairway.packaging.opening import Requirements, open_model
from fairway.packaging.plan import Plan, answerable_rows, choose, make_plan
from fairway.packaging.profile import make_profile
from fairway.packaging.reference import FILE as REFERENCE
from fairway.packaging.reference import make_reference
from fairway.packaging.sample import read_sample
from fairway.packaging.source import Sample, SourceModel
from fairway.packaging.times import Times, read_times
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
    query: str | None = None,
    out: Path,
    progress: Progress = _silent,
) -> Packaged:
    """Packages `model` with the contract of `data` as a bundle at `out`, which must not exist.

    `target` names the label column (or is the labels). `prepare` is "file.py:function", DataFrame to DataFrame,
    run before the model. `trust`, `files` and `requirements` as in `open_model`. `contract` replaces the inferred one: a value,
    or TOML text, whose imputations are then worked out from the data. `reference` are rows like `data` that monitors
    compare traffic with: best those the model was not trained on, labelled. Rows of `data` if none are given. `time` names the column that says
    when rows were, by which monitors compare an hour with the same hours; without it the only column of moments that the
    model does not use. `query` names the column that says which rows are one list, of a model that ranks. Raises what its steps raise: see
    `opening`, `sample`, `contract`, `engine` and `bundle`.
    """
    options = options or ConversionOptions()
    require_free(out)  # before the work, not after it
    progress("opening the model", 0.0)
    if requirements is not None:
        options = msgspec.structs.replace(options, isolation=requirements.settings)
        progress("locking the requirements and making their environment", 0.01)
    with contextlib.closing(open_model(model, trust=trust, files=files, requirements=requirements)) as source:
        named = _Named(time, query)
        return _package(source, data, target, prepare, options, contract, reference, named, out, progress)


@dataclass(frozen=True)
class _Named:
    """The columns of the reference that say when rows were and which are one list."""

    time: str | None
    query: str | None


@dataclass(frozen=True)
class _Served:
    """What the model says as it will be served. `asked` are the places of the sample's rows that got `answers`;
    `notes` tell what the data said of the reference's rows besides."""

    golden: GoldenRows
    asked: Array
    answers: Outputs
    importance: dict[str, float]
    reference: bytes
    notes: tuple[str, ...]


def _package(
    source: SourceModel,
    data: Any,
    target: Any,
    prepare: str | None,
    options: ConversionOptions,
    contract: Contract | str | None,
    reference: Any,
    named: _Named,
    out: Path,
    progress: Progress,
) -> Packaged:
    progress("reading the sample", 0.05)
    sample = read_sample(data, target=target)
    given = None if reference is None else read_sample(reference, target=target)
    progress("inferring the contract", 0.1)
    plan = make_plan(source, sample, prepare, contract, target if isinstance(target, str) else None)
    plan, chosen = choose(plan, options, _part(progress, 0.15, 0.75))
    final = plan.final_contract(chosen)
    columns = sample_columns(final, plan.sample)
    progress("answering the golden rows", 0.78)
    with _loaded(plan, chosen, final, options) as engine:
        served = _ask(engine, final, plan, columns, sample, given, named, options, progress)
    notes = (*plan.notes, *served.notes)
    progress("profiling", 0.88)
    spec = plan.final_spec(chosen)
    profile = make_profile(final, columns, served.answers, served.importance)
    environment = _environment(source, spec)
    labels = None if plan.sample.target is None else plan.sample.target[served.asked]
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
        metrics=in_sample_metrics(chosen.task, served.answers, labels),
        notes=notes,
    )
    progress("writing the bundle", 0.92)
    digest = write_bundle(
        out,
        spec=spec,
        contract=final,
        files={**chosen.files, REFERENCE: served.reference},
        golden=served.golden,
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


@contextlib.contextmanager
def _loaded(
    plan: Plan, chosen: ChosenEngine, contract: Contract, options: ConversionOptions
) -> Iterator[Engine]:
    """The engine that servers will have, by files in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fairway-package-") as scratch:
        folder = Path(scratch)
        with full_disk_told(folder):
            for path, content in {**chosen.files, **plan.prepare_files}.items():
                write_file(folder / path, content)
        spec = plan.final_spec(chosen)
        engine = load(folder, spec, contract, threads=options.threads, isolation=options.isolation)
        try:
            yield engine
        finally:
            engine.unload()


def _ask(
    engine: Engine,
    contract: Contract,
    plan: Plan,
    columns: Columns,
    sample: Sample,
    given: Sample | None,
    named: _Named,
    options: ConversionOptions,
    progress: Progress,
) -> _Served:
    """Asks the model about the sample's rows, and about those `given` as a reference where there are any."""
    used = frozenset(field.name for field in contract)
    told = sample if given is None else given
    times, lists = read_times(told, used, named.time), read_lists(told, named.query)
    rows = answerable_rows(contract, columns, plan.refused)
    asked = _chosen(rows, options, lists if given is None else None)
    golden = make_golden(engine, contract, columns.take(rows))
    answers = engine.predict(columns.take(asked))
    progress("finding what the model heeds", 0.82)
    importance = permutation_importance(engine, contract, columns.take(asked))
    if given is None:
        reference = _reference(contract, columns, answers, plan.sample, times, lists, asked)
    else:
        others = sample_columns(contract, given)
        which = _chosen(answerable_rows(contract, others, plan.refused), options, lists)
        answered = engine.predict(others.take(which))
        reference = _reference(contract, others, answered, given, times, lists, which)
    return _Served(golden, asked, answers, importance, reference, tuple(_told(times, lists)))


def _told(times: Times | None, lists: Lists | None) -> Iterator[str]:
    if times is not None:
        yield f"The reference's rows have their times from {times.name}: hours are compared with the same hours."
    if lists is not None:
        yield f"The reference's rows are lists by {lists.name}: the order of traffic is compared with theirs, a request a list."


def _chosen(rows: Array, options: ConversionOptions, lists: Lists | None) -> Array:
    """The same rows each time, in order: at most ANSWERED_ROWS of them, and whole lists."""
    mixed = np.random.default_rng(options.seed).permutation(rows)
    return np.sort(mixed[:ANSWERED_ROWS]) if lists is None else lists.whole(mixed, ANSWERED_ROWS)


def _reference(
    contract: Contract,
    columns: Columns,
    answers: Outputs,
    sample: Sample,
    times: Times | None,
    lists: Lists | None,
    rows: Array,
) -> bytes:
    """Of the `rows` of a sample that got `answers`."""
    labels = None if sample.target is None else sample.target[rows]
    moments = None if times is None else times.values[rows]
    together = None if lists is None else lists.values[rows]
    return make_reference(contract, columns.take(rows), answers, labels, moments, together)


def _environment(source: SourceModel, spec: EngineSpec) -> Environment:
    """What the model needs to run: what is installed here, or what was locked for it."""
    if source.isolated is None:
        return capture_environment(spec, needs=_needs(spec))
    made = source.isolated.lease.made
    return locked_environment(made.python, made.packages)


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
