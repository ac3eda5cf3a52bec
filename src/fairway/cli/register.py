"""`fairway register`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fairway.app.home import open_home
from fairway.app.live import make_live, register_bundle
from fairway.cli.options import HomeOption, JsonOption, WhyOption
from fairway.cli.output import print_json, print_line
from fairway.packaging.archive import unarchive
from fairway.packaging.bundle import read_bundle
from fairway.packaging.foreign import require_trusted_code

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway register payments.fairway --name payments --live")
def run(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle folder or a .fairway file.")],
    name: Annotated[str, typer.Option("--name", help="The model's name.")],
    live: Annotated[bool, typer.Option("--live", help="Give it all the traffic at once.")] = False,
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", help="A type or Python file of the bundle that may run; repeat for more."),
    ] = None,
    why: WhyOption = "register",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Register a bundle as the next version of a model."""
    with open_home(home) as place, tempfile.TemporaryDirectory(prefix="fairway-") as scratch:
        source = Path(bundle)
        opened = unarchive(source, Path(scratch) / "bundle") if source.is_file() else read_bundle(source)
        require_trusted_code(opened, tuple(trust or ()))
        version = register_bundle(place, name, opened, why=why)
        if live:
            make_live(place, version, why=why)
    if json:
        print_json(version)
        return
    state = "registered" if version.is_new else "was registered before"
    print_line(f"{name}:{version.version} {state}   {version.digest}")
    if not live:
        print_line(f"Give it the traffic:  fairway route {name} --to {version.version}")
