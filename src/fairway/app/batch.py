"""Batch runs wired up: the registry's version, sources and sinks by URL, the ledger in the home."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from fairway.app.home import Home, open_home
from fairway.app.spread import check_reachable, cut, go_spread, is_spread, open_cluster
from fairway.batch.ledger import Ledger, State
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
from fairway.batch.run import Run, Tell, shown
from fairway.batch.score import plan_calls
from fairway.batch.sink import Sink, open_file_sink
from fairway.batch.source import (
    Piece,
    Position,
    Reading,
    SourceFile,
    file_system,
    find_files,
    kept_schema,
    pieces,
)
from fairway.batch.spread import Cluster
from fairway.batch.sql import SqlSink, SqlSource, is_sql, read_place
from fairway.batch.stretches import Stretch, save
from fairway.core.contract import Contract
from fairway.core.errors import (
    Conflict,
    FairwayError,
    InvalidInput,
    MalformedInput,
    NotSupported,
    RunNotFound,
)
from fairway.core.version import parse_reference
from fairway.inference.live import LiveVersion

logger = logging.getLogger("fairway.batch")


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the list. `state` is "killed" for one that says running while no process works on it."""

    run: str
    model: str
    version: int
    state: str
    reason: str
    rows: int
    rejected: int
    created: str
    input: str
    output: str


class _Files:
    def __init__(self, fs: Any, reading: Reading, contract: Contract) -> None:
        self._fs, self._reading, self._contract = fs, reading, contract

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        yield from pieces(self._fs, file, start, self._reading, self._contract)

    def close(self) -> None:
        return None


class _Rows:
    def __init__(self, source: SqlSource, rows: int) -> None:
        self._source, self._rows = source, rows

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        return self._source.pieces(start, self._rows)

    def close(self) -> None:
        self._source.close()


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
            ledger = Ledger(folder)
            state, _ = ledger.state
            report = _report(ledger)
            gone = report is not None and not _is_there(options, report, place)
            again = state == "finished" and (gone or is_sql(options.input))
            if overwrite or again or (fresh and is_sql(options.input)):
                with ledger.lock():
                    ledger.close()
                    run, folder = _away(folder)
            else:
                try:
                    if state == "finished" and report is not None:
                        _tidy(ledger, report)
                        return report
                finally:
                    ledger.close()
                return resume(
                    run, engine=engine, address=address, home=place.path, tell=tell, started=started
                )
        with open_cluster(engine, address, place.settings, model) as cluster:
            return _begin(place, run, model, options, files, overwrite, engine, cluster, tell, started)


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
            report = _report(ledger)
            if ledger.state[0] == "finished" and report is not None and not report.failed_files:
                _tidy(ledger, report)
                return report
            model = find_model(place, f"{plan.model}:{plan.version}")
            if model.digest != plan.digest:
                raise Conflict(
                    f"{plan.model}:{plan.version} is another model than the one that the run began with."
                )
            chosen = engine or plan.engine
            check_log(plan.options, chosen, place)
            with ledger.lock(), open_cluster(chosen, address, place.settings, model) as cluster:
                check_unchanged(place, ledger, plan)
                ledger.begin()
                return _go(place, plan, ledger, model, cluster, tell, started)
        finally:
            ledger.close()


def list_runs(home: str | os.PathLike[str] | None = None) -> list[RunLine]:
    """Every run of the home, the last begun first."""
    with open_home(home) as place:
        return sorted(_lines(place), key=lambda line: line.created, reverse=True)


