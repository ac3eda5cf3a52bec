"""`fairway alias`."""

from __future__ import annotations

from typing import Annotated

import typer

from fairway.app.home import current_user, open_home
from fairway.cli.options import HomeOption, JsonOption, WhyOption
from fairway.cli.output import print_json, print_line

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway alias payments challenger 4")
def run(
    model: Annotated[str, typer.Argument(metavar="NAME")],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="champion, challenger or any other name.")],
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", min=1)] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the alias.")] = False,
    why: WhyOption = "alias",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Point an alias to a version, remove it, or show where it points."""
    who = current_user()
    with open_home(home) as place:
        if delete:
            place.registry.delete_alias(model, alias, who=who, why=why)
        elif version is not None:
            place.registry.set_alias(model, alias, version, who=who, why=why)
        number = None if delete else place.registry.version(model, alias).version
    if json:
        print_json({"model": model, "alias": alias, "version": number})
    else:
        print_line(f"{model}@{alias}: {number if number is not None else 'removed'}")
