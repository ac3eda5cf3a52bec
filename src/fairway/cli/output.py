"""Tables for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from fairway.core.bundle import Proof

_WIDEST = 1_000_000
"""Columns that no table needs."""


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_line(text: str = "") -> None:
    sys.stdout.write(shown(text) + "\n")


def shown(text: str) -> str:
    """The text as a terminal may get it: names of columns and values of categories that hold its commands, or that turn
    the direction of writing, are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None
) -> None:
    """A table as wide as the terminal, or as `COLUMNS` says; into a pipe or a file as wide as it needs, a line a row.
    Long words are folded: a value is never cut."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else shown(str(value)) for value in row))
    console = Console(markup=False)  # names may hold brackets
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        console.width = max(
            Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum, 1
        )
    console.print(table)


def seconds_text(seconds: float) -> str:
    """A duration as a person reads it."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def span_text(seconds: float) -> str:
    """A stretch of time as a person says it: `24 h`."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.3g} s"


def moments_text(start: str, end: str) -> str:
    """From when to when: `2026-11-21 12:00:00 to 13:00:00`."""
    first, last = start[:19].replace("T", " "), end[:19].replace("T", " ")
    return f"{first} to {last[11:] if first[:10] == last[:10] else last}"


def tolerance_text(proof: Proof) -> str:
    """What a difference may be; of numbers beyond 1 it may be as large a share, which is said where it mattered."""
    share = " of each number's size" if proof.max_abs_diff > proof.tolerance else ""
    return f"{proof.tolerance:g}{share}"