def _lines(place: Home) -> Iterator[RunLine]:
    """Runs in no order. One whose ledger is damaged is said, and does not hide the others."""
    for path in (place.path / "batch").glob("*/ledger.db"):
        try:
            ledger = Ledger(path.parent)
            try:
                yield _line(ledger)
            finally:
                ledger.close()
        except (FairwayError, sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            logger.warning("the run in %s cannot be read: %s", path.parent, error)


def _forget_old(place: Home) -> None:
    """Room for one more run: the oldest that have ended go. What they wrote stays."""
    batch = place.path / "batch"
    most = place.settings.batch.keep_runs
    if not batch.is_dir() or sum(1 for _ in batch.iterdir()) < most:
        return
    ended = [line for line in _lines(place) if line.state in ("finished", "cancelled", "stopped")]
    oldest = sorted(ended, key=lambda line: line.created)
    for line in oldest[: max(0, len(ended) - most + 1)]:
        shutil.rmtree(run_folder(place, line.run), ignore_errors=True)


def show_run(run: str, home: str | os.PathLike[str] | None = None) -> tuple[RunLine, Report | None]:
    """A run, and its report once it has ended. Raises RunNotFound."""
    with open_home(home) as place:
        ledger = Ledger(run_folder(place, run))
        try:
            return _line(ledger), _report(ledger)
        finally:
            ledger.close()


def _line(ledger: Ledger) -> RunLine:
    plan = ledger.plan(Plan)
    (state, reason), (rows, rejects) = ledger.state, ledger.totals
    return RunLine(
        run=plan.run,
        model=plan.model,
        version=plan.version,
        state=_shown_state(ledger, state),
        reason=reason,
        rows=rows,
        rejected=rejects,
        created=plan.created,
        input=shown(plan.options.input),
        output=shown(plan.options.output),
    )


def cancel_run(run: str, home: str | os.PathLike[str] | None = None) -> bool:
    """Asks the process that works on a run to stop after the chunk it is at; what is done is kept. False when nothing
    works on it. Raises RunNotFound."""
    with open_home(home) as place:
        ledger = Ledger(run_folder(place, run))
        try:
            if ledger.is_locked:
                ledger.cancel()
                return True
            if ledger.state[0] != "finished":
                ledger.end("cancelled", "cancelled", ledger.report or b"null", 0.0)
            return False
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
    _forget_old(place)
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
    if cluster is not None:
        save(folder, stretches)
    ledger = Ledger.create(folder, msgspec.json.encode(plan), files)
    try:
        with ledger.lock():
            return _go(place, plan, ledger, model, cluster, tell, started, live)
    finally:
        ledger.close()


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
    schema = _kept_schema(place, files, reading, live.contract, options)
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
    live: Any = None,
) -> Report:
    live = live or load_for_batch(model, place.settings, plan.workers)
    files = [record.file for record in ledger.files()]
    sink = open_sink(place, plan.options, plan.attempt, ledger.folder, [file.path for file in files])
    if cluster is not None or is_spread(ledger):
        flat = is_flat(plan.options)
        try:
            return go_spread(
                place, plan, ledger, model, live, sink, cluster, flat=flat, tell=tell, started=started
            )
        finally:
            sink.close()
            live.engine.unload()
    watch = open_watch(model, live)
    source: Any = _source(place, plan, live.contract)
    pool, score = open_scorers(
        model,
        live,
        place.settings,
        watch=watch,
        schema=plan.schema,
        call_rows=plan.call_rows,
        workers=plan.workers,
        processes=plan.processes,
        log=plan.options.log,
    )
    log = plan.options.log
    try:
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
            _tidy(ledger, report)
        return report
    finally:
        source.close()
        sink.close()
        live.engine.unload()


def find_model(place: Home, name: str) -> Model:
    """The version that `name` means: by its route the one with the most traffic."""
    reference = parse_reference(name)
    if reference.alias is None and reference.version is None:
        (served,) = place.registry.snapshot((reference.model,)).models
        number = max(served.route.arms, key=lambda arm: arm.weight).version
        reference = parse_reference(f"{reference.model}:{number}")
    version = place.registry.resolve(reference)
    return Model(version.model, version.version, version.digest, str(place.registry.fetch(version)))


def find_input(place: Home, options: Options) -> list[SourceFile]:
    if is_sql(options.input):
        found = read_place(options.input)
        return [SourceFile(path=found.shown, format="sql")]
    fs, path = file_system(options.input, place.settings.batch.storage)
    return find_files(fs, path, format=options.input_format)


