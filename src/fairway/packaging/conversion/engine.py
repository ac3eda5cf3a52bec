"""Chooses the engine of a packaged model: ONNX where it is proved to give the same answers, else native.

`STRATEGIES` is the whole policy: each is tried in order, and the first whose answers agree with the original on
every comparison row is kept. What was tried, and why it was not kept, is in `Proof.attempts`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

from fairway.core.bundle import Attempt, EngineSpec, Proof, Timings
from fairway.core.columns import Outputs
from fairway.core.contract import Contract, DType, Output, Task
from fairway.core.errors import FairwayError, ModelFailed, ProofFailed
from fairway.core.settings import IsolationSettings
from fairway.packaging.contract import sample_columns
from fairway.packaging.conversion.comparison import ComparisonRows, comparison_rows
from fairway.packaging.conversion.feeding import columns_seen, dtypes_of, feed_block, form_of
from fairway.packaging.conversion.graph import (
    Graph,
    MixedTrees,
    NothingToChange,
    Unsupported,
    declare_outputs,
    open_session,
)
from fairway.packaging.conversion.native import as_estimator, native_files
from fairway.packaging.conversion.onnx import external_files, onnx_signature, onnx_spec
from fairway.packaging.conversion.prove import TOLERANCE, Comparison, compare, time_both
from fairway.packaging.conversion.sklearn import convert_estimator
from fairway.packaging.conversion.thresholds import round_tree_thresholds
from fairway.packaging.rules import Refusals
from fairway.packaging.source import Sample, SourceModel
from fairway.runtimes.base import Engine, load
from fairway.runtimes.estimator import EstimatorEngine, task_of
from fairway.runtimes.onnx import OnnxEngine
from fairway.runtimes.python import PythonEngine

Progress = Callable[[str, float], None]
ONNX_FILE = "engine/model.onnx"


class ConversionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tolerance` is absolute plus relative to the original's value. `allow_flips` is how many rows may get
    another label. `max_rows` caps the generated rows, and apart from them the sample rows, that are compared.
    `seed` picks them. `force_native` skips conversion. `threads` is what the engine may use per call here.
    `isolation` says where and how a function with requirements of its own runs."""

    tolerance: float = TOLERANCE
    allow_flips: int = 0
    force_native: bool = False
    seed: int = 0
    max_rows: int = 20_000
    threads: int = 1
    isolation: IsolationSettings | None = None


@dataclass(frozen=True)
class ChosenEngine:
    """`files` are relative to the bundle. `refused` names fields in which the original itself refuses nulls or
    unseen categories, so that the contract can reject them up front."""

    spec: EngineSpec
    files: dict[str, bytes]
    outputs: tuple[Output, ...]
    task: Task
    proof: Proof
    timings: Timings
    refused: Refusals = field(default_factory=Refusals)


@dataclass(frozen=True)
class Candidate:
    """A converted model, not yet proved."""

    model: bytes
    spec: EngineSpec


def original_engine(source: SourceModel, sample: Sample, contract: Contract) -> Engine:
    """The live original as an engine."""
    fields = tuple(field.name for field in contract)
    if source.isolated is not None:
        return source.isolated.engine(fields, dtypes_of(sample))
    if source.kind == "python":
        return PythonEngine(source.model, fields, dtypes_of(sample))
    if source.kind == "onnx":
        return _given_onnx_engine(source, contract)
    estimator = as_estimator(source.model)
    form = form_of(estimator, sample)
    return EstimatorEngine(estimator, fields, task_of(estimator), form, dtypes_of(sample))


