"""`fairway route`."""

from __future__ import annotations

from typing import Annotated

import typer

from fairway.app.home import current_user, open_home
from fairway.cli.models import traffic_text
from fairway.cli.options import HomeOption, JsonOption, WhyOption
from fairway.cli.output import print_json, print_line
from fairway.core.errors import InvalidInput
from fairway.core.route import Arm, Route

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway route payments --to 3=0.9 --to 4=0.1 --why 'try version 4'")
def run(
    model: Annotated[str, typer.Argument(metavar="NAME")],
    to: Annotated[
        list[str] | None,
        typer.Option("--to", help="VERSION, or VERSION=SHARE once per version; shares add up to 1."),
    ] = None,
    why: WhyOption = "route",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show which versions take the traffic, or change it."""
    with open_home(home) as place:
        now = place.registry.route(model)
        if to:
            arms = tuple(_arm(text) for text in to)
            try:
                wanted = Route(model=model, arms=arms, salt=now.salt if now is not None else "")
            except ValueError as error:
                raise InvalidInput(f"that is not a route: {error}.") from None
            revision = now.revision if now is not None else 0
            now = place.registry.set_route(wanted, expected_revision=revision, who=current_user(), why=why)
    if json:
        print_json(now)
    else:
        print_line(f"{model}: {traffic_text(now)}")


def _arm(text: str) -> Arm:
    version, _, share = text.partition("=")
    try:
        return Arm(int(version), float(share or 1))
    except ValueError:
        raise InvalidInput(f"{text!r} is not VERSION or VERSION=SHARE, such as 3 or 3=0.9.") from None
