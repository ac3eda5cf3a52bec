"""The whole way from a pipeline's TOML to a sealed bundle that holds everything it runs, on one screen."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fairway.core.bundle import EngineSpec, GoldenRows, Proof
from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract, DType, Output
from fairway.core.errors import FairwayError, ModelFailed, Problem, ProofFailed, UnknownFormat
from fairway.core.pipeline import FILE, KIND, ModelNode, Pipeline, Source, folder
from fairway.core.settings import IsolationSettings
from fairway.packaging.bundle import MANIFEST, full_disk_told, require_free, write_bundle, write_file
from fairway.packaging.card import DataDigest, data_digest, in_sample_metrics, write_card
from fairway.packaging.contract import infer_contract
from fairway.packaging.environment import PYTHON, capture_environment, check_environment
from fairway.packaging.golden import make_golden, pick_rows
from fairway.packaging.importance import permutation_importance
from fairway.packaging.package import ANSWERED_ROWS, Packaged, Progress
from fairway.packaging.pipeline_check import Checked, NodeModel, Parts, check_pipeline
from fairway.packaging.pipeline_data import Rows, example_rows, sample_rows
from fairway.packaging.pipeline_names import Names
from fairway.packaging.pipeline_text import Declared, read_pipeline, refuse
from fairway.packaging.profile import Profile, make_profile, with_importance
from fairway.packaging.python_file import load_function, needed_files, split_entry
from fairway.packaging.reference import FILE as REFERENCE
from fairway.packaging.reference import make_reference
from fairway.packaging.sample import read_sample
from fairway.packaging.source import Sample
from fairway.packaging.verify import verify_bundle
from fairway.runtimes import base
from fairway.runtimes.pipeline import PipelineEngine, load, make_runner
from fairway.runtimes.python import takes_dict

FindModel = Callable[[str], NodeModel]
"""A registered version by its reference, as text. Raises NotFound."""

PROVED_ROWS = 64
TOLERANCE = 1e-5
"""Largest difference allowed between a row's answer alone and in a batch, absolute plus relative."""


def _silent(step: str, fraction: float) -> None:
    return None


def package_pipeline(
    path: str | Path,
    *,
    find: FindModel,
    data: Any = None,
    target: Any = None,
    out: Path,
    isolation: IsolationSettings | None = None,
    progress: Progress = _silent,
) -> Packaged:
    """Packages the pipeline declared at `path` as a bundle at `out`, which must not exist.

    `find` gives the models that nodes name; they are copied into the bundle as they are. `data` is sample data as
    for other models; without it the golden rows of the models stand in. Raises InvalidInput naming everything
    that does not fit together, ProofFailed when rows in a batch get other answers than alone, and what `sample`,
    `bundle` and the engines raise.
    """
    require_free(out)
    path = Path(path)
    progress("reading the pipeline", 0.0)
    declared = read_pipeline(path)
    parts, files, functions = _collect(declared, path, find)
    progress("reading the sample", 0.1)
    sample = None if data is None else read_sample(data, target=target)
    if sample is not None:
        parts = dataclasses.replace(parts, fields=_sampled_fields(declared, parts, sample))
    with tempfile.TemporaryDirectory(prefix="fairway-package-") as scratch, full_disk_told(Path(scratch)):
        for name, content in files.items():
            write_file(Path(scratch) / name, content)
        progress("checking that everything fits", 0.2)
        checked, rows = _settle(declared, parts, sample, path, Path(scratch), isolation)
        contract = msgspec.structs.replace(
            checked.contract, target=target if isinstance(target, str) else None
        )
        spec = EngineSpec(kind=KIND, file=FILE)
        files[FILE] = msgspec.json.format(msgspec.json.encode(checked.pipeline), indent=1)
        write_file(Path(scratch) / FILE, files[FILE])
        engine = load(
            Path(scratch), spec, contract, 1, isolation=isolation or IsolationSettings(), name=path.stem
        )
        try:
            tried = _tried(engine, contract, checked.pipeline, rows, progress)
        finally:
            engine.unload()
    labels = None if rows.target is None else rows.target[tried.asked]
    asked = rows.columns.take(tried.asked)
    files[REFERENCE] = make_reference(contract, asked, tried.answers, labels)
    profile = Profile(
        rows=rows.profile.rows,
        inputs=with_importance(rows.profile.inputs, tried.importance),
        outputs=make_profile(contract, asked, tried.answers).outputs,
    )
    environment = capture_environment(spec, needs=_needs(parts, functions))
    card = write_card(
        model_type=f"pipeline of {', '.join(declared.nodes)}",
        source_kind="pipeline",
        model_file=path.name,
        contract=contract,
        spec=spec,
        profile=profile,
        environment=environment,
        proof=tried.proof,
        data=_digest(data, rows.columns),
        metrics=in_sample_metrics(contract.task, tried.answers, labels),
        notes=tried.notes,
    )
    progress("writing the bundle", 0.85)
    digest = write_bundle(
        out,
        spec=spec,
        contract=contract,
        files=files,
        golden=tried.golden,
        profile=profile,
        environment=environment,
        proof=tried.proof,
        card=card,
        timings=None,
    )
    progress("verifying the bundle", 0.95)
    verify_bundle(out, isolation=isolation)
    progress("packaged", 1.0)
    return Packaged(out, digest, KIND, tried.proof, contract, None, tried.notes)


