"""`fairway log query|tail|show|list|compact|forget`."""

from __future__ import annotations

import csv
import itertools
import sys
from datetime import date, datetime
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import typer

from fairway.app.log import ask, compact_log, follow, forget_rows, present, show_request
from fairway.app.settings import read_settings
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.clock import utc_text
from fairway.stores.log_query import Limits

app = typer.Typer(
    add_completion=False, help="Ask, watch and look after the prediction log.", no_args_is_help=True
)

ModelOption = Annotated[str | None, typer.Option("--model", help="This model's rows alone.", metavar="NAME")]
_SHOWN_COLUMNS = ("time", "model", "version", "request_id", "row", "source", "seconds")
_WIDE = 60


@app.command(
    name="query",
    epilog="""Example:  fairway log query "select version, count(*), avg(seconds) from predictions group by all" """,
)
def query_log(
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SELECT",
            help="Views: predictions, labels, label_history, labelled; names with dots in quotes.",
        ),
    ],
    model: ModelOption = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows that a table shows.")] = 200,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Longest that it may take.")] = 60.0,
    memory: Annotated[int, typer.Option("--memory", min=16, help="Most memory, MiB.")] = 1024,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Ask the log by SQL (DuckDB): what is compacted and what is not. Only a SELECT, and nothing but the log is read."""
    limits = Limits(seconds=seconds, memory_bytes=memory * 2**20)
    with ask(read_settings(home), sql, model=model, limits=limits) as reader:
        if json:
            _print_json(reader)
        elif as_csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(reader.schema.names)
            for batch in reader:
                writer.writerows([_plain(value) for value in row] for row in _rows(batch))
        else:
            rows = list(itertools.islice((row for batch in reader for row in _rows(batch)), limit + 1))
            print_table(reader.schema.names, [[_shown(value) for value in row] for row in rows[:limit]])
            if len(rows) > limit:
                sys.stderr.write(f"... and more; --limit shows more than {limit}, --json and --csv all.\n")


@app.command(epilog="Example:  fairway log tail payments --follow")
def tail(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="Newest rows to show.")] = 10,
    go_on: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with rows as they are written on this machine.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the newest rows of a model, the newest last. With --json one object a line."""
    settings = read_settings(home)
    sql = f"select * exclude (violations) from predictions order by time desc, row desc limit {lines}"  # noqa: S608 - a number
    with ask(settings, sql, model=model) as reader:
        rows = [row for batch in reader for row in batch.to_pylist()]
    for row in reversed(rows):
        _print_row(row, json=json)
    if go_on:
        for fresh in follow(settings, model):
            for row in fresh:
                _print_row({"model": model, **row}, json=json)
            sys.stdout.flush()


@app.command(epilog="Example:  fairway log show 5f0c93ab12de4467-1a --reveal")
def show(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID")],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Open the tokens of private fields, with the home's key.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show everything that is known of a request: its rows, and every label that came for it."""
    found = show_request(read_settings(home), request_id, reveal=reveal)
    if json:
        print_json(found)
        return
    for row in found["rows"]:
        print_table(("field", "value"), [(name, _shown(v)) for name, v in row.items() if v is not None])
        print_line()
    if found["labels"]:
        fields = ("time", "received", "row", "label", "caller")
        print_table(fields, [[label[name] for name in fields] for label in found["labels"]])
    else:
        print_line("No label has come for it.")


@app.command(name="list", epilog="Example:  fairway log list --json")
def list_log(model: ModelOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List what is in the log: versions, rows, from when to when."""
    found = present(read_settings(home), model)
    if json:
        print_json(found)
        return
    rows = [
        (
            name,
            one.version,
            one.digest,
            one.rows,
            utc_text(one.first)[:19] + "Z",
            utc_text(one.last)[:19] + "Z",
        )
        for name, versions in found.items()
        for one in versions
    ]
    if not rows:
        print_line("Nothing is in the log yet.")
        return
    print_table(("model", "version", "digest", "rows", "first", "last"), rows)


@app.command(epilog="Example:  fairway log compact")
def compact(
    due: Annotated[
        bool, typer.Option("--due", help="Only what the settings say is due, as the control process does.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Compact segments to Parquet and remove what is too old or too much. Exit code 1 when a model failed."""
    done = compact_log(read_settings(home), everything=not due)
    if json:
        print_json(done)
    elif done.busy:
        print_line("Another process is compacting.")
    else:
        print_line(f"{done.rows} rows of {done.segments} segments are now {done.parts} Parquet files.")
        if done.left:
            print_line(f"{done.left} segments are still being written, or not due.")
        if done.removed_parts:
            print_line(
                f"{done.removed_rows} rows in {done.removed_parts} files were old or too many: removed."
            )
        if done.damaged:
            print_line(f"{done.damaged} segments could not be read; they are kept as .damaged.")
        for error in done.errors:
            sys.stderr.write(f"error: {error}\n")
    if done.errors:
        raise typer.Exit(1)


@app.command(epilog="Example:  fairway log forget --key customer-17")
def forget(
    requests: Annotated[
        list[str] | None, typer.Option("--request", help="A request id; may be repeated.", metavar="ID")
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="A routing key; may be repeated.", metavar="KEY")
    ] = None,
    model: ModelOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Remove every row and label of these requests or keys. Exit code 1 while servers still write segments, which close
    within minutes: do it again then."""
    done = forget_rows(
        read_settings(home), model=model, request_ids=tuple(requests or ()), keys=tuple(keys or ())
    )
    if json:
        print_json(done)
    else:
        print_line(f"{done.rows} rows were removed.")
        if done.open_segments:
            print_line(f"{done.open_segments} segments are still being written: do it again in five minutes.")
    if done.open_segments:
        raise typer.Exit(1)


def _rows(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return utc_text(value) if value.tzinfo is not None else value.isoformat()
    return value.isoformat() if isinstance(value, date) else value


def _shown(value: Any) -> str | None:
    """A value as a cell of a table."""
    if value is None:
        return None
    plain = _plain(value)
    text = f"{plain:.6g}" if isinstance(plain, float) else str(plain)
    return text if len(text) <= _WIDE else text[: _WIDE - 3] + "..."


def _print_json(reader: pa.RecordBatchReader) -> None:
    """A list of objects, written as they come."""
    encode = msgspec.json.Encoder(enc_hook=str).encode
    first = True
    sys.stdout.write("[")
    for batch in reader:
        for row in _rows(batch):
            told = {name: _plain(value) for name, value in zip(reader.schema.names, row, strict=True)}
            sys.stdout.write(("\n  " if first else ",\n  ") + encode(told).decode())
            first = False
    sys.stdout.write("]\n" if first else "\n]\n")


def _print_row(row: dict[str, Any], *, json: bool) -> None:
    if json:
        told = {name: _plain(value) for name, value in row.items()}
        sys.stdout.write(msgspec.json.encode(told, enc_hook=str).decode() + "\n")
        return
    outputs = {
        name.removeprefix("output."): value for name, value in row.items() if name.startswith("output.")
    }
    head = "  ".join(str(_shown(row.get(name))) for name in _SHOWN_COLUMNS)
    print_line(
        f"{head}  "
        + "  ".join(f"{name}={_shown(value)}" for name, value in outputs.items() if value is not None)
    )
