"""`fairway history`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from fairway.app.home import open_home
from fairway.cli.models import traffic_text
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_table
from fairway.core.route import Route
from fairway.core.version import Change

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
        [(c.when[:19] + "Z", c.who, c.what, _text(c, c.before), _text(c, c.after), c.why) for c in changes],
    )


def _text(change: Change, value: str | None) -> str | None:
    """A change's JSON value, short: traffic for a route, number and digest for a version."""
    if value is None:
        return None
    if change.what == "route":
        return traffic_text(msgspec.json.decode(value, type=Route))
    if change.what == "version":
        made = msgspec.json.decode(value, type=dict[str, object])
        return f"{made.get('version')} {str(made.get('digest'))[:15]}"
    return value
