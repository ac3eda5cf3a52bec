"""`fairway environments`."""

from __future__ import annotations

from typing import Annotated

import typer

from fairway.app.environments import Need, mend, needed
from fairway.app.home import open_home
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.listing import listed
from fairway.runtimes.isolated.environments import Environments

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway environments --mend")
def run(
    mend_them: Annotated[
        bool, typer.Option("--mend", help="Make those that are missing, and broken ones again.")
    ] = False,
    remove: Annotated[
        str | None, typer.Option("--remove", help="Remove one that is not in use.", metavar="DIGEST")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the environments that Python models run in, and mend them."""
    with open_home(home) as place:
        environments = Environments(place.settings.isolation_at_home())
        needs = needed(place.registry.snapshot())
        if remove is not None:
            _remove(environments, remove)
        if mend_them:
            for need in mend(environments, needs):
                print_line(
                    f"made {need.lock.digest[:12]} for {', '.join(need.models)}: {need.lock.described()}"
                )
        rows = _rows(environments, needs)
    if json:
        print_json(rows)
    elif rows:
        print_table(
            ("environment", "python", "packages", "MB", "models", "state"),
            [
                (
                    row["digest"][:12],
                    row["python"],
                    listed(row["packages"].split(", "), 3),
                    row["megabytes"],
                    row["models"],
                    row["state"],
                )
                for row in rows
            ],
        )
    else:
        print_line("No model has an environment of its own.")


def _remove(environments: Environments, start: str) -> None:
    found = [digest for digest, _ in environments.listed() if digest.startswith(start)]
    if len(found) != 1:
        raise typer.BadParameter(f"{len(found)} environments begin with {start!r}")
    if not environments.remove(found[0]):
        raise typer.BadParameter(f"{start} is in use")


def _rows(environments: Environments, needs: list[Need]) -> list[dict[str, str]]:
    models = {need.lock.digest: need for need in needs}
    made = dict(environments.listed())
    rows = []
    for digest in [*made, *(digest for digest in models if digest not in made)]:
        known = made.get(digest)
        need = models.get(digest)
        packages = known.packages if known is not None else need.lock.versions if need is not None else {}
        rows.append(
            {
                "digest": digest,
                "python": known.python if known is not None else need.lock.python if need is not None else "",
                "packages": ", ".join(f"{name} {version}" for name, version in sorted(packages.items())),
                "megabytes": f"{known.disk_bytes / 1e6:.0f}" if known is not None else "",
                "models": ", ".join(need.models) if need is not None else "-",
                "state": environments.complaint(digest) or "ok",
            }
        )
    return rows
