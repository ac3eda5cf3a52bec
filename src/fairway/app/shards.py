"""One shard of a batch run: an array job's task, which needs no cluster but a place that all tasks write to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from fairway.app.batch import find_model, make_plan
from fairway.app.batch_data import check_unchanged, find_input, is_flat, open_sink
from fairway.app.batch_runs import run_folder
from fairway.app.home import Home, open_home
from fairway.app.spread import go_spread
from fairway.batch.ledger import LOCK, Ledger, hold
from fairway.batch.local import Model, load_for_batch
from fairway.batch.notes import LocalNotes, Notes, SqlNotes, StoreNotes
from fairway.batch.plan import Options, Plan, read_limit, run_name
from fairway.batch.report import Report
from fairway.batch.run import Run, Tell, shown
from fairway.batch.shards import Agreed, Shard, ShardRun, note_name
from fairway.batch.sink import Folder, SingleFile, Sink, is_local
from fairway.batch.source import SourceFile
from fairway.batch.spread import Here
from fairway.batch.sql import SqlSink, is_sql, read_place
from fairway.batch.stretches import Stretch, save
from fairway.batch.worker import Outcome
from fairway.core.errors import AlreadyExists, Conflict, InvalidInput, NotSupported
from fairway.inference.live import LiveVersion

INDEX_VARIABLES = (
    "JOB_COMPLETION_INDEX",  # Kubernetes Indexed Jobs
    "AWS_BATCH_JOB_ARRAY_INDEX",
    "SLURM_ARRAY_TASK_ID",
    "BATCH_TASK_INDEX",  # Google Cloud Batch
)


def shard_index() -> str:
    """Which task of an array job this process is, by what the scheduler has set; "" when none has."""
    return next((os.environ[name] for name in INDEX_VARIABLES if os.environ.get(name)), "")


def run_shard(
    name: str,
    shard: Shard,
    options: Options,
    *,
    run: str = "",
    home: str | os.PathLike[str] | None = None,
    tell: Tell = lambda progress: None,
    started: Callable[[Run], None] = lambda run: None,
) -> Report:
    """Scores one shard's share of `options.input`. The shard that sees all shares done ends the run, and gives the report
    of the whole; the others give that of their share.

    All shards need the same model version, options and `run`, a name that a database as input makes necessary: nobody
    can see whether its rows have changed since the last run. Raises what `run_batch` raises, and Conflict when the
    shards are not of one run.
    """
    _check_options(options, run)
    with open_home(home) as place:
        model = find_model(place, name)
        files = find_input(place, options)
        run = run or run_name(model.name, model.digest, options, ())
        folder = run_folder(place, f"{run}.{shard.index}-of-{shard.count}")
        workers = options.workers or len(os.sched_getaffinity(0))
        sink = open_sink(place, options, run, folder, [file.path for file in files])
        notes = _open_notes(sink, options, run)
        live: LiveVersion | None = None
        try:
            agreed = _agreed(notes)
            if agreed is None:
                live = load_for_batch(model, place.settings, workers)
                agreed = _agree(place, run, model, live, options, files, shard, sink, notes)
            _check_same(agreed, model, options, shard)
            report = _finished(notes)
            if report is not None:
                return report
            live = live or load_for_batch(model, place.settings, workers)
            folder.mkdir(parents=True, exist_ok=True)
            with hold(folder), closing(_fresh_ledger(folder, agreed, options, workers)) as ledger:
                plan = ledger.plan(Plan)
                check_unchanged(place, ledger, plan)
                return go_spread(
                    place,
                    plan,
                    ledger,
                    model,
                    live,
                    sink,
                    Here(Path(model.directory), f"{workers} stretches at once", workers),
                    flat=is_flat(options),
                    tell=tell,
                    started=started,
                    note=_Noted(notes),
                    mine=_Mine(agreed.stretches, shard),
                    make=partial(ShardRun, notes, shard),
                )
        finally:
            notes.close()
            sink.close()
            if live is not None:
                live.engine.unload()


def _check_options(options: Options, run: str) -> None:
    """Raises what no shard can do."""
    read_limit(options.max_errors)
    if options.log:
        raise NotSupported(
            "--log with --shard would write to the log of whichever machine the shard is on.",
            hint="Leave it out: the run's report has drift too.",
        )
    if is_sql(options.input) and not run:
        raise InvalidInput(
            "shards that read a database need a name for their run: nobody can see whether it has new rows.",
            hint="Say --run NAME, the same for all shards, such as the name of the job.",
        )


def _finished(notes: Notes) -> Report | None:
    """The report of the whole, where all shards are done and no file is left to try again."""
    content = notes.read("report")
    report = None if content is None else msgspec.json.decode(content, type=Report)
    return None if report is None or report.failed_files else report


class _Noted:
    """Notes every outcome beside the output before it counts."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def __call__(self, outcome: Outcome) -> None:
        self._notes.put(note_name(outcome.stretch), msgspec.json.encode(outcome))