def choose_engine(
    source: SourceModel, sample: Sample, contract: Contract, *, options: ConversionOptions, progress: Progress
) -> ChosenEngine:
    """Converts, proves and times. `contract` has final inputs; its outputs are worked out here.

    Raises `ModelFailed` when the original cannot predict its own sample, `ProofFailed` when not even the native
    engine repeats the original's answers, and `ArtifactError` when the native form cannot be stored.
    """
    if source.kind == "onnx":
        return _keep_onnx(source, sample, contract, progress)
    progress("reading the sample", 0.0)
    original = original_engine(source, sample, contract)
    rows = sample_columns(contract, sample)
    estimator = None if source.kind == "python" else as_estimator(source.model)
    progress("generating comparison rows", 0.05)
    form = "frame" if estimator is None else form_of(estimator, sample)
    comparison = comparison_rows(
        original,
        estimator,
        contract,
        rows,
        form=form,
        dtypes=dtypes_of(sample),
        seed=options.seed,
        max_rows=options.max_rows,
    )
    task = Task.other if estimator is None else task_of(estimator)
    outputs = describe_outputs(comparison.expected, getattr(estimator, "classes_", None))
    run = _Choice(source, estimator, sample, contract, task, outputs, comparison, original, options, progress)
    return run.choose()


def describe_outputs(outputs: Outputs, classes: Any = None) -> tuple[Output, ...]:
    """Contract outputs that fit these arrays; `classes` name the last axis of `probabilities`."""
    described = []
    for name, values in outputs.items():
        kind = values.dtype.kind
        dtype = DType.string if kind in "OU" else DType(values.dtype.name)
        labels: tuple[str, ...] = ()
        shape = tuple(values.shape[1:])
        if name in ("probabilities", "score") and shape and classes is not None and len(classes) == shape[0]:
            labels = tuple(str(label) for label in np.asarray(classes).tolist())
        described.append(Output(name=name, dtype=dtype, shape=shape, labels=labels))
    return tuple(described)


