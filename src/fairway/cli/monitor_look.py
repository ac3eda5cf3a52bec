"""`fairway monitor look`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from fairway.app.settings import read_settings
from fairway.app.watch import look_now
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import moments_text, print_json, print_line, print_table
from fairway.core.errors import InvalidInput, NotFound
from fairway.monitoring import words
from fairway.monitoring.watch.kept import encoded

app = typer.Typer(add_completion=False)
ALERTED = 3
"""Exit code when a window drifted, or something in it is not as it should be."""


@app.command(epilog="Example:  fairway monitor look payments")
def look(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Only this model.  [default: all that have predictions]")
    ] = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Look now at every window that is over, as the control process does by itself. Exit code 3 when one drifted, or when
    something else in it is not as it should be."""
    try:
        reports = look_now(read_settings(home), model=model)
    except NotFound as error:  # 3 means one thing
        raise InvalidInput(str(error)) from error
    if json:
        print_json([msgspec.Raw(encoded(r)) for r in reports])
    elif not reports:
        print_line("no window is over that was not looked at")
    else:
        rows = [
            (
                f"{r.model}:{r.version}",
                moments_text(r.start, r.end),
                f"{r.rows:,}",
                f"{r.labels:,}",
                words.columns([c.name for c in r.columns if c.drift is not None and c.drift.drifted]),
                "; ".join(f.text for f in r.findings if f.kind != "drift" and f.severity != "info")[:120],
            )
            for r in reports
        ]
        print_table(("version", "window, UTC", "rows", "labels", "drifted", "else"), rows)
    if any(r.drifted or any(f.severity != "info" for f in r.findings) for r in reports):
        raise typer.Exit(ALERTED)
