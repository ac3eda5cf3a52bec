"""Batch runs wired up: the registry's version, an engine, the ledger in the home."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Literal

import msgspec

from fairway.app.batch_data import (
    check_unchanged,
    find_input,
    is_flat,
    is_there,
    open_sink,
    open_source,
    schema_of,
)
from fairway.app.batch_runs import finished_report, forget_old, free_folder, run_folder, tidy
from fairway.app.home import Home, open_home
from fairway.app.spread import check_reachable, cut, go_spread, is_spread, open_cluster
from fairway.batch.ledger import Ledger, hold
from fairway.batch.local import Model, load_for_batch, open_scorers, open_watch, wants_processes
from fairway.batch.plan import (
    EngineName,
    Options,
    Plan,
    make_reading,
    now_text,
    output_schema,
    pack_schema,
    part_rows,
    read_limit,
    read_size,
    run_name,
)
from fairway.batch.recording import recording
from fairway.batch.report import Report
from fairway.batch.run import Run, Tell
from fairway.batch.score import plan_calls
from fairway.batch.sink import Sink
from fairway.batch.source import SourceFile
from fairway.batch.spread import Cluster
from fairway.batch.sql import is_sql
from fairway.batch.stretches import Stretch, save
from fairway.core.errors import Conflict, InvalidInput, NotSupported
from fairway.inference.live import LiveVersion


def run_batch(
    name: str,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    keep: tuple[str, ...] = (),
    join: bool = False,
    format: str = "",
    input_format: str = "",
    encoding: str = "utf-8",
    delimiter: str = "",
    rows_per_file: int = 0,
    file_size: str = "",
    compression: str = "",
    max_errors: str = "",
    workers: int = 0,
    log: str = "",
    overwrite: bool = False,
    fresh: bool = False,
    engine: EngineName = "local",
    address: str = "",
    home: str | os.PathLike[str] | None = None,
    tell: Tell = lambda progress: None,
    started: Callable[[Run], None] = lambda run: None,
) -> Report:
    """Scores every row of `input` into `output`, and goes on with a run that was begun and not finished.

    `name` is a model, `payments@champion` or `payments:3`. `input` is a file, a folder, a glob, an fsspec URL or a
    database's; so is `output`. The same run again has nothing to do, and gives the report it had. With `fresh`, rows of
    a database are read from the first on, also where a run before was not finished: they may have changed since.
    `file_size` is such as "128MB". `log` is a kept column: predictions go to the log under its values, for the monitor
    and for labels. `engine` "spark" or "ray" scores on a cluster: the session or connection there is, else one at `address`. See
    `docs/guides/batch.md`. Raises what the model's loading raises, AlreadyExists for a sink that holds other data,
    NotFound, InvalidInput, StorageFull, Unavailable, ModelFailed.
    """
    options = Options(
        input=str(input),
        output=str(output),
        keep=tuple(keep),
        join=join,
        format=format,
        input_format=input_format,
        encoding=encoding,
        delimiter=delimiter,
        rows_per_file=rows_per_file,
        file_bytes=read_size(file_size),
        compression=compression,
        max_errors=max_errors,
        workers=workers,
        log=log,
    )
    read_limit(max_errors)
    with open_home(home) as place:
        check_log(options, engine, place)
        model = find_model(place, name)
        files = find_input(place, options)
        run = run_name(model.name, model.digest, options, files)
        folder = run_folder(place, run)
        if (folder / "ledger.db").exists():
            with closing(Ledger(folder)) as ledger:
                report = finished_report(ledger)
                gone = report is not None and not is_there(options, report, place)
                what = next_step(
                    finished=report is not None,
                    gone=gone,
                    is_table=is_sql(options.input),
                    overwrite=overwrite,
                    fresh=fresh,
                )
                if what == "begin anew":
                    with ledger.lock():  # nobody works on it
                        run = free_folder(folder).name
                elif report is not None:
                    tidy(ledger, report)
                    return report
            if what == "go on":
                return resume(
                    run, engine=engine, address=address, home=place.path, tell=tell, started=started
                )
        with open_cluster(engine, address, place.settings, model) as cluster:
            return _begin(place, run, model, options, files, overwrite, engine, cluster, tell, started)


def next_step(
    *, finished: bool, gone: bool, is_table: bool, overwrite: bool, fresh: bool
) -> Literal["begin anew", "go on", "tell"]:
    """What is done about a run that was begun before. `gone` says that nothing is left of what it wrote. Nobody can see
    whether a table has changed since: that a run of one has finished says nothing about its rows today."""
    if overwrite or gone or (is_table and (fresh or finished)):
        return "begin anew"
    return "tell" if finished else "go on"


def check_log(options: Options, engine: EngineName, place: Home) -> None:
    """Raises what is in the way of recording predictions, where that was asked for."""
    if not options.log:
        return
    if engine != "local":
        raise NotSupported(
            "--log records where the rows are scored, and the machines of a cluster have no log.",
            hint="Leave it out: the run's report has drift too. Or score with --engine local.",
        )
    if not options.join and options.log not in options.keep:
        raise InvalidInput(
            f"--log {options.log}: the key must go to the output too.", hint=f"Add --keep {options.log}"
        )
    if not place.settings.log.enabled:
        raise InvalidInput(
            "--log: the prediction log is switched off.", hint="Set log.enabled in fairway.toml."
        )


def resume(
    run: str,
    *,
    engine: EngineName | None = None,
    address: str = "",
    home: str | os.PathLike[str] | None = None,
    tell: Tell = lambda progress: None,
    started: Callable[[Run], None] = lambda run: None,
) -> Report:
    """Goes on with a run from what it has committed, on the engine it was begun on unless `engine` says another. A
    finished one gives its report. Raises RunNotFound, Conflict when another process works on it, and what `run_batch`
    raises."""
    with open_home(home) as place:
        ledger = Ledger(run_folder(place, run))
        try:
            plan = ledger.plan(Plan)
            if plan.engine == "shard":
                raise InvalidInput(
                    f"{run} is one shard of a run, whose notes are beside its output.",
                    hint="Run the shard's own command again: fairway batch run ... --shard i/n",
                )
            report = finished_report(ledger)
            if report is not None and not report.failed_files:
                tidy(ledger, report)
                return report
            model = find_model(place, f"{plan.model}:{plan.version}")
            if model.digest != plan.digest:
                raise Conflict(
                    f"{plan.model}:{plan.version} is another model than the one that the run began with."
                )
            chosen = engine or plan.engine
            check_log(plan.options, chosen, place)
            with ledger.lock():
                ledger.heed()
                with open_cluster(chosen, address, place.settings, model) as cluster:
                    check_unchanged(place, ledger, plan)
                    ledger.begin()
                    return _go(place, plan, ledger, model, cluster, tell, started)
        finally:
            ledger.close()


def _begin(
    place: Home,
    run: str,
    model: Model,
    options: Options,
    files: list[SourceFile],
    overwrite: bool,
    engine: EngineName,
    cluster: Cluster | None,
    tell: Tell,
    started: Callable[[Run], None],
) -> Report:
    forget_old(place)
    live = load_for_batch(model, place.settings, options.workers or len(os.sched_getaffinity(0)))
    slots = 0 if cluster is None else cluster.slots
    if cluster is not None:
        check_reachable(options)
    plan, stretches = make_plan(place, run, model, live, options, files, engine, slots)
    folder = run_folder(place, run)
    sink = open_sink(place, options, plan.attempt, folder, [file.path for file in files])
    try:
        sink.check(overwrite=overwrite)
    finally:
        sink.close()
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder, new=True):
        if cluster is not None:
            save(folder, stretches)
        with closing(Ledger.create(folder, msgspec.json.encode(plan), files)) as ledger:
            return _go(place, plan, ledger, model, cluster, tell, started, live)


def make_plan(
    place: Home,
    run: str,
    model: Model,
    live: LiveVersion,
    options: Options,
    files: list[SourceFile],
    engine: EngineName,
    slots: int,
) -> tuple[Plan, list[Stretch]]:
    """What a run will do; with `slots`, cut into stretches for so many at once."""
    workers = options.workers or len(os.sched_getaffinity(0))
    calls = plan_calls(live)
    reading = make_reading(options, live.contract, calls)
    schema = schema_of(place, files, reading, live.contract, options)
    output_schema(schema, live.contract, flat=is_flat(options))
    part = part_rows(options, calls, workers, sql=is_sql(options.output))
    stretches: list[Stretch] = []
    if slots:
        part, stretches = cut(place, options, files, reading, live.contract, calls, slots)
    plan = Plan(
        run=run,
        model=model.name,
        version=model.version,
        digest=model.digest,
        options=options,
        reading=reading,
        schema=pack_schema(schema),
        part_rows=part,
        call_rows=calls.rows,
        workers=workers,
        processes=not slots and wants_processes(live, calls, workers, sum(file.bytes for file in files)),
        created=now_text(),
        engine=engine,
        notes=(calls.note,) if calls.note else (),
    )
    return plan, stretches


def _go(
    place: Home,
    plan: Plan,
    ledger: Ledger,
    model: Model,
    cluster: Cluster | None,
    tell: Tell,
    started: Callable[[Run], None],
    live: LiveVersion | None = None,
) -> Report:
    live = live or load_for_batch(model, place.settings, plan.workers)
    files = [record.file for record in ledger.files()]
    sink = open_sink(place, plan.options, plan.attempt, ledger.folder, [file.path for file in files])
    try:
        if cluster is None and not is_spread(ledger):
            return _go_here(place, plan, ledger, model, live, sink, tell, started)
        flat = is_flat(plan.options)
        return go_spread(
            place, plan, ledger, model, live, sink, cluster, flat=flat, tell=tell, started=started
        )
    finally:
        sink.close()
        live.engine.unload()


def _go_here(
    place: Home,
    plan: Plan,
    ledger: Ledger,
    model: Model,
    live: LiveVersion,
    sink: Sink,
    tell: Tell,
    started: Callable[[Run], None],
) -> Report:
    """By threads or processes of this machine."""
    watch = open_watch(model, live)
    log = plan.options.log
    with closing(open_source(place, plan, live.contract)) as source:
        pool, score = open_scorers(
            model,
            live,
            place.settings,
            watch=watch,
            schema=plan.schema,
            call_rows=plan.call_rows,
            workers=plan.workers,
            processes=plan.processes,
            log=log,
        )
        with recording(live, place.settings, plan.attempt) if log else nullcontext() as recorded:
            run = Run(
                plan,
                ledger,
                live.contract,
                source,
                sink,
                flat=is_flat(plan.options),
                watch=watch,
                recording=recorded,
                tell=tell,
            )
            started(run)
            with pool as executor:
                report = run.go(executor, score)
    if report.state == "finished":
        tidy(ledger, report)
    return report


def find_model(place: Home, name: str) -> Model:
    """The version that `name` means, as `Home.find` has it, unpacked."""
    version = place.find(name)
    return Model(version.model, version.version, version.digest, str(place.registry.fetch(version)))