@dataclass(frozen=True)
class _Choice:
    """One run of the policy."""

    source: SourceModel
    estimator: Any
    sample: Sample
    contract: Contract
    task: Task
    outputs: tuple[Output, ...]
    rows: ComparisonRows
    original: Engine
    options: ConversionOptions
    progress: Progress

    def choose(self) -> ChosenEngine:
        attempts: list[Attempt] = []
        if self.options.force_native:
            attempts.append(_refused("float32", "conversion was switched off (native engine asked for)"))
        elif self.estimator is None:
            attempts.append(_refused("float32", "a Python function has no translation to ONNX"))
        else:
            for step, (strategy, convert) in enumerate(STRATEGIES):
                self.progress(f"converting to ONNX ({strategy})", 0.15 + 0.15 * step)
                try:
                    candidate = convert(self)
                except Exception as error:  # noqa: BLE001 - converters raise anything; the reason is kept
                    attempts.append(_refused(strategy, _reason(error)))
                    if type(error) is Unsupported:
                        break  # a part without translation has none in any precision
                    continue
                chosen = self._prove_onnx(strategy, candidate, attempts)
                if chosen is not None:
                    return chosen
        return self._native(attempts)

    def _prove_onnx(
        self, strategy: str, candidate: Candidate, attempts: list[Attempt]
    ) -> ChosenEngine | None:
        self.progress(f"comparing with the original ({strategy})", 0.22 + 0.15 * len(attempts))
        try:
            session = open_session(candidate.model, threads=self.options.threads)
            outputs = _as_served(self.outputs, session)
            served = OnnxEngine(session, candidate.spec, self._full(outputs))
            result = compare(
                self.rows.expected, served.predict(self.rows.columns), tolerance=self.options.tolerance
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime raises anything; the reason is kept
            attempts.append(_refused(strategy, _reason(error)))
            return None
        problem = result.problem(allow_flips=self.options.allow_flips)
        attempts.append(_attempt(strategy, result, problem))
        if problem:
            return None
        reason = _why(attempts, "ONNX")
        return self._chosen(
            served, candidate.spec, {ONNX_FILE: candidate.model}, outputs, result, attempts, reason
        )

    def _native(self, attempts: list[Attempt]) -> ChosenEngine:
        self.progress("packing the native engine", 0.8)
        spec, files = native_files(self.source, self.estimator, self.contract, self.sample)
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as loaded:
            for name, data in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            served = load(
                Path(folder),
                spec,
                self._full(self.outputs),
                threads=self.options.threads,
                isolation=self.options.isolation,
            )
            loaded.callback(served.unload)
            self.progress("comparing with the original (native)", 0.85)
            result = compare(
                self.rows.expected, served.predict(self.rows.columns), tolerance=self.options.tolerance
            )
            problem = result.problem(allow_flips=self.options.allow_flips)
            attempts.append(_attempt("native", result, problem))
            if problem:
                raise ProofFailed(
                    f"the stored model does not repeat the answers of the original: {problem}.",
                    hint="A model that draws random numbers or keeps state while predicting cannot be packaged.",
                )
            reason = _why(attempts, spec.kind)
            return self._chosen(served, spec, files, self.outputs, result, attempts, reason)

    def _chosen(
        self,
        served: Engine,
        spec: EngineSpec,
        files: dict[str, bytes],
        outputs: tuple[Output, ...],
        result: Comparison,
        attempts: list[Attempt],
        reason: str,
    ) -> ChosenEngine:
        self.progress("timing", 0.9)
        timings = time_both(self.original, served, self.rows.columns)
        proof = Proof(
            engine=spec.kind,
            rows=result.rows,
            label_flips=result.label_flips,
            max_abs_diff=result.max_abs_diff,
            mean_abs_diff=result.mean_abs_diff,
            tolerance=self.options.tolerance,
            reason=reason,
            rows_by_kind=self.rows.by_kind,
            attempts=tuple(attempts),
        )
        self.progress("proved", 1.0)
        return ChosenEngine(spec, files, outputs, self.task, proof, timings, self.rows.refused)

    def _full(self, outputs: tuple[Output, ...]) -> Contract:
        return msgspec.structs.replace(self.contract, outputs=outputs, task=self.task)


def _float32(run: _Choice) -> Candidate:
    return _convert(run, Graph("float32"))


def _float64(run: _Choice) -> Candidate:
    try:
        return _convert(run, Graph("float64", exact_trees=True))
    except MixedTrees:
        return _convert(run, Graph("float64"))


def _rounded_thresholds(run: _Choice) -> Candidate:
    import onnx  # slow to import, and only packaging needs it

    candidate = _convert(run, Graph("float64"))
    model, changed = round_tree_thresholds(onnx.load_model_from_string(candidate.model))
    if not changed:
        raise NothingToChange("there are no float64 split thresholds to round")
    return Candidate(model.SerializeToString(deterministic=True), candidate.spec)


def _exact_sums(run: _Choice) -> Candidate:
    return _convert(run, Graph("float64", exact_trees=True, copy_trees=True))


STRATEGIES: tuple[tuple[str, Callable[[_Choice], Candidate]], ...] = (
    ("float32", _float32),  # smallest and fastest; what most models need
    ("float64", _float64),  # the precision scikit-learn prepares data in, and some trees compare in
    ("rounded-thresholds", _rounded_thresholds),  # float64 data, trees that compare in float32
    ("exact-sums", _exact_sums),  # votes that tie: added up in float64, one copy of each tree per class
)
"""Conversions in the order tried; the native engine comes after them."""


def _convert(run: _Choice, graph: Graph) -> Candidate:
    form = form_of(run.estimator, run.sample)
    order = columns_seen(run.estimator, run.contract, form)
    block, feeds = feed_block(graph, run.contract, order, form)
    model = convert_estimator(graph, run.estimator, block)
    spec = EngineSpec(kind="onnx", file=ONNX_FILE, feeds=feeds)
    session = open_session(model.SerializeToString(), threads=1)
    declare_outputs(model, [(value.name, value.type, value.shape) for value in session.get_outputs()])
    return Candidate(model.SerializeToString(deterministic=True), spec)


_ONNX_FLOATS = {"tensor(float)": DType.float32, "tensor(double)": DType.float64}


def _as_served(outputs: tuple[Output, ...], session: ort.InferenceSession) -> tuple[Output, ...]:
    """The outputs with the float type the graph gives: casting back would cost time and add no digits."""
    types = {value.name: _ONNX_FLOATS.get(value.type) for value in session.get_outputs()}
    return tuple(
        msgspec.structs.replace(output, dtype=given)
        if output.dtype.is_float and output.name != "label" and (given := types.get(output.name)) is not None
        else output
        for output in outputs
    )


def _given_onnx_engine(source: SourceModel, contract: Contract, *, threads: int = 1) -> OnnxEngine:
    data: bytes = source.model
    _, outputs = onnx_signature(data)
    spec = onnx_spec(data, contract, file=ONNX_FILE)
    with_weights = external_files(data) and source.path is not None
    session = open_session(str(source.path) if with_weights else data, threads=threads)
    return OnnxEngine(session, spec, msgspec.structs.replace(contract, outputs=outputs))


def _keep_onnx(source: SourceModel, sample: Sample, contract: Contract, progress: Progress) -> ChosenEngine:
    """A model that came as ONNX is served as it is: there is no other original to compare with."""
    progress("running the ONNX model on the sample", 0.2)
    engine = _given_onnx_engine(source, contract)
    rows = sample_columns(contract, sample)
    answers = engine.predict(rows)
    described = {output.name: output for output in describe_outputs(answers)}
    _, declared = onnx_signature(source.model)
    outputs = tuple(described[output.name] for output in declared)
    files = {ONNX_FILE: bytes(source.model)}
    for name in external_files(source.model):
        if source.path is None:
            raise ModelFailed(f"the ONNX graph keeps weights in {name!r}, but was not read from a folder.")
        files[f"engine/{name}"] = (source.path.parent / name).read_bytes()
    progress("timing", 0.8)
    timings = time_both(engine, engine, rows)
    reason = "The model came as ONNX and is served unchanged."
    attempt = Attempt(strategy="as given", accepted=True, reason=reason, rows=rows.rows)
    proof = Proof(
        engine="onnx",
        rows=rows.rows,
        label_flips=0,
        max_abs_diff=0.0,
        mean_abs_diff=0.0,
        tolerance=0.0,
        reason=reason,
        rows_by_kind={"sample": rows.rows},
        attempts=(attempt,),
    )
    progress("proved", 1.0)
    spec = onnx_spec(source.model, contract, file=ONNX_FILE)
    return ChosenEngine(spec, files, outputs, Task.other, proof, timings)


def _refused(strategy: str, reason: str) -> Attempt:
    return Attempt(strategy=strategy, accepted=False, reason=reason)


def _attempt(strategy: str, result: Comparison, problem: str) -> Attempt:
    agreed = "no label changed and every number within the tolerance"
    if result.label_flips and not problem:
        agreed = f"{result.label_flips} labels changed, which was allowed"
    return Attempt(
        strategy=strategy,
        accepted=not problem,
        reason=problem or agreed,
        rows=result.rows,
        label_flips=result.label_flips,
        max_abs_diff=result.max_abs_diff if np.isfinite(result.max_abs_diff) else 1e308,
        mean_abs_diff=result.mean_abs_diff if np.isfinite(result.mean_abs_diff) else 1e308,
    )


def _reason(error: Exception) -> str:
    """One plain line of an exception from the converter or the engine."""
    if isinstance(error, Unsupported):
        return f"not translated: {error}"
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, FairwayError):
        return first[:300]
    return f"{type(error).__name__}: {first}"[:300]


def _why(attempts: list[Attempt], engine: str) -> str:
    *failed, kept = attempts
    agreed = f"{engine} ({kept.strategy}) agrees with the original on all {kept.rows} comparison rows"
    if not failed:
        return f"{agreed}."
    told = "; ".join(f"{attempt.strategy}: {attempt.reason}" for attempt in failed)
    return f"{agreed}. Before it: {told}."
