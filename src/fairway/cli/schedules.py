"""`fairway schedules`, and `fairway batch schedule`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fairway.app.schedules import add_schedule, open_desk, run_schedule
from fairway.cli.options import HomeOption, JsonOption, ReferenceArgument, names_in
from fairway.cli.output import print_json, print_line, print_table
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
from fairway.control.views import ScheduleView, without_passwords
from fairway.core.schedule import BatchWork, PrecomputeWork, Schedule, ScheduleRun
from fairway.core.version import parse_reference

app = typer.Typer(
    add_completion=False,
    help="What runs again and again: list, pause, run now, history.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `fairway schedules list` names it.")]
CronOption = Annotated[
    str,
    typer.Option(
        "--cron", metavar='"M H D M W"', help='Minute, hour, day, month, weekday: "0 2 * * *", or @daily.'
    ),
]
ZoneOption = Annotated[
    str, typer.Option("--time-zone", metavar="ZONE", help="Whose clocks: UTC, Europe/Berlin.")
]
ScheduleNameOption = Annotated[str, typer.Option("--name", help="Of the schedule.  [default: the model's]")]
RetriesOption = Annotated[
    int, typer.Option("--retries", min=0, help="How often a failed run is tried again.")
]
RetrySecondsOption = Annotated[
    float, typer.Option("--retry-seconds", help="Before the first try again; then twice as long each time.")
]


_BAD = ("failed", "cancelled")


def schedule_batch(
    model: ReferenceArgument,
    cron: CronOption,
    input: Annotated[
        str,
        typer.Option("--input", help="As for `batch run`; may hold {date}, {yesterday}, {hour}, {utc}."),
    ],
    output: Annotated[str, typer.Option("--output", help="As for `batch run`; may hold the same.")],
    name: ScheduleNameOption = "",
    time_zone: ZoneOption = "UTC",
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Begin a run also while one before it goes on.")
    ] = False,
    retries: RetriesOption = 3,
    retry_seconds: RetrySecondsOption = 60.0,
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
    address: Annotated[str, typer.Option("--address", help="Of a Spark or Ray cluster.")] = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Score INPUT into OUTPUT again and again, in the control process."""
    work = BatchWork(
        model=model,
        input=input,
        output=output,
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
    )
    schedule = Schedule(
        name=name or parse_reference(model).model,
        cron=cron,
        work=work,
        time_zone=time_zone,
        allow_overlap=allow_overlap,
        retries=retries,
        retry_seconds=retry_seconds,
    )
    _added(add_schedule(schedule, home), json)


