"""`fairway feedback`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fairway.app.feedback import Sent, send_labels, store_labels
from fairway.app.home import open_home
from fairway.cli.options import CaFileOption, HomeOption, JsonOption, KeyOption
from fairway.cli.output import print_json, print_line
from fairway.cli.predict import trust

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway feedback labels.csv --model payments")
def run(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="CSV, JSON Lines, JSON or Parquet with request_id (or key) and label, and if you like row, time, model.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="The model of rows that name none.", metavar="NAME")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="A running server; without it the labels go into the home's log."),
    ] = None,
    key: KeyOption = "",
    ca_file: CaFileOption = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what became of predictions: labels from a file. They are safe on the disk when this ends. Exit code 1 when
    rows were wrong; the others are taken, and to send a file again does no harm."""
    path = Path(file)
    show = sys.stderr.isatty() and not json

    def tell(rows: int) -> None:
        if show:
            sys.stderr.write(f"\r{rows} labels")

    if url is None:
        with open_home(home) as place:
            sent = store_labels(place, path, model=model, tell=tell)
    else:
        sent = send_labels(url, path, model=model, key=key, trust=trust(ca_file), tell=tell)
    if show:
        sys.stderr.write("\r")
    if json:
        print_json(sent)
    else:
        _say(sent)
    if sent.rejected:
        raise typer.Exit(1)


def _say(sent: Sent) -> None:
    print_line(
        f"{sent.accepted} labels were taken" + (f", {sent.rejected} were not:" if sent.rejected else ".")
    )
    for wrong in sent.wrong[:20]:
        print_line(f"  row {wrong.row}: {wrong.reason}")
    if sent.rejected > 20:
        print_line(f"  ... and {sent.rejected - 20} more")
