"""`fairway batch`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Annotated, Any, TextIO

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from fairway.app.batch import resume, run_batch
from fairway.app.batch_runs import cancel_run, list_runs, show_run
from fairway.app.shards import run_shard, shard_index
from fairway.batch.plan import Options, read_size
from fairway.batch.report import Report
from fairway.batch.run import Progress, Run, Tell
from fairway.batch.seen import Column
from fairway.batch.shards import read_shard
from fairway.cli.options import HomeOption, JsonOption, ReferenceArgument, names_in
from fairway.cli.output import print_json, print_line, print_table, seconds_text
from fairway.cli.schedules import schedule_batch
from fairway.cli.scoring import (
    CompressionOption,
    DelimiterOption,
    EncodingOption,
    Engine,
    EngineOption,
    FileSizeOption,
    FormatOption,
    InputFormatOption,
    JoinOption,
    KeepOption,
    LogOption,
    MaxErrorsOption,
    OverwriteOption,
    RowsPerFileOption,
    WorkersOption,
)
from fairway.core.errors import InvalidInput

app = typer.Typer(add_completion=False, help="Score all rows of files or tables.", no_args_is_help=True)
_REASONS = 10


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="As `fairway batch list` names it.")]
SparkOption = Annotated[
    str,
    typer.Option(
        "--spark-master",
        metavar="URL",
        help="spark://host:7077, yarn, local[4], sc://host.  [default: settings]",
    ),
]
RayOption = Annotated[
    str,
    typer.Option(
        "--ray-address", metavar="ADDRESS", help="host:6379, ray://host:10001.  [default: settings]"
    ),
]
EventsOption = Annotated[bool, typer.Option("--json", help="Print events and the report as JSON lines.")]


@app.command(
    "run", epilog="Example:  fairway batch run payments 'day=*/*.parquet' scored/ --keep id --max-errors 1%"
)
def run_(
    model: ReferenceArgument,
    input: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="File, folder, glob, URL, or a database's URL (?table=&key=)."),
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="File, folder, URL, or a database's URL (?table=&key=).")
    ],
    keep: KeepOption = "",
    join: JoinOption = False,
    format: FormatOption = None,
    input_format: InputFormatOption = "",
    encoding: EncodingOption = "utf-8",
    delimiter: DelimiterOption = "",
    rows_per_file: RowsPerFileOption = 0,
    file_size: FileSizeOption = "",
    compression: CompressionOption = None,
    max_errors: MaxErrorsOption = "",
    workers: WorkersOption = 0,
    log: LogOption = "",
    overwrite: OverwriteOption = False,
    engine: EngineOption = Engine.local,
    spark_master: SparkOption = "",
    ray_address: RayOption = "",
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Score only this share, from 0; N alone in an array job (JOB_COMPLETION_INDEX).",
        ),
    ] = "",
    run: Annotated[
        str, typer.Option("--run", metavar="NAME", help="With --shard: the run that all shards are of.")
    ] = "",
    home: HomeOption = None,
    json: EventsOption = False,
) -> None:
    """Score every row of INPUT into OUTPUT. What was begun and not finished goes on; what is finished is not done again."""
    address = _address(engine, spark_master, ray_address)
    if run and not shard:
        raise InvalidInput("--run is of shards; a run of its own gets its name by what it does.")
    if shard:
        _end(
            _run_shard(
                model,
                shard,
                engine,
                overwrite,
                run,
                Options(
                    input=input,
                    output=output,
                    keep=names_in(keep),
                    join=join,
                    format=format.value if format else "",
                    input_format=input_format,
                    encoding=encoding,
                    delimiter=delimiter,
                    rows_per_file=rows_per_file,
                    file_bytes=read_size(file_size),
                    compression=compression.value if compression else "",
                    max_errors=max_errors,
                    workers=workers,
                    log=log,
                ),
                home,
                json,
            ),
            json,
        )
        return
    with _told(json) as (tell, started):
        report = run_batch(
            model,
            input,
            output,
            keep=names_in(keep),
            join=join,
            format=format.value if format else "",
            input_format=input_format,
            encoding=encoding,
            delimiter=delimiter,
            rows_per_file=rows_per_file,
            file_size=file_size,
            compression=compression.value if compression else "",
            max_errors=max_errors,
            workers=workers,
            log=log,
            overwrite=overwrite,
            engine=engine.value,
            address=address,
            home=home,
            tell=tell,
            started=started,
        )
    _end(report, json)


@app.command("resume", epilog="Example:  fairway batch resume payments-1a2b3c4d5e")
def resume_(
    run: RunArgument,
    engine: Annotated[
        Engine | None, typer.Option("--engine", help="What scores.  [default: what the run was begun on]")
    ] = None,
    spark_master: SparkOption = "",
    ray_address: RayOption = "",
    home: HomeOption = None,
    json: EventsOption = False,
) -> None:
    """Go on with a run from what it has committed."""
    address = spark_master or ray_address
    with _told(json) as (tell, started):
        report = resume(
            run,
            engine=engine.value if engine else None,
            address=address,
            home=home,
            tell=tell,
            started=started,
        )
    _end(report, json)


@app.command("list", epilog="Example:  fairway batch list --json")
def list_(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the runs, the last begun first."""
    runs = list_runs(home)
    if json:
        print_json(runs)
        return
    rows = [
        (r.run, f"{r.model}:{r.version}", r.state, f"{r.rows:,}", f"{r.rejected:,}", r.created, r.output)
        for r in runs
    ]
    print_table(("run", "model", "state", "rows", "rejects", "begun", "output"), rows)