@app.command(
    epilog='Example:  fairway schedules precompute churn customers.parquet --key id --cron "0 3 * * *"'
)
def precompute(
    model: ReferenceArgument,
    files: Annotated[
        str, typer.Argument(metavar="FILES", help="As for `precompute`; may hold {date} and the like.")
    ],
    key: Annotated[str, typer.Option("--key", metavar="COLUMN", help="What answers are stored under.")],
    cron: CronOption,
    name: ScheduleNameOption = "",
    time_zone: ZoneOption = "UTC",
    retries: RetriesOption = 3,
    retry_seconds: RetrySecondsOption = 60.0,
    store: Annotated[str | None, typer.Option("--store", help="As for `precompute`.")] = None,
    ttl_seconds: Annotated[
        float | None, typer.Option("--ttl-seconds", min=0, help="How long answers are fresh.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Compute answers ahead again and again, in the control process."""
    work = PrecomputeWork(model=model, files=files, key=key, store=store, ttl_seconds=ttl_seconds)
    schedule = Schedule(
        name=name or parse_reference(model).model,
        cron=cron,
        work=work,
        time_zone=time_zone,
        retries=retries,
        retry_seconds=retry_seconds,
    )
    _added(add_schedule(schedule, home), json)


@app.command("list", epilog="Example:  fairway schedules list")
def list_(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the schedules: when each is due next, and what became of its last run."""
    with open_desk(home) as (desk, _):
        found = desk.list()
    if json:
        print_json(found)
        return
    if not found:
        print_line(
            'No schedules. Make one: fairway batch schedule MODEL --cron "0 2 * * *" --input ... --output ...'
        )
        return
    rows = [
        (
            v.schedule.name,
            v.schedule.cron,
            v.schedule.time_zone,
            v.schedule.work.model,
            "paused" if v.paused else v.next[:16].replace("T", " ") + " UTC" if v.next else "never",
            "" if v.last is None else f"{v.last.state} {v.last.due[:16].replace('T', ' ')}",
        )
        for v in found
    ]
    print_table(("schedule", "cron", "zone", "model", "next", "last"), rows)


@app.command(epilog="Example:  fairway schedules show nightly")
def show(name: NameArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show a schedule."""
    with open_desk(home) as (desk, _):
        found = desk.show(name)
    if json:
        print_json(found)
    else:
        _show(found)


@app.command(epilog="Example:  fairway schedules pause nightly")
def pause(name: NameArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Begin nothing more until it is resumed. A run that has begun goes on."""
    with open_desk(home) as (desk, _):
        found = desk.pause(name)
    print_json(found) if json else print_line(f"{name} is paused")


@app.command(epilog="Example:  fairway schedules resume nightly")
def resume(name: NameArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Begin again. What was due while it was paused is not caught up."""
    with open_desk(home) as (desk, _):
        found = desk.resume(name)
    print_json(found) if json else print_line(f"{name} is due next at {_when(found.next)}")


@app.command(epilog="Example:  fairway schedules remove nightly")
def remove(name: NameArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Remove a schedule and its history. A run that has begun is ended."""
    with open_desk(home) as (desk, _):
        desk.remove(name)
    print_json({"removed": name}) if json else print_line(f"{name} is removed")


@app.command("run", epilog="Example:  fairway schedules run nightly --wait 600")
def run_(
    name: NameArgument,
    wait: Annotated[
        float | None, typer.Option("--wait", min=0, metavar="SECONDS", help="Until it has ended.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Run it now, beside what is due. Exit code 1 when it was waited for and did not succeed."""
    run, leads = run_schedule(name, wait_seconds=wait, home=home)
    if json:
        print_json(run)
    elif run.is_active:
        print_line(f"{name} runs as soon as the control process can (run {run.id})")
    else:
        print_line(_line(run))
    if run.is_active and not leads:
        sys.stderr.write(
            "No control process has ever run here: start one with fairway control, or fairway serve.\n"
        )
    if run.state in _BAD:
        raise typer.Exit(1)


@app.command(epilog="Example:  fairway schedules history nightly --limit 20")
def history(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One schedule; all if none.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Newest runs to show.")] = 50,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What became of each run, the newest first. `fairway batch show` tells more of a batch run."""
    with open_desk(home) as (desk, _):
        runs = desk.history(name, limit)
    if json:
        print_json(runs)
        return
    rows = [
        (
            r.id,
            r.schedule,
            r.due[:16].replace("T", " "),
            r.kind + (f", {r.missed} missed before" if r.missed else ""),
            r.state,
            r.attempt,
            f"{r.rows:,}",
            f"{r.rejected:,}",
            r.batch_run,
            r.reason[:80],
        )
        for r in runs
    ]
    print_table(
        ("id", "schedule", "due (UTC)", "why", "state", "tries", "rows", "rejects", "batch run", "reason"),
        rows,
    )


def _added(found: ScheduleView, json: bool) -> None:
    if json:
        print_json(found)
        return
    _show(found)
    sys.stderr.write("It runs while a control process does: fairway serve starts one, or fairway control.\n")


def _show(found: ScheduleView) -> None:
    schedule, work = found.schedule, without_passwords(found.schedule.work)
    print_line(f"{schedule.name}  {schedule.cron}  {schedule.time_zone}{'  paused' if found.paused else ''}")
    print_line(f"model    {work.model}")
    if isinstance(work, BatchWork):
        print_line(f"input    {work.input}")
        print_line(f"output   {work.output}")
    else:
        print_line(f"files    {work.files}, by {work.key}")
    print_line(f"retries  {schedule.retries}, the first after {schedule.retry_seconds:g} s")
    if not found.paused:
        print_line(f"next     {_when(found.next)}")
    if found.last is not None:
        print_line(f"last     {_line(found.last)}")
    if schedule.source != "registry":
        print_line(f"defined  in {schedule.source}")


def _line(run: ScheduleRun) -> str:
    text = f"run {run.id}, {run.kind}, {run.state}: {run.rows:,} rows, {run.rejected:,} rejected"
    text += f", batch run {run.batch_run}" if run.batch_run else ""
    return text + (f", {run.reason}" if run.reason else "")


def _when(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC" if moment else "never"