def _source(place: Home, plan: Plan, contract: Contract) -> _Files | _Rows:
    if is_sql(plan.options.input):
        return _Rows(SqlSource(read_place(plan.options.input)), plan.reading.chunk_rows)
    fs, _ = file_system(plan.options.input, place.settings.batch.storage)
    return _Files(fs, plan.reading, contract)


def open_sink(place: Home, options: Options, attempt: str, folder: Path, inputs: list[str]) -> Sink:
    """`attempt` is the plan's; any text will do where nothing is written."""
    if is_sql(options.output):
        if options.format or options.compression or options.file_bytes:
            raise InvalidInput("--format, --file-size and --compression are of files; a table has none.")
        return SqlSink(read_place(options.output), attempt, folder)
    fs, path = file_system(options.output, place.settings.batch.storage)
    if options.output.endswith("/") and not path.endswith("/"):
        path += "/"
    return open_file_sink(
        fs,
        path,
        format=options.format,
        scratch=folder / "parts",
        inputs=inputs,
        compression=options.compression,
    )


def is_flat(options: Options) -> bool:
    if is_sql(options.output):
        return True
    return (options.format or ("csv" if ".csv" in options.output.rpartition("/")[2] else "")) == "csv"


def _kept_schema(
    place: Home, files: list[SourceFile], reading: Reading, contract: Contract, options: Options
) -> Any:
    """By the first file that can be read."""
    if is_sql(options.input):
        return _sql_schema(options, reading, contract)
    fs, _ = file_system(options.input, place.settings.batch.storage)
    first: FairwayError | None = None
    for file in files:
        try:
            return kept_schema(fs, file, reading, contract)
        except MalformedInput as error:
            first = first or MalformedInput(f"{file.path}: {error}")
    assert first is not None, "there are files"
    raise first


def _sql_schema(options: Options, reading: Reading, contract: Contract) -> Any:
    source = SqlSource(read_place(options.input))
    try:
        return source.kept_schema(contract, reading.kept, reading.chunk_rows)
    finally:
        source.close()


def check_unchanged(place: Home, ledger: Ledger, plan: Plan) -> None:
    """A run goes on only on the files that it began with. Raises Conflict."""
    if is_sql(plan.options.input):
        return
    now = {file.path: file for file in find_input(place, plan.options)}
    for record in ledger.files():
        if record.state != "done" and record.file.path in now and now[record.file.path] != record.file:
            raise Conflict(
                f"{record.file.path} has changed since the run began.",
                hint="Start it anew with `fairway batch run`.",
            )


def _is_there(options: Options, report: Report, place: Home) -> bool:
    """Whether anything is left of what the run has written."""
    if is_sql(options.output):
        sink = SqlSink(read_place(options.output), "", place.path)
        try:
            return not report.scored or sink.holds_rows()
        finally:
            sink.close()
    fs, path = file_system(options.output, place.settings.batch.storage)
    return bool(fs.exists(path))


def _away(folder: Path) -> tuple[str, Path]:
    """A free name for the same run done anew; the one before stays in the list."""
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    fresh = folder.with_name(f"{folder.name}-{number}")
    return fresh.name, fresh


def run_folder(place: Home, run: str) -> Path:
    if "/" in run or run.startswith("."):
        raise RunNotFound(f"there is no run {run}.")
    return place.path / "batch" / run


def _tidy(ledger: Ledger, report: Report) -> None:
    """Drops what was kept for parts that might still come. Files that failed may be tried again, and need it."""
    if not report.failed_files:
        shutil.rmtree(ledger.folder / "parts", ignore_errors=True)


def _report(ledger: Ledger) -> Report | None:
    content = ledger.report
    return msgspec.json.decode(content, type=Report | None) if content else None


def _shown_state(ledger: Ledger, state: State) -> str:
    return "killed" if state == "running" and not ledger.is_locked else state