@app.command("show", epilog="Example:  fairway batch show payments-1a2b3c4d5e")
def show(run: RunArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show a run and its report."""
    line, report = show_run(run, home)
    if json:
        print_json({"run": line, "report": report})
    elif report is not None:
        _show(report)
    else:
        print_line(f"{line.run}  {line.model}:{line.version}  {line.state}  {line.reason}")
        print_line(f"rows     {line.rows:,} committed, {line.rejected:,} rejected")
        print_line(f"resume   fairway batch resume {line.run}")


@app.command("cancel", epilog="Example:  fairway batch cancel payments-1a2b3c4d5e")
def cancel(run: RunArgument, home: HomeOption = None) -> None:
    """Stop a run after the chunk it is at. What is done is kept, and may be gone on with."""
    if cancel_run(run, home):
        print_line(f"{run} stops after the chunk it is at.")
    else:
        print_line(f"nothing works on {run}.")


app.command(
    "schedule",
    epilog='Example:  fairway batch schedule churn --cron "0 2 * * *" --input in/ --output out/{date}.parquet',
)(schedule_batch)


def _address(engine: Engine, spark_master: str, ray_address: str) -> str:
    """Of the cluster. Raises InvalidInput when it is one of another engine."""
    for given, option, own in (
        (spark_master, "--spark-master", Engine.spark),
        (ray_address, "--ray-address", Engine.ray),
    ):
        if given and engine is not own:
            raise InvalidInput(f"{option} needs --engine {own}; the engine is {engine}.")
    return spark_master or ray_address


def _run_shard(
    model: str,
    shard: str,
    engine: Engine,
    overwrite: bool,
    run: str,
    options: Options,
    home: str | None,
    json: bool,
) -> Report:
    if engine is not Engine.local:
        raise InvalidInput(
            f"--shard is one process's share of a run; --engine {engine} shares it out itself."
        )
    if overwrite:
        raise InvalidInput(
            "--overwrite with --shard would remove what other shards have written.",
            hint="Remove the output before the job starts, or write to another place.",
        )
    with _told(json) as (tell, started):
        return run_shard(
            model,
            read_shard(shard, shard_index()),
            options,
            run=run,
            home=home,
            tell=tell,
            started=started,
        )


@contextmanager
def _told(json: bool) -> Iterator[tuple[Tell, Callable[[Run], None]]]:
    """How progress is shown; and the first Ctrl-C stops the run where it can go on. Standard output is ours alone: what
    others print there (Ray tells of its processes that died) goes to standard error."""
    before = signal.getsignal(signal.SIGINT)
    console, output = Console(stderr=True), sys.stdout

    def started(run: Run) -> None:
        def stop(number: int, frame: Any) -> None:
            run.stop.set()
            signal.signal(signal.SIGINT, signal.default_int_handler)

        signal.signal(signal.SIGINT, stop)

    try:
        with redirect_stdout(sys.stderr):
            if json:
                yield partial(_print_event, output), started
            elif console.is_terminal:
                with _bar(console) as tell:
                    yield tell, started
            else:
                yield _say_failures, started
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(console: Console) -> Iterator[Tell]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, left="")

        def tell(progress: Progress) -> None:
            _say_failures(progress)
            rate = progress.rows_now / progress.seconds if progress.seconds else 0.0
            text = f"{progress.rows:,} rows, {rate:,.0f} rows/s, {progress.rejects:,} rejects"
            done = progress.fraction
            left = f"{progress.seconds * (1 - done) / done:,.0f} s left" if done else ""
            bar.update(task, description=text, total=1.0 if done else None, completed=done or 0.0, left=left)

        yield tell


def _print_event(output: TextIO, progress: Progress) -> None:
    output.write(msgspec.json.encode(progress).decode() + "\n")
    output.flush()


def _say_failures(progress: Progress) -> None:
    if progress.event == "file failed":
        sys.stderr.write(f"{progress.file}: {progress.reason}\n")


def _end(report: Report, json: bool) -> None:
    """Exit code 1 when not all was done."""
    if json:
        sys.stdout.write(
            msgspec.json.encode({"event": "report", **msgspec.to_builtins(report)}).decode() + "\n"
        )
    else:
        _show(report)
    if report.state != "finished" or report.failed_files:
        raise typer.Exit(1)


def _moved(column: Column) -> str:
    """What has moved furthest, in words."""
    if abs(column.nulls - column.training_nulls) > 0.05:
        return f", {column.nulls:.0%} missing ({column.training_nulls:.0%} in training)"
    if column.unknown:
        return f", {column.unknown:.0%} of values unknown in training"
    if column.mean is not None and column.training_mean is not None:
        return f", mean {column.mean:.4g} ({column.training_mean:.4g} in training)"
    return ""


def _show(report: Report) -> None:
    reason = f": {report.reason}" if report.reason and report.reason != report.state else ""
    failed = f", but {len(report.failed_files)} of {report.files} files failed" if report.failed_files else ""
    print_line(f"{report.run}  {report.model}:{report.version}  {report.state}{reason}{failed}")
    print_line(f"input    {report.input}")
    print_line(
        f"output   {report.output}, {report.parts} part{'' if report.parts == 1 else 's'}, {report.bytes:,} bytes"
    )
    print_line(
        f"rows     {report.rows:,}: {report.scored:,} scored, {report.rejected:,} rejected"
        + (f", see {report.rejects}" if report.rejects else "")
    )
    print_line(
        f"time     {seconds_text(report.seconds)}, {report.rows_per_second:,.0f} rows/s, {report.engine}"
    )
    if report.logged:
        print_line(f"log      {report.logged:,} predictions recorded")
    print_line(f"model    {report.digest}")
    print_line(f"checksum {report.checksum}")
    for heading, values in (("rejects by reason", report.rejects_by_reason), ("rules", report.broken_rules)):
        for name, rows in list(values.items())[:_REASONS]:
            print_line(f"{heading}: {rows:,} x {name}")
    far = sorted((c for c in report.columns if c.drifted), key=lambda c: -(c.psi or 0.0))
    for column in far[:_REASONS]:
        kind = "answer" if column.is_output else "column"
        print_line(f"drift    {kind} {column.name}: PSI {column.psi:.2f}{_moved(column)}")
    for path, why in report.failed_files:
        print_line(f"failed   {path}: {why}")
    for note in report.notes:
        print_line(f"note     {note}")
    if report.state != "finished" or report.failed_files:
        print_line(f"resume   fairway batch resume {report.run}")