@dataclasses.dataclass(frozen=True)
class _Tried:
    """What the pipeline did with the rows at the positions `asked`, and whether it may be trusted."""

    asked: Array
    answers: Outputs
    notes: tuple[str, ...]
    proof: Proof
    golden: GoldenRows
    importance: dict[str, float]


def _tried(
    engine: PipelineEngine, contract: Contract, pipeline: Pipeline, rows: Rows, progress: Progress
) -> _Tried:
    progress("answering the sample", 0.4)
    reached: dict[str, int] = {}
    engine.timings = lambda node, count, _: reached.update({node: reached.get(node, 0) + count})
    asked = np.sort(np.random.default_rng(0).permutation(rows.columns.rows)[:ANSWERED_ROWS])
    answers = engine.predict(rows.columns.take(asked))
    notes = tuple(
        f"No row of the {rows.kind} reached {node.name}."
        for node in pipeline.nodes
        if not reached.get(node.name)
    )
    progress("proving that rows are answered one by one", 0.6)
    return _Tried(
        asked=asked,
        answers=answers,
        notes=notes,
        proof=_prove(engine, contract, rows, pipeline),
        golden=make_golden(engine, contract, rows.columns),
        importance=permutation_importance(engine, contract, rows.columns.take(asked)),
    )


def _collect(
    declared: Declared, path: Path, find: FindModel
) -> tuple[Parts, dict[str, bytes | Path], dict[str, Callable[..., Any]]]:
    """(what is known of the nodes, their files by place in the bundle, functions by node)."""
    found: list[Problem] = []
    models: dict[str, NodeModel] = {}
    entries: dict[str, tuple[str, str]] = {}
    files: dict[str, bytes | Path] = {}
    functions: dict[str, Callable[..., Any]] = {}
    for name, node in declared.nodes.items():
        try:
            if node.model is not None:
                models[name] = find(node.model)
                bundle = models[name].bundle
                check_environment(bundle.environment)
                copied = [MANIFEST, *bundle.manifest.files]
                files |= {f"{folder(name)}/{item}": bundle.directory / item for item in copied}
            elif node.function is not None:
                file, function = _entry(node.function, path)
                functions[name] = load_function(file, function)
                entries[name] = (file.name, function)
                needed = needed_files(file, node.files)
                files |= {f"{folder(name)}/{item}": place for item, place in needed.items()}
        except FairwayError as error:
            found.append(Problem(str(error).rstrip("."), f"nodes.{name}"))
    refuse(found, str(path))
    return Parts(models=models, entries=entries), files, functions


def _entry(text: str, path: Path) -> tuple[Path, str]:
    entry = split_entry(text)
    if entry is None:
        raise UnknownFormat(f"{text!r} is no function.", hint="Write file.py:function")
    return path.parent / entry[0], entry[1]


def _sampled_fields(declared: Declared, parts: Parts, sample: Sample) -> Mapping[str, Any]:
    """Fields of the sample that only functions and routers read."""
    names = Names(declared, {name: model.bundle.contract for name, model in parts.models.items()})
    read = {field for node in declared.nodes for _, field in names.request_fields(node)}
    known = {field.name for model in parts.models.values() for field in model.bundle.contract}
    wanted = [name for name in sample.frame.columns if name in read - known - set(declared.inputs)]
    tensors = {name: values for name, values in sample.tensors.items() if name in read - known}
    if not wanted and not tensors:
        return {}
    part = dataclasses.replace(sample, frame=sample.frame[wanted], tensors=tensors)
    return {field.name: field for field in infer_contract(part)}


