"""`fairway stream`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fairway.app.stream import changes, values_in, values_read
from fairway.cli.options import JsonOption
from fairway.cli.output import print_line
from fairway.core.errors import InvalidInput, NotFound
from fairway.monitoring.drift.online import DETECTORS, open_stream

app = typer.Typer(add_completion=False)
CHANGED = 3
"""Exit code when a change was told."""


@app.command(epilog="Example:  fairway stream amount payments.jsonl --detector kswin")
def run(
    column: Annotated[str, typer.Argument(metavar="COLUMN", help="The measure to watch, such as a score.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]", help="Rows in order; - reads JSON objects, one a line, as they come."
        ),
    ] = "-",
    detector: Annotated[str, typer.Option("--detector", help=f"One of {', '.join(DETECTORS)}.")] = "adwin",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=NUMBER", help="Of river's detector, such as delta=0.001."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Look at every value of COLUMN as it comes, and tell each change of it. Quick, and with no bound on false alarms: to
    look closer, not to be woken by. Exit code 3 when a change was told; with --json one object a line."""
    stream = open_stream(detector, **dict(_pair(text) for text in option or ()))
    try:
        values = values_read(sys.stdin.buffer, column) if file == "-" else values_in(Path(file), column)
        for told in changes(stream, values):
            print_line(
                msgspec.json.encode(told).decode()
                if json
                else f"row {told.row:,}: {detector} tells a change, at {told.value:.6g}"
            )
            sys.stdout.flush()
    except NotFound as error:  # 3 means one thing
        raise InvalidInput(str(error)) from error
    if not json:
        print_line(
            f"{len(stream.changes):,} change{'s' * (len(stream.changes) != 1)} in {stream.seen:,} values"
        )
    if stream.changes:
        raise typer.Exit(CHANGED)


def _pair(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, int(number) if number.lstrip("-").isdigit() else float(number)
    except ValueError as error:
        raise InvalidInput(f"--option {text}: it is not NAME=NUMBER.") from error
