"""`fairway history`."""

from __future__ import annotations

from typing import Annotated

import typer

from fairway.app.home import open_home
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_table

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway history payments --limit 20")
def run(
    model: Annotated[str, typer.Argument(metavar="NAME")],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Newest entries to show.")] = 50,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Who changed what from what to what, when and why; the newest first."""
    with open_home(home) as place:
        changes = place.registry.history(model, limit)
    if json:
        print_json(changes)
        return
    print_table(
        ("when", "who", "what", "from", "to", "why"),
        [(c.when[:19] + "Z", c.who, c.what, c.before, c.after, c.why) for c in changes],
    )
