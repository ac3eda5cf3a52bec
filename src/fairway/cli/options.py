"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

HomeOption = Annotated[
    str | None,
    typer.Option("--home", help="Where models and logs are kept.", envvar="FAIRWAY_HOME", metavar="DIR"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
KeyOption = Annotated[
    str, typer.Option("--key", help="API key for --url.", envvar="FAIRWAY_KEY", show_envvar=True)
]
CaFileOption = Annotated[
    str, typer.Option("--ca-file", metavar="FILE", help="Certificates that verify the server at --url.")
]
ReferenceArgument = Annotated[
    str, typer.Argument(metavar="NAME[@ALIAS|:VERSION]", help="A model or one version of it.")
]


def names_in(text: str) -> tuple[str, ...]:
    """What `A,B` names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
