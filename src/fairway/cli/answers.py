"""`fairway answers show|delete`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from fairway.app.answers import StoredAnswer, delete_answers, look_up, stored_answers
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line, print_table, seconds_text, span_text

app = typer.Typer(add_completion=False, help="Look up and delete precomputed answers.")

ModelArgument = Annotated[str, typer.Argument(metavar="NAME")]
KeysArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys, as the column of keys has them.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="lmdb:///folder or redis://host:port/db. [default: hybrid.store]"),
]


@app.command(epilog="Example:  fairway answers show payments c1017")
def show(
    model: ModelArgument,
    keys: KeysArgument = None,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show what is stored of a model, or under keys. Ends with 1 when there is nothing under one of them."""
    if not keys:
        told = stored_answers(model, store=store, home=home)
        if json:
            print_json(told)
            return
        print_line(f"{told.keys} answers of {model} in {told.store}")
        if told.generation:
            print_line(f"  version   {told.version} (live: {told.live_version or 'none'})")
            print_line(f"  computed  {span_text(told.age_seconds)} ago")
            print_line(f"  fresh     {'for ever' if not told.ttl_seconds else span_text(told.ttl_seconds)}")
            print_line(f"  key       {told.key_name}")
        return
    found = look_up(model, keys, store=store, home=home)
    if json:
        print_json(found)
    else:
        print_table(["key", "answer", "version", "age", "outputs"], [_row(one) for one in found])
    if any(one.standing == "missing" for one in found):
        raise typer.Exit(1)


@app.command(epilog="Example:  fairway answers delete payments c1017")
def delete(
    model: ModelArgument,
    keys: KeysArgument = None,
    version: Annotated[
        int | None, typer.Option("--version", help="All that this version has answered.", min=1)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All answers of the model.")] = False,
    store: StoreOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Delete what is stored under keys, or all that a version or any version has answered."""
    gone = delete_answers(model, keys or (), version=version, everything=everything, store=store, home=home)
    what = "answers" if keys else "generations"
    if json:
        print_json({"model": model, what: gone})
    else:
        print_line(f"{gone} {what[:-1] if gone == 1 else what} of {model} deleted")


def _row(one: StoredAnswer) -> tuple[object, ...]:
    if one.standing == "missing":
        return one.key, one.standing, None, None, None
    return one.key, one.standing, one.version, seconds_text(one.age_seconds), _outputs(one)


def _outputs(one: StoredAnswer) -> str:
    text = msgspec.json.encode(one.outputs).decode()
    return text if len(text) <= 200 else text[:197] + "..."
