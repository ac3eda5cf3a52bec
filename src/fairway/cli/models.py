"""`fairway models`."""

from __future__ import annotations

import typer

from fairway.app.home import open_home
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.route import Route

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway models --json")
def run(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the models: versions, aliases and live traffic."""
    with open_home(home) as place:
        models = place.registry.models()
    if json:
        print_json(models)
        return
    if not models:
        print_line(
            f"No models in {place.path} yet. Deploy one:  fairway deploy MODEL --data DATA --name NAME"
        )
        return
    print_table(
        ("model", "versions", "live", "aliases"),
        [
            (m.name, m.versions, traffic_text(m.route), ", ".join(f"{a}={v}" for a, v in m.aliases.items()))
            for m in models
        ],
    )


def traffic_text(route: Route | None) -> str:
    """Live traffic in a few characters: `3` or `3 90%, 4 10% (shadow 5)`."""
    if route is None:
        return "-"
    if len(route.arms) == 1:
        text = str(route.arms[0].version)
    else:
        text = ", ".join(f"{arm.version} {arm.weight:.0%}" for arm in route.arms)
    return text + (f" (shadow {', '.join(map(str, route.shadows))})" if route.shadows else "")
