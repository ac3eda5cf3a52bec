"""`fairway precompute`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from fairway.app.precompute import precompute
from fairway.cli.options import HomeOption, JsonOption, ReferenceArgument
from fairway.cli.output import print_json, print_line, seconds_text, span_text
from fairway.cli.progress import progress_bar
from fairway.core.errors import InvalidInput
from fairway.security.keys import expiry

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway precompute payments customers.parquet --key customer_id --ttl 24h")
def run(
    model: ReferenceArgument,
    files: Annotated[
        str,
        typer.Argument(
            metavar="FILES",
            help="A file, a folder, a glob or a URL: Parquet, CSV, JSON Lines, Arrow; or a table or query of a database.",
        ),
    ],
    key: Annotated[
        str, typer.Option("--key", help="The column that answers are stored under.", metavar="COLUMN")
    ],
    store: Annotated[
        str | None,
        typer.Option("--store", help="lmdb:///folder or redis://host:port/db. [default: hybrid.store]"),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(
            "--ttl", help="How long answers are fresh: 24h, 90m; 0 for ever. [default: hybrid.ttl_seconds]"
        ),
    ] = None,
    rejects: Annotated[
        str | None, typer.Option("--rejects", help="Where rows without an answer go.", metavar="FILE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was not finished, if there is one.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Replace the answers there are even when there is none.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Compute answers ahead and store them by key. Requests see them once the last one is there."""
    seconds = None if ttl is None else _seconds(ttl)
    with progress_bar(quiet=json) as tell:
        done = precompute(
            model,
            files,
            key=key,
            store=store,
            ttl_seconds=seconds,
            rejects=rejects,
            resume=resume,
            allow_empty=allow_empty,
            home=home,
            tell=tell,
        )
    if json:
        print_json(done)
        return
    fresh = "for ever" if not done.ttl_seconds else f"for {span_text(done.ttl_seconds)}"
    print_line(f"{done.keys} answers of {done.model}:{done.version} are published, fresh {fresh}")
    print_line(f"  store     {done.store}")
    print_line(
        f"  rows      {done.rows} in {seconds_text(done.seconds)}{' (resumed)' if done.resumed else ''}"
    )
    if done.duplicates:
        print_line(f"  again     {done.duplicates} rows whose key came again later: the last one counts")
    if done.rejected:
        print_line(f"  rejected  {done.rejected} rows, see {done.rejects}")


def _seconds(text: str) -> float:
    """`24h` in seconds. Raises InvalidInput."""
    if text.strip() == "0":
        return 0.0
    now = datetime.now(UTC)
    seconds = round((expiry(text, now) - now).total_seconds(), 3)
    if seconds <= 0:
        raise InvalidInput(f"{text!r} is over already.", hint="Write 24h, 90m or 7d.")
    return seconds
