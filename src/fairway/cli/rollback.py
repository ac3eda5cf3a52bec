"""`fairway rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from fairway.app.home import current_user, open_home
from fairway.cli.models import traffic_text
from fairway.cli.options import HomeOption, JsonOption, WhyOption
from fairway.cli.output import print_json, print_line
from fairway.core.version import CHAMPION

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway rollback payments --why 'too many false alarms'")
def run(
    model: Annotated[str, typer.Argument(metavar="NAME")],
    why: WhyOption = "rollback",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Give the traffic back to the version that had it before; again goes further back."""
    with open_home(home) as place:
        who = current_user()
        route = place.registry.rollback(model, who=who, why=why)
        if len(route.arms) == 1:
            place.registry.set_alias(model, CHAMPION, route.arms[0].version, who=who, why=why)
    if json:
        print_json(route)
    else:
        print_line(f"{model}: {traffic_text(route)}")