def _settle(
    declared: Declared,
    parts: Parts,
    sample: Sample | None,
    path: Path,
    scratch: Path,
    isolation: IsolationSettings | None,
) -> tuple[Checked, Rows]:
    """The pipeline with every type known: functions whose outputs are not declared are run on the rows to see them."""
    rows: Rows | None = None
    engines: dict[str, base.Engine] = {}

    def engine(node: ModelNode) -> base.Engine:
        if node.name not in engines:
            place = scratch / folder(node.name)
            engines[node.name] = base.load(place, node.spec, node.contract, isolation=isolation)
        return engines[node.name]

    try:
        while True:
            checked = check_pipeline(declared, parts)
            refuse(checked.problems, str(path))
            if rows is None:
                given = sample is None
                rows = example_rows(checked, parts.models) if given else sample_rows(checked.contract, sample)
            if checked.waiting is None:
                return checked, rows
            draft = Pipeline(nodes=tuple(checked.nodes.values()), outputs={"": Source("", checked.waiting)})
            runners = {
                node.name: make_runner(node, scratch / folder(node.name), checked.contract, engine)
                for node in draft.nodes
            }
            seen = _seen(PipelineEngine(draft, runners), checked.waiting, rows.columns)
            known = {**parts.functions, checked.waiting: _described(checked.waiting, seen)}
            parts = dataclasses.replace(parts, functions=known)
    finally:
        for loaded in engines.values():
            loaded.unload()


def _seen(engine: PipelineEngine, node: str, columns: Columns) -> Outputs:
    try:
        return engine.outputs_of(node, columns)
    except ModelFailed as error:
        raise ModelFailed(
            f"What node {node!r} gives cannot be seen on the sample: {error}",
            hint='Or say it: outputs = { name = "float64" }.',
        ) from error


def _described(node: str, outputs: Outputs) -> tuple[Output, ...]:
    """What a function gave, as outputs. Raises ModelFailed for what no client could be sent."""
    described = []
    for name, values in outputs.items():
        kind = values.dtype.kind
        if kind == "M":
            dtype = DType.timestamp
        elif kind == "U" or (kind == "O" and all(v is None or isinstance(v, str) for v in values.flat)):
            dtype = DType.string
        elif values.dtype.name in DType.__members__:
            dtype = DType(values.dtype.name)
        else:
            raise ModelFailed(
                f"Node {node!r} gives {name!r} as {values.dtype}: numbers, text, true/false or moments can be served."
            )
        described.append(Output(name=name, dtype=dtype, shape=tuple(values.shape[1:])))
    return tuple(described)


def _prove(engine: PipelineEngine, contract: Contract, rows: Rows, pipeline: Pipeline) -> Proof:
    """Some rows together and each alone. Raises ProofFailed where the answers differ."""
    columns = rows.columns.take(pick_rows(contract, rows.columns, rows=PROVED_ROWS))
    together = engine.predict(columns)
    alone = [engine.predict(columns.take(slice(row, row + 1))) for row in range(columns.rows)]
    largest, total, count = 0.0, 0.0, 0
    for output in contract.outputs:
        for row, answer in enumerate(alone):
            mine, other = together[output.name][row : row + 1], answer[output.name]
            if not _agrees(mine, other):
                raise ProofFailed(
                    f"A row gets another {output.name!r} in a batch ({mine.tolist()[0]!r}) than alone "
                    f"({other.tolist()[0]!r}).",
                    hint="A function of a pipeline has to answer each row by itself.",
                )
            if mine.dtype.kind == "f":
                difference = np.nan_to_num(np.abs(mine.astype(np.float64) - other.astype(np.float64)))
                largest = max(largest, float(difference.max(initial=0.0)))
                total, count = total + float(difference.sum()), count + difference.size
    nodes = f"{len(pipeline.nodes)} node{'s' if len(pipeline.nodes) > 1 else ''}"
    return Proof(
        engine=KIND,
        rows=columns.rows,
        label_flips=0,
        max_abs_diff=largest,
        mean_abs_diff=total / max(count, 1),
        tolerance=TOLERANCE,
        reason=f"{nodes} in one process; a batch gives each of {columns.rows} rows the answer it gets alone.",
        rows_by_kind={rows.kind: columns.rows},
    )


def _agrees(one: Any, other: Any) -> bool:
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
    return bool(one.dtype == other.dtype and (one == other).all())


def _needs(parts: Parts, functions: Mapping[str, Callable[..., Any]]) -> tuple[str, ...]:
    """What the nodes need, each once."""
    needs = [name for model in parts.models.values() for name in model.bundle.environment.required]
    if functions:
        needs += [PYTHON, "numpy"]
    if not all(takes_dict(function) for function in functions.values()):
        needs.append("pandas")
    return tuple(dict.fromkeys(needs))


def _digest(data: Any, columns: Columns) -> DataDigest:
    if data is not None:
        return data_digest(data, columns)
    return DataDigest("the models' golden rows", data_digest(None, columns).sha256)
