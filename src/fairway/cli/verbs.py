"""Verbs by table, each in a module that is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

import click
import typer


class Verbs(click.Group):
    """A group of verbs, so that `fairway serve` does not import what `fairway deploy` needs.

    `table` has for each verb where it is and what it does. Where is a module with an `app` of typer's or click's, or
    "module:verb" for one of several verbs of such an app.
    """

    def __init__(self, table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        name, _, inner = self._table[cmd_name][0].partition(":")
        app = import_module(name).app
        command = typer.main.get_command(app) if isinstance(app, typer.Typer) else app
        command = cast(click.Group, command).commands[inner] if inner else command
        command.name = cmd_name
        return cast(click.Command, command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the verb that was meant where a typing mistake is likely."""
        near = get_close_matches(args[0], self._table, n=1)
        if near and args[0] not in self._table:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in self._table.items()])