class _Mine:
    """Every n-th stretch, so that shards end at about the same time."""

    def __init__(self, stretches: tuple[Stretch, ...], shard: Shard) -> None:
        self._own = frozenset(stretches[shard.index :: shard.count])

    def __call__(self, stretch: Stretch) -> bool:
        return stretch in self._own


def _open_notes(sink: Sink, options: Options, run: str) -> Notes:
    """Beside the output: in its folder, beside its file, or in its database."""
    if isinstance(sink, SqlSink):
        return SqlNotes(read_place(options.output), run)
    assert isinstance(sink, Folder | SingleFile), "sinks are tables, folders and files"
    folder = f"{sink.path}/_fairway" if isinstance(sink, Folder) else f"{sink.path}.fairway"
    return LocalNotes(Path(folder) / run) if is_local(sink.fs) else StoreNotes(sink.fs, f"{folder}/{run}")


def _agreed(notes: Notes) -> Agreed | None:
    content = notes.read("plan")
    return None if content is None else msgspec.json.decode(content, type=Agreed)


def _agree(
    place: Home,
    run: str,
    model: Model,
    live: LiveVersion,
    options: Options,
    files: list[SourceFile],
    shard: Shard,
    sink: Sink,
    notes: Notes,
) -> Agreed:
    """The plan of the first shard to come, which may be this one."""
    try:
        sink.check(overwrite=False)
    except AlreadyExists:
        agreed = _agreed(notes)  # what is there may be what another shard has just begun
        if agreed is None:
            raise
        return agreed
    plan, stretches = make_plan(place, run, model, live, options, files, "shard", shard.count)
    public = msgspec.structs.replace(options, input=shown(options.input), output=shown(options.output))
    plan = msgspec.structs.replace(plan, options=public)
    own = Agreed(plan=plan, files=tuple(files), stretches=tuple(stretches), shards=shard.count)
    return msgspec.json.decode(notes.create("plan", msgspec.json.encode(own)), type=Agreed)


def _check_same(agreed: Agreed, model: Model, options: Options, shard: Shard) -> None:
    """Raises Conflict when this shard was started with other words than the first."""
    first = agreed.plan.options
    words = [word for word in Options.__struct_fields__ if word not in ("input", "output", "workers")]
    other = [word for word in words if getattr(first, word) != getattr(options, word)]
    if first.input != shown(options.input):
        other.append("input")
    if agreed.plan.digest != model.digest:
        other.append(f"model ({agreed.plan.model}:{agreed.plan.version} there)")
    if agreed.shards != shard.count:
        other.append(f"number of shards ({agreed.shards} there)")
    if other:
        raise Conflict(
            f"the run {agreed.plan.run} was begun with another {', '.join(other)}.",
            hint="Start all shards with the same command, or write to another place.",
        )


def _fresh_ledger(folder: Path, agreed: Agreed, options: Options, workers: int) -> Ledger:
    """This shard's ledger, empty: the notes are what counts. With the folder held."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    save(folder, agreed.stretches)
    plan = msgspec.structs.replace(agreed.plan, options=options, workers=workers)
    return Ledger.create(folder, msgspec.json.encode(plan), agreed.files)
